"""What all commands share: the application, its settings, and the queue they work on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import typer
import uvloop
from redis.exceptions import TimeoutError as RedisTimeoutError

from streamq import __version__
from streamq.errors import SettingsError
from streamq.queue.spool import Spool
from streamq.settings import Settings, load_settings

__all__ = [
    *("ID", "HostNames", "Json", "app", "given", "hosts_of", "needs_web", "open_at", "open_queue", "run_async"),
    *("settings", "url_of"),
]

T = TypeVar("T")
ANSWER_SECONDS = 5.0

app = typer.Typer(
    name="streamq",
    help="An e-mail delivery queue in Redis: XADD in, SMTP out, nothing lost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
given: dict[str, Any] = {}

Json = Annotated[bool, typer.Option("--json", help="print JSON")]
HostNames = Annotated[
    list[str] | None, typer.Option("--name", help="a name by which browsers may come, beside localhost", metavar="HOST")
]
ID = Annotated[str, typer.Argument(metavar="ID", help="an entry (01732237561234-0) or a producer's id")]


def _version(asked: bool) -> None:
    if asked:
        print(f"streamq {__version__}")
        raise typer.Exit


@app.callback()
def options(
    config: Annotated[Path | None, typer.Option(help="settings file (STREAMQ_CONFIG)", metavar="FILE")] = None,
    redis_url: Annotated[
        str | None, typer.Option(help="redis://, rediss://, unix:// (STREAMQ_REDIS_URL, REDIS_URL)", metavar="URL")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="name of the queue (STREAMQ_QUEUE)", metavar="NAME")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print it and exit")
    ] = False,
) -> None:
    """An e-mail delivery queue in Redis: XADD in, SMTP out, nothing lost."""
    given.clear()
    given.update(config=config, redis_url=redis_url, queue=queue)


def settings(**flags: Any) -> Settings:
    """The settings with this command's flags. Raises `SettingsError`, also for a flag whose URL has a password."""
    named = {**given, **{name: value for name, value in flags.items() if value is not None}}
    known = load_settings(**named)
    for name in ("redis_url", "relay"):
        if urlsplit(str(named.get(name) or "")).password:
            flag = f"--{name.replace('_', '-')}"
            raise SettingsError(
                f"{flag}: a password on a command line is in `ps` for whoever is on this machine: "
                f"STREAMQ_{name.upper()}, or a file (STREAMQ_CONFIG), keeps it"
            )
    return known


@asynccontextmanager
async def url_of(known: Settings) -> AsyncIterator[str]:
    """The queue's URL; the embedded server runs as long as this is open, where the settings name none."""
    if known.redis_url is not None:
        yield known.redis_url
        return
    from streamq.server import start

    server = await asyncio.to_thread(start, known)
    try:
        yield server.url
    finally:
        server.close()


@asynccontextmanager
async def open_queue(
    known: Settings | None = None, *, join: bool = False, patient: bool = False
) -> AsyncIterator[Spool]:
    """The queue that the settings name, open; `join`: without changing anything, where somebody has opened it;
    `patient`: as of `open_at`."""
    known = known or settings()
    async with url_of(known) as url, open_at(known, url, join=join, patient=patient) as spool:
        yield spool


@asynccontextmanager
async def open_at(known: Settings, url: str, *, join: bool = False, patient: bool = False) -> AsyncIterator[Spool]:
    """The queue at that URL, open. Raises redis-py's error, also where the server takes no notice for `ANSWER_SECONDS`:
    who sits before a terminal need not wait as long as a worker does, and as who runs for long (`patient`)."""
    try:
        async with asyncio.timeout(None if patient else ANSWER_SECONDS):
            spool = await Spool.connect(known, url, join=join)
    except TimeoutError:
        raise RedisTimeoutError(f"no answer within {ANSWER_SECONDS:g} s: does the server hang?") from None
    try:
        yield spool
    finally:
        await spool.close()


def needs_web(what: str) -> None:
    """Raises `SettingsError` where the extra `web` is not installed, which `what` needs."""
    missing = [name for name in ("starlette", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise SettingsError(f"{what}: needs {', '.join(missing)}: install streamq with its extra `web`")


def hosts_of(names: list[str] | None) -> tuple[str, ...]:
    """As `Guard` compares them with a request's Host."""
    return tuple(name.lower() for name in names or ())


def run_async(command: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a command to its end."""
    return uvloop.run(command())

"""What all commands share: the application, its settings, the queue they work on, and how they speak."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import orjson
import typer
import uvloop
from rich.console import Console

from streamq import __version__
from streamq.queue.spool import Spool
from streamq.settings import Settings, load_settings

__all__ = ["ID", "Json", "app", "clip", "console", "emit", "given", "open_queue", "run_async", "shown_ms", "url_of"]

T = TypeVar("T")

app = typer.Typer(
    name="streamq",
    help="An e-mail delivery queue in Redis: XADD in, SMTP out, nothing lost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console(highlight=False)
given: dict[str, Any] = {}

Json = Annotated[bool, typer.Option("--json", help="print JSON")]
ID = Annotated[str, typer.Argument(metavar="ID", help="an entry (11732237561234-0) or a producer's id")]


def _version(asked: bool) -> None:
    if asked:
        print(f"streamq {__version__}")
        raise typer.Exit


@app.callback()
def options(
    config: Annotated[Path | None, typer.Option(help="settings file (STREAMQ_CONFIG)", metavar="FILE")] = None,
    redis_url: Annotated[str | None, typer.Option(help="redis://, rediss://, unix:// (STREAMQ_REDIS_URL)")] = None,
    queue: Annotated[str | None, typer.Option(help="name of the queue (STREAMQ_QUEUE)")] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """An e-mail delivery queue in Redis: XADD in, SMTP out, nothing lost."""
    given.update(config=config, redis_url=redis_url, queue=queue)


def settings(**flags: Any) -> Settings:
    """The settings with this command's flags."""
    return load_settings(**{**given, **{name: value for name, value in flags.items() if value is not None}})


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
async def open_queue(known: Settings | None = None) -> AsyncIterator[Spool]:
    """The queue that the settings name, open."""
    known = known or settings()
    async with url_of(known) as url:
        spool = await Spool.connect(known, url)
        try:
            yield spool
        finally:
            await spool.close()


def run_async(command: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a command to its end."""
    return uvloop.run(command())


def emit(data: object) -> None:
    """One JSON value on standard output."""
    typer.echo(orjson.dumps(data, default=_plain, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    raise TypeError(type(value).__name__)


def clip(text: str, most: int) -> str:
    """One line for a table: no control characters of somebody else's reach the terminal."""
    line = re.sub(r"\s+", " ", "".join(sign if sign.isprintable() or sign.isspace() else "�" for sign in text)).strip()
    return line if len(line) <= most else line[: most - 1] + "…"


def shown_ms(ms: float) -> str:
    """A duration for people: 850 ms, 12 s, 5 m, 3.2 h, 4.5 d."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m")):
        if ms >= size:
            return f"{ms / size:.1f} {unit}"
    return f"{ms / 1000:.1f} s"

"""Up: all that a web developer needs, for as long as it runs: a queue, a worker, a mail server, its inbox, the page."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamq.cli.app import HostNames, app, given, hosts_of, needs_web, open_at, run_async, settings, url_of
from streamq.cli.own import own_program
from streamq.cli.run import log_to_stderr
from streamq.cli.serve import PORT
from streamq.cli.terminal import note, safe
from streamq.errors import SettingsError
from streamq.queue.spool import Spool
from streamq.queue.whose import Hold
from streamq.settings import Place, Settings

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from streamq.inbox import Inbox
    from streamq.sink import Rules, Sink

SMTP_PORT = 2525
HOST = "127.0.0.1"
XADD = "XADD '{}' '*' from shop@example.com to bob@example.net subject Hi text Hello"
# Who kills this takes the sink away before the worker has settled: it must not wait long for another one.
GRACE = "5s"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    port: int
    smtp_port: int
    processes: int
    keep: int
    keep_bytes: int
    maildir: Path | None
    take: bool
    hosts: tuple[str, ...]
    rules: Rules


@app.command()
def up(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="of page, inbox and API; 0: a free one", metavar="N")
    ] = PORT,
    smtp_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="of the mail server; 0: a free one", metavar="N")
    ] = SMTP_PORT,
    processes: Annotated[int, typer.Option(min=1, max=16, help="worker processes", metavar="N")] = 1,
    reply: Annotated[
        list[str] | None, typer.Option(metavar="GLOB=CODE", help="answer to RCPT: '*@slow.example=450 4.2.1 text'")
    ] = None,
    maildir: Annotated[Path | None, typer.Option(metavar="DIR", help="keep the mails there")] = None,
    keep: Annotated[int, typer.Option(min=1, metavar="N", help="mails in the inbox, the last ones")] = 1000,
    keep_bytes: Annotated[int, typer.Option(min=1, metavar="BYTES", help="of them together")] = 64 * 1024 * 1024,
    take: Annotated[
        bool, typer.Option("--take", help="also what waits in the queue already: nobody will get it but the inbox")
    ] = False,
    name: HostNames = None,
) -> None:
    """Everything for development in one command: a queue, a worker, a mail server that sends nothing on, its inbox in
    the browser, the page, an API for tests. On this machine alone, until Ctrl-C.

    The mails of the inbox end with it, unless --maildir keeps them. The queue stays, with its mails and events.

    Where no STREAMQ_REDIS_URL is set, the embedded server is the queue.
    """
    from streamq.sink import Rules
    from streamq.sink.rules import rule_of_flag

    needs_web("up")
    known = settings()
    if known.routes:
        names = ", ".join(known.routes)
        raise SettingsError(
            f"up: its worker sends to its own mail server alone, and the settings have routes ({names})"
        )
    log_to_stderr(known)
    rules = Rules(tuple(map(rule_of_flag, reply or ())))
    wish = _Wish(
        port=port,
        smtp_port=smtp_port,
        processes=processes,
        keep=keep,
        keep_bytes=keep_bytes,
        maildir=maildir,
        take=take,
        hosts=hosts_of(name),
        rules=rules,
    )
    if not run_async(lambda: _up(known, wish)):
        raise typer.Exit(1)


async def _up(known: Settings, wish: _Wish) -> bool:
    """False: the workers ended by themselves."""
    from streamq.cli.inbox import inbox_of

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    inbox = inbox_of(wish.keep, wish.keep_bytes, wish.maildir)
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(_sink(known, wish, inbox))
        url = await stack.enter_async_context(url_of(known))
        spool = await stack.enter_async_context(open_at(known, url, patient=True))
        place = await stack.enter_async_context(_web(spool, inbox, wish, stop))
        hold = await stack.enter_async_context(_held(spool, force=wish.take))
        worker = await stack.enter_async_context(_worker(known, url, sink.url, wish.processes, hold.owner))
        _print(known, url, sink, place)
        ended = asyncio.create_task(worker.wait())
        lost = asyncio.create_task(hold.keep())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, lost, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        lost.cancel()
        if stop.is_set():
            return True
        if lost.done():
            note(f"the queue belongs to {safe(lost.result()[:80])} by now: this ends", style="red")
        else:
            note(f"the worker ended by itself (exit {worker.returncode}), and so does this", style="red")
        return False


@asynccontextmanager
async def _sink(known: Settings, wish: _Wish, inbox: Inbox) -> AsyncIterator[Sink]:
    from streamq.sink import Sink

    sink = Sink(
        host=HOST,
        port=wish.smtp_port,
        rules=wish.rules,
        keep=0,
        maildir=wish.maildir,
        max_size=max(25 * 1024 * 1024, known.max_mail_bytes),
        on_mail=inbox.add,
    )
    try:
        await sink.start()
    except OSError as wrong:
        if wrong.filename:
            raise SettingsError(f"--maildir: {wrong.filename}: {wrong.strerror}") from None
        taken = "somebody listens there already" if wrong.errno == errno.EADDRINUSE else wrong.strerror
        raise SettingsError(f"--smtp-port: {taken} (got '{HOST}:{wish.smtp_port}')") from None
    try:
        yield sink
    finally:
        await sink.close()


@asynccontextmanager
async def _web(spool: Spool, inbox: Inbox, wish: _Wish, stop: asyncio.Event) -> AsyncIterator[Place]:
    """The page and the inbox under one address."""
    from streamq.queue.overview import Overviews
    from streamq.web.inbox import both, inbox_app
    from streamq.web.inbox_api import Desk
    from streamq.web.listener import listening
    from streamq.web.serve import AWAY, queue_app

    known = spool.settings.web_token
    token = None if known is None else known.get_secret_value()
    overviews = Overviews(spool)
    queue = queue_app(overviews, token=token, hosts=wish.hosts, stopping=stop, inbox=True)
    mails = inbox_app(Desk(inbox, stop), hosts=wish.hosts, beside=True)
    async with listening(both(queue, mails), Place(HOST, wish.port), "--port", stop) as place:
        watching = asyncio.create_task(overviews.watch(AWAY), name="samples")
        try:
            yield place
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await overviews.close()


@asynccontextmanager
async def _held(spool: Spool, *, force: bool) -> AsyncIterator[Hold]:
    """The queue is ours. Raises `SettingsError` where its mails may be for people, or are another one's."""
    from streamq.worker.worker import consumer_name

    hold = Hold(spool, consumer_name())
    await hold.take(force=force)
    try:
        yield hold
    finally:
        await hold.leave()


@asynccontextmanager
async def _worker(known: Settings, url: str, relay: str, processes: int, owner: str) -> AsyncIterator[Process]:
    asked = {
        "STREAMQ_CONFIG": given.get("config"),
        "STREAMQ_REDIS_URL": url,
        "STREAMQ_QUEUE": known.queue,
        "STREAMQ_RELAY": relay,
        "STREAMQ_GRACE": GRACE,
    }
    environment = {**os.environ, **{name: str(value) for name, value in asked.items() if value is not None}}
    words = ("worker", "--processes", str(processes), "--up", owner)
    async with own_program(*words, stdout=asyncio.subprocess.DEVNULL, environment=environment) as process:
        yield process


def _print(known: Settings, url: str, sink: Sink, place: Place) -> None:
    from streamq.server import redis_cli_line

    stream = f"{{{known.queue}}}:{known.priorities[min(1, len(known.priorities) - 1)]}"
    line = safe(redis_cli_line(url))
    read_only = "" if known.web_token else "  (read-only: no STREAMQ_WEB_TOKEN)"
    for name, words in (
        ("page", f"http://{place}/{read_only}"),
        ("inbox", f"http://{place}/inbox"),
        ("api", f"http://{place}/api/mails  (wait: /api/mails/wait?to=bob@example.net)"),
        ("smtp", f"{sink.url}  (what comes here is in the inbox, too)"),
        ("queue", line),
        ("send", f"{line} {XADD.format(stream)}"),
    ):
        print(f"{name:<9} {words}", flush=True)

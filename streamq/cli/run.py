"""Run: worker, sink, url."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
import uvloop

from streamq.cli.app import HostNames, app, given, hosts_of, needs_web, settings, url_of
from streamq.cli.terminal import json_line, note, safe
from streamq.errors import SettingsError
from streamq.mail.event import hide_addresses
from streamq.settings import Settings

if TYPE_CHECKING:
    from streamq.worker import Worker

LAST_PORT = 65_535
log = logging.getLogger("streamq")

Parent = Annotated[int | None, typer.Option(hidden=True, help="end when this process does")]


class _Lines(logging.Formatter):
    """Servers' replies and producers' values stand in the log: nothing of them steers the terminal, and with
    `pii = hash` no address of theirs stands there in the clear."""

    def __init__(self, known: Settings) -> None:
        super().__init__("%(asctime)s %(name)s %(message)s")
        self.known = known

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record) if self.known.log == "text" else record.getMessage()
        if self.known.pii == "hash":
            text = hide_addresses(text)
        if self.known.log == "text":
            return safe(text)
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        known = {"time": at, "level": record.levelname.lower(), "logger": record.name, "message": text}
        if record.exc_info:
            known["exception"] = self.formatException(record.exc_info)
        return json_line(known)


def log_to_stderr(known: Settings) -> None:
    """What a program that runs on and on says of itself."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(known))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


@app.command()
def worker(
    processes: Annotated[
        int, typer.Option(min=1, max=256, help="how many, each with its own event loop", metavar="N")
    ] = 1,
    relay: Annotated[
        str | None, typer.Option(help="smtp://[user:password@]host:port (STREAMQ_RELAY)", metavar="URL")
    ] = None,
    in_hand: Annotated[int | None, typer.Option(help="mails a process holds at once", metavar="N")] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="[ADDRESS:]PORT of /metrics, /livez, /readyz; of several processes the ports from there on "
            "(STREAMQ_METRICS)",
            metavar="PLACE",
        ),
    ] = None,
    parent: Parent = None,
    up: Annotated[str, typer.Option(hidden=True, help="the `streamq up` that it works for")] = "",
) -> None:
    """Deliver, until SIGTERM or SIGINT: then finish what is in SMTP, hand back the rest; a second one: now.
    SIGHUP: read limits, provider rules and reply tables again."""
    from streamq.smtp.access import check_routes
    from streamq.worker.processes import follow_parent, hold_hangup, run_processes

    if parent is not None:
        follow_parent(parent)
    hold_hangup()
    known = settings(relay=relay, in_hand=in_hand, metrics=metrics)
    log_to_stderr(known)
    if known.metrics is not None:
        needs_web("STREAMQ_METRICS")
        if known.metrics.port + processes - 1 > LAST_PORT:
            raise SettingsError(f"STREAMQ_METRICS: no {processes} ports from there on (got '{known.metrics}')")
    if not known.ways:
        raise SettingsError(
            "no route: set STREAMQ_RELAY=smtp://[user:password@]host:port; to try it out, `streamq sink` is a "
            "mail server on this machine that STREAMQ_RELAY=smtp://127.0.0.1:2525 reaches"
        )
    check_routes(known.ways)
    if processes == 1:
        reread = partial(settings, relay=relay, in_hand=in_hand, metrics=metrics)
        code = uvloop.run(_worker(known, reread, child=parent is not None, up=up))
    else:
        asked = {
            "STREAMQ_CONFIG": given.get("config"),
            "STREAMQ_REDIS_URL": known.redis_url,
            "STREAMQ_QUEUE": known.queue,
            "STREAMQ_RELAY": relay,
            "STREAMQ_IN_HAND": in_hand,
        }
        environment = {name: str(value) for name, value in asked.items() if value is not None}
        place = known.metrics
        code = run_processes(
            ["worker", *(("--up", up) if up else ())],
            environment,
            processes,
            lambda nth: {} if place is None else {"STREAMQ_METRICS": str(place._replace(port=place.port + nth))},
        )
    if code:
        raise typer.Exit(code)


async def _worker(known: Settings, reread: Callable[[], Settings], *, child: bool, up: str) -> int:
    from streamq.server import redis_cli_line
    from streamq.worker import Worker
    from streamq.worker.processes import collect_seldom, has_terminal, take_hangup, take_turns_soon

    in_terminal = has_terminal()
    collect_seldom()
    take_turns_soon()
    async with url_of(known) as url:
        one = Worker(known, url, reread=reread, up=up)
        loop = asyncio.get_running_loop()
        asked = 0

        def stop(*, hurry: bool) -> None:
            nonlocal asked
            asked += 1
            log.info("stopping%s", " now" if hurry else ": finishing what is in SMTP")
            one.stop(now=hurry)

        # Of several processes one is told by its parent, and maybe by a service manager as well, which tells all of
        # a group: SIGTERM twice is once there, and the parent says "now" by SIGINT.
        loop.add_signal_handler(signal.SIGTERM, lambda: stop(hurry=asked > 0 and not child))
        loop.add_signal_handler(signal.SIGINT, lambda: stop(hurry=asked > 0 or child))
        loop.add_signal_handler(
            signal.SIGHUP, lambda: stop(hurry=False) if in_terminal and not has_terminal() else one.reload()
        )
        take_hangup()
        streams = " ".join(f"'{{{known.queue}}}:{name}'" for name in known.priorities)
        routes = ", ".join(f"{name} {way.shown}" for name, way in known.ways.items())
        print(f"queue     {safe(redis_cli_line(url))}", flush=True)
        print(f"streams   {streams}", flush=True)
        print(f"routes    {safe(routes)}", flush=True)
        print(f"worker    {one.consumer}", flush=True)
        async with _metrics_of(one, known):
            await one.run()
        log.info("stopped: %s", ", ".join(f"{many} {how}" for how, many in one.settled.items()) or "nothing was done")
    return 0


@asynccontextmanager
async def _metrics_of(one: Worker, known: Settings) -> AsyncIterator[None]:
    if known.metrics is None:
        yield
        return
    from streamq.web.listener import listening
    from streamq.web.worker import worker_app

    async with listening(worker_app(one), known.metrics, "STREAMQ_METRICS") as place:
        print(f"metrics   http://{place}/metrics", flush=True)
        yield


@app.command()
def url() -> None:
    """Print the queue's URL, for STREAMQ_REDIS_URL and client libraries (standard error: the redis-cli line).

    Where none is set, the embedded server is started, and stays up for a minute: connect a worker by then.
    A password is not repeated. redis-cli takes `-u` only for redis:// and rediss://; a unix socket is reached
    with `-s`, as the second line says.
    """
    from streamq.server import redis_cli_line
    from streamq.server.linger import linger

    known = settings()
    found = linger(known) if known.redis_url is None else known.redis_url
    print(_without_password(found), flush=True)
    note(redis_cli_line(found))


def _without_password(found: str) -> str:
    head, query, rest = found.partition("?")
    parts = [part if part.partition("=")[0] != "password" else "password=***" for part in rest.split("&")]
    if urlsplit(head).password is not None:
        scheme, _, place = head.partition("://")
        user, _, host = place.rpartition("@")
        head = f"{scheme}://{user.partition(':')[0]}:***@{host}"
    return head + query + "&".join(parts)


@app.command()
def sink(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one and prints it", metavar="N")] = 2525,
    host: Annotated[str, typer.Option(metavar="ADDRESS")] = "127.0.0.1",
    reply: Annotated[
        list[str] | None, typer.Option(metavar="GLOB=CODE", help="answer to RCPT: '*@slow.example=450 4.2.1 text'")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML: what to answer to whom; SIGHUP rereads it")
    ] = None,
    profile: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="answer as that provider does: gmail, postfix, greylist, …")
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="offer STARTTLS, with a certificate of its own")] = False,
    implicit_tls: Annotated[bool, typer.Option("--implicit-tls", help="TLS from the first byte")] = False,
    cert: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM: the certificate to show")] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM: its key")] = None,
    cert_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write the certificate there, to be trusted")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(metavar="KEYWORD", help="an extension not to offer: PIPELINING, CHUNKING, …")
    ] = None,
    max_size: Annotated[int, typer.Option(min=0, metavar="BYTES", help="of a mail; 0: SIZE 0, no limit")] = 25
    * 1024
    * 1024,
    counters: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON of the counters, at the end and at SIGUSR1")
    ] = None,
    window: Annotated[
        list[float] | None, typer.Option(metavar="SECONDS", help="find the most mails in any such window")
    ] = None,
    id_header: Annotated[str, typer.Option(metavar="NAME", help="count this header's values in the ledger")] = "",
    maildir: Annotated[Path | None, typer.Option(metavar="DIR", help="keep the mails there")] = None,
    keep: Annotated[int, typer.Option(min=0, metavar="N", help="mails kept in memory, the last ones")] = 1000,
    keep_bytes: Annotated[int, typer.Option(min=0, metavar="BYTES", help="of them together")] = 64 * 1024 * 1024,
    web: Annotated[
        str | None, typer.Option(metavar="[ADDRESS:]PORT", help="show them in a browser, and to tests: the inbox")
    ] = None,
    name: HostNames = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no line per mail")] = False,
    ledger: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON of all counts, written at the end")] = None,
    journal: Annotated[Path | None, typer.Option(metavar="FILE", help="a line per mail, at once")] = None,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="listen beyond loopback")] = False,
    parent: Parent = None,
) -> None:
    """A mail server on this machine to test against: keeps what it gets, answers as told."""
    from streamq.sink.process import Options, run
    from streamq.worker.processes import follow_parent

    if parent is not None:
        follow_parent(parent)
    beside = None
    if web is not None:
        from streamq.cli.inbox import inbox_beside

        beside = inbox_beside(web, keep, keep_bytes, maildir, hosts=hosts_of(name), allow_remote=allow_remote)
    code = run(
        Options(
            host=host,
            port=port,
            reply=tuple(reply or ()),
            rules=rules,
            maildir=maildir,
            keep=keep,
            keep_bytes=keep_bytes,
            quiet=quiet,
            ledger=ledger,
            journal=journal,
            allow_remote=allow_remote,
            profile=tuple(profile or ()),
            tls=tls,
            implicit_tls=implicit_tls,
            cert=cert,
            key=key,
            cert_out=cert_out,
            without=tuple(without or ()),
            max_size=max_size,
            counters=counters,
            window=tuple(window or ()),
            id_header=id_header,
        ),
        beside,
    )
    if code:
        raise typer.Exit(code)

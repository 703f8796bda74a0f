"""Run: worker, sink, url."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from streamq.cli.app import app, given, settings, url_of
from streamq.errors import SettingsError
from streamq.settings import Settings

log = logging.getLogger("streamq")


@app.command()
def worker(
    processes: Annotated[int, typer.Option(min=1, max=256, help="how many, each with its own event loop")] = 1,
    relay: Annotated[str | None, typer.Option(help="smtp://[user:password@]host:port (STREAMQ_RELAY)")] = None,
    in_hand: Annotated[int | None, typer.Option(help="mails a process holds at once")] = None,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Deliver, until SIGTERM or SIGINT: then finish what is in SMTP, hand back the rest; a second one: now."""
    from streamq.worker.processes import follow_parent, run_processes

    if parent is not None:
        follow_parent(parent)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    known = settings(relay=relay, in_hand=in_hand)
    if not known.ways:
        raise SettingsError(
            "no route: set STREAMQ_RELAY=smtp://[user:password@]host:port; to try it out, `streamq sink` is a "
            "mail server on this machine that STREAMQ_RELAY=smtp://127.0.0.1:2525 reaches"
        )
    if processes == 1:
        code = uvloop.run(_worker(known))
    else:
        asked = {
            "STREAMQ_CONFIG": given.get("config"),
            "STREAMQ_REDIS_URL": known.redis_url,
            "STREAMQ_QUEUE": known.queue,
            "STREAMQ_RELAY": relay,
            "STREAMQ_IN_HAND": in_hand,
        }
        environment = {name: str(value) for name, value in asked.items() if value is not None}
        code = run_processes(["worker"], environment, processes)
    if code:
        raise typer.Exit(code)


async def _worker(known: Settings) -> int:
    from streamq.server import redis_cli_line
    from streamq.worker import Worker

    async with url_of(known) as url:
        one = Worker(known, url)
        loop = asyncio.get_running_loop()
        asked = 0

        def stop() -> None:
            nonlocal asked
            asked += 1
            log.info("stopping%s", " now" if asked > 1 else ": finishing what is in SMTP")
            one.stop(now=asked > 1)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        routes = ", ".join(f"{name} {way.shown}" for name, way in known.ways.items())
        print(f"queue     {redis_cli_line(url)}", flush=True)
        streams = " ".join(f"'{{{known.queue}}}:{name}'" for name in known.priorities)
        print(f"streams   {streams}", flush=True)
        print(f"routes    {routes}", flush=True)
        print(f"worker    {one.consumer}", flush=True)
        await one.run()
        log.info("stopped: %s", ", ".join(f"{many} {how}" for how, many in one.settled.items()) or "nothing was done")
    return 0


@app.command()
def url() -> None:
    """Print the queue's URL; where none is set, start the embedded server, which stays up for a minute."""
    from streamq.server.linger import linger

    known = settings()
    if known.redis_url is None:
        print(linger(known))
    else:
        print(known.redis_url)


@app.command()
def sink(
    port: Annotated[int, typer.Option(help="0 takes a free one and prints it")] = 2525,
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    reply: Annotated[
        list[str] | None, typer.Option(metavar="GLOB=CODE", help="answer to RCPT: '*@slow.example=450 4.2.1 text'")
    ] = None,
    rules: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML: what to answer to whom")] = None,
    maildir: Annotated[Path | None, typer.Option(metavar="DIR", help="keep the mails there")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no line per mail")] = False,
    ledger: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON of all counts, written at the end")] = None,
    journal: Annotated[Path | None, typer.Option(metavar="FILE", help="a line per mail, at once")] = None,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="listen beyond loopback")] = False,
) -> None:
    """A mail server on this machine to test against: keeps what it gets, answers as told."""
    from streamq.sink.process import Options, run

    code = run(
        Options(
            host=host,
            port=port,
            reply=tuple(reply or ()),
            rules=rules,
            maildir=maildir,
            quiet=quiet,
            ledger=ledger,
            journal=journal,
            allow_remote=allow_remote,
        )
    )
    if code:
        raise typer.Exit(code)

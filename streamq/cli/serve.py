"""Serve: the page, and metrics of the queue."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import sys
from typing import Annotated

import typer

from streamq.cli.app import HostNames, app, hosts_of, needs_web, open_queue, run_async, settings
from streamq.errors import SettingsError
from streamq.settings import Place, Settings

PORT = 8470


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one and prints it", metavar="N")] = PORT,
    host: Annotated[str, typer.Option(help="the address to listen on", metavar="ADDRESS")] = "127.0.0.1",
    name: HostNames = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="listen beyond loopback: reading takes the token, too")
    ] = False,
) -> None:
    """Show the queue in a browser; /metrics, /livez, /readyz. Until SIGTERM or SIGINT.

    It changes nothing unless STREAMQ_WEB_TOKEN is set (16 characters or more): the page asks for it.
    """
    needs_web("serve")
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise SettingsError(f"--host: not an address (got {host[:80]!r})") from None
    known = settings()
    if not address.is_loopback and not allow_remote:
        raise SettingsError(f"--host: mails are private: beyond loopback only with --allow-remote (got {host!r})")
    if not address.is_loopback and known.web_token is None:
        raise SettingsError("--allow-remote: set STREAMQ_WEB_TOKEN, which whoever looks has to know")
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    place = Place(str(address), port)
    run_async(lambda: _serve(known, place, hosts_of(name), remote=not address.is_loopback))


async def _serve(known: Settings, place: Place, hosts: tuple[str, ...], *, remote: bool) -> None:
    from streamq.queue.overview import Overviews
    from streamq.web.listener import listening
    from streamq.web.serve import AWAY, queue_app

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    token = None if known.web_token is None else known.web_token.get_secret_value()
    async with open_queue(known, patient=True) as spool:
        overviews = Overviews(spool)
        web = queue_app(overviews, token=token, hosts=None if remote else hosts, stopping=stop)
        async with listening(web, place, "--port", stop) as bound:
            print(f"page      http://{bound}/{'' if token else '  (read-only: no STREAMQ_WEB_TOKEN)'}", flush=True)
            print(f"metrics   http://{bound}/metrics", flush=True)
            watching = asyncio.create_task(overviews.watch(AWAY), name="samples")
            await asyncio.wait({watching, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

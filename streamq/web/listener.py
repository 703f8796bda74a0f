"""A web server in a loop that is somebody else's: no signals, no log of its own, no process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from streamq.errors import SettingsError
from streamq.settings import Place
from streamq.web.door import Bounded, CallLater, Door, protocol_of

__all__ = ["listening"]

STOP_SECONDS = 1  # for requests under way: a page's stream never ends by itself


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bound(place: Place, setting: str) -> socket.socket:
    """Raises `SettingsError`: a port that is taken is one that somebody else's metrics are read from."""
    try:
        return socket.create_server((place.host, place.port), family=_family(place), backlog=128)
    except OSError as wrong:
        why = "somebody listens there already" if wrong.errno == errno.EADDRINUSE else wrong.strerror
        raise SettingsError(f"{setting}: {why} (got '{place}')") from None


def _family(place: Place) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in place.host else socket.AF_INET


@asynccontextmanager
async def listening(
    app: ASGIApp,
    place: Place,
    setting: str,
    stopping: asyncio.Event | None = None,
    *,
    call_later: CallLater | None = None,
) -> AsyncIterator[Place]:
    """The application answers there while this is open; gives where (port 0: a free one). `setting`: whose value the
    place is; `stopping` is set first at the end: what never ends by itself has a second to do so. `call_later`: the
    clock of deadlines (door.py), the loop's unless given."""
    door = Door(call_later or asyncio.get_running_loop().call_later)
    bound = _bound(place, setting)
    config = uvicorn.Config(
        Bounded(app),
        log_config=None,
        access_log=False,
        log_level="error",
        lifespan="off",
        ws="none",
        http=protocol_of(door),
        loop="none",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve([bound]), name="web")
    try:
        yield Place(place.host, bound.getsockname()[1])
    finally:
        if stopping is not None:
            stopping.set()
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await task
        bound.close()

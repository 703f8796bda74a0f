"""`python -m bench.proxy LISTEN TARGET MS`: a wire that is so long. What comes from the target arrives so much later.

LISTEN and TARGET are paths of Unix sockets, or `127.0.0.1:PORT` (0: a free one). The first line of its output is the
address that it listens on. All of the delay is on the way back: to who asks and waits, a round trip is a round trip.
The kernel's timers round up to a millisecond: `scale` measures and says what it really is.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import deque
from typing import Any, cast

__all__ = ["Later", "Wire"]


class Later:
    """Hands on what it is given, in that order, `seconds` later. `write` is called with the bytes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, write: Any) -> None:
        self._loop = loop
        self._seconds = seconds
        self._write = write
        self._queue: deque[tuple[float, bytes]] = deque()

    def give(self, data: bytes) -> None:
        """Empty: the end, which comes in its turn."""
        if not self._queue:
            self._loop.call_later(self._seconds, self._due)
        self._queue.append((self._loop.time() + self._seconds, data))

    def _due(self) -> None:
        now = self._loop.time()
        while self._queue and self._queue[0][0] <= now:
            self._write(self._queue.popleft()[1])
        if self._queue:
            self._loop.call_at(self._queue[0][0], self._due)


class Wire(asyncio.Protocol):
    """One side of a connection; `other` is told what this one hears."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: Any = None  # called with what is heard; empty at the end
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        for data in self._early:
            self.write(data)

    def write(self, data: bytes) -> None:
        if self.transport is None:
            self._early.append(data)
        elif data:
            self.transport.write(data)
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        self.other(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.other(b"")


async def _open(target: str, wire: Wire) -> None:
    loop = asyncio.get_running_loop()
    try:
        if target.startswith("/"):
            await loop.create_unix_connection(lambda: wire, target)
        else:
            host, _, port = target.rpartition(":")
            await loop.create_connection(lambda: wire, host, int(port))
    except OSError:
        wire.other(b"")


async def _serve(listen: str, target: str, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    opening: set[asyncio.Task[None]] = set()

    def accept() -> Wire:
        near, far = Wire(), Wire()
        near.other = far.write
        far.other = Later(loop, seconds, near.write).give
        task = loop.create_task(_open(target, far))
        opening.add(task)
        task.add_done_callback(opening.discard)
        return near

    if listen.startswith("/"):
        await loop.create_unix_server(accept, listen, backlog=1024)
        print(listen, flush=True)
    else:
        host, _, port = listen.rpartition(":")
        server = await loop.create_server(accept, host, int(port), backlog=1024)
        print(f"{host}:{server.sockets[0].getsockname()[1]}", flush=True)
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1000))

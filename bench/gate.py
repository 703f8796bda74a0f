"""The moment from which a run is measured: everybody has started, and stands before the first mail.

The sink is held (SIGSTOP): it answers nothing, and the kernel takes connections for it, so workers start, read what
they read ahead, connect and wait. When their CPU stands still the sink goes on, and what is used from then on was
used for mails. Reading a process's figures at its first mail instead lost: of two workers one is always later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from bench.accounting import connected, used

__all__ = ["Receiver", "delivered", "poised", "still"]

LOOK_S = 0.01
STILL_S = 0.4
CALM = 0.05  # of a core, for timers and polling


class Receiver(Protocol):
    """A sink, whichever."""

    process: asyncio.subprocess.Process
    port: int
    url: str

    def hold(self) -> None: ...
    def go(self) -> None: ...
    def count(self) -> int: ...


async def still(pids: Sequence[int], seconds: float = 60.0) -> bool:
    """They and what is below them use next to no CPU; false when that took too long."""
    loop = asyncio.get_running_loop()
    end, before = loop.time() + seconds, used(*pids)
    while loop.time() < end:
        await asyncio.sleep(STILL_S)
        now = used(*pids)
        if now - before <= CALM * STILL_S + 0.01:  # and a tick
            return True
        before = now
    return False


async def poised(sink: Receiver, pids: Sequence[int], least: int, seconds: float = 60.0) -> bool:
    """At least so many connections wait for their greeting, and nobody is busy."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while connected(sink.port) < least:
        if loop.time() > end:
            return False
        await asyncio.sleep(LOOK_S)
    return await still(pids, seconds)


async def delivered(sink: Receiver, mails: int, seconds: float) -> float:
    """Loop time when they were all there. Raises `TimeoutError`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while sink.count() < mails:
        if loop.time() > end:
            raise TimeoutError(f"{sink.count():,} of {mails:,} mails came in {seconds:g} s")
        await asyncio.sleep(LOOK_S)
    return loop.time()

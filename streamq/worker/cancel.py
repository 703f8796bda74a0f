"""Cancelled until it has ended.

Before Python 3.12 `asyncio.wait_for` swallows a cancellation that comes in the moment in which what it waits for is
done (python/cpython#86296), and redis-py sends its commands through that. One cancel in some thousands went nowhere so,
and a worker that waited for the role to end waited for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

__all__ = ["cancel_all", "within"]

AGAIN_SECONDS = 0.5
HURRY_SECONDS = 0.5


async def cancel_all(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Returns when all of them are over; what they raised is theirs."""
    every = list(tasks)
    left = {task for task in every if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
    await asyncio.gather(*every, return_exceptions=True)


async def within(work: asyncio.Future[Any], end: float, hurry: asyncio.Event) -> bool:
    """Whether it was done by `end` (loop time), or a moment after `hurry` was set; else it is cancelled."""
    loop = asyncio.get_running_loop()
    hurried = asyncio.create_task(hurry.wait())
    either: set[asyncio.Future[Any]] = {work, hurried}
    await asyncio.wait(either, timeout=max(0.0, end - loop.time()), return_when=asyncio.FIRST_COMPLETED)
    if not work.done() and hurried.done():
        await asyncio.wait({work}, timeout=HURRY_SECONDS)
    done = work.done()
    await cancel_all(either)
    return done

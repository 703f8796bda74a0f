"""Cancelled until it has ended.

Before Python 3.12 `asyncio.wait_for` swallows a cancellation that comes in the moment in which what it waits for is
done (python/cpython#86296), and redis-py sends its commands through that. One cancel in some thousands went nowhere so,
and a worker that waited for the role to end waited for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

__all__ = ["cancel_all"]

AGAIN_SECONDS = 0.5


async def cancel_all(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Returns when all of them are over; what they raised is theirs."""
    every = list(tasks)
    left = {task for task in every if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
    await asyncio.gather(*every, return_exceptions=True)

"""The gate: how much may be read while the whole queue, or the only route, has a limit.

What waits for a site parks, so that others pass it. For the queue's limit nothing could pass: so nothing is read but
what has a slot, and the order of priorities stays in the streams. Scripts say when the next slots come (lib/limit.lua);
in between this clock counts them. Several workers may count the same slot: who comes too late waits in the hand
(turns.py).
"""

from __future__ import annotations

import asyncio

from streamq.queue.rows import Bound

__all__ = ["Gate"]

ANY = 10**9  # mails: nothing bounds reading
LOOK_SECONDS = 1.0  # a limit may be raised, or go away, while its next slot is far


class Gate:
    """One per process."""

    def __init__(self) -> None:
        self._bound = Bound(0, 0, 0, 0)
        self._opens = 0.0  # loop time

    @property
    def limited(self) -> bool:
        return self._bound.step_us > 0

    @property
    def now_ms(self) -> int:
        """The server's time when it last spoke."""
        return self._bound.now_us // 1000

    def hear(self, bound: Bound) -> None:
        """What a script said; an older word than the last one counts no more."""
        if bound.now_us < self._bound.now_us:
            return
        self._bound = bound
        self._opens = asyncio.get_running_loop().time() + (bound.opens_us - bound.now_us) / 1e6

    def free(self) -> int:
        """Mails that may be read now."""
        bound = self._bound
        if not bound.step_us:
            return ANY
        since = asyncio.get_running_loop().time() - self._opens
        return 0 if since < 0 else min(bound.most, int(since * 1e6 / bound.step_us) + 1)

    async def opened(self, sooner: asyncio.Event) -> bool:
        """Waits for the next slot, or for `sooner`. False: a second went by, and it is far still."""
        wait = self._opens - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(wait, LOOK_SECONDS)):
                await sooner.wait()
        except TimeoutError:
            return wait <= LOOK_SECONDS
        return True

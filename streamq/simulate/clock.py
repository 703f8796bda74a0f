"""Virtual time: an event loop in which nothing is waited for. When nobody has anything to do, it is later."""

from __future__ import annotations

import asyncio
import selectors
from math import inf, nextafter

__all__ = ["BEGIN_MS", "VirtualLoop"]

BEGIN_MS = 1_767_225_600_000  # 2026-01-01 00:00 UTC: a time of day like any other, the same in each run


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, with a clock that jumps to the next timer. It talks to nothing outside of this process: what
    is a descriptor to it would never be ready. Where nobody waits for a time, nobody ever goes on: `RuntimeError`."""

    def __init__(self) -> None:
        self.passed = 0.0
        super().__init__(_Passing(self))

    def time(self) -> float:
        return self.passed

    def now_us(self) -> int:
        """Since the epoch."""
        return BEGIN_MS * 1000 + round(self.passed * 1e6)


class _Passing(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("virtual time stands still: everybody waits for somebody else")
        # To asyncio a timer is due when its time is over, not when it has come; its own allowance for that is lost in
        # rounding when a month has passed, and then it would wait for the present without end.
        self._loop.passed = nextafter(self._loop.passed + timeout, inf)
        return []

"""How long a batch waits for more of the kind: calls to Redis cost by their number more than by what they carry.

GOAL     So many are waited for as came together before, and one more now and then; never for more than can come, and
         for `SECONDS` at most. Fewer than `FEW` go at once: what is alone on this worker waits for nobody, and where
         the servers are far away, so that its lines come one after the other, there is little to save.
IN VAIN  When fewer came by then, so many are the goal, and nothing more is hoped for in the next `CONTENT` batches: one
         line of twenty that stands in a tarpit delays the others once in a while, not at each mail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Gathering"]

SECONDS = 0.002
FEW = 4
CONTENT = 32


class Gathering:
    """`have` says how many there are, `may_come` how many more there may be before those have gone."""

    def __init__(self, have: Callable[[], int], may_come: Callable[[], int], most: int) -> None:
        self._have = have
        self._may_come = may_come
        self._most = most
        self._goal = 1
        self._content = 0
        self._awaited = 0
        self._enough: asyncio.Future[None] | None = None

    def came(self) -> None:
        """One more."""
        if self._enough is not None and not self._enough.done() and self._have() >= self._awaited:
            self._enough.set_result(None)

    async def wait(self) -> None:
        """Returns when it is time to go."""
        goal = min(self._goal, self._most, self._have() + self._may_come())
        if self._have() < goal >= FEW:
            await self._until(goal)
        came = min(self._have(), self._most)
        if goal < FEW:
            self._goal = came + 1
        elif came < goal:
            self._goal, self._content = max(1, came), CONTENT
        elif self._content:
            self._goal, self._content = max(self._goal, came), self._content - 1
        else:
            self._goal = max(self._goal, came) + 1

    async def _until(self, goal: int) -> None:
        loop = asyncio.get_running_loop()
        self._awaited, self._enough = goal, loop.create_future()
        timer = loop.call_later(SECONDS, _end, self._enough)
        try:
            await self._enough
        finally:
            timer.cancel()
            self._enough = None


def _end(enough: asyncio.Future[None]) -> None:
    if not enough.done():
        enough.set_result(None)

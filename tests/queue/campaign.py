"""A campaign in virtual time by the real scripts: a standing backlog of one lane, and a receiver with a limit.

Deterministic: nothing but `now` moves time. What a worker does is done here at its simplest: what a release gives goes
out at once, and its verdict comes `RTT` later.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

from mailroom import LANE, Lease, Mailroom

from streamq.queue.rows import SettleRow

__all__ = ["Campaign", "per_second"]

SECOND = 1_000_000
RTT = 100_000  # µs
LINES = 10


def per_second(most: int) -> Callable[[int], bool]:
    """A receiver that takes so many mails in any second, and refuses the others."""
    went: deque[int] = deque()

    def takes(us: int) -> bool:
        while went and went[0] <= us - SECOND:
            went.popleft()
        if len(went) < most:
            went.append(us)
            return True
        return False

    return takes


class Campaign:
    """`takes` a mail that comes at a moment (µs), or not; `known` is what a refusal says beside that; `went`: when each
    went, and whether it was taken."""

    def __init__(
        self, room: Mailroom, takes: Callable[[int], bool], *, lanes: tuple[str, ...] = (LANE,), **known: Any
    ) -> None:
        self.room = room
        self.takes = takes
        self.known = known
        self.lanes = lanes
        self.went: list[tuple[int, bool]] = []
        self._lane_of: dict[str, str] = {}
        self._arrivals = count()
        self._under_way: list[tuple[int, int, Lease, bool]] = []
        self._taken: deque[int] = deque()

    async def fill(self, many: int) -> None:
        """So many mails, in the lanes by turns."""
        for nth in range(many):
            lane = self.lanes[nth % len(self.lanes)]
            self._lane_of[await self.room.add()] = lane
        entries = await self.room.read("w0", many)
        for at in range(0, many, 100):
            part = entries[at : at + 100]
            found = await self.room.admit(
                *(self.room.row(entry, lane=self._lane_of[entry]) for entry in part), consumer="w0"
            )
            rows = [
                self.room.end("park", Lease(entry, found.token, "w0"), lane=self._lane_of[entry])
                for entry, (status, *_) in zip(part, found.statuses, strict=True)
                if status == "go"
            ]
            await self.room.scripts.settle("w0", rows)

    async def run(self, seconds: float) -> None:
        us = self.room.now * 1000
        end = us + round(seconds * SECOND)
        while us < end:
            await self._settle(us)
            found = await self.room.release("w1", LINES - len(self._under_way))
            self._send(us, [Lease(each.entry, found.token, "w1", us) for each in found.leases])
            coming = [end, found.next_us or end, self._under_way[0][0] if self._under_way else end]
            us = min(each for each in (*coming, end) if each > us)
            self.room.to(us / 1000)

    def share(self) -> float:
        """Of refusals."""
        return sum(not ok for _, ok in self.went) / len(self.went)

    def rate(self, last: float) -> float:
        """Mails taken per second in the last so many seconds."""
        since = self.room.now * 1000 - last * SECOND
        return sum(ok for us, ok in self.went if us > since) / last

    def _send(self, us: int, leases: list[Lease]) -> None:
        for lease in leases:
            ok = self.takes(us)
            self.went.append((us, ok))
            heapq.heappush(self._under_way, (us + RTT, next(self._arrivals), lease, ok))

    async def _settle(self, us: int) -> None:
        rows: list[SettleRow] = []
        while self._under_way and self._under_way[0][0] <= us and len(rows) < 100:
            _, _, lease, ok = heapq.heappop(self._under_way)
            lane = self._lane_of[lease.entry]
            if ok:
                self._taken.append(us)
                rows.append(self.room.end("sent", lease, lane=lane))
            else:
                took = self._took(us)
                rows.append(
                    self.room.end("throttled", lease, lane=lane, **{"took": took, "took_way": took} | self.known)
                )
        if rows:
            await self.room.scripts.settle("w1", rows)

    def _took(self, us: int) -> float:
        while self._taken and self._taken[0] < us - 5 * SECOND:
            self._taken.popleft()
        return len(self._taken) / max(1.0, (us - self._taken[0]) / SECOND) if self._taken else 0.0

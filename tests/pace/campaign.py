"""A campaign in virtual time: one standing backlog, the real scripts, a model of a receiver. For tests of the pace.

Deterministic: nothing but `now` moves time, the model's chance is seeded. What a worker does is done here at its
simplest: what a release gives goes out at once, and its verdict comes `rtt` later.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from mailroom import LANE, Lease, Mailroom

from streamq.queue.scripts import SettleRow

__all__ = ["Bad", "Bucket", "Campaign", "Receiver", "Window"]

SECOND = 1_000_000


class Receiver(Protocol):
    """Whether it takes a mail that comes at `us`; the rest of what it says."""

    def takes(self, us: int) -> dict[str, Any] | None: ...


@dataclass
class Window:
    """`rate(us)` mails in a second, in windows that are fixed or sliding; 0 refuses all, below 0 takes all. `box`: who
    is refused is refused for so long, and from each attempt on anew where `grows`."""

    rate: Callable[[int], float]
    box: int = 0
    grows: bool = False
    seconds: float = 1.0
    _went: deque[int] = field(default_factory=deque)
    _free: int = 0

    def takes(self, us: int) -> dict[str, Any] | None:
        rate = self.rate(us)
        if us < self._free:
            if self.grows:
                self._free = us + self.box
            return {}
        while self._went and self._went[0] <= us - self.seconds * SECOND:
            self._went.popleft()
        if rate >= 0 and len(self._went) >= rate * self.seconds:
            self._free = us + self.box
            return {}
        self._went.append(us)
        return None


@dataclass
class Bucket:
    """A token bucket."""

    rate: float
    burst: float
    _tokens: float = -1.0
    _at: int = 0

    def takes(self, us: int) -> dict[str, Any] | None:
        full = self.burst if self._tokens < 0 else self._tokens + (us - self._at) / SECOND * self.rate
        self._tokens, self._at = min(self.burst, full), us
        if self._tokens < 1:
            return {}
        self._tokens -= 1
        return None


@dataclass
class Bad:
    """One server of several behind a name: it refuses a share of what comes, whatever its pace."""

    share: float
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def takes(self, us: int) -> dict[str, Any] | None:
        return {} if self.chance.random() < self.share else None


class Campaign:
    """`capacity`: mails per second that the workers can do at most; `took`: what they say they took at the first
    refusal; `lines`: transactions at once."""

    def __init__(
        self, room: Mailroom, receiver: Receiver, *, rtt_ms: int = 100, capacity: float = 500.0, lane: str = LANE
    ) -> None:
        self.room = room
        self.receiver = receiver
        self.rtt = rtt_ms * 1000
        self.capacity = capacity
        self.lane = lane
        self.went: list[tuple[int, bool]] = []  # µs, taken
        self.paces: list[tuple[int, float]] = []
        self._arrivals = count()
        self._under_way: list[tuple[int, int, Lease, dict[str, Any] | None]] = []
        self._taken: deque[int] = deque()
        self._backlog = 0
        self._from = 0.0

    async def run(self, seconds: float) -> None:
        """A backlog that never ends, for so long."""
        room = self.room
        us = room.now * 1000
        end = us + round(seconds * SECOND)
        busy_until = us
        while us < end:
            if self._backlog < 200:
                await self._fill(1000)
            await self._settle(us)
            found = None
            if us >= busy_until:
                most = min(100, self._backlog, max(1, round(self.capacity / 50)))
                found = await room.release("w1", most)
                busy_until = us + round(len(found.leases) / self.capacity * SECOND)
                self._send(us, [Lease(each.entry, found.token, "w1") for each in found.leases])
            coming = [end]
            if self._under_way:
                coming.append(self._under_way[0][0])
            if found is not None and found.next_us and not found.left:
                coming.append(found.next_us)
            elif self._backlog:
                coming.append(busy_until)
            us = max(us + 1, min(each for each in coming if each > us))
            room.scripts.now = str(us)
            room.now = us // 1000

    def _send(self, us: int, leases: list[Lease]) -> None:
        for nth, lease in enumerate(leases):
            at = us + round(nth / self.capacity * SECOND) + self.rtt // 2
            said = self.receiver.takes(at)
            self.went.append((at, said is None))
            heapq.heappush(self._under_way, (at + self.rtt // 2, next(self._arrivals), lease, said))
            self._backlog -= 1

    async def _settle(self, us: int) -> None:
        rows: list[SettleRow] = []
        while self._under_way and self._under_way[0][0] <= us and len(rows) < 100:
            at, _, lease, said = heapq.heappop(self._under_way)
            if said is None:
                self._taken.append(at)
                rows.append(self.room.end("sent", lease, lane=self.lane))
            else:
                self._backlog += 1
                rows.append(self.throttled(lease, us, **said))
        while self._taken and self._taken[0] <= us - 5 * SECOND:
            self._taken.popleft()
        if rows:
            done = await self.room.scripts.settle("w1", rows)
            assert set(done.statuses) == {"ok"}

    def took(self, us: int) -> float:
        """Mails per second that it took of late, over at least one."""
        return len(self._taken) / max(1.0, (us - self._taken[0]) / SECOND) if self._taken else 0.0

    def throttled(self, lease: Lease, us: int, **known: Any) -> SettleRow:
        said = {"took": self.took(us), "took_way": self.took(us), "park": True} | known
        return self.room.end("throttled", lease, lane=self.lane, **said)

    async def _fill(self, many: int) -> None:
        """At once to its lane, as a sift would have it."""
        entries = [await self.room.add() for _ in range(many)]
        await self.room.read("w0", many)
        for at in range(0, many, 100):
            found = await self.room.admit(*entries[at : at + 100], consumer="w0", lane=self.lane)
            rows = [
                self.room.end("park", Lease(entry, found.token, "w0"), lane=self.lane)
                for entry, (status, *_) in zip(entries[at : at + 100], found.statuses, strict=True)
                if status == "go"
            ]
            if rows:
                await self.room.scripts.settle("w0", rows)
        self._backlog += many

    # -- what came of it ---------------------------------------------------------------------------------------

    def taken(self, start_s: float = 0, end_s: float = 1e9) -> int:
        return self._of(start_s, end_s)[True]

    def refused(self, start_s: float = 0, end_s: float = 1e9) -> int:
        return self._of(start_s, end_s)[False]

    def share(self, start_s: float = 0, end_s: float = 1e9) -> float:
        found = self._of(start_s, end_s)
        return found[False] / max(1, found.total())

    def rate(self, start_s: float, end_s: float) -> float:
        """Mails taken per second."""
        return self.taken(start_s, end_s) / (end_s - start_s)

    def _of(self, start_s: float, end_s: float) -> Counter[bool]:
        begun = self.went[0][0]
        return Counter(ok for us, ok in self.went if begun + start_s * SECOND <= us < begun + end_s * SECOND)

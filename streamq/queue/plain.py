"""The plain mails' way through admission and the end. Most mails need little of what `admit` and `settle` look after:
`start` and `finish` do that at half the price, and leave all others to those.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from streamq.queue.lanes import site_in, ways_of
from streamq.queue.rows import AdmitRow, Admitted, FinishRow, Settled, SettleRow, StartRow, Status
from streamq.queue.scripts import Scripts

__all__ = ["Plain", "is_plain_end", "plain_of"]

S = TypeVar("S")

WHOLE_SEEN = 14  # bytes: digest and content hash; of a child without an id there is the digest alone
DIGEST = 10
GOES, COUNTED = "gc", "c"  # letters of `start`; COUNTED: one of so many transactions at once
IN_VAIN_FIRST, IN_VAIN_LAST = 0.1, 2.0  # seconds
TOLD_SECONDS = 1.5  # a good word of a route holds for two (lib/outcome): until then `settle` gives the next one


def plain_of(rows: Sequence[AdmitRow], routes: str = "") -> dict[int, AdmitRow]:
    """By their places those that `start` may take: of a route that is used. Of two mails of one id the first has it, so
    behind one that is not plain the other is not, either."""
    plain: dict[int, AdmitRow] = {}
    taken: set[bytes] = set()
    used = set(routes.split(","))
    for at, row in enumerate(rows):
        is_plain = row.kind == "send" and not (row.due or row.expires or row.why or row.collapse)
        if is_plain and routes and ways_of(row.lane)[0] not in used:
            is_plain = False
        if is_plain and len(row.seen) in (0, WHOLE_SEEN) and row.seen[:DIGEST] not in taken:
            plain[at] = row
        elif row.seen:
            taken.add(row.seen[:DIGEST])
    return plain


def is_plain_end(row: SettleRow) -> bool:
    """What `finish` may take."""
    return row.op == "sent" and not row.arg and bool(row.lane)


class _Trial:
    """Whether it is worth the round trip: while a limit or a pause binds everybody, every try is in vain."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next = 0.0
        self._pause = 0.0

    def is_due(self) -> bool:
        return self._clock() >= self._next

    def ended(self, *, in_vain: bool) -> None:
        self._pause = min(max(IN_VAIN_FIRST, 2 * self._pause), IN_VAIN_LAST) if in_vain else 0.0
        self._next = self._clock() + self._pause


class Plain:
    """Stands before `scripts` for one worker."""

    def __init__(
        self, scripts: Scripts, clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()
    ) -> None:
        self.scripts = scripts
        self._starts = _Trial(clock)
        self._ends = _Trial(clock)
        self._clock = clock
        self._told: dict[str, float] = {}  # route → when `settle` last had a good word of it

    async def admit(self, consumer: str, rows: Sequence[AdmitRow], routes: str = "") -> Admitted:
        """As Scripts.admit. Rows that are done have tokens of their own."""
        plain = plain_of(rows, routes) if self._starts.is_due() else {}
        if not plain:
            return await self.scripts.admit(consumer, rows, routes)
        started = [StartRow(row.entry, row.lane, row.deadline, row.seen) for row in plain.values()]
        left = {row.lane for at, row in enumerate(rows) if at not in plain}
        now_us, token, letters, bound, slots = await self.scripts.start(consumer, started, routes, left)
        done: dict[int, Status] = {}
        for nth, (at, letter) in enumerate(zip(plain, letters, strict=True)):
            if letter in GOES:
                way = ways_of(rows[at].lane)[0]
                target = f"{way}|{site_in(rows[at].lane)}" if letter == COUNTED else ""
                done[at] = Status("go", b"", way, slots.get(nth, ""), target, token)
            elif letter == "l":
                done[at] = Status("lost", b"", "", "", "", 0)
        went = token > 0
        self._starts.ended(in_vain=not went)
        if len(done) == len(rows):
            return Admitted(now_us, 0, token, 0, bound, [done[at] for at in range(len(rows))])
        rest = await self.scripts.admit(consumer, [row for at, row in enumerate(rows) if at not in done], routes)
        statuses = _in_places(done, rest.statuses)
        return Admitted(rest.now_us, 0 if went else rest.closed_us, rest.token, rest.next_us, rest.bound, statuses)

    async def settle(self, consumer: str, rows: Sequence[SettleRow]) -> Settled:
        """As Scripts.settle."""
        plain = {at: row for at, row in enumerate(rows) if self._is_plain_end(row)} if self._ends.is_due() else {}
        if not plain:
            return await self._settle(consumer, rows)
        ends = [FinishRow(row.entry, row.token, _target(row), row.id, row.kind, row.tail) for row in plain.values()]
        at_once = [nth for nth, row in enumerate(plain.values()) if "|" in row.way]
        now_us, next_us, letters = await self.scripts.finish(consumer, ends, at_once)
        done = {at: "ok" for at, letter in zip(plain, letters, strict=True) if letter == "o"}
        self._ends.ended(in_vain=not done)
        if len(done) == len(rows):
            return Settled(now_us, next_us, ["ok"] * len(rows))
        rest = await self._settle(consumer, [row for at, row in enumerate(rows) if at not in done])
        return Settled(rest.now_us, next_us or rest.next_us, _in_places(done, rest.statuses), rest.marks)

    def _is_plain_end(self, row: SettleRow) -> bool:
        told = self._told.get(_route(row))
        return is_plain_end(row) and told is not None and self._clock() - told < TOLD_SECONDS

    async def _settle(self, consumer: str, rows: Sequence[SettleRow]) -> Settled:
        began = self._clock()
        settled = await self.scripts.settle(consumer, rows)
        self._told |= dict.fromkeys((_route(row) for row in rows if row.op == "sent"), began)
        return settled


def _in_places(done: Mapping[int, S], others: Sequence[S]) -> list[S]:
    """Those that are done at their places, the others, in their order, at the rest."""
    rest = iter(others)
    return [done[at] if at in done else next(rest) for at in range(len(done) + len(others))]


def _route(row: SettleRow) -> str:
    return row.way.partition("|")[0] or ways_of(row.lane)[0]


def _target(row: SettleRow) -> str:
    return row.way if "|" in row.way else f"{_route(row)}|{site_in(row.lane)}"

"""What one process holds: its leases, and how many more it may take."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol

from streamq.mail import Mail
from streamq.smtp.letter import Letter

__all__ = ["Delivery", "Hand", "Held"]


class Held(Protocol):
    """What the hand knows of a lease. `weight`: octets that it keeps in memory; it never changes."""

    entry: str
    token: int
    lost: bool

    @property
    def weight(self) -> int: ...


@dataclass(slots=True, kw_only=True, eq=False)
class Delivery(Letter):
    """A letter with its lease. `way` is the route that it goes, one of its lane's; `mark` is what the mark before the
    dot answered: "", ok, lost or sent. `unhashed`: the queue may not know its content's hash yet. `slot`: the mark of
    the slot that it has, "" where nothing limits it; `target`: the `<route>|<site>` where it is one of so many
    transactions at once, "" where nobody counts them."""

    entry: str
    token: int
    lane: str
    way: str
    mail: Mail
    deadline_ms: int
    attempts: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
    mark: str = ""
    lost: bool = False
    unhashed: bool = False
    slot: str = ""
    target: str = ""

    def hold_slot(self, slot: str, since: float) -> None:
        """A slot whose time began at `since` (loop time), or earlier by the server's clock."""
        self.slot = slot
        self.counted = bool(self.target)
        self.fresh_until = since + int(slot.partition(" ")[0]) / 1e6 if slot else inf

    @property
    def left_us(self) -> int:
        """When it got its slot, by the server's clock; 0 where nothing limits it."""
        return int(self.slot.split(" ", 2)[1]) if self.slot else 0

    @property
    def weight(self) -> int:
        return len(self.content)


GROWS = 0.02  # mails, with each that leaves: one in fifty may ask for its slot twice
READ = 1  # the delivery count of an entry that was read once (DESIGN 3)
HAND_BYTES = 64_000_000  # a hundred mails of 25 MB would be 2.5 GB


class Hand:
    """Leases by entry. The size is soft: a blocked read and a release may each fill it at the same time.

    Mails that wait here for longer than their slots last ask the server for another one, each: while they do the hand
    holds fewer, down to `least`, since what is not taken yet has its slot when it is."""

    def __init__(self, size: int, least: int = 0) -> None:
        self.size = size
        self._least = min(least or size, size)
        self._depth = float(size)
        self.deliveries: dict[str, Held] = {}
        self.pending: dict[str, int] = {}  # read, or taken back, and not admitted yet → the token it came with, or 0
        self.at_once: dict[str, tuple[int, str]] = {}  # entry → token, and its `target`, where it has one
        self.bytes = 0
        self.carried = 0  # beside deliveries: of mails that wait to be read
        self.closing = False
        self._changed = asyncio.Event()

    @property
    def room(self) -> int:
        """How many more; none while what is here is large."""
        return self.room_beside(0)

    def room_beside(self, waiting: int) -> int:
        """The same for what is more urgent than so many of these, that wait for a slot: they take no room from it."""
        if self.bytes + self.carried >= HAND_BYTES:
            return 0
        return max(0, int(self._depth) - len(self) + waiting)

    def ran_out(self, many: int) -> None:
        """So many slots did while their mails waited here."""
        self._depth = max(self._least, self._depth - many)

    def __contains__(self, entry: str) -> bool:
        return entry in self.deliveries or entry in self.pending

    def __len__(self) -> int:
        return len(self.deliveries) + len(self.pending)

    def claim(self, entries: Iterable[str], token: int = 0) -> set[str]:
        """Those that are not here yet are pending now. After a lost connection one mail may come by two ways: as
        a late reply, and from the PEL; whichever is first here has it. With the `token` of a release one is new, too,
        that is here under an older one: it was settled, or admitted to a lane, and the word of that is still on its
        way (a mail whose route has just gone down is parked and released by another way at once)."""
        new = {entry for entry in entries if entry not in self or self._is_over(entry, token)}
        self.pending.update(dict.fromkeys(new, token))
        return new

    def _is_over(self, entry: str, token: int) -> bool:
        held = self.deliveries.get(entry)
        here = self.pending.get(entry, held.token if held is not None else 0)
        return here < token

    def counts(self, entry: str, token: int, target: str) -> None:
        """From here on it counts there, as long as it is here; "": nowhere."""
        if target and entry in self:
            self.at_once[entry] = token, target
        else:
            self.at_once.pop(entry, None)

    def let_go(self, entry: str, token: int) -> None:
        """Admission sent it elsewhere: this claim ends, and none that came since."""
        if self.pending.get(entry, token) == token:
            self.drop(entry)

    def add(self, delivery: Held) -> None:
        self.pending.pop(delivery.entry, None)
        before = self.deliveries.pop(delivery.entry, None)
        self.bytes += delivery.weight - (before.weight if before is not None else 0)
        self.deliveries[delivery.entry] = delivery

    def carry(self, weight: int) -> None:
        """So many octets are here beside deliveries; less than 0: no more."""
        self.carried += weight
        if weight < 0:
            self._changed.set()

    def drop(self, entry: str) -> None:
        self.pending.pop(entry, None)
        self.at_once.pop(entry, None)
        held = self.deliveries.pop(entry, None)
        if held is not None:
            self.bytes -= held.weight
        if self._depth < self.size:
            self._depth = min(self._depth + GROWS, self.size)
        self._changed.set()

    def drop_lease(self, entry: str, token: int) -> None:
        """Only this lease: the same entry may have come back under a new one."""
        held = self.deliveries.get(entry)
        if held is not None and held.token == token:
            self.drop(entry)

    def leases(self) -> list[tuple[str, int]]:
        return [(held.entry, held.token) for held in self.deliveries.values()]

    def wake(self) -> None:
        self._changed.set()

    def beating(self) -> list[tuple[str, int]]:
        """What is to be renewed: leases; and what waits for admission, under the token of its take-back, or as a read
        leaves it."""
        return [*self.leases(), *((entry, token or READ) for entry, token in self.pending.items())]

    async def lighter(self, *, carrying: bool = False) -> bool:
        """Returns when there is room for another large mail; False where this process ends before that. `carrying`: for
        one of those that are carried, which do not wait for each other."""
        while self._is_heavy(carrying) and not self.closing:
            await self.changed()
        return not self._is_heavy(carrying)

    def _is_heavy(self, carrying: bool) -> bool:
        return self.bytes + (0 if carrying else self.carried) >= HAND_BYTES

    def close(self) -> None:
        """Nobody waits for room any more."""
        self.closing = True
        self.wake()

    async def changed(self) -> None:
        """Returns when something has left the hand since the last call."""
        await self._changed.wait()
        self._changed.clear()

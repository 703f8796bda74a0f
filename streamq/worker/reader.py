"""The reader: from the priority streams into admission, high to low, no more than the hand has room for."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence

from streamq.queue.spool import Entry, Spool
from streamq.worker.admission import Admission
from streamq.worker.hand import Hand
from streamq.worker.link import AWAY, Link
from streamq.worker.sifter import REST_MS, Sifter
from streamq.worker.turns import Turns

__all__ = ["Reader", "Shares"]

BLOCK_MS = 5000  # how long a blocked read waits: a silent consumer shows that it lives
LIMITED_MS = 100  # while something is in the hand that may have to wait for a slot
READ_BYTES = 8_000_000  # one reply; mails of 10 MB come one at a time
ASK_SECONDS = 1.0
SEEN_SECONDS = 15.0  # ALIVE_MS, some times over
USELESS_SECONDS = 0.25  # a route that was turned away, or fails for this process alone, is tried again by then
LEAST = 0.1  # of the room, to each lower priority, however much waits above it
ROUNDING = 1e-9  # ten tenths are one
URGENT = 10  # mails that are read between two turns of admission


class Shares:
    """How many to read of each priority in one round trip. The most urgent that is known to hold more gets all
    that is left when the others have had their part: `LEAST` of the room each, saved up where that is less than
    a mail. (Under load the room is one or two, as deliveries end: a part of each room would be none, ever.)"""

    def __init__(self, priorities: Sequence[str]) -> None:
        self.priorities = tuple(priorities)
        self._backlog = dict.fromkeys(self.priorities, False)
        self._saved = dict.fromkeys(self.priorities[1:], 0.0)

    def split(self, room: int, *, probing: bool = False) -> list[tuple[str, int]]:
        """(priority, how many), highest first; their sum is `room`, which is at least 1. `probing`: one more of each
        that is more urgent than what is known to wait."""
        shares = dict.fromkeys(self.priorities, 0)
        left = room
        for name in self._saved:
            part = room * LEAST
            self._saved[name] = min(self._saved[name] + part, max(part, 1.0))
            shares[name] = min(int(self._saved[name] + ROUNDING), left)
            self._saved[name] -= shares[name]
            left -= shares[name]
        if not self._backlog[self.priorities[0]] and not probing:  # something may have come that is urgent
            shares[self.priorities[0]] = min(left, max(1, int(room * LEAST)))
            left -= shares[self.priorities[0]]
        holder = next((at for at, name in enumerate(self.priorities) if self._backlog[name]), len(self.priorities) - 1)
        if probing:
            for name in self.priorities[:holder]:
                shares[name] = max(1, shares[name])
            shares[self.priorities[holder]] += left
        else:
            shares[next((name for name in self.priorities if self._backlog[name]), self.priorities[0])] += left
        return [(name, many) for name, many in shares.items() if many > 0]

    def used(self, asked: Sequence[tuple[str, int]], got: dict[str, int]) -> None:
        """Note what came: whoever used its share is assumed to hold more."""
        for name, many in asked:
            self._backlog[name] = got.get(name, 0) >= many


class Reader:
    def __init__(
        self,
        spool: Spool,
        link: Link,
        hand: Hand,
        consumer: str,
        admission: Admission,
        turns: Turns,
        sifter: Sifter,
        rang: Callable[[list[str]], None],
        serves: Callable[[], bool] = lambda: True,
        reads: Callable[[], object] = lambda: None,
    ) -> None:
        self.spool = spool
        self.link = link
        self.hand = hand
        self.consumer = consumer
        self.admission = admission
        self.turns = turns
        self.gate = turns.gate
        self.sifter = sifter
        self.rang = rang
        self.serves = serves
        self.reads = reads
        self.stopping = False
        self.reopened = asyncio.Event()  # a route that was closed has spoken
        self._blocked = False
        self._mean = 4096.0
        self._waiting_mean = 0.0
        self._ask_at = 0.0
        self._read_at = 0.0  # loop time
        self._overtaken = 0.0  # how often, in tenths, what waits for a slot was overtaken

    async def run(self) -> None:
        shares = Shares(self.spool.priorities)
        await self.link.call(self.spool.touch, self.consumer)
        try:
            while not self.stopping:
                if not self.hand.room and not self.turns:
                    await self.hand.changed()
                elif not self.serves():
                    await self._of_use()
                elif not await self._closed() and await self._open():
                    await self._once(shares)
        finally:
            self.sifter.close()

    def is_unseen(self) -> bool:
        """It has read nothing for long: its only route is closed, or lets two mails go an hour. True once, then later
        again: somebody is to touch the spool, or others take this process for dead."""
        now = asyncio.get_running_loop().time()
        if now - self._read_at < SEEN_SECONDS:
            return False
        self._read_at = now
        return True

    async def _once(self, shares: Shares) -> None:
        """What there is room for, and a slot, as far as the queue's own limit goes. While something waits for such a
        slot only what is more urgent is read, and goes first, nine times out of ten."""
        mean = await self._mean_bytes()
        room = min(self.gate.free(), self.hand.room_beside(len(self.turns)), max(1, int(READ_BYTES / mean)))
        if self.turns:
            self._overtaken += LEAST
            if self._overtaken >= 1:
                self._overtaken = 0.0
                await self.turns.serve(1)
        if self.turns:
            asked = [(name, room) for name in self.spool.priorities[: self.turns.urgency] if room]
        else:
            asked = shares.split(max(1, room), probing=self.gate.limited)
        entries, parked = await self._read(asked, mean)
        self._read_at = asyncio.get_running_loop().time()
        got = Counter(self.spool.priorities[int(entry.entry[0])] for entry in entries)
        shares.used(asked, got + parked)
        if entries or parked:
            self.reads()
        if entries:
            await self._admit(entries)
        if self.turns:
            await self.turns.serve(self.gate.free())
        elif not entries and not parked and not self.stopping:  # looks at all, and returns at once if there is any
            await self._wait(max(1, room // len(self.spool.priorities)))

    async def _of_use(self) -> None:
        """This process has no connection of any route, others have: they read. It goes on when it is granted one."""
        await self._until_reopened(USELESS_SECONDS)

    async def _until_reopened(self, seconds: float) -> None:
        self.reopened.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.reopened.wait()

    async def _open(self) -> bool:
        """False: the queue's own limit, or the only route's, lets nothing go yet."""
        if self.gate.free():
            return True
        self.reopened.clear()
        if not await self.gate.opened(self.reopened):
            await self.turns.look()
        return False

    async def _read(self, asked: Sequence[tuple[str, int]], mean: float) -> tuple[list[Entry], Counter[str]]:
        """What came, and how many of each priority went to their lanes unseen. Both ways are gone at once: none waits
        for the round trip of the other."""
        plain = [(name, many) for name, many in asked if not self.sifter.takes(name, mean)]
        sifted = [(name, many) for name, many in asked if (name, many) not in plain]
        entries, rest = await asyncio.gather(self._read_plain(plain), self._sift(sifted))
        for found, _ in rest:
            entries += found
        if rest:
            entries.sort(key=lambda entry: entry.entry[0])  # stable: each priority keeps its order
        return entries, +Counter({name: many for (name, _), (_, many) in zip(sifted, rest, strict=True)})

    async def _sift(self, asked: Sequence[tuple[str, int]]) -> list[tuple[list[Entry], int]]:
        return [await self.sifter.read(name, many) for name, many in asked]

    async def _read_plain(self, asked: Sequence[tuple[str, int]]) -> list[Entry]:
        return (await self.link.call(self.spool.read, self.consumer, asked)).entries if asked else []

    async def _wait(self, many: int) -> None:
        self._blocked = True
        try:
            block_ms = LIMITED_MS if self.gate.limited and len(self.hand) else BLOCK_MS
            rests = self.sifter.rests()
            if rests:
                block_ms = REST_MS
            reading = await self.link.call(lambda: self.spool.wait(self.consumer, many, block_ms, rests))
        finally:
            self._blocked = False
        if reading.bell:
            self.rang(reading.bell)
        if reading.entries:
            await self._admit(reading.entries)
        elif not reading.bell and not self.stopping and not rests:
            await self.link.call(self.spool.touch, self.consumer)

    async def _admit(self, entries: list[Entry]) -> None:
        size = sum(len(value) for entry in entries for value in entry.fields.values()) / len(entries)
        self._mean += (size - self._mean) / 4
        parked = await self.admission.admit(self._claimed(entries), urgent=self._more_urgent)
        for p, many in Counter(entry.entry[0] for entry in entries).items():
            name = self.spool.priorities[int(p)]
            if name not in self.sifter.sifts:  # else the sifter knows better: these are what it could not park
                self.sifter.note(name, many, sum(entry[0] == p for entry in parked))

    def _claimed(self, entries: list[Entry]) -> list[Entry]:
        new = self.hand.claim(entry.entry for entry in entries)
        return [entry for entry in entries if entry.entry in new]

    async def _more_urgent(self, than: Entry) -> list[Entry]:
        """A few, whether there is room for them or not: they wait for nothing that is less urgent."""
        names = self.spool.priorities[: int(than.entry[0])]
        many = min(self.gate.free(), self.hand.size + URGENT - len(self.hand), URGENT)
        if not names or many <= 0 or self.stopping or self.admission.closed_us:
            return []
        return self._claimed(await self._read_plain([(name, many) for name in names]))

    async def _mean_bytes(self) -> float:
        """Of a mail that waits, at most: asked once a second, since a hundred of 25 MB would be one reply."""
        now = asyncio.get_running_loop().time()
        if now >= self._ask_at:
            self._waiting_mean = await self.link.call(self.spool.mean_bytes)
            self._ask_at = now + ASK_SECONDS
        return max(self._mean, self._waiting_mean)

    async def _closed(self) -> bool:
        """While the only route is closed nothing is read: priority order stays in the streams."""
        wait = (self.admission.closed_us - self.admission.now_us) / 1e6
        if self.admission.closed_us == 0 or wait <= 0:
            return False
        await self._until_reopened(wait)
        self.admission.closed_us = 0
        return True

    async def stop(self, reading: asyncio.Task[None], end: float) -> None:
        """Ends the blocked read from a second connection: cancelling it would leave mails in the PEL unseen.
        Asked again until it has ended, since the read may be on its way to the server still; until `end`."""
        self.stopping = True
        while not reading.done() and asyncio.get_running_loop().time() < end:
            self.reopened.set()
            self.hand.wake()
            if self._blocked:
                with contextlib.suppress(*AWAY):
                    await self.spool.unblock(self.consumer)
            await asyncio.wait({reading}, timeout=0.05)

"""The reader: from the priority streams into admission, high to low, no more than the hand has room for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from streamq.queue.spool import Entry, Spool
from streamq.worker.admission import Admission
from streamq.worker.hand import Hand
from streamq.worker.link import AWAY, Link

__all__ = ["Reader", "Shares"]

BLOCK_MS = 5000  # how long a blocked read waits: a silent consumer shows that it lives
READ_BYTES = 8_000_000  # one reply; mails of 10 MB come one at a time
LEAST = 0.1  # of the room, to each lower priority, however much waits above it


class Shares:
    """How many to read of each priority in one round trip. All that a stream did not use the last time goes to
    the others, the most urgent first; whoever used its share is assumed to hold more."""

    def __init__(self, priorities: Sequence[str]) -> None:
        self.priorities = tuple(priorities)
        self._backlog = dict.fromkeys(self.priorities, False)

    def split(self, room: int) -> list[tuple[str, int]]:
        """(priority, how many), highest first; their sum is at most `room`, which is at least 1."""
        least = {name: max(1, int(room * LEAST)) for name in self.priorities}
        shares: dict[str, int] = {}
        left = room
        for name in self.priorities:
            below = self.priorities[self.priorities.index(name) + 1 :]
            kept = sum(least[other] for other in below)
            share = max(left - kept, least[name]) if self._backlog[name] else least[name]
            shares[name] = min(share, left)
            left -= shares[name]
        for name in self.priorities:  # what nobody is known to need: to the most urgent that has a backlog
            if left and self._backlog[name]:
                shares[name] += left
                left = 0
        if left:
            shares[self.priorities[0]] += left
        return [(name, many) for name, many in shares.items() if many > 0]

    def used(self, asked: Sequence[tuple[str, int]], got: dict[str, int]) -> bool:
        """Note what came; True where some stream may hold more."""
        for name, many in asked:
            self._backlog[name] = got.get(name, 0) >= many
        return any(self._backlog.values())


class Reader:
    def __init__(
        self,
        spool: Spool,
        link: Link,
        hand: Hand,
        consumer: str,
        admission: Admission,
        rang: Callable[[list[str]], None],
    ) -> None:
        self.spool = spool
        self.link = link
        self.hand = hand
        self.consumer = consumer
        self.admission = admission
        self.rang = rang
        self.stopping = False
        self.reopened = asyncio.Event()  # a route that was closed has spoken
        self._blocked = False
        self._mean = 4096.0

    async def run(self) -> None:
        shares = Shares(self.spool.priorities)
        while not self.stopping:
            if not self.hand.room:
                await self.hand.changed()
                continue
            if await self._closed():
                continue
            room = max(1, min(self.hand.room, int(READ_BYTES / self._mean)))
            asked = shares.split(room)
            reading = await self.link.call(self.spool.read, self.consumer, asked)
            got: dict[str, int] = {}
            for entry in reading.entries:
                name = self.spool.priorities[int(entry.entry[0])]
                got[name] = got.get(name, 0) + 1
            more = shares.used(asked, got)
            if reading.entries:
                await self._admit(reading.entries)
            elif not more and not self.stopping:
                await self._wait(max(1, room // len(self.spool.priorities)))

    async def _wait(self, many: int) -> None:
        self._blocked = True
        try:
            reading = await self.link.call(lambda: self.spool.wait(self.consumer, many, BLOCK_MS))
        finally:
            self._blocked = False
        if reading.bell:
            self.rang(reading.bell)
        if reading.entries:
            await self._admit(reading.entries)

    async def _admit(self, entries: list[Entry]) -> None:
        size = sum(len(value) for entry in entries for value in entry.fields.values()) / len(entries)
        self._mean += (size - self._mean) / 4
        self.hand.pending.update(entry.entry for entry in entries)
        await self.admission.admit(entries)

    async def _closed(self) -> bool:
        """While the only route is closed nothing is read: priority order stays in the streams."""
        wait = (self.admission.closed_us - self.admission.now_us) / 1e6
        if self.admission.closed_us == 0 or wait <= 0:
            return False
        self.reopened.clear()
        try:
            async with asyncio.timeout(wait):
                await self.reopened.wait()
        except TimeoutError:
            pass
        self.admission.closed_us = 0
        return True

    async def stop(self, reading: asyncio.Task[None], grace: float) -> None:
        """Ends the blocked read from a second connection: cancelling it would leave mails in the PEL unseen.
        Asked again until it has ended, since the read may be on its way to the server still."""
        self.stopping = True
        loop = asyncio.get_running_loop()
        end = loop.time() + max(grace, 1.0)
        while not reading.done() and loop.time() < end:
            self.reopened.set()
            self.hand.wake()
            if self._blocked:
                with contextlib.suppress(*AWAY):
                    await self.spool.unblock(self.consumer)
            await asyncio.wait({reading}, timeout=0.05)
        reading.cancel()

"""The marker: says before each dot that it goes out. Gathers: marks cost by the number of round trips.

A connection has at most one mail past its dot, in every pipelining mode, and asks for the next one's mark only when
that one is answered; so its mark names that next one, and those before it while their 250 is not settled: one mail as a
rule, and as many as the settler is behind where Redis is slower than the relay.
Where the body goes with its envelope (BDAT) the mark comes before both: it may name a mail that is then refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streamq.queue.rows import MarkRow
from streamq.queue.scripts import BATCH
from streamq.queue.spool import Spool
from streamq.smtp.letter import Letter
from streamq.worker.gathering import Gathering
from streamq.worker.hand import Delivery, Hand
from streamq.worker.link import Link

__all__ = ["Marker"]


class Marker:
    """`mark` is what a courier awaits before the first byte of the body. False: no dot for this mail. `at_work`: how
    many lines have a mail now."""

    def __init__(
        self, spool: Spool, link: Link, hand: Hand, consumer: str, at_work: Callable[[], int] = lambda: 0
    ) -> None:
        self.spool = spool
        self.link = link
        self.hand = hand
        self._carried: dict[str, list[tuple[str, int]]] = {}  # connection → leases, not contents; the settled ones go
        self.consumer = consumer
        self._waiting: list[tuple[MarkRow, asyncio.Future[str]]] = []
        self._wake = asyncio.Event()
        # Who waits for a mark asks for no other.
        self._gathering = Gathering(lambda: len(self._waiting), lambda: at_work() - len(self._waiting), BATCH)

    async def mark(self, connection: str, letter: Letter) -> bool:
        """`connection`: `<route>.<number>`, so that a mail that may have been sent is known to have gone that way."""
        assert isinstance(letter, Delivery)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        leases = [lease for lease in self._carried.get(connection, ()) if self._is_unsettled(lease)]
        before = ",".join(entry for entry, _ in leases if entry != letter.entry)
        self._waiting.append((MarkRow(connection, letter.entry, letter.token, before), answer))
        self._wake.set()
        self._gathering.came()
        letter.mark = await answer
        if letter.mark != "ok":
            return False  # nothing was written: the field names what it did
        self._carried[connection] = [*leases, (letter.entry, letter.token)]
        return True

    def _is_unsettled(self, lease: tuple[str, int]) -> bool:
        held = self.hand.deliveries.get(lease[0])
        return held is not None and held.token == lease[1]

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._gathering.wait()
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                rows = [row for row, _ in batch]
                statuses = await self.link.call(self.spool.scripts.mark, self.consumer, rows)
                for (_, answer), status in zip(batch, statuses, strict=True):
                    if not answer.done():
                        answer.set_result(status)

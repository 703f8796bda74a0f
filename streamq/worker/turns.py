"""Turns: leased mails that have no slot, or whose slot ran out before their MAIL.

A limit counts where the receiver does: at MAIL. So a slot lasts for its slack only (lib/limit.lua), and a connection
that takes a letter later than that asks for another one first (`again`): the old one is free again if nobody was
admitted since. What waits for the queue's own limit, or for the only route's, waits here (`waiting`), the most urgent
first; what waits for its site goes back to its lane.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Mapping, Sequence

from streamq.queue.scripts import BATCH, Turn, TurnRow
from streamq.queue.spool import Spool
from streamq.smtp.letter import Letter
from streamq.smtp.outbox import Outbox
from streamq.worker.gate import Gate
from streamq.worker.hand import Delivery, Hand
from streamq.worker.link import Link

__all__ = ["Turns"]


class Turns:
    """One per process. `hand_back` settles a delivery back to its lane, untried; `listed` as admit.lua wants it."""

    def __init__(
        self,
        spool: Spool,
        link: Link,
        hand: Hand,
        consumer: str,
        gate: Gate,
        outboxes: Mapping[str, Outbox],
        hand_back: Callable[[Delivery], object],
        listed: Callable[[], str],
    ) -> None:
        self.spool = spool
        self.link = link
        self.hand = hand
        self.consumer = consumer
        self.gate = gate
        self.outboxes = outboxes
        self.hand_back = hand_back
        self.listed = listed
        self._waiting: list[tuple[int, str, Delivery]] = []  # a heap: urgency, entry
        self._asking: list[tuple[Delivery, asyncio.Future[bool]]] = []
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def urgency(self) -> int:
        """The best priority that waits, 0 is the most urgent; only where something does."""
        return self._waiting[0][0]

    def wait(self, delivery: Delivery) -> None:
        """It is leased, and has no slot."""
        heapq.heappush(self._waiting, (delivery.priority, delivery.entry, delivery))
        self.hand.wake()

    def drain(self) -> list[Delivery]:
        """All that waits, the most urgent first."""
        waiting = [delivery for *_, delivery in sorted(self._waiting)]
        self._waiting.clear()
        return waiting

    async def serve(self, free: int) -> None:
        """So many of those that wait ask for their slots."""
        while free > 0 and self._waiting:
            part = [heapq.heappop(self._waiting)[2] for _ in range(min(free, BATCH, len(self._waiting)))]
            free -= len(part)
            for delivery, said in zip(part, await self._ask(part), strict=True):
                if self._take(delivery, *said):
                    self.outboxes[delivery.way].put(delivery)

    async def look(self) -> None:
        """Only what the limits are by now."""
        await self._ask([])

    async def again(self, letter: Letter) -> bool:
        """A connection holds the letter, and its slot has run out. True: it has another one, for this route. False: it
        is no longer the connection's."""
        assert isinstance(letter, Delivery)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asking.append((letter, answer))
        self._wake.set()
        try:
            return await answer
        except asyncio.CancelledError:
            self._asking = [asked for asked in self._asking if asked[1] is not answer]
            raise

    async def run(self) -> None:
        """While one call is under way the next gathers."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._asking:
                batch, self._asking = self._asking[:BATCH], self._asking[BATCH:]
                ways = [delivery.way for delivery, _ in batch]
                said = await self._ask([delivery for delivery, _ in batch])
                for (delivery, answer), way, one in zip(batch, ways, said, strict=True):
                    if answer.done():  # cancelled: whoever held it reports it
                        continue
                    goes = self._take(delivery, *one)
                    if goes and delivery.way != way:
                        self.outboxes[delivery.way].put(delivery)
                    answer.set_result(goes and delivery.way == way)

    async def _ask(self, deliveries: Sequence[Delivery]) -> list[tuple[Turn, float]]:
        """What the script says, and the loop time from which its slots run: that of the call that came through."""
        loop = asyncio.get_running_loop()
        rows = [TurnRow(each.entry, each.token, each.lane, each.slot, each.target) for each in deliveries]

        async def turn() -> list[tuple[Turn, float]]:
            asked_at = loop.time()
            bound, turns = await self.spool.scripts.turn(self.consumer, rows, self.listed())
            self.gate.hear(bound)
            return [(one, asked_at) for one in turns]

        return await self.link.call(turn)

    def _take(self, delivery: Delivery, turn: Turn, asked_at: float) -> bool:
        """True: it goes, by the way that it has now."""
        delivery.slot, delivery.target = "", turn.target
        self.hand.counts(delivery.entry, delivery.token, turn.target)
        if turn.status == "go":
            delivery.way = turn.way
            delivery.hold_slot(turn.slot, asked_at)
            return True
        if turn.status == "wait":
            self.wait(delivery)
        elif turn.status == "park":
            self.hand_back(delivery)
        else:
            self.hand.drop_lease(delivery.entry, delivery.token)
        return False

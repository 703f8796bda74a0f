"""Turns: leased mails that have no slot, or whose slot ran out before their MAIL.

A limit counts where the receiver does: at MAIL. So a slot lasts for its slack only (lib/limit.lua), and a connection
that takes a letter later than that asks for another one first (`again`): the old one is free again if nobody was
admitted since. What waits for the queue's own limit, or for the only route's, waits here (`waiting`), the most urgent
first; what waits for its site goes back to its lane.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Mapping, Sequence

from streamq.queue.rows import Turn, TurnRow
from streamq.queue.scripts import BATCH
from streamq.queue.spool import Spool
from streamq.smtp.letter import Letter
from streamq.smtp.outbox import Outbox
from streamq.worker.gate import Gate
from streamq.worker.hand import Delivery, Hand
from streamq.worker.link import Link

__all__ = ["Turns"]


async def _at_once() -> None:
    return


class Turns:
    """One per process. `hand_back` settles a delivery back to its lane, untried; `expire` ends it, since its time is
    over: nobody else looks at what waits here, which may be for hours. `listed` as admit.lua wants it.
    `told` returns when the queue knows of every refusal that was met here (recall.py)."""

    def __init__(
        self,
        spool: Spool,
        link: Link,
        hand: Hand,
        consumer: str,
        gate: Gate,
        outboxes: Mapping[str, Outbox],
        hand_back: Callable[[Delivery], object],
        expire: Callable[[Delivery], object],
        listed: Callable[[], str],
        told: Callable[[], Awaitable[None]] = _at_once,
    ) -> None:
        self.spool = spool
        self.link = link
        self.hand = hand
        self.consumer = consumer
        self.gate = gate
        self.outboxes = outboxes
        self.hand_back = hand_back
        self.expire = expire
        self.listed = listed
        self.told = told
        # A heap: urgency, entry, token (an entry comes again while its lost lease waits still)
        self._waiting: list[tuple[int, str, int, Delivery]] = []
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
        heapq.heappush(self._waiting, (delivery.priority, delivery.entry, delivery.token, delivery))
        self.hand.wake()

    def drain(self) -> list[Delivery]:
        """All that waits, the most urgent first."""
        waiting = [delivery for *_, delivery in sorted(self._waiting)]
        self._waiting.clear()
        return waiting

    async def serve(self, free: int) -> None:
        """So many of those that wait ask for their slots."""
        while free > 0 and self._waiting:
            part = [heapq.heappop(self._waiting)[-1] for _ in range(min(free, BATCH, len(self._waiting)))]
            try:
                answers = await self._ask(part)
            except BaseException:  # at the end of the grace time: `drain` is to find them
                for delivery in part:
                    self.wait(delivery)
                raise
            for delivery, said in zip(part, answers, strict=True):
                if self._take(delivery, *said):
                    self.outboxes[delivery.way].put(delivery)
            free = min(free - len(part), self.gate.free())  # it has heard of the limits since

    async def look(self) -> None:
        """Only what the limits are by now, and whose time is over."""
        await self._ask([])
        over = [delivery for *_, delivery in self._waiting if self._is_over(delivery)]
        if over:
            self._waiting = [one for one in self._waiting if not self._is_over(one[-1])]
            heapq.heapify(self._waiting)
        for delivery in over:
            self.expire(delivery)

    def _is_over(self, delivery: Delivery) -> bool:
        return delivery.deadline_ms <= self.gate.now_ms

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
                self.hand.ran_out(len(batch))
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
        await self.told()
        rows = [TurnRow(each.entry, each.token, each.lane, each.slot, each.target or each.way) for each in deliveries]

        async def turn() -> list[tuple[Turn, float]]:
            nonlocal rows
            asked_at = loop.time()
            asked, rows = rows, [row._replace(slot="") for row in rows]  # repeated, it gives no slot back twice
            bound, turns = await self.spool.scripts.turn(self.consumer, asked, self.listed())
            self.gate.hear(bound)
            return [(one, asked_at) for one in turns]

        return await self.link.call(turn)

    def _take(self, delivery: Delivery, turn: Turn, asked_at: float) -> bool:
        """True: it goes, by the way that it has now."""
        delivery.slot, delivery.target = "", turn.target
        if turn.status == "lost":  # the same mail may be here under a new lease
            self.hand.drop_lease(delivery.entry, delivery.token)
            return False
        self.hand.counts(delivery.entry, delivery.token, turn.target)
        if self._is_over(delivery):
            self.expire(delivery)
        elif turn.status == "go":
            delivery.way = turn.way
            delivery.hold_slot(turn.slot, asked_at)
            return True
        elif turn.status == "wait":
            self.wait(delivery)
        else:
            self.hand_back(delivery)
        return False

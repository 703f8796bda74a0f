"""Aside: mails that take long to read (a heavy template, thousands of addresses) are judged one after the other in a
thread, the most urgent first, while all others go on.

A thread hands over every few milliseconds, as no call in it is long: work is bounded by counts, in each call and in all
(mail/effort.py). The alternative that lost is to wait for that thread where the mail was read: forty such mails are
twenty seconds in which nothing else is read or released, however short the loop's turns are.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

from streamq.queue.spool import Entry
from streamq.worker.hand import Hand
from streamq.worker.intake import Intake, Judged

__all__ = ["Aside"]

Then = Callable[[Judged], Awaitable[object]]


class Aside:
    """One per process. What waits here is the hand's, pending there, which renews its leases and feels its weight."""

    def __init__(self, intake: Intake, hand: Hand) -> None:
        self.intake = intake
        self.hand = hand
        self._queue: asyncio.PriorityQueue[tuple[str, int, Entry, Then]] = asyncio.PriorityQueue()
        self._turn = itertools.count()

    def put(self, entry: Entry, then: Then) -> None:
        """`then` is told what came of it."""
        self.hand.carry(_weight(entry))
        self._queue.put_nowait((entry.entry[0], next(self._turn), entry, then))

    async def run(self) -> None:
        while True:
            _, _, entry, then = await self._queue.get()
            if await self.hand.lighter(carrying=True):
                judged = await self._in_thread(entry)
                self.hand.carry(-_weight(entry))
                await then(judged)
            else:  # this process ends first: whoever reclaims it has it
                self.hand.carry(-_weight(entry))
                self.hand.drop(entry.entry)
            self._queue.task_done()

    async def flushed(self) -> None:
        """Returns when nothing is left."""
        await self._queue.join()

    async def judged(self, entry: Entry) -> Judged:
        """For whoever can wait for it: at once, where that takes no time."""
        return self.intake.judge_at_once(entry) or await self._in_thread(entry)

    async def _in_thread(self, entry: Entry) -> Judged:
        """`recipients` are read in steps, since a parser of JSON keeps even other threads waiting; the rest in one."""
        try:
            await entry.read_recipients()
            return await asyncio.to_thread(self._judge, entry)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - as in intake, also of what composes the message
            return self.intake.unforeseen(entry, error)

    def _judge(self, entry: Entry) -> Judged:
        """With its message: what a template wrote may be long."""
        row, mail = self.intake.judge(entry)
        if mail is not None and mail.several is None:
            mail.built()
        return row, mail


def _weight(entry: Entry) -> int:
    return sum(map(len, entry.fields.values()))

"""Aside: mails that take long to read (a heavy template, thousands of addresses) are judged one after the other in a
thread, the most urgent first, while all others go on.

A thread hands over every few milliseconds, as no call in it is long: work is bounded by counts, in each call and in all
(mail/effort.py). The alternative that lost is to wait for that thread where the mail was read: forty such mails are
twenty seconds in which nothing else is read or released, however short the loop's turns are.
(What is known to take a tenth of a second at the most is waited for: see Admission.)
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable

from streamq.queue.spool import Entry
from streamq.worker.hand import Hand
from streamq.worker.intake import Intake, Judged

__all__ = ["Aside"]

Then = Callable[[Judged], Awaitable[object]]


# A few seconds' work, of what goes before one that comes: more would fill the hand, and keep out what is read at once
WAITING_MOST = 20


class Aside:
    """One per process. What waits here is the hand's, pending there, which renews its leases and feels its weight."""

    def __init__(self, intake: Intake, hand: Hand) -> None:
        self.intake = intake
        self.hand = hand
        self._queue: asyncio.PriorityQueue[tuple[str, int, Entry, Then]] = asyncio.PriorityQueue()
        self._turn = itertools.count()
        self._waiting: Counter[str] = Counter()  # by priority
        self._named: Counter[tuple[bytes, ...]] = Counter()  # what is to stay in its order

    def put(self, entry: Entry, then: Then) -> None:
        """`then` is told what came of it."""
        self.hand.carry(_weight(entry))
        self._named.update(_names(entry))
        self._waiting[entry.entry[0]] += 1
        self._queue.put_nowait((entry.entry[0], next(self._turn), entry, then))

    def is_full(self, entry: Entry) -> bool:
        """For this one: what is less urgent waits behind it."""
        return sum(many for p, many in self._waiting.items() if p <= entry.entry[0]) >= WAITING_MOST

    def drain(self) -> list[Entry]:
        """All that nobody has begun with: this process ends."""
        left = []
        while not self._queue.empty():
            *_, entry, _ = self._queue.get_nowait()
            self._waiting[entry.entry[0]] -= 1
            self.hand.carry(-_weight(entry))
            self._forget(entry)
            left.append(entry)
        return left

    def _forget(self, entry: Entry) -> None:
        self._named -= Counter(_names(entry))
        self._queue.task_done()

    def precedes(self, entry: Entry) -> bool:
        """Whether one of its id, or of its collapse key, is here: which of them came first decides what becomes of
        both."""
        return bool(self._named) and not self._named.keys().isdisjoint(_names(entry))

    async def run(self) -> None:
        while True:
            _, _, entry, then = await self._queue.get()
            self._waiting[entry.entry[0]] -= 1
            if await self.hand.lighter(carrying=True):
                judged = await self.in_thread(entry)
                self.hand.carry(-_weight(entry))
                await then(judged)
            else:  # this process ends first: whoever reclaims it has it
                self.hand.carry(-_weight(entry))
                self.hand.drop(entry.entry)
            self._forget(entry)

    async def flushed(self) -> None:
        """Returns when nothing is left."""
        await self._queue.join()

    async def judged(self, entry: Entry) -> Judged:
        """For whoever can wait for it: at once, where that takes no time."""
        return self.intake.judge_at_once(entry) or await self.in_thread(entry)

    async def in_thread(self, entry: Entry) -> Judged:
        """`recipients` are read in steps, since a parser of JSON keeps even other threads waiting; the rest in one."""
        try:
            await entry.read_recipients()
            return await asyncio.to_thread(self._judge, entry)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - as in intake, also of what composes the message
            return self.intake.unforeseen(entry, error)

    async def soon(self, entry: Entry) -> Judged | None:
        """In a thread, too, for who waits for it: None where its template takes long."""
        try:
            judged = await asyncio.to_thread(self.intake.judge_lightly, entry)
            return judged and await asyncio.to_thread(_built, judged)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            return self.intake.unforeseen(entry, error)

    def _judge(self, entry: Entry) -> Judged:
        return _built(self.intake.judge(entry))


def _built(judged: Judged) -> Judged:
    """With its message: what a template wrote may be long."""
    mail = judged[1]
    if mail is not None and mail.several is None:
        mail.built()
    return judged


def _names(entry: Entry) -> list[tuple[bytes, ...]]:
    """A key is one of a person, who is taken as written: those of a campaign that share a key stand in no line."""
    fields = entry.fields
    tenant = fields.get(b"tenant", b"")
    names: list[tuple[bytes, ...]] = []
    if id_ := fields.get(b"id"):
        names.append((tenant, b"id", id_))
    if key := fields.get(b"collapse_key"):
        names.append((tenant, b"collapse_key", key, fields.get(b"envelope_to") or fields.get(b"to", b"")))
    return names


def _weight(entry: Entry) -> int:
    return sum(map(len, entry.fields.values()))

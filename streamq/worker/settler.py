"""The settler: ends of attempts, in batches, one script a batch. While one call is under way the next gathers, and a
moment longer where more lines are at work."""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamq.mail import Mail
from streamq.queue.plain import Plain
from streamq.queue.reports import Reports, is_due
from streamq.queue.rows import MeasureRow, ResettleRow, SettleRow
from streamq.queue.scripts import BATCH
from streamq.queue.spool import Entry, Spool
from streamq.queue.unforeseen import COMPOSING, log_unforeseen
from streamq.smtp.letter import Letter, Report
from streamq.worker.gathering import Gathering
from streamq.worker.hand import Delivery, Hand
from streamq.worker.intake import Judged
from streamq.worker.link import Link
from streamq.worker.outcome import BOUNCING, EXPIRING, Outcomes, target_kind
from streamq.worker.recall import Recall
from streamq.worker.tally import Tally

if TYPE_CHECKING:  # it takes OpenTelemetry along
    from streamq.worker.traces import Traces

__all__ = ["Settler"]

log = logging.getLogger("streamq.settler")

BURIED_BYTES = 4_000_000  # what travels through a script: dead letters, and what ends again
REPORT_BYTES = 20_000  # of a report, at the most and roughly
RING_SECONDS = 10.0
RING_MOST = 50_000
FINAL = frozenset({"sent", "dead"})
ALONE = "alone"  # settle's word for: the route works for others
BROKEN = "parked"  # and for: it should have died, and the breaker holds its route
JUDGED = FINAL | {"defer", "throttled"}


@dataclass(frozen=True, slots=True)
class _Final:
    """One final outcome, remembered in case the server loses its last second."""

    at: float
    row: SettleRow
    seen: bytes
    content: int
    size: int


class Settler:
    """Takes reports from couriers.

    `next_due` is told when something becomes due (µs, and now); `judge` reads an entry anew, to see
    whether it is the same mail; `spoke` is told when a receiver has judged something: its route is up; `alone` the name
    of a route that fails for this worker and not for others; `broken` that of one which the breaker holds. `at_work`:
    how many lines have a mail now.
    """

    def __init__(
        self,
        spool: Spool,
        link: Link,
        hand: Hand,
        consumer: str,
        outcomes: Outcomes,
        next_due: Callable[[int, int], None],
        judge: Callable[[Entry], Awaitable[Judged]],
        spoke: Callable[[], None],
        alone: Callable[[str], None] = lambda route: None,
        broken: Callable[[str], None] = lambda route: None,
        recall: Recall | None = None,
        tally: Tally | None = None,
        traces: Traces | None = None,
        at_work: Callable[[], int] = lambda: 0,
    ) -> None:
        self.spool = spool
        self.link = link
        self.hand = hand
        self.consumer = consumer
        self.outcomes = outcomes
        self.next_due = next_due
        self.judge = judge
        self.plain = Plain(spool.scripts)
        self.reports = Reports(spool.settings, spool.salt)
        self.spoke = spoke
        self.alone = alone
        self.broken = broken
        self.recall = recall
        self.tally = tally
        self.traces = traces
        self.settled: dict[str, int] = {}  # how many ended how, for people
        self._queue: deque[tuple[SettleRow, Delivery]] = deque()
        self._ring: deque[_Final] = deque(maxlen=RING_MOST)
        self._under_way: list[tuple[SettleRow, Delivery]] = []  # the batch that no answer has come for
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._gathering = Gathering(lambda: len(self._queue), at_work, BATCH)

    def done(self, letter: Letter, report: Report) -> None:
        """A courier's report."""
        assert isinstance(letter, Delivery)
        now_ms = self.spool.now_ms()
        if self.tally is not None:
            self.tally.report(letter, report, now_ms)
        if self.traces is not None:
            self.traces.report(letter, report)
        row = self.outcomes.row(letter, report, now_ms)
        if row is None or (letter.lost and row.op != "sent"):
            self.hand.drop_lease(letter.entry, letter.token)
            return
        self.put(row, letter)
        if row.op == "throttled" and self.recall is not None:  # behind it, so that they park for the new pace
            target = letter.way if target_kind(report) == "route" else f"{letter.way}|{letter.site}"
            self.recall.refused(letter, target)

    def put(self, row: SettleRow, delivery: Delivery) -> None:
        self._queue.append((row, delivery))
        self._idle.clear()
        self._wake.set()
        self._gathering.came()

    async def flushed(self) -> None:
        """Returns when everything that was put is settled."""
        await self._idle.wait()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._gathering.wait()
                await self._settle(self._batch())
            self._idle.set()

    def _batch(self) -> list[tuple[SettleRow, Delivery]]:
        batch: list[tuple[SettleRow, Delivery]] = []
        buried = 0
        while self._queue and len(batch) < BATCH:
            row, delivery = self._queue[0]
            if row.op == "dead":
                buried += delivery.mail.size + (REPORT_BYTES if is_due(row) else 0)
                if buried > BURIED_BYTES and batch:
                    break
            batch.append(self._queue.popleft())
        return batch

    async def _settle(self, batch: list[tuple[SettleRow, Delivery]]) -> None:
        now_ms = self.spool.now_ms()
        rows = [self.reports.filled(row, delivery.mail, delivery.content, now_ms) for row, delivery in batch]
        self._under_way = batch
        settled = await self.link.call(lambda: self.plain.settle(self.consumer, rows))
        self._under_way = []
        now = time.monotonic()
        for (row, delivery), status in zip(batch, settled.statuses, strict=True):
            if status in (BOUNCING, EXPIRING):  # still ours: it ends so, with its report
                self._queue.append((self.outcomes.ended(row, delivery, status), delivery))
                continue
            self.hand.drop_lease(row.entry, row.token)
            name = row.op if status == "ok" else status
            self.settled[name] = self.settled.get(name, 0) + 1
            if status == ALONE:
                self.alone(delivery.way)
            if status == BROKEN:
                self.broken(delivery.way)
            if status == "ok" and row.op in FINAL:
                self._ring.append(_final(now, row, delivery))
        while self._ring and self._ring[0].at < now - RING_SECONDS:
            self._ring.popleft()
        if self.recall is not None:
            news = self.recall.hear(settled.marks)
            for row in rows:
                if row.op == "throttled":
                    self.recall.settled(row.entry, row.token)
            if news:
                await self._measure(news, now_ms)
        if any(row.op in JUDGED for row in rows):
            self.spoke()
        self.next_due(settled.next_us, settled.now_us)

    async def _measure(self, targets: Sequence[str], now_ms: int) -> None:
        """Say how fast they took mail from here, since another worker met their refusal and knows only its own part."""
        rates = self.outcomes.rates
        rows = [MeasureRow(name, rates.of(name, now_ms), rates.least_of(name, now_ms)) for name in targets]
        rows = [row for row in rows if row.took > 0]
        if rows:
            await self.link.call(lambda: self.spool.scripts.measure(self.consumer, rows))

    async def replay(self) -> int:
        """After another server, or a restarted one, answers: mails that had ended and are there again, with the
        same content, end again under their old event's id. Returns how many. So do mails that were sent and whose end
        no server has taken yet: there they may be anybody's, and go again before their end is repeated."""
        now_ms = self.spool.now_ms()
        young = [final for final in self._ring if final.at >= self.link.down_since - RING_SECONDS]
        unsettled = (*self._under_way, *self._queue)
        young += [_final(time.monotonic(), row, delivery) for row, delivery in unsettled if row.op == "sent"]
        again = 0
        for part in _parts(young):
            found = await self.spool.fetch([final.row.entry for final in part])
            there = [
                (final, await self._same(entry, final.content))
                for final, entry in zip(part, found, strict=True)
                if entry is not None
            ]
            rows = [
                ResettleRow(
                    final.row.entry,
                    final.row.id,
                    final.row.kind,
                    final.row.tail,
                    self.reports.filled(final.row, mail, None, now_ms).arg if final.row.op == "dead" else b"",
                    f"{final.row.entry}.{final.row.token}",
                )
                for final, mail in there
                if mail is not None
            ]
            rows += [
                ResettleRow(final.row.entry, final.row.id, final.row.kind, final.row.tail, b"", "", final.seen)
                for final, entry in zip(part, found, strict=True)
                if entry is None and final.seen
            ]
            if rows:
                again += await self.spool.scripts.resettle(rows)
        return again

    async def _same(self, entry: Entry, content: int) -> Mail | None:
        _, mail = await self.judge(entry)
        try:
            return mail if mail is not None and zlib.crc32(mail.built()) == content else None
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a bug here: it is not the same by what can be seen
            log_unforeseen(log, entry.entry, error, COMPOSING)
            return None


def _final(at: float, row: SettleRow, delivery: Delivery) -> _Final:
    mail = delivery.mail
    return _Final(at, row, _seen(row, mail), zlib.crc32(delivery.content), mail.size)


def _seen(row: SettleRow, mail: Mail) -> bytes:
    """What a child that was sent is known by: it may be made again, under another entry (resettle.lua)."""
    return mail.digest or b"" if row.op == "sent" and row.tail.startswith(b'"parent"') else b""


def _parts(finals: Iterable[_Final]) -> Iterator[list[_Final]]:
    """As many mails, or bytes, as come back in one reply and travel through one script."""
    part: list[_Final] = []
    size = 0
    for final in finals:
        size += final.size
        if part and (len(part) == BATCH or size > BURIED_BYTES):
            yield part
            part, size = [], final.size
        part.append(final)
    if part:
        yield part

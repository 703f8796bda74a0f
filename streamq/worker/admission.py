"""Admission: what was read, taken back or reclaimed becomes deliveries in their routes' outboxes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from streamq.mail import Mail
from streamq.mail.labour import LIGHT_US, LONG_US
from streamq.queue.lanes import lane_of, ways_of
from streamq.queue.plain import Plain
from streamq.queue.reports import Reports
from streamq.queue.rows import AdmitRow, Admitted, Leased, SettleRow
from streamq.queue.scripts import BATCH
from streamq.queue.spool import Entry, Spool
from streamq.queue.unforeseen import COMPOSING, log_unforeseen
from streamq.queue.walk import Pages
from streamq.smtp.outbox import Outbox
from streamq.worker.aside import Aside
from streamq.worker.expander import Expander, Expansion
from streamq.worker.hand import Delivery, Hand
from streamq.worker.intake import Intake, Judged
from streamq.worker.link import Link
from streamq.worker.outcome import BOUNCING, EXPIRING, ending
from streamq.worker.turns import Turns

__all__ = ["Admission"]

log = logging.getLogger("streamq.admission")

Urgent = Callable[[Entry], Awaitable[Sequence[Entry]]]

PAGE = 10  # bodies of mails taken back that are fetched at a time, at most: fewer where the last ones were large
BURIED_BYTES = 4_000_000  # of one script: a mail that it rejects travels through it
GOING = frozenset({"go", "wait"})  # leased, to be sent: now, or when the queue's own limit lets it
# Of labour (mail/labour.py), until urgent mail is looked for again: a hundred newsletters whose html has to become a
# text are seconds
LOOK_US = 50_000
TURN_US = 2_000  # of labour (mail/labour.py) before the loop does other things
CLOSED_SECONDS = 1.0
CLOSED_MOST = 10_000  # lanes
LATER_MS = 5_000


class Admission:
    """One per process. `closed_us` is the time until which none of its routes takes anything, 0: one does;
    `now_us` is when that was said. `listed` says which routes it uses now, as admit.lua wants it; `broken` is
    told of a delivery whose message could not be composed."""

    def __init__(
        self,
        spool: Spool,
        link: Link,
        hand: Hand,
        consumer: str,
        intake: Intake,
        outboxes: Mapping[str, Outbox],
        expander: Expander,
        next_due: Callable[[int, int], None],
        turns: Turns,
        broken: Callable[[Delivery, Exception], None],
        listed: Callable[[], str] = str,
    ) -> None:
        self.spool = spool
        self.link = link
        self.hand = hand
        self.consumer = consumer
        self.intake = intake
        self.outboxes = outboxes
        self.expander = expander
        self.next_due = next_due
        self.turns = turns
        self.broken = broken
        self.listed = listed
        self.plain = Plain(spool.scripts)
        self.reports = Reports(spool.settings, spool.salt)
        self.closed_us = 0
        self.now_us = 0
        self.aside = Aside(intake, hand)
        self._labour = 0  # µs, since the loop had its turn
        self._pages = Pages(1)
        self._closed: dict[str, float] = {}  # lanes in which a mail was parked of late → loop time

    async def admit(
        self, entries: Sequence[Entry], whole: Collection[str] = (), urgent: Urgent | None = None
    ) -> list[str]:
        """Through the limits: to an outbox, or wherever the script says. The entries of those that parked. For those in
        `whole` no glance will do: it was their turn, and a glance would park them again and again. `urgent` finds what
        came meanwhile and is more urgent than an entry: it is asked wherever some of them have taken long."""
        parked: list[str] = []
        at = 0
        while at < len(entries):
            if at and not await self.hand.lighter():  # a hundred children of 25 MB are read as a hundred small entries
                self._leave(other.entry for other in entries[at:])
                return parked
            part = await self._complete(entries[at : at + BATCH])
            at += len(part)
            while part:
                turn = _turn(part)
                parked += await self._admit(part[:turn], whole)
                part = part[turn:]
                if urgent is not None and (rest := part or entries[at:]) and (more := await urgent(rest[0])):
                    parked += await self.admit(more)
        return parked

    async def _complete(self, entries: Sequence[Entry]) -> list[Entry]:
        """The first of these, as many as one script may bury."""
        return await self.link.call(lambda: self.spool.complete(entries, BURIED_BYTES))

    def _leave(self, entries: Iterable[str]) -> None:
        """This process ends first: whoever reclaims them has them."""
        for entry in entries:
            self.hand.drop(entry)

    async def _admit(self, entries: Sequence[Entry], whole: Collection[str] = ()) -> list[str]:
        now = asyncio.get_running_loop().time()
        found: list[tuple[Entry, int, Judged]] = []
        later: list[Entry] = []
        for entry in entries:
            claim = self.hand.pending.get(entry.entry, 0)
            judged = None
            is_behind = self.aside.precedes(entry)  # one of its id, or of its collapse key: the first has it
            if not is_behind:
                judged = self.intake.judge_at_once(entry) if entry.entry in whole else self._look(entry, now)
                judged = judged or await self._soon(entry)
            if judged is not None:
                found.append((entry, claim, judged))
            elif self.aside.is_full(entry) and not is_behind:
                later.append(entry)
            else:
                self.aside.put(entry, partial(self._enter_late, entry, claim))
            await self._turn(entry)
        await self.put_off(later, LATER_MS)  # first: of two mails of one id the first has it
        return await self._enter(found) if found else []

    async def _soon(self, entry: Entry) -> Judged | None:
        """What takes no longer than a tenth of a second is judged in a thread while this waits: others go on, and what
        came behind it stays there. None: nobody knows how long it takes, or it is longer."""
        if LIGHT_US < entry.labour <= LONG_US:
            return await self.aside.soon(entry)
        return None

    async def put_off(self, entries: Sequence[Entry], ms: int) -> None:
        """Of those that take long there are enough here: they go on the schedule for so long, unlooked-at, with their
        ids."""
        if not entries:
            return
        claims = [self.hand.pending.get(entry.entry, 0) for entry in entries]
        rows = [self.intake.unread(entry, self.spool.now_ms() + ms) for entry in entries]
        admitted, _ = await self.link.call(lambda: self._ask(rows))
        for entry, claim, said in zip(entries, claims, admitted.statuses, strict=True):
            if said.status in (BOUNCING, EXPIRING):  # its report needs a look
                self.aside.put(entry, partial(self._enter_late, entry, claim))
            else:
                self.hand.let_go(entry.entry, claim)
        self.next_due(admitted.next_us, admitted.now_us)

    async def _enter_late(self, entry: Entry, claim: int, judged: Judged) -> None:
        await self._enter([(entry, claim, judged)])

    async def _turn(self, entry: Entry) -> None:
        """Other things are done, now and then."""
        self._labour += min(entry.labour, LIGHT_US)  # what took longer was not done here
        if self._labour >= TURN_US:
            self._labour = 0
            await asyncio.sleep(0)

    async def _enter(self, found: Sequence[tuple[Entry, int, Judged]]) -> list[str]:
        """What was judged; `claim` is the token that it came with."""
        now = asyncio.get_running_loop().time()
        rows = [row for _, _, (row, _) in found]
        admitted, asked_at = await self.link.call(lambda: self._ask(rows))
        self.closed_us = admitted.closed_us
        self.now_us = admitted.now_us
        again: list[Entry] = []
        parked: list[str] = []
        ended: list[tuple[SettleRow, int]] = []
        for (entry, claim, (row, mail)), (status, notes, way, slot, target, token) in zip(
            found, admitted.statuses, strict=True
        ):
            if status in GOING:
                self._closed.pop(row.lane, None)
                self.hand.counts(row.entry, token, target)
                if mail is None:  # it was glanced at, and its lane has opened since
                    judged = self.intake.judge_at_once(entry)
                    if judged is None:
                        self.hand.claim([row.entry], token)
                        lease = Leased(row.entry, notes, way, slot, target)
                        self.aside.put(entry, partial(self._take_late, entry, lease, token, asked_at))
                        continue
                    row, mail = judged
                if mail is not None and mail.several is not None:
                    self.expander.put(
                        Expansion(
                            entry=row.entry,
                            token=token,
                            id=mail.id or row.entry,
                            event=mail.event,
                            several=mail.several,
                        )
                    )
                elif mail is not None:
                    self.deliver(row, mail, token, notes, way, slot, asked_at)
                else:
                    again.append(entry)
                continue
            if status in (BOUNCING, EXPIRING):
                judged = (row, mail) if mail is not None else self.intake.judge_at_once(entry)
                if judged is None:
                    self.hand.claim([row.entry], token)
                    self.aside.put(entry, partial(self._end_late, row, status, token, notes))
                else:
                    ended.append((self._ended(row, judged[1], status, token, notes), claim))
                continue
            if status == "parked":
                self._closed[row.lane] = now + CLOSED_SECONDS
                parked.append(row.entry)
            self.hand.let_go(row.entry, claim)
        self.next_due(admitted.next_us, admitted.now_us)
        if ended:
            await self.link.call(lambda: self.spool.scripts.settle(self.consumer, [end for end, _ in ended]))
            for end, claim in ended:
                self.hand.let_go(end.entry, claim)
        if again:
            parked += await self._admit(again)
        return parked

    async def _ask(self, rows: Sequence[AdmitRow]) -> tuple[Admitted, float]:
        """What the script says, and the loop time from which its slots run."""
        asked_at = asyncio.get_running_loop().time()
        admitted = await self.plain.admit(self.consumer, rows, self.listed())
        self.turns.gate.hear(admitted.bound)
        return admitted, asked_at

    def _ended(self, row: AdmitRow, mail: Mail | None, status: str, token: int, notes: bytes) -> SettleRow:
        """A mail that is leased only to end, and its sender to be told."""
        known: dict[str, Any] = orjson.loads(notes) if notes else {}
        last = {name: known[name] for name in ("reply", "code", "last") if name in known}
        kind, said = ending(status, mail, self.spool.settings, row.deadline, **last)
        klass = b'"class":"operator"' if status == BOUNCING else b'"class":"expired"'
        tail = row.tail + b"," + klass if row.tail else klass
        end = SettleRow("dead", row.entry, token, "", row.id, kind, tail, said)
        return end if mail is None else self.reports.filled(end, mail, None, self.spool.now_ms())

    async def _end_late(self, row: AdmitRow, status: str, token: int, notes: bytes, judged: Judged) -> None:
        end = self._ended(row, judged[1], status, token, notes)
        await self.link.call(self.spool.scripts.settle, self.consumer, [end])
        self.hand.let_go(row.entry, token)

    def _look(self, entry: Entry, now: float) -> Judged | None:
        """Parked mails are looked at again when their turn comes: a glance will do, where that is likely."""
        if self._closed:
            row = self.intake.glance(entry)
            if row is not None and self._closed.get(row.lane, 0.0) > now:
                return row, None
            if len(self._closed) > CLOSED_MOST:
                self._closed.clear()
        return self.intake.judge_at_once(entry)

    def deliver(
        self,
        row: AdmitRow,
        mail: Mail,
        token: int,
        notes: bytes,
        way: str,
        slot: str,
        since: float,
        *,
        unhashed: bool = False,
    ) -> None:
        """Into the outbox of the route that gave it a slot; without a route it waits for one. `since`: loop time from
        which the slot runs. `unhashed`: it may have been parked unlooked-at."""
        known: dict[str, Any] = orjson.loads(notes) if notes else {}
        stays = known.get("stays")
        bound = stays == way if stays else "ambiguous" in known  # as admit.lua: what may have been sent keeps its way
        content, bug = _composed(mail, row.entry)
        delivery = Delivery(
            envelope_from=mail.envelope_from,
            envelope_to=mail.envelope_to,
            content=content,
            site=mail.site,
            priority=int(row.entry[0]),
            eight_bit=mail.eight_bit,
            smtputf8=mail.smtputf8,
            dsn=mail.dsn,
            require_tls=mail.require_tls,
            patience=int(known.get("attempts", 0)) + int(known.get("parks", 0)),
            entry=row.entry,
            token=token,
            lane=lane_of((way,), mail.site, mail.tenant) if bound else row.lane,
            way=way,
            mail=mail,
            deadline_ms=row.deadline,
            attempts=int(known.get("attempts", 0)),
            notes=known,
            unhashed=unhashed,
            target=self.hand.at_once.get(row.entry, (0, ""))[1],
        )
        delivery.hold_slot(slot, since)
        self.hand.add(delivery)
        if bug is not None:
            self.broken(delivery, bug)
        elif way:
            self.outboxes[way].put(delivery)
        else:
            self.turns.wait(delivery)

    async def take_back(self, leases: Sequence[Leased], token: int, since: float = 0.0) -> None:
        """Leases that an index or a reclaim gave, some bodies at a time. With a slot on a route one goes at once;
        without it, or where the settings send it elsewhere by now, it is admitted. `since`: loop time from which slots
        run."""
        at = 0
        while at < len(leases):
            page = leases[at : at + min(PAGE, self._pages.many)]
            if not await self.hand.lighter() or not await self._take_page(page, token, since):
                self._leave(lease.entry for lease in leases[at:] if lease.entry in self.hand.pending)
                return
            at += len(page)

    async def _take_page(self, leases: Sequence[Leased], token: int, since: float) -> bool:
        """False where this process ends before all of them are taken. A message is composed when there is room for it:
        children of one body are small until then."""
        found = await self.link.call(self.spool.raw, [lease.entry for lease in leases])
        known = {lease.entry: lease for lease in leases}
        there = [entry for entry in found if entry is not None]
        for gone in known.keys() - {entry.entry for entry in there}:
            await self._vanished(gone, token)
        if there:
            self._pages.saw([sum(map(len, entry.fields.values())) for entry in there])
        unslotted: list[Entry] = []
        later: list[Entry] = []
        slotted = [entry for entry in there if known[entry.entry].way in self.outboxes]
        at = 0
        while at < len(slotted):
            if not await self.hand.lighter():
                return False
            for entry in await self._complete(slotted[at:]):
                lease, judged = known[entry.entry], self.intake.judge_at_once(entry)
                judged = judged or await self._soon(entry)
                if judged is None and self.aside.is_full(entry):
                    later.append(entry)
                elif judged is None:
                    self.aside.put(entry, partial(self._take_late, entry, lease, token, since))
                elif not self._take(lease, token, since, judged):
                    unslotted.append(slotted[at])
                at += 1
                await self._turn(entry)
        await self.put_off(later, LATER_MS)
        unslotted += [entry for entry in there if known[entry.entry].way not in self.outboxes]
        if unslotted:
            await self.admit(unslotted, {lease.entry for lease in leases if lease.way})
        return True

    async def _take_late(self, entry: Entry, lease: Leased, token: int, since: float, judged: Judged) -> None:
        if not self._take(lease, token, since, judged):
            await self._enter([(entry, token, judged)])

    def _take(self, lease: Leased, token: int, since: float, judged: Judged) -> bool:
        """On the way on which it has its slot; False where it has to be admitted."""
        row, mail = judged
        if mail is None or not (lease.way in ways_of(row.lane) or b'"stays"' in lease.notes):
            return False
        self.deliver(row, mail, token, lease.notes, lease.way, lease.slot, since, unhashed=True)
        return True

    async def _vanished(self, entry: str, token: int) -> None:
        row = SettleRow("gone", entry, token, "", entry, "", b"")
        await self.link.call(self.spool.scripts.settle, self.consumer, [row])
        self.hand.drop(entry)


def _turn(entries: Sequence[Entry]) -> int:
    """How many of these, at least one."""
    took = 0
    for at, entry in enumerate(entries):
        took += entry.labour
        if at and took > LOOK_US:
            return at
    return len(entries)


def _composed(mail: Mail, entry: str) -> tuple[bytes, Exception | None]:
    """Its message; or what nobody foresaw, which stays with this mail."""
    try:
        return mail.built(), None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the bug is
        log_unforeseen(log, entry, error, COMPOSING)
        return b"", error

"""Workers as a program sees them, each step beside the model's book.

A worker knows what it was told, which may no longer be so; of one that stalls the idle time of its leases is put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import predicted_leases
import predictions
from actors import AGE_MS, USUAL_ROUTE, Worker
from ground import Ground
from ledger import PRIORITIES, Mail, order
from look import look
from predictions import End
from sifting import passed

from streamq.keys import GROUP
from streamq.queue.plain import is_plain_end, plain_of
from streamq.queue.rows import (
    AdmitRow,
    Admitted,
    FinishRow,
    MarkRow,
    Released,
    Settled,
    SettleRow,
    StartRow,
    Status,
)
from streamq.queue.scripts import why

__all__ = ["IDLE_MS", "Working", "settle_row"]

IDLE_MS = 500_000_000  # no real run lasts so long
MOST_RECLAIMS = 2
LATE, BEHIND = 20_000, 200_000  # µs, release.lua
KIND_OF = {"sent": "email.relayed", "defer": "email.deferred", "dead": "email.bounced", "hold": "email.held"}


class Working(Ground):
    """What workers do."""

    def read(self, worker: Worker, shares: Sequence[int]) -> None:
        asked = [(name, many) for name, many in zip(PRIORITIES, shares, strict=True) if many]
        reading = self.run(self.spool.read(worker.name, asked))
        for p, many in enumerate(shares):
            coming = [mail for mail in self.book.stream(p) if order(mail.entry) > self.book.cursor[p]][:many]
            got = [entry.entry for entry in reading.entries if entry.entry[0] == str(p)]
            assert got == [mail.entry for mail in coming], f"read {got}, by the book {coming}"
            for mail in coming:
                mail.pel, mail.late = (worker.name, 1), False
                self.book.cursor[p] = order(mail.entry)
                worker.take(mail.entry, None)

    def sift(self, worker: Worker, p: int, room: int, most: int, *, stows: bool) -> None:
        known: dict[str, Any] = {"route": USUAL_ROUTE, "max_age_ms": AGE_MS, "max_bytes": 10_000, "stows": stows}
        reply = self.run(passed(self.spool, worker.name, p, room=room, most=most, **known))
        predictions.sift(self.book, worker.name, p, room, most, reply)
        for entry, _ in reply.taken:
            worker.take(entry, None)

    def listen(self, worker: Worker) -> None:
        """The bell alone, as a blocked read hears it."""
        reply = self.raw("XREADGROUP", "GROUP", GROUP, worker.name, "COUNT", 1, "STREAMS", self.keys.bell, ">")
        worker.bell += [row[0].decode() for _, rows in reply or () for row in rows]

    def admit(self, worker: Worker, entries: Sequence[str]) -> None:
        mails = [self.mail(entry) for entry in entries]
        if len(self.book.events) % 2:
            mails = self.start(worker, mails)
        reply = self.run(self.spool.scripts.admit(worker.name, [_admit_row(mail) for mail in mails]))
        self.admitted(worker, mails, reply)

    def start(self, worker: Worker, mails: Sequence[Mail]) -> list[Mail]:
        """The plain ones; those that are left."""
        all_ = [_admit_row(mail) for mail in mails]
        plain = plain_of(all_)
        if not plain:
            return list(mails)
        rows = [StartRow(row.entry, row.lane, row.deadline, row.seen) for row in plain.values()]
        now, token, letters, bound, slots = self.run(
            self.spool.scripts.start(
                worker.name, rows, "", {row.lane for at, row in enumerate(all_) if at not in plain}
            )
        )
        done: dict[int, Status] = {}
        for nth, (at, letter) in enumerate(zip(plain, letters, strict=True)):
            if letter == "g":
                done[at] = Status("go", b"", "", slots.get(nth, ""), "", token)
            elif letter == "l":
                done[at] = Status("lost", b"", "", "")
        reply = Admitted(now, 0, token, 0, bound, list(done.values()))
        self.admitted(worker, [mails[at] for at in done], reply)
        return [mail for at, mail in enumerate(mails) if at not in done]

    def admitted(self, worker: Worker, mails: Sequence[Mail], reply: Admitted) -> None:
        for mail, (said, notes, *_) in zip(mails, reply.statuses, strict=True):
            if said == "go":
                assert b'"sent"' not in notes, f"{mail.entry} was sent, and goes again"
                worker.take(mail.entry, reply.token, ready=True)
            else:
                worker.drop(mail.entry)
        predictions.admit(self.book, worker.name, mails, reply)
        self.routes()

    def settle(self, worker: Worker, ends: Sequence[End]) -> None:
        if len(self.book.events) % 2:
            ends = self.finish(worker, ends)
        reply = self.run(self.spool.scripts.settle(worker.name, [settle_row(end) for end in ends]))
        self.settled(worker, ends, reply)

    def finish(self, worker: Worker, ends: Sequence[End]) -> list[End]:
        """The plain ones that were sent; those that are left."""
        rows = {at: row for at, row in enumerate(map(settle_row, ends)) if is_plain_end(row)}
        if not rows:
            return list(ends)
        asked = [FinishRow(row.entry, row.token, row.lane, row.id, row.kind, row.tail) for row in rows.values()]
        now, _, letters = self.run(self.spool.scripts.finish(worker.name, asked))
        done = [at for at, letter in zip(rows, letters, strict=True) if letter == "o"]
        self.settled(worker, [ends[at] for at in done], Settled(now, 0, ["ok"] * len(done)))
        return [end for at, end in enumerate(ends) if at not in done]

    def settled(self, worker: Worker, ends: Sequence[End], reply: Settled) -> None:
        for end in ends:
            if worker.hand.get(end.mail.entry) == end.token:
                worker.drop(end.mail.entry)
        live = {end.mail.entry for end in ends if end.mail.entry in self.book.mails}
        predictions.settle(self.book, worker.name, ends, reply)
        for end, said in zip(ends, reply.statuses, strict=True):
            kind = self.book.ended.get(end.mail.entry, "")
            if said == "ok" and end.mail.entry in live and kind in {"email.relayed", "email.bounced"}:
                self.ring.append((end, kind))
        self.routes()

    def mark(self, worker: Worker, leases: Sequence[tuple[str, int]]) -> list[str]:
        rows = [MarkRow(f"{self.mail(e).lane.partition('|')[0]}.{n % 2}", e, t) for n, (e, t) in enumerate(leases)]
        reply = self.run(self.spool.scripts.mark(worker.name, rows))
        predicted_leases.mark(self.book, worker.name, rows, reply)
        return reply

    def heartbeat(self, worker: Worker, leases: Sequence[tuple[str, int]]) -> None:
        lost = self.run(self.spool.scripts.heartbeat(worker.name, leases))
        predicted_leases.heartbeat(self.book, worker.name, leases, lost)
        for entry, token in leases:
            if entry in lost and worker.hand.get(entry) == token:
                worker.drop(entry)

    def stall(self, worker: Worker) -> None:
        """Its leases were last renewed long ago."""
        for mail in self.book.mails.values():
            if mail.pel and mail.pel[0] == worker.name and not mail.deleted:
                mail.late = True
                self.backdate(self.spool.stream(mail.entry), worker.name, mail.entry[1:], mail.pel[1])
        for id_, who, _, count in self.raw("XPENDING", self.keys.bell, GROUP, "-", "+", 10):
            if who.decode() == worker.name:
                self.backdate(self.keys.bell, worker.name, id_.decode(), count)

    def backdate(self, stream: str, name: str, id_: str, count: int) -> None:
        self.raw("XCLAIM", stream, GROUP, name, 0, id_, "IDLE", 2 * IDLE_MS, "RETRYCOUNT", count, "JUSTID")

    def crash(self, worker: Worker) -> None:
        self.stall(worker)
        worker.hand.clear()
        worker.ready.clear()
        worker.bell.clear()

    def recover(self, worker: Worker) -> None:
        """After a reconnect: what a lost reply may have delivered."""
        entries = self.run(self.spool.own_pending(worker.name))
        mine = {m.entry for m in self.book.mails.values() if m.pel and m.pel[0] == worker.name}
        assert set(entries) == mine, f"own_pending {entries}, by the book {mine}"
        for entry in entries:
            if entry not in worker.hand and not self.mail(entry).deleted:
                worker.take(entry, None)

    def reclaim(self, worker: Worker, room: int, cursor: str = "") -> str:
        reply = self.run(
            self.spool.scripts.reclaim(worker.name, idle_ms=IDLE_MS, room=room, most=MOST_RECLAIMS, cursor=cursor)
        )
        predicted_leases.reclaim(self.book, worker.name, MOST_RECLAIMS, room, cursor, reply)
        for entry, notes, _ in reply.leases:
            late = self.mail(entry).sent
            assert (b'"sent"' in notes) == late, f"{entry}: what was said of its late 250 is wrong"
            worker.take(entry, reply.token)
        return reply.cursor

    def watched(self, name: str, reply: Released, coming: int) -> int:
        """µs by which this worker comes behind another one that is to come, 0 where it comes itself. (Who was to come
        is forgotten by the server's own time, which is not ours: then it comes itself, too.)"""
        at = reply.next_us - BEHIND
        others = [till for other, till in self.promised.items() if other != name]
        behind = at >= coming > 0 and any(till <= at and till + LATE >= self.book.now for till in others)
        self.promised[name] = 0 if behind or reply.left else reply.next_us
        return BEHIND if behind else 0

    def release(self, worker: Worker, room: int) -> None:
        bell, worker.bell = worker.bell, []
        visits = self.run(look(self.spool, self.last_event)).due
        reply = self.run(self.spool.scripts.release(worker.name, room, bell))
        seen = self.run(look(self.spool, self.last_event))
        indexed = {*seen.scheduled, *seen.parked}
        vanished = [m for m in self.book.mails.values() if m.deleted and m.place and m.entry not in indexed]
        vanished = [m for m in vanished if m.place in {"scheduled", "parked"}]
        predicted_leases.release(self.book, worker.name, room, reply, visits=visits, vanished=vanished)
        for lease in reply.leases:
            late = self.mail(lease.entry).sent
            assert (b'"sent"' in lease.notes) == late, f"{lease.entry}: what was said of its late 250 is wrong"
            worker.take(lease.entry, reply.token, ready=bool(lease.way))
        due = [(ms * 1000, int(entry[0])) for entry, ms in seen.scheduled.items()]
        due += [(us, p) for (_, p), us in seen.due.items()]
        coming = min((us for us, _ in due), default=0)  # what may not be taken back yet is watched over, too
        behind = self.watched(worker.name, reply, coming)
        if due and any(map(self.book.rereading, range(len(PRIORITIES)))):  # it is looked at again soon
            latest = max(coming, self.book.now + 1_000_000)
            assert 0 < reply.next_us - behind <= latest, f"next is {reply.next_us}, due are {due}"
        else:
            assert reply.next_us - behind == coming, f"next is {reply.next_us}, due are {due}"
        assert not reply.left or seen.bell == 1, "something due found no room, and no bell rang"
        if not reply.left:
            over = [lane for lane, us in seen.due.items() if us <= self.book.now and not self.book.rereading(lane[1])]
            assert not over, f"lanes could go and did not: {over}"
        self.routes()

    def adopt(self, worker: Worker) -> None:
        """A worker of a version that knows what these mails are held for."""
        mails = [mail for mail in self.book.mails.values() if mail.needs and not mail.deleted]
        token, leases = self.run(self.spool.scripts.adopt(worker.name, [mail.entry for mail in mails]))
        mails = [mail for mail in mails if not self.book.rereading(mail.p)]
        assert [entry for entry, _ in leases] == [mail.entry for mail in mails], f"adopted {leases}, held {mails}"
        for mail in mails:
            mail.kind, mail.needs = "send", False
            self.specs[mail.entry] = replace(self.specs[mail.entry], kind="send")
            self.book.lease(mail, worker.name, token)
            worker.take(mail.entry, token)


def _admit_row(mail: Mail) -> AdmitRow:
    reason = {
        "send": b"",
        "dead": why(reason="to: missing", **{"class": "malformed"}),
        "hold": why(reason="unknown_field", **{"class": "unknown_field"}, fields=["x"]),
    }[mail.kind]
    return AdmitRow(
        mail.kind, mail.entry, mail.lane, mail.due, mail.deadline, mail.expires,
        mail.ident, mail.producer, mail.tail.encode(), reason,
    )  # fmt: skip


def settle_row(end: End) -> SettleRow:
    mail, said = end.mail, {"class": "greylisted", "reply": "451 later"}
    arg = {
        "defer": why(wait=end.wait_ms, deadline=mail.deadline, **said),
        "dead": why(reason="550 no", judged=True, **said),
        "park": why(down=end.down, wait=end.wait_ms),
        "hold": why(reason="ambiguous", **{"class": "ambiguous"}),
    }.get(end.op, b"")
    return SettleRow(
        end.op, mail.entry, end.token, mail.lane, mail.producer, KIND_OF.get(end.op, ""), mail.tail.encode(), arg
    )

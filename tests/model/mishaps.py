"""What befalls a queue beside its workers: keys broken by hand, a server that lost its last second; and its end."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass

from actors import Worker
from ledger import AT_ONCE, PRIORITIES, Ledger, Mail, order
from predictions import End
from rig import Rig
from working import settle_row

from streamq.keys import GROUP
from streamq.queue.check import Wrong, check
from streamq.queue.connection import pipelined
from streamq.queue.rows import ResettleRow

__all__ = ["Snapshot", "break_and_repair", "drain", "failover", "reap", "repair", "snapshot"]

FINAL = {
    "email.relayed", "email.bounced", "email.expired", "email.rejected", "email.cancelled", "email.duplicate",
    "email.failed",
}  # fmt: skip
KEPT = {*PRIORITIES, "bell", "events", "counts", "lease", "meta", "dead", "limits"}
ROUNDS = 400


# -- keys broken by hand -----------------------------------------------------------------------------


def break_and_repair(rig: Rig, what: str, pick: int) -> None:
    """One breach of the law, and what `check --repair` makes of it: nothing that a stream holds is dropped."""
    may = [mail for mail in rig.book.mails.values() if _fits(rig.book, mail, what)]
    if not may:
        return
    mail = may[pick % len(may)]
    said = "twice" if what.endswith(" too") else what
    wrong = {Wrong(mail.entry, said)} if what not in {"counts", "orphan"} else set()
    if _break(rig, what, mail):
        wrong.add(Wrong("", "counts"))
    repair(rig, wrong, what)


def repair(rig: Rig, wrong: set[Wrong], what: str) -> None:
    """What somebody deleted is forgotten, too."""
    orphans = [each for each in rig.book.mails.values() if each.deleted]
    wrong |= {Wrong(each.entry, "orphan") for each in orphans}
    report = rig.run(check(rig.spool, repair=True))
    assert set(report.wrong) == wrong, f"check after {what}: {report.wrong}, should be {wrong}"
    assert report.repaired == len(wrong), f"repaired {report.repaired} of {len(wrong)}"
    for each in orphans:
        rig.book.end(each, "")
    rig.check()


def _fits(book: Ledger, mail: Mail, what: str) -> bool:
    if mail.deleted or book.rereading(mail.p) or (mail.place and mail.pel):
        return False
    return {
        "lost": mail.pel is not None,
        "held too": mail.place in {"scheduled", "parked"},
        "scheduled too": mail.place in {"held", "parked"},
        "both": bool(mail.place),
        "lane": mail.place == "parked",
        "orphan": bool(mail.place or mail.pel),
        "counts": True,
    }[what]


def _break(rig: Rig, what: str, mail: Mail) -> bool:
    """Whether the counts are wrong then, too. The book says what repair makes of it."""
    keys, stream = rig.keys, rig.spool.stream(mail.entry)
    if what == "lost":
        rig.raw("XACK", stream, GROUP, mail.entry[1:])
        rig.book.put(mail, "scheduled", AT_ONCE)
        return False
    if what == "held too":
        ms = order(mail.entry)[0]
        rig.raw("ZADD", keys.held, ms, mail.entry)
        rig.book.put(mail, "held", ms)
        mail.old_due = AT_ONCE
    elif what == "scheduled too":
        rig.raw("ZADD", keys.schedule, rig.book.now_ms, mail.entry)
    elif what == "both":
        rig.raw("XCLAIM", stream, GROUP, rig.workers[-1].name, 0, mail.entry[1:], "RETRYCOUNT", 99, "FORCE", "JUSTID")
        return False
    elif what == "lane":
        ms, seq = order(mail.entry)
        rig.raw("ZREM", keys.parked, f"{mail.lane}|{mail.p}{ms:013}-{seq:020}")
    elif what == "counts":
        rig.raw("HINCRBY", keys.counts, f"held:{mail.p}", 3)
    else:
        rig.delete(mail)
        return False
    return True


# -- a server that lost its last second --------------------------------------------------------------


@dataclass(slots=True)
class Snapshot:
    """The server's keys and the book at one moment."""

    dumps: dict[bytes, tuple[bytes, int]]
    book: Ledger
    known: set[str]
    last_event: str


def snapshot(rig: Rig) -> Snapshot:
    names = rig.raw("KEYS", rig.keys.prefix + "*")
    dumps = rig.run(pipelined(rig.spool.redis, [("DUMP", name) for name in names]))
    left = rig.run(pipelined(rig.spool.redis, [("PTTL", name) for name in names]))
    pairs = zip(dumps, (max(ms, 0) for ms in left), strict=True)
    rig.ring.clear()
    kept = dict(zip(names, pairs, strict=True))
    return Snapshot(kept, copy.deepcopy(rig.book), set(rig.known), rig.last_event)


def failover(rig: Rig, old: Snapshot) -> None:
    """Another server takes over with what was there then; the workers settle again what had ended."""
    ring, now = list(rig.ring), rig.book.now
    rig.raw("DEL", *rig.raw("KEYS", rig.keys.prefix + "*"))
    rig.raw("SCRIPT", "FLUSH")
    restores = [("RESTORE", name, ttl, dump) for name, (dump, ttl) in old.dumps.items()]
    rig.run(pipelined(rig.spool.redis, restores))
    rig.book = copy.deepcopy(old.book)
    rig.book.now = now
    rig.last_event = old.last_event
    rig.known = {entry: mail for entry, mail in rig.known.items() if entry in old.known} | rig.book.mails
    for worker in rig.workers:
        for entry in list(worker.hand):
            if entry not in rig.known:
                worker.drop(entry)
        worker.old = [lease for lease in worker.old if lease[0] in rig.known]
    _settle_again(rig, [(end, kind) for end, kind in ring if end.mail.entry in rig.book.mails])
    rig.ring.clear()


def _settle_again(rig: Rig, ring: list[tuple[End, str]]) -> None:
    rows, ids = [], set()
    for end, kind in ring:
        mail, event_id = rig.book.mails[end.mail.entry], f"{end.mail.entry}.{end.token}"
        reason = b"" if kind == "email.relayed" else settle_row(End("dead", mail, end.token)).arg
        rows.append(ResettleRow(mail.entry, mail.producer, kind, mail.tail.encode(), reason, event_id))
        if mail.deleted and kind != "email.relayed":
            rig.book.end(mail, "")
            continue
        ids.add(event_id)
        if kind == "email.relayed":
            rig.book.remember(mail)
            rig.book.end(mail, kind)
        else:
            rig.book.bury(mail, kind)
    again = rig.run(rig.spool.scripts.resettle(rows))
    assert again == len(rows), f"settled again: {again} of {len(rows)}"
    rig.book.resettled += again
    came = rig.raw("XRANGE", rig.keys.events, rig.last_event, "+")
    said = b"".join(fields[-1] for _, fields in came).decode()
    assert all(f'"event_id":"{event_id}"' in said for event_id in ids), f"events of {ids} have other ids: {said}"


# -- the end -----------------------------------------------------------------------------------------


def reap(rig: Rig, worker: Worker) -> None:
    """It says goodbye; one that still holds something is kept."""
    gone = rig.run(rig.spool.scripts.reap(10**12, worker.name))
    holds = any(mail.pel and mail.pel[0] == worker.name for mail in rig.book.mails.values())
    assert not (holds and gone), f"{gone} was deleted with its leases"
    assert set(gone) <= {worker.name}, f"{gone} was deleted, {worker.name} was asked for"
    left = {dot.decode() for dot in rig.raw("HKEYS", rig.keys.dots)}
    for dot in list(rig.book.dots):
        owner = dot.rpartition("/")[0]
        idle = not any(mail.pel and mail.pel[0] == owner for mail in rig.book.mails.values())
        assert dot in left or idle, f"the dot of {owner} is gone, and it has leases"
        if dot not in left or (owner == worker.name and not holds and not worker.bell):
            del rig.book.dots[dot]


def drain(rig: Rig) -> None:
    """Everything ends; then nothing is left but what the design names, and each mail has ended once."""
    for name in list(rig.book.rules):
        rig.rule(name, "")
    last, *others = rig.workers
    for worker in others:
        rig.crash(worker)
    for _ in range(ROUNDS):
        cursor = rig.reclaim(last, 100)
        while cursor:
            cursor = rig.reclaim(last, 100, cursor)
        _round(rig, last)
        if not rig.book.mails:
            break
    assert not rig.book.mails, f"these never end: {list(rig.book.mails.values())}"
    rig.listen(last)
    rig.release(last, 1)
    for worker in rig.workers:
        rig.bare(worker)
        reap(rig, worker)
    rig.law()
    rig.check()
    _accounted(rig)
    _bare(rig)


def _round(rig: Rig, last: Worker) -> None:
    if any(mail.deleted for mail in rig.book.mails.values()):
        repair(rig, set(), "deletions")
    rig.move("cancel", [m.entry for m in rig.book.of("held") if m.kind == "hold"])
    rig.move("unhold", [m.entry for m in rig.book.of("held")])
    rig.law()
    rig.recover(last)
    rig.read(last, (50, 50, 50))
    rig.listen(last)
    rig.release(last, 50)
    rig.admit(last, [entry for entry in last.hand if entry not in last.ready])
    leases = [lease for lease in last.leases if lease[0] in last.ready]
    for lease, said in zip(leases, rig.mark(last, leases), strict=True):
        assert said != "lost" or lease[0] not in rig.book.mails, f"{lease} is lost, and nobody else is there"
    rig.settle(last, [End("sent", rig.mail(entry), token) for entry, token in leases])
    rig.law()
    coming = rig.next_due()
    if coming:
        rig.moved(max(coming - rig.book.now, 2_500_000))


def _accounted(rig: Rig) -> None:
    """By the events themselves: each mail that was ever added has ended, and once."""
    ends: Counter[str] = Counter()
    for kind, _, data in rig.events():
        if kind in FINAL:
            ends[data["entry"]] += 1
    vanished = {entry for entry, kind in rig.book.ended.items() if kind == "vanished"}
    assert set(rig.known) == set(rig.book.ended), "not every mail has ended"
    by_book = Counter({entry: 1 for entry in rig.known if entry not in vanished})
    assert ends == by_book, f"ended {ends - by_book} too often, {by_book - ends} never"


def _bare(rig: Rig) -> None:
    left = []
    kept = KEPT | ({"pauses"} if any(route.down for route in rig.book.routes.values()) else set())
    for name in rig.raw("KEYS", rig.keys.prefix + "*"):
        short = name.decode().removeprefix(rig.keys.prefix)
        if short in kept:
            kind = rig.raw("TYPE", name)
            if short in {*PRIORITIES, "bell"} and (kind != b"stream" or rig.raw("XLEN", name)):
                left.append(f"{short} is not empty")
        elif rig.raw("PTTL", name) == -1:  # -2: it went meanwhile
            left.append(short)
    assert not left, f"left over: {left}"
    for name in (*PRIORITIES, "bell"):
        there = rig.raw("XINFO", "CONSUMERS", rig.keys.stream(name), GROUP)
        assert not there, f"consumers stayed behind in {name}: {there}"

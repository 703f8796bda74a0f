"""What the verbs of leases, and the one that takes mails back, must do to the book (see predictions.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ledger import AT_ONCE, PRIORITIES, Ledger, Mail, order
from predictions import same

from streamq.queue.rows import MarkRow, Reclaimed, Released

__all__ = ["heartbeat", "mark", "reclaim", "release"]


def mark(book: Ledger, consumer: str, rows: Sequence[MarkRow], reply: Sequence[str]) -> None:
    for row, said in zip(rows, reply, strict=True):
        if not book.is_owner(consumer, row.entry, row.token):
            book_says = "lost"
        elif book.mails[row.entry].sent:
            book_says = "sent"
        else:
            book_says = "ok"
            book.dots[f"{consumer}/{row.connection}"] = row.entry
        same(f"mark {row.entry}", said, book_says)


def heartbeat(book: Ledger, consumer: str, leases: Sequence[tuple[str, int]], lost: set[str]) -> None:
    gone = set()
    for entry, token in leases:
        if not book.is_owner(consumer, entry, token):
            gone.add(entry)
        elif book.mails[entry].deleted:
            book.end(book.mails[entry], "")
            gone.add(entry)
        else:
            book.mails[entry].late = False
    same("heartbeat lost", lost, gone)


def reclaim(book: Ledger, consumer: str, most: int, room: int, cursor: str, reply: Reclaimed) -> None:
    """What is late, up to where the sweep says that it is."""
    late = sorted((m for m in book.mails.values() if m.late), key=lambda m: (m.p, order(m.entry)))
    late = [m for m in late if not cursor or _place(m.entry) > _place(cursor)]
    if reply.cursor:
        late = [m for m in late if _place(m.entry) <= _place(reply.cursor)]
    given: list[tuple[str, bool]] = []
    for mail in late:
        assert mail.pel is not None
        past_dot = any(
            entry == mail.entry and dot.rpartition("/")[0] == mail.pel[0] for dot, entry in book.dots.items()
        )
        if mail.place:
            mail.pel, mail.late = None, False
        elif mail.pel[0] == consumer:
            continue  # it stood still itself, and knows what it has
        elif mail.deleted:
            book.reclaimed_gone += 1
            book.end(mail, "")
        else:
            mail.reclaims += 1
            book.reclaimed += 1
            if mail.reclaims > most and not mail.sent:
                book.bury(mail, "email.failed")
                continue
            if past_dot:
                book.event("email.ambiguous", mail.entry)
            book.lease(mail, consumer, reply.token)
            given.append((mail.entry, past_dot))
    same("reclaimed", [(entry, past_dot) for entry, _, past_dot in reply.leases], given)
    assert len(given) <= room, f"reclaimed {len(given)}, room was {room}"


def _place(entry: str) -> tuple[int, tuple[int, int]]:
    return int(entry[0]), order(entry)


def release(
    book: Ledger,
    consumer: str,
    room: int,
    reply: Released,
    *,
    visits: Mapping[tuple[str, int], int],
    vanished: Sequence[Mail],
) -> None:
    """`visits`: when each lane's priority was to be visited. `vanished`: of the deleted ones that stood in an
    index, those that do no more."""
    same("release's clock", reply.now_us, book.now)
    assert len(reply.leases) <= room, f"released {len(reply.leases)}, room was {room}"
    due = [m for m in book.mails.values() if m.place == "scheduled" and _score(m) <= book.now_ms]
    may = [m.entry for m in sorted(due, key=lambda m: (_score(m), m.entry)) if not _is_stuck(book, m)]
    from_schedule = [lease.entry for lease in reply.leases if not lease.way]
    same("released of the schedule", from_schedule, may[: len(from_schedule)])
    if len(may) == len(due):
        all_of_it = len(from_schedule) == len(may)
        assert all_of_it or reply.left, "the schedule's rest found no room, and that was not said"
        assert all_of_it or len(reply.leases) == room, "there was room for the schedule's rest"
        assert not reply.left or len(reply.leases) == room, "something was left though there was room"
        fair = min(len(may), room // 2)
        assert len(from_schedule) >= fair, "lanes took more than their half"
    for lease in reply.leases:
        mail = book.mails[lease.entry]
        if lease.way:
            _slotted(book, mail, visits)
        book.lease(mail, consumer, reply.token)
    for mail in vanished:
        assert not book.rereading(mail.p), f"{mail.entry} was taken back while its stream is read again"
        if mail.place == "parked":
            book.slots.skip(mail.lane, book.now)
        book.end(mail, "")


def _is_stuck(book: Ledger, mail: Mail) -> bool:
    return mail.deleted or book.rereading(mail.p)


def _score(mail: Mail) -> int:
    return 0 if mail.score == AT_ONCE else mail.score


def _slotted(book: Ledger, mail: Mail, visits: Mapping[tuple[str, int], int]) -> None:
    """From a lane: its slot is free, its group not re-reading, and nobody of its lane was there first; but for a lower
    priority's share, which is never two slots in a row."""
    assert mail.place == "parked", f"{mail.entry} is {book.state(mail)}, not parked"
    assert not book.rereading(mail.p), f"{mail.entry} was taken back while its stream is read again"
    awake = [p for p in range(len(PRIORITIES)) if visits.get((mail.lane, p), 0) <= book.now]
    first = next(found for p in awake for found in _takable(book, mail.lane, p))
    if first.p < mail.p and not book.shared.get(mail.lane):
        first = next(iter(_takable(book, mail.lane, mail.p)))
        book.shared[mail.lane] = True
    else:
        book.shared[mail.lane] = False
    same(f"first of {mail.lane}", mail.entry, first.entry)
    assert book.slot(mail.lane, True), f"{mail.entry}: no slot for {mail.lane} at {book.now}"


def _takable(book: Ledger, lane: str, p: int) -> list[Mail]:
    return [] if book.rereading(p) else [m for m in book.parked(lane, p) if not m.deleted]

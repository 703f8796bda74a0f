"""What each verb must do to the book. Written from DESIGN 3 and the scripts' headers, not from their bodies.

Each takes what was asked and what the script answered, moves the book on, and raises AssertionError where the
answer is not what the book says. What a script may choose (rounding, which lane first) is taken from its answer
and judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actors import USUAL_ROUTE
from ledger import AT_ONCE, PRIORITIES, Ledger, Mail, order

from streamq.queue.rows import Admitted, MarkRow, Moved, Reclaimed, Released, Settled, Sifted

__all__ = ["End", "admit", "expire", "heartbeat", "mark", "move", "reclaim", "release", "settle", "sift"]

AGAIN_MS = 10_000
NO_PROBE_YET = 1 << 60  # of leases that there are already, none was the probe of a route that has just gone down


@dataclass(frozen=True, slots=True)
class End:
    """A row of settle, as the book needs it."""

    op: str
    mail: Mail
    token: int
    wait_ms: int = 0
    down: bool = False


def same(what: str, said: object, book: object) -> None:
    assert said == book, f"{what}: {said!r}, by the book {book!r}"


def _next(said: int, made: Sequence[int]) -> None:
    """The local timer must ring for what a call made due; exactly, where nothing else is known."""
    assert (said > 0) == bool(made), f"next is {said}, made {made}"
    assert not made or said <= min(made), f"next is {said}, made {made}"


# -- admit -----------------------------------------------------------------------------------------


def admit(book: Ledger, consumer: str, rows: Sequence[Mail], reply: Admitted) -> None:
    same("admit's clock", reply.now_us, book.now)
    made: list[int] = []
    for mail, (said, *_) in zip(rows, reply.statuses, strict=True):
        same(f"admit {mail.entry}", said, _admitted(book, consumer, mail, reply.token, said))
        if said == "scheduled":
            made.append(mail.score * 1000)
        if said == "parked":
            made.append(1 << 60)
    _next(reply.next_us, made)


def _admitted(book: Ledger, consumer: str, mail: Mail, token: int, said: str) -> str:
    if mail.entry not in book.mails or mail.pel is None or mail.pel[0] != consumer:
        return "lost"
    if mail.place:  # a group that was made again re-reads its stream
        mail.pel, mail.late = None, False
        return "elsewhere"
    if mail.sent:
        book.end(mail, "email.relayed")
        return "done"
    if mail.kind == "dead":
        book.bury(mail, "email.rejected")
        return "dead"
    if mail.ident:
        owner, content = book.owner(mail.digest) or (mail.entry, b"")
        if owner == mail.entry:
            if not content:
                book.see(mail)
        elif (content or book.content_of(owner)) in {mail.ident[10:], b""}:
            book.end(mail, "email.duplicate")
            return "duplicate"
        else:
            book.bury(mail, "email.rejected")
            return "dead"
    mail.look = mail.expires
    asked = mail.intent or book.rule(mail)
    mail.intent = ""
    if asked:
        return _asked(book, mail, asked, mail.due or AT_ONCE)
    if mail.kind == "hold":
        _hold(book, mail, AT_ONCE)
        mail.needs = True
        return "held"
    if book.now_ms >= mail.deadline:
        book.bury(mail, "email.expired")
        return "expired"
    return _queued(book, consumer, mail, token, said)


def _queued(book: Ledger, consumer: str, mail: Mail, token: int, said: str) -> str:
    if mail.due > book.now_ms and not mail.outranked:
        book.put(mail, "scheduled", min(mail.due, mail.deadline))
        return "scheduled"
    ahead = any(book.parked(mail.lane, p) for p in range(mail.p + 1))
    lower = not ahead and any(book.parked(mail.lane, p) for p in range(mail.p + 1, len(PRIORITIES)))
    if said == "parked" and lower and not book.shared.get(mail.lane):  # the next slot may be a lower one's
        book.park(mail)
        return "parked"
    if not ahead and book.slot(mail.lane, said == "go"):
        book.shared[mail.lane] = False
        book.lease(mail, consumer, token)
        return "go"
    book.park(mail)
    return "parked"


def _hold(book: Ledger, mail: Mail, old_due: int) -> None:
    book.put(mail, "held", order(mail.entry)[0])
    mail.old_due = old_due
    book.event("email.held", mail.entry)


def _asked(book: Ledger, mail: Mail, verb: str, old_due: int = AT_ONCE) -> str:
    """What an operator wants of a mail that nobody has in hand."""
    mail.intent = ""
    if verb == "hold":
        _hold(book, mail, old_due)
        return "held"
    if verb == "bounce":
        book.bury(mail, "email.bounced")
        return "dead"
    book.unsee(mail)
    book.end(mail, "email.cancelled")
    return "cancelled"


# -- sift ------------------------------------------------------------------------------------------

DECIDING = {"tenant", "route", "send_at", "expires_at", "field"}  # fields that admission must see


def sift(book: Ledger, consumer: str, p: int, room: int, most: int, reply: Sifted) -> None:
    """Mails of closed lanes whose id is new park, all others are the consumer's; no slot is taken."""
    same("sift's clock", reply.now_us, book.now)
    route = book.routes[USUAL_ROUTE]
    shut = route.till > book.now
    same("sift's closed", reply.closed_us, route.till if shut else 0)
    taken = [entry for entry, _ in reply.taken]
    visited = parked = 0
    if not shut and not book.rereading(p):
        for mail in [mail for mail in book.stream(p) if order(mail.entry) > book.cursor[p]][:most]:
            if len([entry for entry in taken if order(entry) <= book.cursor[p]]) == room:
                break
            visited += 1
            book.cursor[p] = order(mail.entry)
            if _sifts(book, mail, mail.entry in taken):
                parked += 1
                book.park(mail)
                if mail.ident:
                    book.see(mail)
            else:
                same("sifted", mail.entry in taken, True)
                mail.pel, mail.late = (consumer, 1), False
    same("sift visited, parked, took", (reply.visited, reply.parked, len(taken)), (visited, parked, visited - parked))
    _next(reply.next_us, [1 << 60] * parked)


def _sifts(book: Ledger, mail: Mail, said: bool) -> bool:
    if DECIDING & set(mail.fields) or mail.intent or book.now_ms >= order(mail.entry)[0] + book.age_ms:
        return False
    names = {f"id:{mail.producer}", f"rule:domain:{mail.site}", "rule:all"}
    if names & set(book.rules) or (mail.ident and book.owner(mail.digest)):
        return False
    ahead = any(book.parked(mail.lane, p) for p in range(mail.p + 1))
    return ahead or not book.slots.is_open(mail.lane, book.now, said)


# -- settle ----------------------------------------------------------------------------------------


def settle(book: Ledger, consumer: str, ends: Sequence[End], reply: Settled) -> None:
    same("settle's clock", reply.now_us, book.now)
    made: list[int] = []
    for end, said in zip(ends, reply.statuses, strict=True):
        resumed = len(book.events)
        same(f"settle {end.op} {end.mail.entry} {end.token}", said, _settled(book, consumer, end))
        if ("route.resumed", end.mail.lane.partition("|")[0]) in book.events[resumed:]:
            made.append(book.now)
        if said == "ok" and end.mail.place == "scheduled":
            made.append(end.mail.score * 1000)
        if said == "ok" and end.mail.place == "parked":
            made.append(1 << 60)
    _next(reply.next_us, made)


def _settled(book: Ledger, consumer: str, end: End) -> str:
    mail = end.mail
    if not book.is_owner(consumer, mail.entry, end.token):
        if mail.deleted:
            book.forget(mail)
        elif end.op == "sent" and mail.entry in book.mails:
            mail.sent = True
            book.late += 1
        return "fenced"
    name = mail.lane.partition("|")[0]
    route = book.routes[name]
    if end.op in {"sent", "defer", "dead"} and route.down and end.token > route.mark:  # leased since: it was the probe
        route.down, route.till = False, 0
        for lane, p in book.waits:
            if lane.startswith(name + "|"):
                book.waits[lane, p] = min(book.waits[lane, p], book.now)
        book.event("route.resumed", name)
    if end.op == "park" and end.down and not mail.sent and not (route.down and route.till > book.now):
        if not route.down:
            book.event("route.paused", name)
            route.mark = NO_PROBE_YET
        route.down, route.till = True, book.now + 1
    if end.op == "gone":
        book.end(mail, "")
    elif end.op == "sent" or mail.sent:
        book.end(mail, "email.relayed")
    elif end.op == "dead":
        mail.attempts += 1
        book.bury(mail, "email.bounced")
    elif mail.intent and not (end.op == "hold" and mail.intent == "hold"):
        mail.attempts += end.op == "defer"
        said = _asked(book, mail, mail.intent)
        return "bounced" if said == "dead" else said
    else:
        return _put_back(book, mail, end)
    return "ok"


def _put_back(book: Ledger, mail: Mail, end: End) -> str:
    if end.op == "hold":
        mail.intent = ""  # to be held is what was asked for, too
        _hold(book, mail, AT_ONCE)
    elif end.op == "park":
        book.park(mail, end.wait_ms * 1000)
    elif book.now_ms >= mail.deadline:
        mail.attempts += 1
        book.bury(mail, "email.expired")
        return "expired"
    else:
        mail.attempts += 1
        book.put(mail, "scheduled", min(book.now_ms + end.wait_ms, mail.deadline))
        book.deferred += 1
        book.event("email.deferred", mail.entry)
    return "ok"


# -- leases ----------------------------------------------------------------------------------------


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


# -- indexes ---------------------------------------------------------------------------------------


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


def move(book: Ledger, verb: str, mails: Sequence[Mail], at_ms: int | None, reply: Moved) -> None:
    for mail, said in zip(mails, reply.statuses, strict=True):
        same(f"{verb} {mail.entry}", said, _moved(book, verb, mail, at_ms))


def _moved(book: Ledger, verb: str, mail: Mail, at_ms: int | None) -> str:
    if mail.entry not in book.mails or mail.deleted:
        return "missing"
    state = book.state(mail)
    if verb == "hold":
        if state in {"leased", "waiting"}:
            mail.intent = "hold"
            return "intended"
        if state != "held":
            _hold(book, mail, mail.score if state == "scheduled" else AT_ONCE)
        return "held"
    if verb == "unhold":
        mail.intent = ""
        if state != "held" or book.rereading(mail.p):
            return state
        mail.needs = False
        due = mail.old_due if at_ms is None else at_ms
        book.put(mail, "scheduled", due if due > book.now_ms else AT_ONCE)
        return "scheduled"
    if verb == "retry":
        if state == "scheduled":
            mail.score, mail.outranked = AT_ONCE, True
        return state
    return _ended(book, verb, mail, state)


def _ended(book: Ledger, verb: str, mail: Mail, state: str) -> str:
    if state == "leased":
        if verb != "expire":
            mail.intent = verb
        return "leased" if verb == "expire" else "intended"
    if mail.sent:
        book.end(mail, "email.relayed")
        return "relayed"
    if verb == "cancel":
        return _asked(book, mail, "cancel")
    said = "bounced" if verb == "bounce" else "expired"
    book.bury(mail, f"email.{said}")
    return said


def expire(book: Ledger, ended: int, said: set[str]) -> None:
    """Sweeps until one ends nothing: all that nobody has in hand and whose time is over. (What ends may be the
    last that a group had to read again.)"""
    over: list[Mail] = []
    while more := [mail for mail in book.mails.values() if _is_over(book, mail)]:
        for mail in more:
            if mail.sent and not mail.deleted:
                book.end(mail, "email.relayed")
            else:
                book.bury(mail, "email.expired")
        over += more
    by_book = {mail.entry for mail in over if not mail.deleted}
    differ = [mail for mail in [*over, *book.mails.values()] if mail.entry in said ^ by_book]
    assert said == by_book, f"expired {said}, by the book {by_book}: {differ}"
    same("expired, with what was deleted", ended, len(over))


def _is_over(book: Ledger, mail: Mail) -> bool:
    state = book.state(mail)
    old = order(mail.entry)[0] + book.age_ms <= book.now_ms
    if mail.look and mail.look <= book.now_ms and not mail.place:
        mail.look = book.now_ms + AGAIN_MS  # an attempt is under way: looked at again then
    if mail.place and mail.look:
        return mail.look <= book.now_ms
    if state == "waiting":
        return old and not book.rereading(mail.p) and "send_at" not in mail.fields
    return old and state in {"held", "parked"}

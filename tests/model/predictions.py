"""What admission, sifting and the end of an attempt must do to the book. (predicted_leases.py: the verbs of leases and
what takes mails back; predicted_moves.py: what operators and time do.) Written from DESIGN 3 and the scripts' headers,
not from their bodies.

Each takes what was asked and what the script answered, moves the book on, and raises AssertionError where the
answer is not what the book says. What a script may choose (rounding, which lane first) is taken from its answer
and judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from actors import USUAL_ROUTE
from ledger import AT_ONCE, PRIORITIES, Ledger, Mail, order
from sifting import Passed

from streamq.queue.rows import Admitted, Settled

__all__ = ["End", "admit", "asked", "hold", "same", "settle", "sift"]

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
    verb = mail.intent or book.rule(mail)
    mail.intent = ""
    if verb:
        return asked(book, mail, verb, mail.due or AT_ONCE)
    if mail.kind == "hold":
        hold(book, mail, AT_ONCE)
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


def hold(book: Ledger, mail: Mail, old_due: int) -> None:
    book.put(mail, "held", order(mail.entry)[0])
    mail.old_due = old_due
    book.event("email.held", mail.entry)


def asked(book: Ledger, mail: Mail, verb: str, old_due: int = AT_ONCE) -> str:
    """What an operator wants of a mail that nobody has in hand."""
    mail.intent = ""
    if verb == "hold":
        hold(book, mail, old_due)
        return "held"
    if verb == "bounce":
        book.bury(mail, "email.bounced")
        return "dead"
    book.unsee(mail)
    book.end(mail, "email.cancelled")
    return "cancelled"


# -- sift ------------------------------------------------------------------------------------------

DECIDING = {"tenant", "route", "send_at", "expires_at", "field"}  # fields that admission must see


def sift(book: Ledger, consumer: str, p: int, room: int, most: int, reply: Passed) -> None:
    """Mails of closed lanes whose id is new park, all others are the consumer's; no slot is taken."""
    same("sift's clock", reply.said.now_us, book.now)
    route = book.routes[USUAL_ROUTE]
    shut = route.till > book.now
    same("sift's closed", reply.said.closed_us, route.till if shut else 0)
    taken = [entry for entry, _ in reply.taken]
    visited = parked = 0
    if not shut and not book.rereading(p):
        for mail in [mail for mail in book.stream(p) if order(mail.entry) > book.cursor[p]][:most]:
            if visited == reply.visited and len(taken) == room:
                same("sift stopped", _sifts(book, mail, said=True), False)
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
    _next(reply.said.next_us, [1 << 60] * parked)


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
        said = asked(book, mail, mail.intent)
        return "bounced" if said == "dead" else said
    else:
        return _put_back(book, mail, end)
    return "ok"


def _put_back(book: Ledger, mail: Mail, end: End) -> str:
    if end.op == "hold":
        mail.intent = ""  # to be held is what was asked for, too
        hold(book, mail, AT_ONCE)
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

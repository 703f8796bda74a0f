"""What operators and the end of a mail's time must do to the book (see predictions.py)."""

from __future__ import annotations

from collections.abc import Sequence

from ledger import AT_ONCE, Ledger, Mail, order
from predictions import asked, hold, same

from streamq.queue.rows import Moved

__all__ = ["expire", "move"]

AGAIN_MS = 10_000


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
            hold(book, mail, mail.score if state == "scheduled" else AT_ONCE)
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
        return asked(book, mail, "cancel")
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

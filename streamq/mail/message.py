"""The two ways to give a message, `raw` and composed, each with its envelope.

In each: first every given field's rule, then what is missing.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from streamq.errors import MalformedMail
from streamq.mail import rules
from streamq.mail.address import Address, WrongAddress
from streamq.mail.attachments import read_attachments
from streamq.mail.compose import Composed
from streamq.mail.custom import Headers, custom_headers
from streamq.mail.headers import text_field
from streamq.mail.mail import Source
from streamq.mail.plain import text_of
from streamq.mail.raw import RawHead
from streamq.mail.rules import MAX_HEADER, MAX_MAILBOX, Given
from streamq.mail.stamp import boundary, date, message_id
from streamq.mail.values import wrong

__all__ = ["COMPOSING", "Message", "read_message"]

COMPOSING = (
    *(b"from", b"sender", b"reply_to", b"to", b"cc", b"bcc", b"subject"),
    *(b"text", b"html", b"auto_text", b"headers", b"attachments", b"template", b"vars"),
)
MAX_RAW = 131_072  # octets of the addresses in its header
NO_DOMAIN = "localhost"  # of the Message-ID of a mail that names no sender


class Message(NamedTuple):
    """A message and its envelope; `message_id` is what its header says, "" for nothing sensible. `to` may name a
    mailbox twice."""

    envelope_from: str
    to: tuple[Address, ...]
    source: Source
    message_id: str


def read_message(given: Given, *, entry: str, at_ms: int, salt: bytes) -> Message:
    """Raises MalformedMail."""
    if b"raw" in given:
        return _raw(given, entry, at_ms, salt)
    return _composed(given, entry, at_ms, salt)


def _return_path(given: Given) -> str | None:
    """`envelope_from`: "" for the null sender, None where it is unset."""
    if given.get(b"envelope_from") == b"<>":
        return ""
    found = rules.mailbox(given, b"envelope_from")
    return found.spec if found else None


def _raw(given: Given, entry: str, at_ms: int, salt: bytes) -> Message:
    raw = given[b"raw"]
    if not given.keys().isdisjoint(COMPOSING):
        extra = next(field for field in COMPOSING if field in given)
        raise wrong(extra, given[extra], "may not stand beside raw, which is the whole message")
    return_path = _return_path(given)
    recipients: tuple[Address, ...] = rules.mailboxes(given, b"envelope_to")
    try:
        head = RawHead(raw)
        if not recipients:
            recipients = tuple(head.recipients(limit=MAX_RAW))
    except ValueError as broken:
        raise wrong(b"raw", broken.shown if isinstance(broken, WrongAddress) else raw, str(broken)) from None
    prefix = head.prefix.decode().title()
    if not recipients:
        raise wrong(b"raw", raw, f"no recipient in {prefix}To, {prefix}Cc or {prefix}Bcc, and no envelope_to")
    author = None
    stamped = head.message_id
    if return_path is None or stamped is None:
        author = head.author(limit=MAX_MAILBOX)
    if return_path is None:
        if author is None:
            raise wrong(b"raw", raw, f"no single address in {prefix}From or {prefix}Sender, and no envelope_from")
        return_path = author.spec
    missing_id = ""
    if stamped is None:
        domain = author.domain if author else return_path.rpartition("@")[2] or NO_DOMAIN
        stamped = missing_id = message_id(salt, entry, domain)
    source = head.message(date="" if head.has_date else date(at_ms), message_id=missing_id)
    return Message(return_path, recipients, source, stamped)


def _custom(given: Given) -> tuple[Headers, dict[str, str]]:
    if b"headers" not in given:
        return [], {}
    if len(given[b"headers"]) > MAX_HEADER:
        raise wrong(b"headers", given[b"headers"], f"longer than {MAX_HEADER} bytes")
    return custom_headers(given[b"headers"])


def _composed(given: Given, entry: str, at_ms: int, salt: bytes) -> Message:
    author = rules.mailbox(given, b"from")
    sender = rules.mailbox(given, b"sender")
    reply_to = rules.mailboxes(given, b"reply_to")
    to = rules.mailboxes(given, b"to")
    cc = rules.mailboxes(given, b"cc")
    bcc = rules.mailboxes(given, b"bcc")
    subject = rules.header_line(given, b"subject")
    for field, name, found in ((b"reply_to", "Reply-To", reply_to), (b"to", "To", to), (b"cc", "Cc", cc)):
        rules.fits(given, field, partial(found.field, name))
    rules.fits(given, b"subject", partial(text_field, "Subject", subject))
    text = rules.body(given, b"text")
    html = rules.body(given, b"html")
    auto_text = rules.flag(given, b"auto_text", default=True)
    headers, overrides = _custom(given)
    attachments = read_attachments(given[b"attachments"]) if b"attachments" in given else ()
    return_path = _return_path(given)
    envelope_to = rules.mailboxes(given, b"envelope_to")
    recipients = envelope_to or (*to, *cc, *bcc)
    if author is None:
        raise _missing("from", "a composed mail needs it (or give raw)")
    if not recipients:
        raise _missing("to", "no recipient here nor in cc, bcc, envelope_to, recipients")
    if not (subject or text or html or attachments):
        raise _missing("text", "nothing to send: no text, html, subject, attachments or raw")
    if auto_text and html and not text:
        text = text_of(html)
    stamped = overrides.get("message-id") or message_id(salt, entry, author.domain)
    source = Composed(
        author=author,
        sender=sender,
        reply_to=reply_to,
        to=to,
        cc=cc,
        subject=subject,
        date=overrides.get("date") or date(at_ms),
        message_id=stamped,
        headers=headers,
        text=text,
        html=html,
        attachments=attachments,
        boundary=boundary(salt, entry) if attachments or (text and html) else "",
    )
    return Message(author.spec if return_path is None else return_path, recipients, source, stamped)


def _missing(field: str, why: str) -> MalformedMail:
    return wrong(field, "", why)

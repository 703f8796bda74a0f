"""A mail on its way into the queue: what a program says, checked by the rules that the worker has.

It is made of fields that are bytes from the start, because the `id` stands for exactly these bytes: what was checked
is what is sent, and what is sent again after a lost reply, whatever became of the caller's lists meanwhile.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypedDict, Unpack
from uuid import uuid4

from streamq.client.encode import ENCODERS, Attachment, Mailbox, Mailboxes, Recipient, text
from streamq.errors import MalformedMail, UnknownFields, UnknownTemplate, UnsupportedFields
from streamq.mail.fields import parse
from streamq.mail.values import wrong

if TYPE_CHECKING:
    from email.message import Message

__all__ = ["Mail"]

NEEDS_JINJA = ("template",)  # which a worker has installed, and a producer needs not
Moment: TypeAlias = datetime | int | float | str  # with an offset; Unix seconds or ms; RFC 3339
Span: TypeAlias = timedelta | int | float  # seconds


class Options(TypedDict, total=False):
    """What goes with any message."""

    id: str  # ≤ 256 bytes; made where it is absent
    priority: str  # high, normal (the default), low
    route: str
    send_at: Moment
    delay: Span
    expires_at: Moment
    ttl: Span
    collapse_key: str
    collapse_seconds: Span
    on_ambiguous: Literal["resend", "hold", "assume_delivered"]
    sensitive: bool
    tags: Iterable[str]
    metadata: Mapping[str, object]
    tenant: str
    traceparent: str
    dsn_notify: Iterable[str]  # never, or success, failure, delay
    dsn_ret: Literal["full", "hdrs"]
    dsn_envid: str
    dsn_orcpt: str
    require_tls: bool
    recipients: Iterable[Recipient]  # each gets a mail of its own; instead of to, cc, bcc, envelope_to
    extra: Mapping[str, str | bytes]  # fields as they are: yours (`x_…`), or a later version's


class Fields(Options, total=False):
    """What a composed mail may have."""

    from_: Mailbox
    sender: Mailbox
    to: Mailboxes
    cc: Mailboxes
    bcc: Mailboxes
    reply_to: Mailboxes
    subject: str
    text: str
    html: str
    auto_text: bool  # a text part made of html that has none: unless False
    headers: Mapping[str, str | Sequence[str]]
    attachments: Iterable[Attachment]
    envelope_from: Mailbox  # `<>` is the null sender
    envelope_to: Mailboxes
    template: str
    vars: Mapping[str, object]


class Mail:
    """One XADD to be: immutable, to be sent as often as it takes.

        Mail(id="order-18-receipt", from_="Shop <shop@example.com>", to="bob@example.net", subject="Yours", text="…")

    The keywords are the fields of docs/wire-protocol.md by their names (`from_` is `from`), and `priority`. Without an
    `id` one is made here, so that sending this object again is never a second mail; an `id` that your program can
    make again (the order and what the mail is about) keeps that promise through a crash of yours, too.

    Raises `MalformedMail` with what the worker would say: the field, the rule, the value. `held` says for what a
    worker of this version would hold the mail ("" for nothing): a field that it does not know or cannot do yet is no
    error, because the workers may be newer than the producer.
    """

    __slots__ = ("_fields", "held", "priority")

    held: str
    priority: str

    def __init__(self, **given: Unpack[Fields]) -> None:
        self._make(given)

    @classmethod
    def raw(
        cls,
        message: bytes,
        envelope_from: Mailbox | None = None,
        envelope_to: Mailboxes | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """A whole RFC 5322 message, any bytes but NUL. Without an envelope its From (or Sender) and its To, Cc and Bcc
        are asked; the worker drops Bcc."""
        given: dict[str, Any] = {"raw": message, **options}
        if envelope_from is not None:
            given["envelope_from"] = envelope_from
        if envelope_to is not None:
            given["envelope_to"] = envelope_to
        return cls._of(given)

    @classmethod
    def from_message(cls, message: Message, **options: Unpack[Options]) -> Self:
        """A message of the standard library, as `smtplib.SMTP.send_message` would send it: to whom To, Cc and Bcc name
        (Resent-To, … where it is resent), without Bcc. `streamq.client.message` has the details.

        The same message made anew is other bytes (its boundaries are random, its Date may be): keep the `Mail` that is
        to be sent again, or set Date, Message-ID and boundaries yourself, else its `id` is an `id_conflict`.
        """
        from streamq.client.message import taken_apart

        content, envelope_from, envelope_to = taken_apart(message)
        return cls.raw(content, envelope_from, envelope_to, **options)

    @classmethod
    def from_fields(cls, fields: Mapping[str, str | bytes], priority: str = "normal") -> Self:
        """The fields as they stand on the wire: lists and maps as JSON, times as text."""
        return cls._of({"priority": priority, "extra": fields})

    @classmethod
    def _of(cls, given: Mapping[str, Any]) -> Self:
        made = cls.__new__(cls)
        made._make(given)
        return made

    def _make(self, given: Mapping[str, Any]) -> None:
        self.priority = given.get("priority", "normal")
        try:
            fields = _encoded(given)
        except MalformedMail as found:
            if found.value and given.get("sensitive"):  # as `parse`: the reason must not say what nothing is to hold
                raise MalformedMail(found.field, "", found.why) from None
            raise
        fields.setdefault(b"id", str(uuid4()).encode())
        self._fields = fields
        self.held = check(fields, max_bytes=sys.maxsize)

    @property
    def id(self) -> str:
        return self._fields[b"id"].decode()

    @property
    def fields(self) -> Mapping[bytes, bytes]:
        """What is sent."""
        return MappingProxyType(self._fields)

    @property
    def size(self) -> int:
        """Octets of names and values."""
        return sum(len(name) + len(value) for name, value in self._fields.items())

    def __repr__(self) -> str:
        """Without what it says and to whom: reprs end in logs."""
        return f"<Mail {self.id!r}, {self.priority}, {self.size} bytes>"


def _encoded(given: Mapping[str, Any]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for keyword, value in given.items():
        if keyword in {"priority", "extra"} or value is None:
            continue
        name = "from" if keyword == "from_" else keyword
        if name not in ENCODERS or keyword == "from":
            raise TypeError(f"a mail has no {keyword!r} (a field that is none of its keywords goes into extra)")
        if made := ENCODERS[name](name, value):
            fields[name.encode()] = made
    for name, value in (given.get("extra") or {}).items():
        field = name.encode("utf-8", "backslashreplace")
        made = value if isinstance(value, bytes) else text(name, value)
        if field in fields:
            raise wrong(field, made, "given twice")
        if made:
            fields[field] = made
    return fields


def check(fields: Mapping[bytes, bytes], *, max_bytes: int) -> str:
    """What a worker of this version would hold it for, or "". Raises `MalformedMail`."""
    at_ms = time.time_ns() // 1_000_000  # stands for the entry's time: what is a year ahead of now is one then
    try:
        parse(fields, entry=f"0{at_ms}-0", at_ms=at_ms, salt=b"", max_bytes=max_bytes)
    except UnknownTemplate:  # all else is right; which templates are stored is the worker's to know
        return ""
    except (UnknownFields, UnsupportedFields) as later:
        return "" if later.fields == NEEDS_JINJA else str(later)
    return ""

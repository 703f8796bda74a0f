"""What the rest of the program knows of a mail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from streamq.mail.dsn import Dsn
from streamq.mail.several import Child

__all__ = ["Built", "Mail", "Several", "Source"]


class Source(Protocol):
    """Where a mail's bytes come from. `size` is octets, at least half and at most twice what they are."""

    @property
    def size(self) -> int: ...
    @property
    def eight_bit(self) -> bool: ...
    @property
    def smtputf8(self) -> bool: ...
    def content(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Built:
    """A message that was composed, without what it was composed of."""

    made: bytes
    eight_bit: bool
    smtputf8: bool

    @property
    def size(self) -> int:
        return len(self.made)

    def content(self) -> bytes:
        return self.made


@dataclass(frozen=True, slots=True)
class Several:
    """Of a mail that becomes several: one child each, and what they share. `personal`: each has its own message;
    `weight`: octets that all of it takes in memory."""

    children: Sequence[Child]
    fields: dict[bytes, bytes]
    personal: bool
    weight: int = 0


@dataclass(slots=True, kw_only=True, eq=False)  # frozen would be right, and costs 1.5 µs of 15
class Mail:
    """The checked fields of one entry: one message for one recipient; or, with `several`, what will become that.

    `envelope_from` is "" for the null sender. Addresses carry A-label domains. `site` is the recipient's
    domain in lower case, or its address literal as it stands. Moments are Unix ms; `send_at_ms` is None for
    a moment that has passed. `digest` is 10 bytes of the idempotency key (tenant, id), without an `id` None, or of its
    place where it is a child;
    `content_hash` is 4 bytes over all fields but `id` and `traceparent`, b"" without an `id`. `event` is
    what the mail gives to the `data` of each of its events: JSON members without the outer braces. `size` is
    octets: exact for `raw`, about right for a composed mail. `eight_bit`: the content holds bytes above 127;
    `smtputf8`: an address needs RFC 6531. `dsn`: the reports that it asks of the next hop; `require_tls`: only over
    verified TLS, from there on too. `bounce_to`: the return path where the producer gave one, "" else: who is told
    when the mail cannot be delivered. Of mails with the same `collapse` ("" for none) the newest is sent, `collapse_ms`
    after the first.
    """

    id: str | None
    envelope_from: str
    envelope_to: str
    site: str
    route: str | None
    tenant: str | None
    send_at_ms: int | None
    expires_at_ms: int | None
    on_ambiguous: str | None
    sensitive: bool
    eight_bit: bool
    smtputf8: bool
    digest: bytes | None
    content_hash: bytes
    event: bytes
    size: int
    source: Source
    dsn: Dsn | None = None
    require_tls: bool = False
    bounce_to: str = ""
    several: Several | None = None
    collapse: str = ""
    collapse_ms: int = 0

    def content(self) -> bytes:
        """The whole RFC 5322 message: CRLF line ends, the last one too; not dot-stuffed; the same bytes at
        every call and every attempt. Cannot fail: what could be wrong was found by `parse`."""
        return self.source.content()

    def built(self) -> bytes:
        """`content`, for good: what it was made of (five thousand addresses are ten times their octets) goes."""
        made = self.source.content()
        self.source = Built(made, self.source.eight_bit, self.source.smtputf8)
        return made

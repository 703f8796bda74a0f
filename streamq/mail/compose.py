"""A mail from its fields to RFC 5322 bytes: 7-bit on the wire, the same bytes every time.

The standard library builds 500 such mails a second (`policy.SMTP`), so it is the tests' reader, not our
writer (`python -m bench compose` has the ratio). Parts are bytes from the entry on and are decoded by nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamq.mail.address import Address
from streamq.mail.attachments import Attachment
from streamq.mail.custom import Headers
from streamq.mail.headers import about, address_field, text_field
from streamq.mail.mailboxes import Mailboxes, octets_of
from streamq.mail.mime import body
from streamq.mail.parameters import filename
from streamq.mail.wire import size_with_crlf

__all__ = ["Composed"]

HEAD_SIZE = 400  # octets of the fields that every mail has, roughly
PART_SIZE = 200  # the same of an attachment


@dataclass(slots=True, kw_only=True, eq=False)
class Composed:
    """Checked fields: no header value holds CR, LF or NUL, every list has a member or is empty.

    `text` and `html` are UTF-8 with any line ends, b"" for none; `boundary` is used when there are several parts.
    """

    author: Address
    sender: Address | None
    reply_to: Mailboxes
    to: Mailboxes
    cc: Mailboxes
    subject: str
    date: str
    message_id: str
    headers: Headers
    text: bytes
    html: bytes
    attachments: tuple[Attachment, ...] = ()
    boundary: str

    @property
    def smtputf8(self) -> bool:
        """A header holds UTF-8 (RFC 6532): an address's local part can't be written otherwise."""
        plain = self.author.local.isascii() and (self.sender is None or self.sender.local.isascii())
        if not (plain and self.to.are_ascii and self.cc.are_ascii and self.reply_to.are_ascii):
            return True
        return not all(
            each.local.isascii() for _, value in self.headers if not isinstance(value, str) for each in value
        )

    @property
    def eight_bit(self) -> bool:
        return self.smtputf8

    @property
    def size(self) -> int:
        """Octets, within a factor of two; to know it better is to build it."""
        size = HEAD_SIZE + about(self.subject)
        for part in (self.text, self.html):
            # Each line end becomes two octets, whichever it is. What is encoded is a third longer; lines of one blank
            # each, two thirds: that blank is coded, and no others of which `transfer` knows.
            lines = size_with_crlf(part)
            size += lines if part.isascii() else lines * 4 // 3
        for each in self.attachments:
            size += PART_SIZE + len(each.data) * 39 // 38 + sum(map(len, (*each.media_type, *filename(each.filename))))
        size += self.to.octets + self.cc.octets + self.reply_to.octets
        size += octets_of((self.author, self.sender) if self.sender else (self.author,))
        for name, value in self.headers:
            size += 4 + len(name) + (about(value) if isinstance(value, str) else octets_of(value))
        return size

    def content(self) -> bytes:
        """The whole message, ending with CRLF."""
        return b"".join([self.head(), *self.body()])

    def head(self) -> bytes:
        """The fields that are each recipient's own, or could be, up to the body's."""
        return "".join([line + "\r\n" for line in self._head()]).encode()

    def body(self) -> list[bytes]:
        """From Content-Type to the end, in pieces: the same for every recipient of one entry."""
        return body(self.text, self.html, self.attachments, self.boundary)

    def _head(self) -> list[str]:
        lines = [address_field("From", (self.author,))]
        if self.sender:
            lines.append(address_field("Sender", (self.sender,)))
        for name, addresses in (("Reply-To", self.reply_to), ("To", self.to), ("Cc", self.cc)):
            if addresses:
                lines.append(addresses.field(name))
        if self.subject:
            lines.append(text_field("Subject", self.subject))
        lines += (f"Date: {self.date}", f"Message-ID: {self.message_id}", "MIME-Version: 1.0")
        lines += [
            text_field(name, value) if isinstance(value, str) else address_field(name, value)
            for name, value in self.headers
        ]
        return lines

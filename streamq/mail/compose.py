"""A mail from its fields to RFC 5322 bytes: 7-bit on the wire, the same bytes every time.

The standard library builds 500 such mails a second (`policy.SMTP`), so it is the tests' reader, not our
writer. Parts are bytes from the entry on and are decoded by nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamq.mail.address import Address
from streamq.mail.headers import address_field, text_field
from streamq.mail.wire import crlf, transfer

__all__ = ["Composed"]

HEAD_SIZE = 400  # octets of the fields that every mail has, roughly


@dataclass(slots=True, kw_only=True, eq=False)
class Composed:
    """Checked fields: no header value holds CR, LF or NUL, every list has a member or is empty.

    `text` and `html` are UTF-8 with any line ends, b"" for none; `boundary` is used when there are both.
    """

    author: Address
    sender: Address | None
    reply_to: tuple[Address, ...]
    to: tuple[Address, ...]
    cc: tuple[Address, ...] = ()
    subject: str
    date: str
    message_id: str
    headers: list[tuple[str, str]]
    text: bytes
    html: bytes
    boundary: str

    @property
    def smtputf8(self) -> bool:
        """A header holds UTF-8 (RFC 6532): an address's local part can't be written otherwise."""
        return not all(address.local.isascii() for address in self._everyone())

    @property
    def eight_bit(self) -> bool:
        return self.smtputf8

    @property
    def size(self) -> int:
        """Octets, within a factor of two; to know it better is to build it."""
        size = HEAD_SIZE + _about(self.subject)
        for part in (self.text, self.html):
            size += len(part) if part.isascii() else len(part) * 4 // 3
        for address in self._everyone():
            size += _about(address.name) + len(address.local) + len(address.domain)
        return size + sum(len(name) + _about(value) for name, value in self.headers)

    def _everyone(self) -> tuple[Address, ...]:
        sender = (self.sender,) if self.sender else ()
        return (self.author, *sender, *self.reply_to, *self.to, *self.cc)

    def content(self) -> bytes:
        """The whole message, ending with CRLF."""
        return "".join([line + "\r\n" for line in self._head()]).encode() + self._body()

    def _head(self) -> list[str]:
        lines = [address_field("From", (self.author,))]
        if self.sender:
            lines.append(address_field("Sender", (self.sender,)))
        if self.reply_to:
            lines.append(address_field("Reply-To", self.reply_to))
        if self.to:
            lines.append(address_field("To", self.to))
        if self.cc:
            lines.append(address_field("Cc", self.cc))
        if self.subject:
            lines.append(text_field("Subject", self.subject))
        lines += (f"Date: {self.date}", f"Message-ID: {self.message_id}", "MIME-Version: 1.0")
        lines += [text_field(name, value) for name, value in self.headers]
        return lines

    def _body(self) -> bytes:
        if self.text and self.html:
            bound = self.boundary.encode()
            return b"".join(
                (
                    b'Content-Type: multipart/alternative; boundary="',
                    bound,
                    b'"\r\n\r\n--',
                    bound,
                    b"\r\n",
                    _part(b"plain", self.text),
                    b"\r\n--",
                    bound,
                    b"\r\n",
                    _part(b"html", self.html),
                    b"\r\n--",
                    bound,
                    b"--\r\n",
                )
            )
        part = _part(b"html", self.html) if self.html else _part(b"plain", self.text)
        return part if part.endswith(b"\r\n") else part + b"\r\n"


def _part(kind: bytes, data: bytes) -> bytes:
    """One text part with its head. Always UTF-8: a charset that follows the content is one more way for two
    mails of a series to look unlike."""
    encoding, body = transfer(crlf(data))
    return b"Content-Type: text/%b; charset=utf-8\r\nContent-Transfer-Encoding: %b\r\n\r\n%b" % (
        kind,
        encoding.encode("ascii"),
        body,
    )


def _about(value: str) -> int:
    """Octets of a text in a header: four octets and a third of a character, and the encoded words' frames."""
    return len(value) if value.isascii() else 6 * len(value)

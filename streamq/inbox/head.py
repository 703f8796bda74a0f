"""What a list shows of a mail: read from the header alone, which costs a fraction of the whole."""

from __future__ import annotations

from email.utils import getaddresses
from typing import NamedTuple

from streamq.inbox.words import header_text, sure

__all__ = ["MOST_HEAD", "Head", "Mailbox", "fields_of", "head_end", "head_of"]

MOST_HEAD = 1_048_576  # bytes; as a mail's `raw` may have
MOST_FIELDS = 1000
MOST_NAMES = 50  # of From, To, Cc
TEXT_OVERHEAD = 80  # bytes of a text beside its characters
MOST_TEXT = 500  # characters of a subject or a name


class Mailbox(NamedTuple):
    name: str
    address: str


class Head(NamedTuple):
    subject: str
    from_: tuple[Mailbox, ...]
    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    message_id: str
    date: str  # as it stands there

    @property
    def weight(self) -> int:
        """Bytes of memory, about."""
        people = [text for each in (*self.from_, *self.to, *self.cc) for text in each]
        return 500 + sum(TEXT_OVERHEAD + 2 * len(text) for text in (self.subject, self.message_id, self.date, *people))


def head_end(content: bytes) -> int:
    """Where the header ends; at most `MOST_HEAD`."""
    if content.startswith((b"\r\n", b"\n")):
        return 0
    ends = (content.find(end, 0, MOST_HEAD) for end in (b"\r\n\r\n", b"\n\n"))
    return min((at for at in ends if at >= 0), default=min(len(content), MOST_HEAD))


def fields_of(content: bytes) -> list[tuple[str, bytes]]:
    """Names and values, folded as they came; the first `MOST_FIELDS`. A line that is no field is left out."""
    found: list[tuple[str, list[bytes]]] = []
    for line in content[: head_end(content)].split(b"\n"):
        line = line.removesuffix(b"\r")
        if line[:1] in {b" ", b"\t"} and found:
            found[-1][1].append(line)
            continue
        name, colon, value = line.partition(b":")
        if len(found) == MOST_FIELDS:
            break
        if colon and name:
            found.append((name.decode("ascii", "replace").strip(), [value]))
    return [(name, b"\n".join(lines).strip(b" \t")) for name, lines in found]


def head_of(content: bytes) -> Head:
    first: dict[str, bytes] = {}
    for name, value in fields_of(content):
        first.setdefault(name.lower(), value)
    return Head(
        subject=header_text(first.get("subject", b""))[:MOST_TEXT],
        from_=_mailboxes(first.get("from", b"")),
        to=_mailboxes(first.get("to", b"")),
        cc=_mailboxes(first.get("cc", b"")),
        message_id=header_text(first.get("message-id", b""))[:MOST_TEXT],
        date=header_text(first.get("date", b""))[:MOST_TEXT],
    )


def _mailboxes(value: bytes) -> tuple[Mailbox, ...]:
    """Addresses are read before encoded words are: a decoded comma divides nothing (RFC 2047, section 6.2)."""
    text = value[:10_000].decode("utf-8", "replace").replace("\r", "").replace("\n", "")
    pairs: list[tuple[str, str]] = sure(lambda: getaddresses([text]), [])
    found = tuple(
        Mailbox(header_text(name)[:MOST_TEXT], address[:MOST_TEXT]) for name, address in pairs[:MOST_NAMES] if address
    )
    return found or ((Mailbox(header_text(value)[:MOST_TEXT], ""),) if text.strip() else ())

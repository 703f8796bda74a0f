"""A mail read whole: header, text, html, attachments. By the standard library's `email`, in a thread of the caller's.

Mails that would keep that parser busy for minutes, or fill the memory with parts, are not given to it: their header and
their first lines are shown, and the note says why. Their source can be had all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesParser
from email.policy import Compat32
from html import unescape
from typing import Any, NamedTuple

from streamq.inbox.head import MOST_HEAD, fields_of, head_end
from streamq.inbox.words import decoded, header_text, sure, text_of_bytes

__all__ = ["Letter", "Part", "read_letter"]

MOST_LINES = 2_000_000  # 50 MB of base64 have 650,000
MOST_PARTS = 10_000
MOST_LABOUR = 20_000_000  # lines times multiparts: each line is held against each boundary around it
MOST_FIELD = 10_000  # characters of a field that says what a part is
SHOWN_PARTS = 1000
SHOWN_UNREAD = 100_000  # bytes of what was not parsed
MOST_BODY = 5_000_000  # characters of a text or an html
MOST_LINKS = 200
LINKS_IN = 200_000  # characters in which they are looked for
HREF = re.compile(
    r"""href[ \t\r\n]{0,9}=[ \t\r\n]{0,9}(?:"([^"<>]{1,2000})"|'([^'<>]{1,2000})'|([^\s"'<>]{1,2000}))""", re.I
)
URL = re.compile(r"""https?://[^\s<>"']{1,2000}""")
MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,60}/[a-z0-9][a-z0-9!#$&^_.+-]{0,80}")


class Part(NamedTuple):
    """A leaf of the mail that is neither its text nor its html; a message in it is one leaf."""

    number: int  # from 0, in the order of the mail
    content_type: str
    filename: str  # as it says; "" where it says none
    content_id: str  # without < and >
    inline: bool
    data: bytes


class Letter(NamedTuple):
    headers: tuple[tuple[str, str], ...]  # decoded
    text: str
    html: str
    parts: tuple[Part, ...]
    parts_left: int  # that are beyond what is shown
    links: tuple[str, ...]
    note: str  # what could not be read, and why


class _Policy(Compat32):
    """Octets beyond ASCII in a header are UTF-8 (RFC 6532), not `unknown-8bit`; and a field has an end: reading its
    parameters takes time by the square of their length."""

    def header_fetch_parse(self, name: str, value: str) -> Any:
        return text_of_bytes(value[:MOST_FIELD].encode("ascii", "surrogateescape"))


PARSER = BytesParser(policy=_Policy())


def read_letter(content: bytes) -> Letter:
    """Raises nothing."""
    headers = tuple((name, header_text(value)) for name, value in fields_of(content))
    note = _too_much(content)
    message = None if note else sure(lambda: PARSER.parsebytes(content), None)
    if message is None:
        body = text_of_bytes(content[head_end(content) :][:SHOWN_UNREAD]).strip("\r\n")
        return Letter(headers, body, "", (), 0, (), note or "not read: its parts are nested too deeply")
    return _sorted(headers, message)


def _too_much(content: bytes) -> str:
    """Why the parser must not have it; "": it may."""
    if head_end(content) >= MOST_HEAD:
        return f"not read: its header has more than {MOST_HEAD:,} bytes"
    lines = content.count(b"\n")
    if lines > MOST_LINES:
        return f"not read: it has more than {MOST_LINES:,} lines"
    if content.count(b"\n--") > MOST_PARTS:
        return f"not read: it has more than {MOST_PARTS:,} parts"
    small = content.lower()
    levels = small.count(b"multipart/") + small.count(b"message/rfc822")
    if levels > 20 and levels * lines > MOST_LABOUR:
        return "not read: it has too many multiparts for its length"
    return ""


def _sorted(headers: tuple[tuple[str, str], ...], message: Message) -> Letter:
    text: str | None = None
    html: str | None = None
    parts: list[Part] = []
    left = 0
    for leaf in _leaves(message):
        kind = sure(leaf.get_content_type, "application/octet-stream")
        attached = sure(leaf.get_content_disposition, None) == "attachment"
        if kind == "text/plain" and text is None and not attached:
            text = _body(leaf)
        elif kind == "text/html" and html is None and not attached:
            html = _body(leaf)
        elif len(parts) < SHOWN_PARTS:
            parts.append(_part(len(parts), kind, leaf))
        else:
            left += 1
    note = f"{left:,} more parts are not shown" if left else ""
    return Letter(headers, text or "", html or "", tuple(parts), left, _links(html or "", text or ""), note)


def _leaves(message: Message) -> Iterator[Message]:
    """In their order, without recursion."""
    stack = [message]
    while stack:
        part = stack.pop()
        inner = part.get_payload()
        if part.get_content_maintype() == "multipart" and isinstance(inner, list):
            stack.extend(each for each in reversed(inner) if isinstance(each, Message))
        else:
            yield part


def _body(leaf: Message) -> str:
    text = decoded(_octets(leaf), sure(leaf.get_content_charset, None))
    return text[:MOST_BODY].replace("\r\n", "\n")


def _part(number: int, kind: str, leaf: Message) -> Part:
    return Part(
        number,
        kind if MEDIA_TYPE.fullmatch(kind) else "application/octet-stream",
        header_text(sure(leaf.get_filename, None) or ""),
        header_text(str(sure(lambda: leaf.get("Content-ID"), None) or "")).strip("<> "),
        sure(leaf.get_content_disposition, None) != "attachment",
        _octets(leaf),
    )


def _octets(leaf: Message) -> bytes:
    """Decoded; of a message within the mail its source."""
    inner = leaf.get_payload()
    if isinstance(inner, list):
        return b"\n".join(sure(each.as_bytes, b"") for each in inner if isinstance(each, Message))
    found = sure(lambda: leaf.get_payload(decode=True), None)
    return found if isinstance(found, bytes) else b""


def _links(html: str, text: str) -> tuple[str, ...]:
    """Of html what `href` says, of a text what looks like one; in their order, each once."""
    found: dict[str, None] = {}
    for match in HREF.finditer(html[:LINKS_IN]):
        url = unescape(match[1] or match[2] or match[3]).strip()
        if url.lower().startswith(("http://", "https://", "mailto:")):
            found.setdefault(url)
    for match in URL.finditer(text[:LINKS_IN]):
        found.setdefault(match[0].rstrip(".,;:!?)]"))
    return tuple(found)[:MOST_LINKS]

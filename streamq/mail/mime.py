"""The body of a composed mail: its text, its html, inline images and attachments, as MIME parts.

    mixed                       where anything is attached
    ├── alternative             where there are both texts
    │   ├── text/plain
    │   └── related             where the html has inline parts (RFC 2387): `cid:` finds them beside it
    │       ├── text/html
    │       └── image/png …
    └── application/pdf …

The nesting is the one that Gmail, Outlook and Apple Mail write themselves and show right: related inside of
alternative (a reader of plain text gets no images as attachments), both inside of mixed.
"""

from __future__ import annotations

from streamq.mail.attachments import Attachment
from streamq.mail.headers import parameter_field
from streamq.mail.parameters import filename
from streamq.mail.wire import base64_lines, crlf, transfer

__all__ = ["body"]

Pieces = list[bytes]  # of an entity: fields, an empty line, content; without a last CRLF of its own


def body(text: bytes, html: bytes, attachments: tuple[Attachment, ...], boundary: str) -> Pieces:
    """From the field Content-Type to the last CRLF; 7-bit; in pieces, to be copied once.

    `text` and `html` are UTF-8 with any line ends, b"" for none; without both and attachments it is an empty
    text. `boundary` is used where there are several parts, lengthened where one of them has it.
    """
    if not attachments and not (text and html):
        return _ended(_text(b"html", html) if html else _text(b"plain", text))
    mark = _free(boundary.encode("ascii"), [text, html, *(each.data for each in attachments if not each.encoded)])
    shown = [each for each in attachments if html and each.inline and each.content_id]
    attached = [each for each in attachments if not (html and each.inline and each.content_id)]
    bodies: list[Pieces] = []
    if text:
        bodies.append(_text(b"plain", text))
    if html:
        rich = _text(b"html", html)
        if shown:
            rich = _multipart(b'related; type="text/html"', mark + b".r", [rich, *map(_attachment, shown)])
        bodies.append(rich)
    if len(bodies) > 1:
        bodies = [_multipart(b"alternative", mark + b".a", bodies)]
    if attached:
        bodies = [_multipart(b"mixed", mark + b".m", [*bodies, *map(_attachment, attached)])]
    return _ended(bodies[0])


def _free(mark: bytes, plain: list[bytes]) -> bytes:
    """A boundary that no part has. Quoted-printable and base64 can't have one (`=_`); a text, and a message that
    is attached as it is, could. The ends by which the three levels differ keep one from being another's start."""
    while any(mark in data for data in plain):
        mark += b"_"
    return mark


def _ended(entity: Pieces) -> Pieces:
    if not entity[-1].endswith(b"\r\n"):
        entity.append(b"\r\n")
    return entity


def _multipart(kind: bytes, mark: bytes, entities: list[Pieces]) -> Pieces:
    pieces = [b'Content-Type: multipart/%b;\r\n boundary="%b"\r\n' % (kind, mark)]
    delimiter = b"\r\n--%b\r\n" % mark
    for entity in entities:
        pieces.append(delimiter)
        pieces += entity
    pieces.append(b"\r\n--%b--\r\n" % mark)
    return pieces


def _text(kind: bytes, data: bytes) -> Pieces:
    """Always UTF-8: a charset that follows the content is one more way for two mails of a series to look
    unlike."""
    encoding, encoded = transfer(crlf(data))
    head = b"Content-Type: text/%b; charset=utf-8\r\nContent-Transfer-Encoding: %b\r\n\r\n"
    return [head % (kind, encoding.encode("ascii")), encoded]


def _attachment(each: Attachment) -> Pieces:
    """In base64 whatever it is: quoted-printable would suit a table or a calendar, but its line ends are the
    reader's to choose, and a file is to come out as it went in."""
    lines = [parameter_field("Content-Type", each.media_type[0], each.media_type[1:])]
    lines.append(f"Content-Transfer-Encoding: {'base64' if each.encoded else '7bit'}")
    if each.content_id:
        lines.append(f"Content-ID: <{each.content_id}>")
    disposition = "inline" if each.inline else "attachment"
    lines.append(parameter_field("Content-Disposition", disposition, filename(each.filename) if each.filename else ()))
    data = base64_lines(each.data) if each.encoded else each.data
    return ["".join([line + "\r\n" for line in lines]).encode("ascii") + b"\r\n", data]

"""The field `attachments`: a JSON array of objects, checked.

| member | rule |
| --- | --- |
| `content` | base64 (RFC 4648, section 4, padded; blanks and line ends in it do not count); needed, may be empty |
| `filename` | text without control characters, at most 255 characters |
| `content_type` | RFC 2045, with parameters or without; `application/octet-stream` where it is unset |
| `content_id` | what `cid:` in the html names (RFC 2392), with its angle brackets or without; each once |
| `disposition` | `inline` or `attachment`; unset it is `inline` with a `content_id` and `attachment` without |

The producer's base64 is checked and kept, never decoded: its lines are broken anew and that is all that the wire
needs. `message/*` is the exception: RFC 2046, section 5.2.1 allows it no encoding.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64
from typing import NamedTuple

import orjson

from streamq.errors import MalformedMail
from streamq.mail.twice import doubled
from streamq.mail.values import BREAKING, CONTROL, wrong
from streamq.mail.wire import crlf, is_7bit

__all__ = ["MAX_ATTACHMENTS", "Attachment", "largest", "read_attachments"]

FIELD = b"attachments"
MEMBERS = frozenset({"filename", "content", "content_type", "content_id", "disposition"})
MAX_ATTACHMENTS = 100
MAX_NAME = 255  # characters: what file systems take
MAX_TYPE = 500
# Each may make an object: eight million empty arrays take a parser five seconds, in which nothing else goes on. As many
# as all attachments together may have, in their names and types too
SIGNS = (b",", b"[", b"{")
MOST_SIGNS = MAX_ATTACHMENTS * (MAX_NAME + MAX_TYPE + 300)
DEFAULT_TYPE = "application/octet-stream"

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
BLANKS = b" \t\r\n"
TOKEN = r"[!#$%&'*+.^_`{|}~0-9A-Za-z-]++"  # RFC 2045, section 5.1
NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"  # RFC 6838, section 4.2
TYPE = re.compile(rf"({NAME})/({NAME})")
PARAMETER = re.compile(rf'[ \t]*+;[ \t]*+({TOKEN})=({TOKEN}|"(?>(?:[ !#-\[\]-~]|\\[ -~])*)")')
CONTENT_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,120}(?:@[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,120})?")


class Attachment(NamedTuple):
    """`media_type` is type and parameters, as they go between semicolons; `filename`, `content_id` are "" for
    none. `data` is base64 without a line end, or, where it is not `encoded`, 7-bit lines that end with CRLF."""

    filename: str
    media_type: tuple[str, ...]
    content_id: str
    inline: bool
    encoded: bool
    data: bytes


def read_attachments(value: bytes) -> tuple[Attachment, ...]:
    """Raises MalformedMail, which says which attachment: `[2].content`, counted from 0."""
    if len(value) > MOST_SIGNS and sum(map(value.count, SIGNS)) > MOST_SIGNS:
        raise wrong(FIELD, value, f"not a JSON array of at most {MAX_ATTACHMENTS} objects, by its commas and brackets")
    try:
        given = orjson.loads(value)
    except orjson.JSONDecodeError as broken:
        raise wrong(FIELD, value, f"not a JSON array ({broken.msg})") from None
    if not isinstance(given, list):
        raise wrong(FIELD, value, "not a JSON array of objects")
    if len(given) > MAX_ATTACHMENTS:
        raise wrong(FIELD, f"{len(given)} of them", f"more than {MAX_ATTACHMENTS}")
    found = tuple(_attachment(at, one) for at, one in enumerate(given))
    if (twice := doubled(value, given)) is not None:
        raise wrong(FIELD, twice, "a member twice in one of them")
    owner: dict[str, int] = {}
    for at, one in enumerate(found):
        if one.content_id and owner.setdefault(one.content_id, at) != at:
            raise _wrong(at, "content_id", one.content_id, f"that of [{owner[one.content_id]}], too")
    return found


def largest(value: bytes) -> tuple[str, str]:
    """Which attachment is the longest, for a reason, and what it is called: `[2].content`; `""` twice where that
    cannot be told."""
    try:
        given = orjson.loads(value)
        sizes = [len(one["content"]) for one in given]
    except (orjson.JSONDecodeError, TypeError, LookupError):
        return "", ""
    if not sizes:
        return "", ""
    at = sizes.index(max(sizes))
    name = given[at].get("filename")
    return f"[{at}].content: ", name if isinstance(name, str) else ""


def _wrong(at: int, member: str, value: str, why: str) -> MalformedMail:
    return wrong(FIELD, value, f"[{at}]{'.' * bool(member)}{member}: {why}")


def _attachment(at: int, given: object) -> Attachment:
    if not isinstance(given, dict):
        raise _wrong(at, "", "", "not a JSON object")
    for member, value in given.items():
        if member not in MEMBERS:
            raise _wrong(at, "", member, f"no member of an attachment (those are {', '.join(sorted(MEMBERS))})")
        if value is not None and not isinstance(value, str):
            raise _wrong(at, member, "", "not text")
    if (content := given.get("content")) is None:
        raise _wrong(at, "content", "", "missing")
    filename = _filename(at, given.get("filename") or "")
    media_type = _media_type(at, given.get("content_type") or DEFAULT_TYPE)
    content_id = _content_id(at, given.get("content_id") or "")
    disposition = given.get("disposition") or ("inline" if content_id else "attachment")
    if disposition not in ("inline", "attachment"):
        raise _wrong(at, "disposition", disposition, "not one of attachment, inline")
    data = _base64(at, content)
    encoded = not media_type[0].lower().startswith("message/")
    if not encoded:
        data = _message(at, a2b_base64(data), media_type[0])
    return Attachment(filename, media_type, content_id, disposition == "inline", encoded, data)


def _filename(at: int, value: str) -> str:
    value = value.strip(" ")
    if CONTROL.search(value):
        raise _wrong(at, "filename", value, "control characters in it")
    if len(value) > MAX_NAME:
        raise _wrong(at, "filename", value, f"longer than {MAX_NAME} characters")
    return value


def _media_type(at: int, value: str) -> tuple[str, ...]:
    if BREAKING.search(value):
        raise _wrong(at, "content_type", value, "CR, LF or NUL in it")
    if len(value) > MAX_TYPE:
        raise _wrong(at, "content_type", value, f"longer than {MAX_TYPE} characters")
    value = value.strip(" \t")
    if not (found := TYPE.match(value)):
        raise _wrong(at, "content_type", value, "not a media type (application/pdf)")
    steps, seen, end = [found[0]], {"name"}, found.end()
    if found[1].lower() == "multipart":
        raise _wrong(at, "content_type", value, "a multipart is no attachment")
    while end < len(value):
        if not (parameter := PARAMETER.match(value, end)):
            raise _wrong(at, "content_type", value, "not a media type (text/csv; charset=utf-8)")
        if (name := parameter[1].lower().partition("*")[0]) in seen:
            raise _wrong(at, "content_type", value, "filename is its name" if name == "name" else "a parameter twice")
        seen.add(name)
        steps.append(f"{parameter[1]}={parameter[2]}")
        end = parameter.end()
    return tuple(steps)


def _content_id(at: int, value: str) -> str:
    if BREAKING.search(value):
        raise _wrong(at, "content_id", value, "CR, LF or NUL in it")
    bare = value[1:-1] if value.startswith("<") and value.endswith(">") else value
    if value and not CONTENT_ID.fullmatch(bare):
        raise _wrong(at, "content_id", value, "not a Content-ID (logo@example.com)")
    return bare


def _base64(at: int, value: str) -> bytes:
    """Base64 without its blanks. What is no letter of the alphabet is found by deleting all that are: five
    times as quick as to decode it."""
    if not value.isascii():
        raise _wrong(at, "content", value, "not base64 (characters beyond ASCII)")
    data = value.encode()
    rest = data.translate(None, ALPHABET)
    if rest not in (b"", b"=", b"=="):
        data = data.translate(None, BLANKS)
        rest = rest.translate(None, BLANKS)
    if rest not in (b"", b"=", b"==") or not data.endswith(rest):
        odd = rest.strip(b"=")[:1].decode() or "="
        raise _wrong(at, "content", value, f"not base64 ({odd!r} in it)")
    if len(data) % 4:
        raise _wrong(at, "content", value, "not base64 (its length is no multiple of 4: padding is missing or cut)")
    # Bits of the last group that mean nothing are to be 0 (RFC 4648, section 3.5): some readers refuse others
    return data if not rest else data[:-4] + b2a_base64(a2b_base64(data[-4:]), newline=False)


def _message(at: int, data: bytes, media_type: str) -> bytes:
    data = crlf(data)
    if not is_7bit(data):
        why = "must be 7-bit in lines of at most 998 octets (RFC 2046, section 5.2.1), or be application/octet-stream"
        raise _wrong(at, "content", media_type, why)
    return data if data.endswith(b"\r\n") else data + b"\r\n"

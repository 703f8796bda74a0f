"""What every field's rule begins with: bytes to text, lists, objects; and the error that names the field."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from streamq.errors import MalformedMail

__all__ = ["TOO_DEEP", "is_deep", "json_object", "line", "listed", "plain", "text", "wrong"]

CUT = 400  # octets of a wrong value worth decoding: MalformedMail shows 80 characters, at most 4 octets each
BEFORE = 40  # octets in front of what is wrong that an error shows
# Of arrays and objects in each other. orjson reads 1,024 and writes 254, and what is written lies deeper than what was
# read: an event, a child, a dead letter wraps it once more, or twice.
MOST_LEVELS = 100
TOO_DEEP = f"nested too deep (more than {MOST_LEVELS} levels)"
TOO_LARGE = "a number of more than 308 digits, or beyond 1.8e308"  # which no double holds
BREAKING = re.compile(r"[\r\n\0]")
CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f]")


def wrong(field: bytes | str, value: bytes | str, why: str) -> MalformedMail:
    """The error for a field. Cuts the value first: a reason must not cost 25 MB."""
    name = field if isinstance(field, str) else field.decode("ascii", "backslashreplace")
    return MalformedMail(name, value[:CUT], why)


def text(field: bytes, value: bytes) -> str:
    """UTF-8 (RFC 3629), strictly. The error shows where it is not."""
    try:
        return value.decode()
    except UnicodeDecodeError as broken:
        at = broken.start
        if at > BEFORE:
            raise wrong(field, value[at - BEFORE :], f"not UTF-8 (octet {at + 1})") from None
        raise wrong(field, value, "not UTF-8") from None


def line(field: bytes, value: bytes) -> str:
    """One line of text for a header: CR, LF and NUL would let a value write headers of its own."""
    found = text(field, value)
    if BREAKING.search(found):
        raise wrong(field, value, "CR, LF or NUL in it")
    return found


def plain(field: bytes, value: bytes, limit: int) -> str:
    """A name or key: text without control characters, of at most `limit` octets."""
    if len(value) > limit:
        raise wrong(field, value, f"longer than {limit} bytes")
    found = text(field, value)
    if CONTROL.search(found):
        raise wrong(field, value, "control characters in it")
    return found


def listed(field: bytes, value: bytes) -> list[str]:
    """A JSON array of strings, or a comma list; empty parts do not count."""
    if not value.startswith(b"["):
        return [part for part in map(str.strip, text(field, value).split(",")) if part]
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError as broken:
        raise wrong(field, value, f"not a JSON array ({broken.msg})") from None
    if not isinstance(found, list) or not all(isinstance(part, str) for part in found):
        raise wrong(field, value, "not a JSON array of strings")
    return [part for part in found if part]


def is_deep(value: object, data: bytes) -> bool:
    """Whether it is nested deeper than anything here is written; `data` is its JSON, which mostly tells by itself."""
    if data.count(b"[") + data.count(b"{") <= MOST_LEVELS:
        return False
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def json_object(field: bytes, value: bytes, read: Callable[[bytes], Any] = orjson.loads) -> dict[str, object]:
    """A JSON object of at most `MOST_LEVELS`. orjson refuses lone surrogates; `read` may refuse depth by itself, by
    RecursionError."""
    try:
        found = read(value)
    except orjson.JSONDecodeError as broken:
        why = TOO_LARGE if "infinity" in broken.msg else f"not a JSON object ({broken.msg})"
        raise wrong(field, value, why) from None
    except RecursionError:
        raise wrong(field, value, TOO_DEEP) from None
    if not isinstance(found, dict):
        raise wrong(field, value, "not a JSON object")
    if is_deep(found, value):
        raise wrong(field, value, TOO_DEEP)
    return found

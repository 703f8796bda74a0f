"""JSON whose numbers come back as they were written. A parser makes doubles of what 64 bits do not hold, and 1.1 of
1.10: an account's number of 20 digits would be another one in every event. One that no double holds is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import orjson

__all__ = ["exact", "packed", "written"]

DEEPEST = 254  # levels, as orjson writes
SHORT = 18  # digits that 64 bits hold, whatever they are
# Numbers that may come out otherwise; in a text they do no harm but to take a slower way
ODD = re.compile(rb"(?:\A|[:,\[ \t\r\n])(?:-0|-?[0-9](?:[0-9]{18}|[0-9]*[.eE]))")


class Number:
    """A number as it was written, for `packed` alone.

    No `orjson.Fragment`, which would be its very purpose: orjson (3.13 at least) makes no room for the brackets that
    close behind one, so that some sixty of them, behind a fragment that fills its buffer, are written past its end.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def packed(value: object) -> bytes:
    """JSON to be kept: what orjson gives takes 4 KB of memory, however short it is. Raises TypeError."""
    try:
        return bytes(memoryview(orjson.dumps(value)))
    except TypeError:  # a Number in it, or nested too deep
        parts: list[bytes] = []
        _put(value, parts, 0)
        return b"".join(parts)


def _put(value: object, parts: list[bytes], level: int) -> None:
    if level > DEEPEST:
        raise TypeError("nested too deep")
    if isinstance(value, Number):
        parts.append(value.text.encode())
    elif isinstance(value, dict):
        sign = b"{"
        for name, inner in value.items():
            parts += (sign, orjson.dumps(name), b":")
            _put(inner, parts, level + 1)
            sign = b","
        parts.append(b"}" if value else b"{}")
    elif isinstance(value, list):
        sign = b"["
        for inner in value:
            parts.append(sign)
            _put(inner, parts, level + 1)
            sign = b","
        parts.append(b"]" if value else b"[]")
    else:
        parts.append(orjson.dumps(value))


def written(value: bytes) -> Any:
    """For `packed` alone: such numbers are `Number`s. Raises orjson.JSONDecodeError, RecursionError."""
    return _read(value, Number, _whole)


def exact(value: bytes) -> Any:
    """To reckon with: a whole number is that number, of 309 digits at most. Raises orjson.JSONDecodeError,
    RecursionError."""
    return _read(value, float, int)


def _read(value: bytes, fraction: Callable[[str], object], whole: Callable[[str], object]) -> Any:
    found = orjson.loads(value)  # the stricter one: NaN, lone surrogates, numbers that no double holds
    if not ODD.search(value):
        return found
    return json.loads(value, parse_float=fraction, parse_int=whole)


def _whole(text: str) -> object:
    return int(text) if len(text) <= SHORT and text != "-0" else Number(text)

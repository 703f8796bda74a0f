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

SHORT = 18  # digits that 64 bits hold, whatever they are
# Numbers that may come out otherwise; in a text they do no harm but to take a slower way
ODD = re.compile(rb"[:,\[ \t\r\n](?:-0|-?[0-9](?:[0-9]{18}|[0-9]*[.eE]))")


def packed(value: object) -> bytes:
    """JSON to be kept: what orjson gives takes 4 KB of memory, however short it is. Raises TypeError."""
    return bytes(memoryview(orjson.dumps(value)))


def written(value: bytes) -> Any:
    """For `orjson.dumps` alone: such numbers are fragments of text. Raises orjson.JSONDecodeError,
    RecursionError."""
    return _read(value, orjson.Fragment, _fragment)


def exact(value: bytes) -> Any:
    """To reckon with: a whole number is that number, of 309 digits at most. Raises orjson.JSONDecodeError,
    RecursionError."""
    return _read(value, float, int)


def _read(value: bytes, fraction: Callable[[str], object], whole: Callable[[str], object]) -> Any:
    found = orjson.loads(value)  # the stricter one: NaN, lone surrogates, numbers that no double holds
    if not ODD.search(value):
        return found
    return json.loads(value, parse_float=fraction, parse_int=whole)


def _fragment(text: str) -> object:
    return int(text) if len(text) <= SHORT and text != "-0" else orjson.Fragment(text)

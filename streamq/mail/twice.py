"""A name that stands twice in one JSON object: parsers take the last and say nothing of it.

Which one was meant nobody can tell, as of a field that stands twice. It is looked for in `headers`, `attachments` and
`recipients`. In `vars` and `metadata` it is not: those of a child are two objects made one, in which its own member
stands behind the shared one of the same name (several.py, lib/dead.lua), and a dead letter has them so.
"""

from __future__ import annotations

import json
import re
from typing import Any

from streamq.mail.numbers import packed

__all__ = ["doubled"]

NAME_ENDS = re.compile(rb'"[ \t\r\n]*:')  # of a name; in a text its quote would be escaped, here and when written anew
APART = 256  # octets


class _Twice(Exception):
    pass


def doubled(value: bytes, found: object) -> str | None:
    """A name that is there twice; `found` is what was read of `value`. Read once more, slowly, only where it has fewer
    names than stand there."""
    if b"\\" not in value and _has_quotes(value, _quotes(found)):
        return None
    try:
        kept = len(NAME_ENDS.findall(packed(found)))
        if len(NAME_ENDS.findall(value)) > kept:
            json.loads(value, object_pairs_hook=_once)
    except _Twice as name:
        return str(name)
    except (TypeError, RecursionError):  # nested too deep: others say so
        pass
    return None


def _has_quotes(value: bytes, many: int) -> bool:
    """Whether it has just so many. Where they are far apart, as around base64, to look for each is five times as quick
    as to count them."""
    if many < 0 or many * APART > len(value):
        return value.count(b'"') == many
    at = -1
    for _ in range(many):
        if (at := value.find(b'"', at + 1)) < 0:
            return False
    return value.find(b'"', at + 1) < 0


def _quotes(found: object) -> int:
    """How many a list of flat objects has; -1 for what is none. A megabyte of base64 is counted in no time."""
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        return -1
    return sum(2 * len(one) + 2 * sum(isinstance(value, str) for value in one.values()) for one in found)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Twice(name)
        found[name] = value
    return found

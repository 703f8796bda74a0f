"""TOML of people's own files, within bounds: whatever the text is, a table comes of it, or one error that says why not.

tomllib alone is no such thing. A whole number of 5,000 digits is a bare ValueError, an array of 1,000 brackets a
RecursionError, a key of 100,000 dotted parts takes minutes, and what lies so deep cannot even be shown by whoever
refuses it.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

__all__ = ["NotToml", "read_toml"]

MOST = 1_000_000  # characters
MOST_LEVELS = 32  # of tables and arrays in each other
MOST_PARTS = 64  # of a dotted key
LARGEST = 2**63  # TOML 1.0, Integer: 64 bits, and an error for what they do not hold
# Texts whole, whatever dots are in them; then words, dots, and all else. No two of them begin alike but texts of three
# quotes, which stand first; one that does not end goes to the end.
TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*(?:"""|\Z)|'
    r"'''(?:[^']|'(?!''))*(?:'''|\Z)|"
    r'(?P<word>"(?:[^"\\\n]|\\.)*"?|' + r"'[^'\n]*'?|[A-Za-z0-9_-]+)|(?P<dot>\.)|[ \t]+|#[^\n]*|.",
    re.DOTALL,
)


class NotToml(ValueError):
    """Why it is none; `(at line N, column M)` at its end, where tomllib said so."""


def read_toml(text: str) -> dict[str, Any]:
    """The table of a TOML text of at most a million characters. Raises `NotToml` and nothing else."""
    if len(text) > MOST:
        raise NotToml(f"longer than {MOST:,} characters")
    if any(line.count(".") > MOST_PARTS for line in text.split("\n")):
        _refuse_long_keys(text)
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        raise NotToml(str(wrong)) from None
    except RecursionError:
        raise NotToml(f"nested too deep (more than {MOST_LEVELS} levels)") from None
    except ValueError:  # of int(), which names no digit that it met
        raise NotToml("a whole number that 64 bits do not hold") from None
    _refuse_extremes(found)
    return found


def _refuse_long_keys(text: str) -> None:
    """Before tomllib reads them: its time grows with the square of a key's parts."""
    parts = 0
    for token in TOKEN.finditer(text):
        if token.lastgroup == "dot":
            parts += 1
            if parts > MOST_PARTS:
                raise NotToml(f"a key of more than {MOST_PARTS} parts")
        elif token.lastgroup != "word" and not token[0].isspace():
            parts = 0


def _refuse_extremes(found: dict[str, Any]) -> None:
    """Level by level: nothing here may be as deep as what it looks at."""
    level: list[Any] = [found]
    for _ in range(MOST_LEVELS + 1):
        inside: list[Any] = []
        for outer in level:
            inside += outer.values() if isinstance(outer, dict) else outer
        if any(type(one) is int and not -LARGEST <= one < LARGEST for one in inside):
            raise NotToml("a whole number that 64 bits do not hold")
        level = [one for one in inside if isinstance(one, dict | list)]
        if not level:
            return
    raise NotToml(f"nested too deep (more than {MOST_LEVELS} levels)")

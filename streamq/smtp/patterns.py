"""How much work a pattern can make, known before it meets a text that was written to make it work.

`re` backtracks: `(a+)+$` takes longer than the universe on forty letters, and `.*a.*b.*c` grows with the cube of
the text. What a server says is not ours, so patterns on replies have bounded repeats only, no repeated groups, and
a bounded number of ways to match from one place: the time is then at worst that number times the text's length.
A time limit on `re` lost (it has none), an engine without backtracking too (a dependency for fifty patterns).
"""

from __future__ import annotations

import re

__all__ = ["most_ways"]

MOST_WAYS = 20_000  # from one place of the text
MOST_REPEATS = 100
ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^]\\])*\]|[^\\()|]", re.DOTALL)
REPEAT = re.compile(r"([*+?]|\{(?!\})\d*,?\d*\})([?+]?)")  # {} is no repeat
GROUP = re.compile(r"\(\?(?:[:=!]|<[=!]|P<\w+>)")


def most_ways(pattern: str) -> int:
    """In how many ways it can match, or fail to, from one place of a text: the product of all its repeats'
    widths. Raises ValueError where that is not bounded, or is more than `MOST_WAYS`. The pattern compiles."""
    ways, at = _branches(pattern, 0)
    if at < len(pattern):
        raise ValueError(f"more ) than ( at {at + 1}")
    if ways > MOST_WAYS:
        raise ValueError(f"its repeats can match in {ways:,} ways from one place: more than {MOST_WAYS:,}")
    return ways


def _branches(pattern: str, at: int) -> tuple[int, int]:
    """Up to the `)` that ends this group, or the end."""
    most = here = 1
    while at < len(pattern) and pattern[at] != ")":
        if pattern[at] == "|":
            here, at = 1, at + 1
            continue
        grouped = pattern[at] == "("
        inner = 1
        if grouped:
            opened = GROUP.match(pattern, at)
            if opened is None and pattern.startswith("(?", at):
                raise ValueError(f"no such group here: {pattern[at : at + 4]}")
            inner, at = _branches(pattern, opened.end() if opened else at + 1)
            at += 1
        else:
            atom = ATOM.match(pattern, at)
            assert atom is not None, pattern  # it compiles
            at = atom.end()
        repeat = REPEAT.match(pattern, at)
        if repeat is not None:
            inner *= _width(repeat, grouped)
            at = repeat.end()
        here *= inner
        most = max(most, here)
    return most, at


def _width(repeat: re.Match[str], grouped: bool) -> int:
    text = repeat[1]
    if repeat[2] == "+":
        raise ValueError(f"a possessive repeat: {text}+ (Python before 3.11.4 matches those wrongly)")
    if text == "?":
        return 2
    if grouped:
        raise ValueError(f"a repeated group: ){text} (only )? is allowed)")
    low, comma, high = text.strip("{}").partition(",")
    if text in {"*", "+"} or (comma and not high):
        raise ValueError(f"a repeat without an end: {text} (write {{0,40}})")
    if not low and not comma:
        return 1  # {} stands for itself
    least, most = int(low or 0), int(high or 0) if comma else int(low)
    if most > MOST_REPEATS:
        raise ValueError(f"more than {MOST_REPEATS} repeats: {text}")
    return most - least + 1

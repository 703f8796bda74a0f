"""Texts without what differs from mail to mail: two that are alike then have one cause, as far as texts tell."""

from __future__ import annotations

import re

__all__ = ["alike"]

ASIDE = ".,;:!?()[]<>\"'"
CODE = re.compile(r"[245]\d\d|[245]\.\d{1,3}\.\d{1,3}")
CODES_AT = 4  # words, the first, among which reply codes are codes


def alike(text: str, *, codes: bool = False) -> str:
    """Lower case, `#` for addresses, names of hosts, ids, times, links. `codes`: those of a reply stay."""
    words = [word.strip(ASIDE) for word in text.lower().split()]
    return " ".join(
        "#" if _differs(word) and not (codes and at < CODES_AT and CODE.fullmatch(word)) else word
        for at, word in enumerate(words)
    )


def _differs(word: str) -> bool:
    return any(sign.isdigit() or sign in "@./=_" for sign in word)

"""Checks of what a rules file or a caller says, each entry for itself."""

from __future__ import annotations

import re
from typing import NamedTuple

from streamq.errors import SHOWN, SettingsError

__all__ = ["Check", "EntryWrong", "is_number", "is_reply", "is_seconds", "is_share", "is_text", "one_of", "require"]

REPLY = re.compile(r"[2-5][0-9][0-9]( [^\x00-\x1f\x7f]{0,500})?(\n[^\x00-\x1f\x7f]{0,500}){0,99}")


class EntryWrong(SettingsError):
    """An entry is wrong; `entry` names it."""

    def __init__(self, entry: str, value: object, why: str) -> None:
        shown = repr(value)
        super().__init__(f"{entry}: {why} (got {shown if len(shown) <= SHOWN else shown[:SHOWN] + '…'})")
        self.entry = entry


class Check(NamedTuple):
    """An entry, its value, whether it is good, and what it is if not."""

    entry: str
    value: object
    good: bool
    why: str


def require(*checks: Check) -> None:
    """Raises `EntryWrong` for the first check that is not good."""
    for check in checks:
        if not check.good:
            raise EntryWrong(check.entry, check.value, check.why)


def one_of(entry: str, value: object, words: tuple[str, ...]) -> Check:
    return Check(
        entry, value, isinstance(value, str) and value in words, f"not one of {', '.join(filter(None, words))}"
    )


def is_text(value: object, longest: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= longest


def is_reply(value: object) -> bool:
    return isinstance(value, str) and REPLY.fullmatch(value) is not None


def is_number(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def is_seconds(value: object, longest: float) -> bool:
    """More than 0, at most `longest`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= longest

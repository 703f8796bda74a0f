"""Moments and spans as producers write them, in milliseconds."""

from __future__ import annotations

import re
from datetime import date

__all__ = ["YEAR_MS", "moment_ms", "span_ms"]

YEAR_MS = 366 * 86_400_000
MS_FROM = 10**11  # a larger number counts ms (this many seconds is the year 5138, this many ms 1973)
EPOCH_DAY = date(1970, 1, 1).toordinal()

NUMBER = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,20}))?")
RFC_3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,20}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


def _thousandths(digits: str | None) -> int:
    return int((digits or "").ljust(3, "0")[:3])


def moment_ms(text: str) -> int:
    """RFC 3339 with offset, Unix seconds, or Unix ms (> 1e11) to Unix ms. Raises ValueError.

    An offset is asked for (RFC 3339, section 5.6): a local time without one means another moment on each
    producer. A leap second counts as the second before it; parts below 1 ms are cut.
    """
    if found := NUMBER.fullmatch(text):
        whole = int(found[1])
        return whole if whole > MS_FROM else whole * 1000 + _thousandths(found[2])
    if not (found := RFC_3339.fullmatch(text)):
        raise ValueError("not a time (write 2030-01-31T08:00:00+01:00, Unix seconds or Unix ms)")
    year, month, day, hour, minute, second = map(int, found.group(1, 2, 3, 4, 5, 6))
    away_hours, away_minutes = int(found[9] or 0), int(found[10] or 0)
    if hour > 23 or minute > 59 or second > 60 or away_hours > 23 or away_minutes > 59:
        raise ValueError("no such time of day")
    try:
        days = date(year, month, day).toordinal() - EPOCH_DAY
    except ValueError:
        raise ValueError("no such day") from None
    away = (away_hours * 60 + away_minutes) * (-60 if found[8] == "-" else 60)
    seconds = days * 86_400 + hour * 3600 + minute * 60 + min(second, 59) - away
    return seconds * 1000 + _thousandths(found[7])


def span_ms(text: str) -> int:
    """A number of seconds to ms. Raises ValueError."""
    if not (found := NUMBER.fullmatch(text)):
        raise ValueError("not a number of seconds")
    return int(found[1]) * 1000 + _thousandths(found[2])

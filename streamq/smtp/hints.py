"""The wait that a reply asks for, as far as it says one.

Servers say it as they like: "try again in 300 seconds" (postgrey), "come back in 00:04:59" (milter-greylist),
"retry after 1 hour", "wait 2 minutes and 30 seconds", "retry-after: 120", "minutes=5".
"""

from __future__ import annotations

import re

__all__ = ["hint_ms"]

LONGEST_MS = 24 * 3_600_000
UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
UNIT = r"(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)\b"
NUMBER = r"(\d{1,7})"
WORDS = r"\b(?:in|after|for|wait|within|another|least)[:=]?\s{1,3}(?:(?:about|another|at least|approximately)\s{1,3})?"
FLAGS = re.IGNORECASE | re.ASCII
SPAN = re.compile(rf"{WORDS}{NUMBER}\s{{0,2}}{UNIT}", FLAGS)
MORE = re.compile(rf",?\s{{1,2}}(?:and\s{{1,2}})?{NUMBER}\s{{0,2}}{UNIT}", FLAGS)  # behind a span
CLOCK = re.compile(rf"{WORDS}(\d{{1,2}}):(\d\d):(\d\d)(?![:\d])", FLAGS)
NAMED = re.compile(rf"\b(seconds|secs|minutes|mins|hours|retry[-_ ]?after)\s?[=:]\s?{NUMBER}(?![\d:.])", FLAGS)


def hint_ms(text: str) -> int:
    """Milliseconds, at most a day; 0 where the text asks for no wait."""
    if found := CLOCK.search(text):
        ms = (int(found[1]) * 3600 + int(found[2]) * 60 + int(found[3])) * 1000
    elif found := SPAN.search(text):
        ms = int(found[1]) * UNITS_MS[found[2][0].lower()]
        if more := MORE.match(text, found.end()):
            ms += int(more[1]) * UNITS_MS[more[2][0].lower()]
    elif found := NAMED.search(text):
        unit = found[1][0].lower()
        ms = int(found[2]) * UNITS_MS["s" if unit == "r" else unit]
    else:
        return 0
    return min(ms, LONGEST_MS)

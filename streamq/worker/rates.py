"""How many mails a second each site and route took of late, from this worker: what a pace begins with when a receiver
says that it was too much (lib/throttle.lua)."""

from __future__ import annotations

__all__ = ["Rates"]

LATE_MS = 5000
LEAST_MS = 1000  # over less than that a burst would be a rate
BURST_MS = 1000


class Rates:
    """Two spans of time, the present one and the one before: what was not seen for so long is forgotten, so this never
    holds more targets than mails went in twice that time. Times are the caller's, in ms."""

    def __init__(self) -> None:
        self._since = 0
        self._now: dict[str, list[int]] = {}  # target → [when it was first seen in this span, mails]
        self._before: dict[str, list[int]] = {}

    def took(self, target: str, now_ms: int) -> None:
        """One more."""
        self._turn(now_ms)
        seen = self._now.get(target)
        if seen is None:
            self._now[target] = [now_ms, 1]
        else:
            seen[1] += 1

    def of(self, target: str, now_ms: int) -> float:
        """Mails per second; 0 where it took none."""
        many, lasted = self._seen(target, now_ms)
        return round(many * 1000 / max(LEAST_MS, lasted), 3)

    def least_of(self, target: str, now_ms: int) -> float:
        """The same if the first of them were a burst that is saved up, a second's worth of mails, as token buckets
        have: whatever rate with such a burst let them through is at least this."""
        many, lasted = self._seen(target, now_ms)
        return round(many * 1000 / (BURST_MS + lasted), 3)

    def _seen(self, target: str, now_ms: int) -> tuple[int, int]:
        """Mails, and ms since the first of them."""
        self._turn(now_ms)
        spans = [span[target] for span in (self._before, self._now) if target in span]
        if not spans:
            return 0, 0
        return sum(many for _, many in spans), now_ms - spans[0][0]

    def _turn(self, now_ms: int) -> None:
        since = now_ms - self._since
        if 0 <= since < LATE_MS:
            return
        self._before = self._now if LATE_MS <= since < 2 * LATE_MS else {}  # a clock may be set back
        self._now = {}
        self._since = now_ms

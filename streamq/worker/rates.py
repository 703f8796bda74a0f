"""How many mails a second each site and route took of late, from this worker: what a pace begins with when a receiver
says that it was too much (lib/throttle.lua)."""

from __future__ import annotations

__all__ = ["Rates"]

LATE_MS = 5000
LEAST_MS = 1000  # over less than that a burst would be a rate
BURST_MS = 1000


class _Spans:
    """Two spans of time, the present one and the one before: what was not seen for so long is forgotten, so this never
    holds more targets than mails went in twice that time."""

    def __init__(self, length_ms: int) -> None:
        self.length_ms = length_ms
        self.since = 0
        self._now: dict[str, list[int]] = {}  # target → [when it was first seen in this span, mails]
        self._before: dict[str, list[int]] = {}

    def took(self, target: str, now_ms: int) -> None:
        self.turn(now_ms)
        seen = self._now.get(target)
        if seen is None:
            self._now[target] = [now_ms, 1]
        else:
            seen[1] += 1

    def seen(self, target: str, now_ms: int) -> tuple[int, int]:
        """Mails, and ms since the first of them."""
        self.turn(now_ms)
        spans = [span[target] for span in (self._before, self._now) if target in span]
        if not spans:
            return 0, 0
        return sum(many for _, many in spans), now_ms - spans[0][0]

    def turn(self, now_ms: int) -> None:
        since = now_ms - self.since
        if 0 <= since < self.length_ms:
            return
        went_on = self.length_ms <= since < 2 * self.length_ms  # a clock may be set back
        self._before = self._now if went_on else {}
        self._now = {}
        self.since += self.length_ms if went_on else since


class Rates:
    """Over the last seconds, and over the very last: who is just becoming quicker takes more now than of late. Times
    are the caller's, in ms."""

    def __init__(self) -> None:
        self._late = _Spans(LATE_MS)
        self._last = _Spans(LEAST_MS)

    def took(self, target: str, now_ms: int) -> None:
        """One more."""
        self._late.took(target, now_ms)
        self._last.took(target, now_ms)

    def of(self, target: str, now_ms: int) -> float:
        """Mails per second; 0 where it took none."""
        many, lasted = self._late.seen(target, now_ms)
        last, _ = self._last.seen(target, now_ms)
        over = LEAST_MS + now_ms - self._last.since  # the span before, and what there was of this one
        return round(max(many * 1000 / max(LEAST_MS, lasted), last * 1000 / over), 3)

    def least_of(self, target: str, now_ms: int) -> float:
        """The same if the first of them were a burst that is saved up, a second's worth of mails, as token buckets
        have: whatever rate with such a burst let them through is at least this."""
        many, lasted = self._late.seen(target, now_ms)
        return round(many * 1000 / (BURST_MS + lasted), 3)

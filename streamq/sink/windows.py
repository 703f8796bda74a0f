"""The most mails in any window: the exact sliding maximum, for all mails and for each recipient domain.

A window is half open, of a fixed length and of any phase. Mails are counted at MAIL, as a receiver's limits count
them; a domain's at RCPT.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

__all__ = ["Windows"]

STAMPS = 2_000_000  # times kept for a length over all domains
DOMAINS = 10_000  # that are counted; further ones are not, and `complete` says so


class Windows:
    """`lengths` in seconds; `most[length]` is the maximum so far, `most_of[length][domain]` a domain's."""

    def __init__(self, lengths: tuple[float, ...], clock: Callable[[], float]) -> None:
        self.complete = True
        self._clock = clock
        self._all = {length: _Sliding(length) for length in lengths}
        self._domains: dict[float, dict[str, _Sliding]] = {length: {} for length in lengths}

    @property
    def most(self) -> dict[float, int]:
        return {length: sliding.most for length, sliding in self._all.items()}

    @property
    def most_of(self) -> dict[float, dict[str, int]]:
        return {
            length: {domain: sliding.most for domain, sliding in domains.items()}
            for length, domains in self._domains.items()
        }

    def mail(self) -> None:
        now = self._clock()
        for sliding in self._all.values():
            self.complete &= sliding.add(now)

    def recipient(self, recipient: str) -> None:
        now, domain = self._clock(), recipient.rpartition("@")[2].lower()
        for length, domains in self._domains.items():
            sliding = domains.get(domain)
            if sliding is None:
                if len(domains) >= DOMAINS:
                    self.complete = False
                    continue
                sliding = domains[domain] = _Sliding(length)
            self.complete &= sliding.add(now)


class _Sliding:
    __slots__ = ("_length", "_times", "most")

    def __init__(self, length: float) -> None:
        self.most = 0
        self._length = length
        self._times: deque[float] = deque(maxlen=STAMPS)

    def add(self, now: float) -> bool:
        """False: more happen in a window than times can be kept."""
        times = self._times
        while times and now - times[0] >= self._length:
            times.popleft()
        full = len(times) == STAMPS
        times.append(now)
        self.most = max(self.most, len(times))
        return not full

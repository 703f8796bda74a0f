"""Slots of the model: DESIGN 5's strict limit in exact numbers, and a plain log that judges it.

τ = W/36 (and ≤ 2 s), σ = τ/2, T = (W+τ+σ)/N; admit iff now ≥ TAT − τ, then TAT = max(now, TAT) + T.
"""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

from streamq.settings import Window

__all__ = ["Slots"]

ROUNDED_US = 200  # the scripts keep whole µs: what they may be later than exact numbers after many mails


class Slots:
    """Of every lane whose site has windows. Times in µs."""

    def __init__(self, sites: dict[str, tuple[Window, ...]]) -> None:
        self.sites = sites
        self.log: dict[str, list[int]] = defaultdict(list)
        self.tat: dict[tuple[str, Window], Fraction] = {}

    def windows(self, lane: str) -> tuple[Window, ...]:
        return self.sites.get(lane.partition("|")[2], ())

    def opens(self, lane: str) -> Fraction:
        """When the next mail may go; 0 where nothing stands against it."""
        return max(
            (self.tat.get((lane, window), Fraction(0)) - _slack(window) for window in self.windows(lane)),
            default=Fraction(0),
        )

    def is_open(self, lane: str, now: int, said: bool) -> bool:
        """`said` decides where rounding does."""
        opens = self.opens(lane)
        if now >= opens + ROUNDED_US:
            return True
        return said if now >= opens - 2 else False

    def take(self, lane: str, now: int) -> None:
        """A mail goes. In no window of any phase are there more than its number."""
        self.log[lane].append(now)
        for window in self.windows(lane):
            width = window.window_ms * 1000
            went = [at for at in self.log[lane] if at > now - width]
            assert len(went) <= window.count, f"{lane}: {len(went)} in {width} µs, limit {window.count}: {went}"
        self.skip(lane, now)

    def skip(self, lane: str, now: int) -> None:
        """A slot that is lost: its mail was deleted."""
        for window in self.windows(lane):
            tau = int(_slack(window))
            step = Fraction(window.window_ms * 1000 + tau + tau // 2) / window.count
            self.tat[lane, window] = max(Fraction(now), self.tat.get((lane, window), Fraction(0))) + step


def _slack(window: Window) -> Fraction:
    return Fraction(min(window.window_ms * 1000 // 36, 2_000_000))

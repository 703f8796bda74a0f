"""What a delivery is promised to cost, and how much faster than others it is: bars that `throughput` holds itself to.

Each holds with everything on: for a case without limits, and for the same one with limits that bind nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.cases import BASE, Case

__all__ = ["Kept", "kept"]

# Median of a figure, at the most
COSTS: tuple[tuple[Case, str, float], ...] = (
    (BASE, "worker_cpu_s_per_1000", 0.090),
    (replace(BASE, mode="overlap"), "worker_cpu_s_per_1000", 0.075),
    (replace(BASE, kind="composed"), "worker_cpu_s_per_1000", 0.120),
    (BASE, "round_trips_per_mail", 0.1),
    (BASE, "redis_cpu_s_per_1000", 0.050),
    (BASE, "worker_peak_mb", 120.0),
)
# Mails a second, by the peer's in the same round, at the least. A flow with `always` is as durable as Postfix.
RATIOS: tuple[tuple[Case, str, float], ...] = (
    (replace(BASE, processes=2), "dramatiq", 4.5),
    (replace(BASE, processes=2), "postfix", 10.0),
    (replace(BASE, what="flow", processes=2, fsync="always"), "postfix", 10.0),
    (replace(BASE, what="flow", processes=2), "postfix", 15.0),
)


@dataclass(frozen=True, slots=True)
class Kept:
    words: str
    good: bool


def kept(medians: Mapping[Case, Mapping[str, float]], ratios: Sequence[tuple[Case, str, float]]) -> list[Kept]:
    """Those promises of which the cases were run."""
    found = []
    for case, known in medians.items():
        for promised, figure, most in COSTS:
            if replace(case, limited=False) == promised and figure in known:
                good = known[figure] <= most
                found.append(_said(f"{case.name}: {figure} {known[figure]:.3f}, at most {most:g}", good))
    for case, peer, times in ratios:
        for promised, other, least in RATIOS:
            if replace(case, limited=False) == promised and peer == other:
                found.append(_said(f"{case.name}: {times:.1f} times {peer}, at least {least:g}", times >= least))
    return found


def _said(words: str, good: bool) -> Kept:
    return Kept(f"{words}: {'kept' if good else 'broken'}", good)

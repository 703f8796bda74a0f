"""Numbers as a record and its reader need them: percentiles, medians of rounds, ratios, tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from math import ceil

__all__ = ["columns", "middle", "percentile", "ratio", "spread"]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many of them (0 to 1) do not exceed: the nearest rank, never a value that was not
    measured. Raises `ValueError` without any."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, ceil(share * len(values) - 1e-9) - 1)]


def middle(rounds: Iterable[Mapping[str, float | None]]) -> dict[str, float]:
    """The median of each number over the rounds that have it."""
    found: dict[str, list[float]] = {}
    for one in rounds:
        for name, value in one.items():
            if value is not None:
                found.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def spread(values: Sequence[float]) -> float:
    """Half of what lies between the least and the most, as a share of the median."""
    return (max(values) - min(values)) / 2 / statistics.median(values)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of each round: what is slow for both in a bad minute does not count."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=False))


def columns(rows: Sequence[Sequence[str]]) -> str:
    """A table, its first row the head: the first column to the left, the others to the right."""
    wide = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(wide[0]), *(text.rjust(size) for text, size in zip(row[1:], wide[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)

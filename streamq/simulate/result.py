"""What a simulation found, in numbers: per site, and over all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from streamq.simulate.record import Record, SiteRecord
from streamq.simulate.scenario import Scenario

__all__ = ["Result", "SiteResult", "rates"]

LOW, HIGH = 0.1, 0.9  # of a site's mails: what lies between them is its steady part


@dataclass(frozen=True, slots=True)
class SiteResult:
    """`seconds`: until the last of its mails was taken. `met`: mails that were refused at least once; `throttles`:
    refusals about our pace. `peak`: most in any second; `steady`: mails a second between the first and the last
    tenth."""

    name: str
    model: str
    mails: int
    taken: int
    seconds: float
    met: int
    refusals: int
    throttles: int
    peak: int
    steady: float
    doubles: int

    @classmethod
    def of(cls, name: str, model: str, mails: int, known: SiteRecord) -> SiteResult:
        taken = known.taken
        return cls(
            name=name,
            model=model,
            mails=mails,
            taken=len(taken),
            seconds=taken[-1] if taken else 0.0,
            met=len(known.met),
            refusals=len(known.refused),
            throttles=known.throttles,
            peak=_most(taken, 1.0),
            steady=_steady(taken),
            doubles=known.doubles,
        )

    @property
    def met_share(self) -> float:
        return self.met / self.mails if self.mails else 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """`failed`, `left`: mails that ended without being taken, and that had not ended. `seconds`: how long it went on.
    `opened`, `turned_away`: connections, over all relays."""

    scenario: Scenario
    sites: Sequence[SiteResult]
    failed: int
    left: int
    opened: int
    turned_away: int
    record: Record = field(repr=False, compare=False)
    seconds: float = 0.0

    @property
    def whole(self) -> SiteResult:
        """All sites as one."""
        taken = sorted(at for site in self.record.sites.values() for at in site.taken)
        return SiteResult(
            name="all",
            model="",
            mails=sum(site.mails for site in self.sites),
            taken=len(taken),
            seconds=taken[-1] if taken else 0.0,
            met=sum(site.met for site in self.sites),
            refusals=sum(site.refusals for site in self.sites),
            throttles=sum(site.throttles for site in self.sites),
            peak=_most(taken, 1.0),
            steady=_steady(taken),
            doubles=sum(site.doubles for site in self.sites),
        )

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "sites": [_row(site) for site in self.sites],
            "all": _row(self.whole),
            "failed": self.failed,
            "left": self.left,
            "connections": {"opened": self.opened, "turned_away": self.turned_away},
        }


def _row(site: SiteResult) -> dict[str, Any]:
    return {
        "site": site.name,
        "model": site.model,
        "mails": site.mails,
        "taken": site.taken,
        "seconds": round(site.seconds, 3),
        "met": site.met,
        "met_share": round(site.met_share, 5),
        "refusals": site.refusals,
        "throttles": site.throttles,
        "peak": site.peak,
        "steady": round(site.steady, 3),
        "doubles": site.doubles,
    }


def _most(times: Sequence[float], width: float) -> int:
    """In any window of that width. `times` in their order."""
    most = start = 0
    for at, time in enumerate(times):
        while times[start] <= time - width:
            start += 1
        most = max(most, at - start + 1)
    return most


def _steady(times: Sequence[float]) -> float:
    first, last = int(len(times) * LOW), int(len(times) * HIGH)
    if last - first < 2 or times[last - 1] <= times[first]:
        return 0.0
    return (last - 1 - first) / (times[last - 1] - times[first])


def rates(times: Sequence[float], width: float, end: float) -> list[float]:
    """Mails a second in each step of that width up to `end`."""
    many = [0] * max(1, int(end / width) + 1)
    for time in times:
        at = int(time / width)
        if at < len(many):
            many[at] += 1
    return [each / width for each in many]

"""What a policy is held against: cases with a known limit and a standing backlog, and four numbers for each.

The cases are in two halves. Parameters of the policy are tuned on one (`TUNED`) and reported on the other
(`REPORTED`): what was fitted to a model says little about that model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from streamq.settings import Settings
from streamq.simulate.picture import capacity
from streamq.simulate.relay import Change
from streamq.simulate.result import Result, rates
from streamq.simulate.run import Terms, simulate
from streamq.simulate.scenario import Scenario, Spec

__all__ = ["CASES", "DRAWN", "REPORTED", "TUNED", "Case", "Marks", "measure", "read"]

SITE = "site.example"
USED = 0.9  # of a doubled limit
LEAST_MAILS = 50  # of a step in which a rate is read: fewer wobble by themselves
LEAST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Case:
    """`limited`: what has the limit, a site or the relay. `seconds`: how long it is watched, with a backlog all the
    time; `changes_at`: when the limit changes, 0: never."""

    limited: Spec
    seconds: float = 1800.0
    changes_at: float = 0.0
    service: float = 0.05
    rtt: float = 0.02

    @property
    def at_relay(self) -> bool:
        return not self.limited.name

    def scenario(self) -> Scenario:
        relays = {"": self.limited} if self.at_relay else {}
        site = Spec(SITE, share=1.0) if self.at_relay else self.limited
        bare = Scenario((site,), relays, 1, 0.0, self.rtt, self.service)
        return Scenario((site,), relays, max(1000, int(1.5 * could(self, bare))), 0.0, self.rtt, self.service)


def _case(name: str, *, relay: bool = False, changes: tuple[Change, ...] = (), **given: float) -> Case:
    spec = Spec("" if relay else SITE, name, 0.0 if relay else 1.0, given, changes)
    return Case(spec, changes_at=changes[0].at if changes else 0.0, service=0.5 if name == "connections" else 0.05)


def _then(at: float, **fields: float) -> tuple[Change, ...]:
    return (Change(at, tuple(fields.items())),)


TUNED: Mapping[str, Case] = {
    "rate": _case("rate", rate=5.0),
    "rate-doubles": _case("rate", rate=5.0, changes=_then(900.0, rate=10.0)),
    "relay-connections": _case("connections", relay=True, most=5),
    "relay-rate": _case("rate", relay=True, rate=10.0),
}
REPORTED: Mapping[str, Case] = {
    "penalty": _case("penalty", rate=8.0, box=20.0),
    "penalty-halves": _case("penalty", rate=8.0, box=20.0, changes=_then(900.0, rate=4.0)),
    "penalty-doubles": _case("penalty", rate=4.0, box=20.0, changes=_then(900.0, rate=8.0)),
    "relay-connections-box": _case("connections", relay=True, most=5, box=20.0),
    "relay-penalty": _case("penalty", relay=True, rate=10.0, box=20.0),
    "connections": _case("connections", most=5),
    "goes-away": _case("rate", rate=5.0, changes=_then(900.0, rate=40.0)),
}
CASES: Mapping[str, Case] = {**TUNED, **REPORTED}
DRAWN = {  # case → the title of its picture
    "rate-doubles": "5 a second, 10 a second after 15 minutes",
    "penalty-halves": "8 a second with a penalty box, 4 a second after 15 minutes",
    "goes-away": "5 a second, and no limit to speak of after 15 minutes",
}


@dataclass(frozen=True, slots=True)
class Marks:
    """`refused`: refusals among all answers to mails; `turned_away`: among all connections. `goodput`: what was taken,
    of what a client who knew the limit could have sent. `wobble`: the largest deviation from the mean rate, of that
    mean, when it has settled. `regained_s`: from the change until nine tenths of the new limit are used; None: never,
    or there is no change."""

    refused: float
    turned_away: float
    goodput: float
    wobble: float
    regained_s: float | None


def measure(case: Case, settings: Settings, url: str, *, workers: int = 2, seed: int = 1) -> Marks:
    """Raises as `simulate` does."""
    terms = Terms(workers=workers, seed=seed, until_s=case.seconds)
    return read(case, simulate(case.scenario(), settings, url, terms))


def read(case: Case, found: Result) -> Marks:
    """The numbers of a run of this case."""
    taken = [at for site in found.record.sites.values() for at in site.taken if at < case.seconds]
    refusals = sum(site.refusals for site in found.sites)
    end = case.changes_at or case.seconds
    limit = _limit(case, found.scenario)(0.0)
    step = max(LEAST_SECONDS, LEAST_MAILS / limit) if limit < inf else LEAST_SECONDS
    return Marks(
        refused=refusals / max(1, refusals + len(taken)),
        turned_away=found.turned_away / max(1, found.opened),
        goodput=len(taken) / max(1.0, could(case, found.scenario)),
        wobble=_wobble(rates([at for at in taken if at >= end / 2], step, end)[int(end / 2 / step) + 1 : -1]),
        regained_s=_regained(taken, case, found.scenario) if case.changes_at else None,
    )


def could(case: Case, scenario: Scenario, step: float = 1.0) -> float:
    """Mails that a client who knew the limit at each time could have sent."""
    limit = _limit(case, scenario)
    return sum(min(limit(at * step), 1e6) * step for at in range(int(case.seconds / step)))


def _limit(case: Case, scenario: Scenario) -> Callable[[float], float]:
    return capacity(case.limited, scenario)


def _wobble(steps: Sequence[float]) -> float:
    mean = sum(steps) / len(steps) if steps else 0.0
    return max(abs(rate - mean) for rate in steps) / mean if mean else 1.0


def _regained(taken: Sequence[float], case: Case, scenario: Scenario) -> float | None:
    limit = _limit(case, scenario)
    limit(0.0)
    wanted = limit(case.changes_at + 1.0) * USED
    width = max(LEAST_SECONDS, LEAST_MAILS / wanted)
    later = [at for at in taken if at >= case.changes_at]
    start = 0
    for at, time in enumerate(later):
        while later[start] <= time - width:
            start += 1
        if time - case.changes_at >= width and at - start + 1 >= wanted * width:
            return time - case.changes_at
    return None

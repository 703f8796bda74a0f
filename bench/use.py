"""How much of a limit is used in virtual time: the same scripts and workers as in life, and nothing but round trips and
answers to be late for (streamq/simulate). A backlog stands all the time; the first window is left out.

A table of its own of `python -m bench limits`; windows from 100 ms to an hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.limiters import most_in_any
from streamq.cli.own import own_server
from streamq.settings import Settings, load_settings
from streamq.simulate import Terms, simulate
from streamq.simulate.scenario import Scenario, Spec

__all__ = ["RULES", "SCOPES", "Used", "in_virtual_time", "limited", "table", "used"]

RULES = ("20/100ms", "100/s", "300/5s", "300/m", "600/h")
SCOPES = ("queue", "route", "site")
SPAN, WINDOWS = 6.0, 4  # seconds of a run behind the first window, and so many windows at least
RTT, SERVICE = 0.002, 0.001  # seconds to the relay and back, and for an answer


@dataclass(frozen=True, slots=True)
class Used:
    """`most`: mails at the relay in any window of W, `use`: that came; both as a share of N."""

    scope: str
    rule: str
    workers: int
    mails: int
    most: float
    use: float

    @property
    def good(self) -> bool:
        return self.most <= 1.0 and self.use >= 0.95


def limited(scope: str, rule: str, url: str) -> Settings:
    """What has that limit: the queue, its only route, or each site."""
    rate = {"rate": [rule]}
    if scope == "queue":
        return load_settings(limits=rate, routes={"main": {"url": url}})
    if scope == "route":
        return load_settings(routes={"main": {"url": url, **rate}})
    return load_settings(sites={"*": rate}, routes={"main": {"url": url}})


def in_virtual_time(url: str, scope: str, rule: str, workers: int, *, span: float = 0.0) -> Used:
    """On that Redis. `span`: seconds behind the first window; 0: `SPAN` or `WINDOWS`, whichever is longer."""
    window = load_settings(limits={"rate": [rule]}).limits.rate[0]
    n, w = window.count, window.window_ms / 1000
    span, warm = span or max(SPAN, WINDOWS * w), max(1.0, w)
    scenario = Scenario(
        (Spec("site.example", share=1.0),), {}, round(n / w * (warm + span) * 1.1) + 2 * n, 0.0, RTT, SERVICE
    )
    terms = Terms(workers=workers, until_s=(warm + span) * 1.05)
    ran = simulate(scenario, limited(scope, rule, "smtp://relay.example"), url, terms)
    came = sorted(at for site in ran.record.sites.values() for at in site.taken)
    inside = [at for at in came if warm <= at - came[0] < warm + span]
    most = most_in_any([round(at * 1e9) for at in came], round(w * 1e9))
    return Used(scope, rule, workers, len(inside), most / n, len(inside) / (n / w * span))


def used(scopes: Sequence[str], rules: Sequence[str], workers: Sequence[int]) -> list[Used]:
    with own_server(load_settings(), "use") as server:
        return [
            in_virtual_time(server.url, scope, rule, many) for scope in scopes for rule in rules for many in workers
        ]


def table(rows: Sequence[Used]) -> str:
    lines = [f"in virtual time\n{'':>6} {'rule':>9} {'workers':>7} {'mails':>6} {'most':>6} {'use':>7}"]
    lines += [
        f"{row.scope:>6} {row.rule:>9} {row.workers:7} {row.mails:6,} {row.most:6.3f} {row.use:7.1%}" for row in rows
    ]
    return "\n".join(lines)

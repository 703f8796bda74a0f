"""What a worker counts of its attempts: by outcome, class, provider and route, and how long they took.

Counted once a report, in dictionaries and lists that exist already, since a worker has a hundred microseconds for a
mail. Nothing here grows with mails or with the sites that they are for: sites count for their provider (`limits`), a
label's values are those of settings and of the table of replies. Where nobody asks for metrics none of it exists.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from streamq.queue.spool import time_ms
from streamq.smtp.letter import Action, Report
from streamq.worker.hand import Delivery

__all__ = ["OTHER", "Buckets", "Tally", "outcome_of"]

OTHER = "other"  # a site that no provider's rules name
LABELS_MOST = 10_000  # of attempts: a table of replies that somebody generates must not fill memory
ATTEMPT_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
WAIT_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400, 432_000)
THROTTLES = frozenset({"site_rate", "route_rate", "recipient_rate"})
OUTCOMES = {
    Action.SENT: "relayed",
    Action.RETRY: "deferred",
    Action.FAIL: "bounced",
    Action.PARK: "unjudged",
    Action.AMBIGUOUS: "ambiguous",
    Action.ABANDON: "abandoned",
}


def outcome_of(report: Report) -> str:
    return "throttled" if report.action is Action.RETRY and report.klass in THROTTLES else OUTCOMES[report.action]


class Buckets:
    """A histogram: `counts` of each bound (seconds, inclusive) and of what is beyond the last; not cumulative."""

    __slots__ = ("bounds", "counts", "sum_ms")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum_ms = 0

    def add(self, ms: int) -> None:
        self.counts[bisect_left(self.bounds, ms / 1000)] += 1
        self.sum_ms += ms


class Tally:
    """`attempts`: (outcome, class, provider, route) → how many reports of couriers; of letters that were parked unseen
    none. `took`: route → MAIL to the deciding reply. By priority: `waited` until the first attempt began, `delivered`
    until the 250; both from the later of the XADD and `send_at`. `providers`: site → provider."""

    def __init__(self, providers: Mapping[str, str], routes: Sequence[str], priorities: Sequence[str]) -> None:
        self.providers = providers
        self.attempts: dict[tuple[str, str, str, str], int] = {}
        self.took = {route: Buckets(ATTEMPT_SECONDS) for route in routes}
        self.waited = {name: Buckets(WAIT_SECONDS) for name in priorities}
        self.delivered = {name: Buckets(WAIT_SECONDS) for name in priorities}
        self._waited = list(self.waited.values())
        self._delivered = list(self.delivered.values())

    def report(self, delivery: Delivery, report: Report, now_ms: int) -> None:
        action, klass = report.action, report.klass
        if not report.tried:
            return
        outcome = outcome_of(report)
        key = (outcome, klass, self.providers.get(delivery.site, OTHER), delivery.way)
        if key not in self.attempts and len(self.attempts) >= LABELS_MOST:
            key = (outcome, OTHER, OTHER, delivery.way)
        self.attempts[key] = self.attempts.get(key, 0) + 1
        if action is Action.PARK or action is Action.ABANDON:
            return
        took_ms = report.duration_ms
        if (took := self.took.get(delivery.way)) is not None:
            took.add(took_ms)
        queued_ms = max(0, now_ms - max(time_ms(delivery.entry), delivery.mail.send_at_ms or 0))
        p = int(delivery.entry[0])
        if not delivery.attempts:
            self._waited[p].add(max(0, queued_ms - took_ms))
        if action is Action.SENT:
            self._delivered[p].add(queued_ms)

"""Metrics in Prometheus' formats: those of a queue, which `streamq serve` tells, and those of one worker.

A number has one source. What stands in Redis is the queue's, and is told once, by `serve`: as many workers would tell
it as many times, and sums over them would be wrong. A worker tells what only it knows. Labels are bounded: priorities,
states, outcomes, classes, routes, and providers in the place of domains; and on each `queue`, whatever the job that
scrapes it is called: two queues in one Prometheus are told apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from streamq import __version__
from streamq.mail.fields import lacking
from streamq.queue.overview import BARS, Overview
from streamq.smtp.classes import class_names
from streamq.worker.tally import OTHER, Buckets, Tally

__all__ = ["QueueNumbers", "rendered", "worker_families"]

# Told as 0 before the first: to increase() and rate() a series that is born at 50 has not grown.
OUTCOMES = (
    *("relayed", "delivered", "deferred", "throttled", "bounced", "expired", "rejected", "cancelled"),
    *("duplicate", "ambiguous", "failed", "expanded", "superseded", "requeued"),
    *("reported", "report_capped", "report_failed"),
)
TALLIES = {
    "reclaimed": "leases that were taken from workers whose heartbeat stopped",
    "vanished": "mails whose entry somebody deleted past streamq",
    "resettled": "mails that a server had lost the end of, and that ended again",
    "late": "ends that came after their lease was somebody else's",
}


def rendered(families: Iterable[Metric], queue: str, accept: str) -> tuple[bytes, str]:
    """The text and its content type, in the format that the client asks for; with this process's memory and CPU."""
    registry = CollectorRegistry()
    registry.register(_Once(families, queue))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Once:
    """What the library asks for metrics; twice would be once too often."""

    def __init__(self, families: Iterable[Metric], queue: str) -> None:
        self._families = list(families)
        self._queue = queue

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            family.samples = [each._replace(labels={**each.labels, "queue": self._queue}) for each in family.samples]
            yield family

    def describe(self) -> list[Metric]:
        return []


def _gauge(name: str, text: str, values: Mapping[Any, float], labels: tuple[str, ...] = ()) -> Metric:
    family = GaugeMetricFamily(f"streamq_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _counter(name: str, text: str, values: Mapping[Any, float], labels: tuple[str, ...] = ()) -> Metric:
    family = CounterMetricFamily(f"streamq_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, text: str, label: str, found: Mapping[str, Buckets]) -> Metric:
    family = HistogramMetricFamily(f"streamq_{name}", text, labels=[label])
    for value, buckets in found.items():
        bounds = [*(repr(float(bound)) for bound in buckets.bounds), "+Inf"]
        counts = accumulate(buckets.counts)
        family.add_metric([value], list(zip(bounds, map(float, counts), strict=True)), buckets.sum_ms / 1000)
    return family


class QueueNumbers:
    """Of one queue. `providers`: site → provider."""

    def __init__(self, providers: Mapping[str, str]) -> None:
        self._providers = providers
        self._accepted = 0
        self._salt = b""

    def families(self, seen: Overview | None) -> Iterator[Metric]:
        """None: Redis did not answer."""
        yield _gauge("build", "the version of streamq; always 1", {(__version__,): 1}, ("version",))
        yield _gauge("redis_up", "1: Redis answered this scrape, or one a second ago", {(): seen is not None})
        if seen is None:
            return
        yield from self._depth(seen)
        yield from self._outcomes(seen)
        yield from self._routes(seen)
        yield from self._sites(seen)
        yield from self._server(seen)

    def _depth(self, seen: Overview) -> Iterator[Metric]:
        now = seen.status
        depth = {(name, state): many for name, states in now.depth.items() for state, many in states.items()}
        yield _gauge("mails", "live mails", depth, ("priority", "state"))
        oldest = {(name,): ms / 1000 for name, ms in now.oldest_ms.items()}
        yield _gauge(
            "oldest_seconds", "age of the oldest live mail, whatever its state; 0: none", oldest, ("priority",)
        )
        aged = {(name, state): ms / 1000 for name, states in now.aged_ms.items() for state, ms in states.items()}
        text = "age of the oldest mail that is waiting, leased, or held; nothing where there is none"
        yield _gauge("oldest_in_state_seconds", text, aged, ("priority", "state"))
        text = "for how long the first mail of the schedule has been due"
        yield _gauge("scheduler_lag_seconds", text, {(): now.late_ms / 1000})
        text = "for how long the first lane of parked mail has had a slot that nobody took"
        yield _gauge("parked_lag_seconds", text, {(): now.parked_late_ms / 1000})
        text = "for how long nothing has been delivered although mail could go; 0: some was, or none could"
        yield _gauge("stalled_seconds", text, {(): seen.lately.stalled_ms / 1000})
        barred = {(why,): why in seen.bars for why in BARS}
        text = "1: no route takes mail but for moments, and this is why, or a part of it: unread mail waits for it"
        yield _gauge("barred", text, barred, ("why",))
        wanted = Counter[tuple[str]]()
        for need, many in seen.needs.items():
            wanted[lacking(need),] += many
        text = "mails held for a field, template or route that nobody here knows; of two such fields twice"
        yield _gauge("held_for", text, wanted, ("class",))

        rules = Counter({("all", "hold"): 0})
        for name, verb in seen.rules.items():
            rules[name.partition(":")[0], verb] += 1
        text = "standing rules; scope: all, priority, domain, tenant, tag, id"
        yield _gauge("standing_rules", text, rules, ("scope", "verb"))

    def _outcomes(self, seen: Overview) -> Iterator[Metric]:
        now = seen.status
        if now.salt != self._salt:  # it was flushed, and is another queue
            self._salt, self._accepted = now.salt, 0
        self._accepted = max(self._accepted, now.accepted)
        yield _counter("accepted", "entries that the streams took: mails, children, reports", {(): self._accepted})
        outcomes = {(name,): many for name, many in (dict.fromkeys(OUTCOMES, 0) | now.totals).items()}
        yield _counter("outcomes", "what became of mails, over all workers", outcomes, ("outcome",))
        classes = {(name,): many for name, many in (dict.fromkeys(class_names(), 0) | now.classes).items()}
        yield _counter("classes", "refusals and dead letters by class", classes, ("class",))
        for name, text in TALLIES.items():
            yield _counter(name, text, {(): now.tallies.get(name, 0)})
        yield _counter("died", "dead letters that were ever written", {(): now.tallies.get("dead", 0)})
        yield _gauge("dead_letters", "dead letters that are kept", {(): now.dead})
        yield _gauge("dead_letters_bytes", "and their bytes", {(): max(0, now.tallies.get("dead_bytes", 0))})
        yield _gauge("events", "events that are kept", {(): now.events})

    def _routes(self, seen: Overview) -> Iterator[Metric]:
        routes = seen.routes
        yield _gauge(
            "route_parked", "mails whose first way it is", {(one.name,): one.parked for one in routes}, ("route",)
        )
        granted = {(one.name,): one.connections for one in routes}
        yield _gauge("route_connections_granted", "connections that workers may have", granted, ("route",))
        standing = {(one.name,): one.standing for one in routes}
        yield _gauge("route_connections", "connections that stand", standing, ("route",))
        closed = {(each.name, each.why): 1 for one in routes for each in one.closed}
        open_ = {(one.name,): not one.closed for one in routes}
        yield _gauge("route_open", "0: nothing goes this way", open_, ("route",))
        text = "why it is closed: operator, breaker, or the class of its failure"
        yield _gauge("route_closed", text, closed, ("route", "why"))

    def _sites(self, seen: Overview) -> Iterator[Metric]:
        """By provider; of sites that were looked at."""
        parked: Counter[tuple[str]] = Counter()
        closed: dict[tuple[str], set[str]] = {}
        slowed: dict[tuple[str], set[str]] = {}
        for view in seen.sites:
            key = (self._providers.get(view.site, OTHER),)
            parked[key] += view.many
            if any(each.site for each in view.closed):
                closed.setdefault(key, set()).add(view.site)
            if view.gauge is not None and any(one.pace is not None and "|" in one.target for one in view.gauge.gauges):
                slowed.setdefault(key, set()).add(view.site)
        labels = ("provider",)
        text = "mails that wait for their site or route"
        yield _gauge("parked", text, {key: many for key, many in parked.items() if many}, labels)
        text = "sites that a person or a throttle closed"
        yield _gauge("sites_closed", text, {key: len(names) for key, names in closed.items()}, labels)
        text = "sites that replies have slowed"
        yield _gauge("sites_throttled", text, {key: len(names) for key, names in slowed.items()}, labels)
        yield _gauge("lanes_not_looked_at", "lanes beyond those that these numbers are of", {(): seen.sites_left})

    def _server(self, seen: Overview) -> Iterator[Metric]:
        now = seen.status
        yield _gauge("workers", "worker processes that were seen within a minute", {(): now.workers})
        yield _gauge("swept", "1: a worker leads the sweeps (reclaim, expiry, schedule)", {(): now.swept})
        yield _gauge("redis_memory_bytes", "what Redis uses", {(): now.memory})
        yield _gauge("redis_memory_max_bytes", "its maxmemory; 0: none", {(): now.memory_max})
        text = "1: it throws keys away where it is full (maxmemory-policy is not noeviction)"
        yield _gauge("redis_evicts", text, {(): bool(now.evicts)})
        yield _counter("redis_evicted_keys", "keys that it threw away since it started, of whomever", {(): now.evicted})
        shares = {(one.name,): one.used / max(one.most, 1) for one in now.bounds}
        text = "of a bound that is near or reached (queue, memory, dead), how much is used; 1: all of it"
        yield _gauge("bound_share", text, shares, ("bound",))
        yield _gauge("redis_latency_seconds", "two round trips, one of them a transaction", {(): seen.took_ms / 1000})


def worker_families(
    tally: Tally,
    *,
    settled: Mapping[str, int],
    in_hand: int,
    connections: Mapping[str, int],
    ready: bool,
    redis_up: bool,
    leads: bool,
) -> Iterator[Metric]:
    """Of one worker process."""
    yield _gauge("build", "the version of streamq; always 1", {(__version__,): 1}, ("version",))
    yield _gauge("worker_ready", "1: it takes mail", {(): ready})
    yield _gauge("worker_redis_up", "0: Redis is away, as this worker sees it", {(): redis_up})
    yield _gauge("worker_leads", "1: it leads the sweeps", {(): leads})
    yield _gauge("worker_in_hand", "mails that it holds", {(): in_hand})
    open_ = {(name,): many for name, many in connections.items()}
    yield _gauge("worker_connections", "connections, those being opened included", open_, ("route",))
    labels = ("outcome", "class", "provider", "route")
    yield _counter(
        "attempts", "what couriers reported; `unjudged`: nobody said a word about the mail", tally.attempts, labels
    )
    statuses = {(name,): many for name, many in settled.items()}
    yield _counter("settled", "what Redis made of the ends of attempts (settle.lua)", statuses, ("status",))
    yield _histogram("attempt_seconds", "from MAIL to the deciding reply", "route", tally.took)
    text = "from XADD, or send_at, until its first attempt began"
    yield _histogram("queue_seconds", text, "priority", tally.waited)
    text = "from XADD, or send_at, to the 250"
    yield _histogram("delivery_seconds", text, "priority", tally.delivered)

"""What a queue looks like as a whole, for metrics and the page: one gathering for all who ask, a second old at most.

However many look, Redis is asked once a second; about workers, routes and rules once in five; about sites, each of
which takes some commands, once in five, too, or as seldom as in fifteen where there are many lanes. Of those only the
ones that are due first are looked at (`LANES_LOOKED`). Outcomes (lately.py) and dead letters (graves.py) have beats of
their own. What all that takes of the server's time `tests/queue/test_overview.py` counts in commands,
docs/operations.md says in milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from streamq.queue.connection import command
from streamq.queue.flow import Flow, Sample, flow
from streamq.queue.gauge import LaneGauge, Rule, gauges, rules_of
from streamq.queue.graves import Graves, GravesSeen
from streamq.queue.lately import Lately, Recent
from streamq.queue.look import Status, status
from streamq.queue.routes import RouteView, route_views
from streamq.queue.sites import Lane, SiteView, sites_and_lanes
from streamq.queue.spool import Spool
from streamq.queue.steer import standing
from streamq.queue.troubles import Troubles

__all__ = ["BARS", "Overview", "Overviews", "known_routes"]

FRESH_SECONDS = 1.0
PATIENCE_SECONDS = 5.0  # with a Redis that says nothing
WAYS_SECONDS = 5.0  # workers, routes, rules
SITES_SECONDS = 5.0  # and as much more for every so many lanes that were looked at: each takes the server some 30 µs
SITES_LANES = 50
LANES_LOOKED = 100  # those due first
HOLDS_MOST = 1000  # intents of mails stand beside rules and needs: where there are more, not all of these are seen
TROUBLED_MOST = 20  # sites that are shown for their trouble alone
SAMPLE_SECONDS = 5.0
SAMPLES_MOST = 720  # an hour
FLOW_SAMPLES = 4  # that a rate goes over
# Why a route takes no mail now: a limit that somebody set, or an operator's pause; what replies taught, or closed.
BARS = ("limit", "pause", "throttle", "closed")


@dataclass(slots=True)
class Overview:
    """`sites_left`: lanes that nobody looked at; `troubled_left`: sites in trouble beside those that are shown.
    `rules`: standing rules, name → verb; `needs`: what held mails wait for → how many. `limits`: route, or `*` → rule;
    `gates`: what limits each route, whatever the site. `took_ms`: the round trips of `status` together, as this
    process saw them."""

    status: Status
    routes: list[RouteView] = field(default_factory=list)
    limits: dict[str, Rule] = field(default_factory=dict)
    sites: list[SiteView] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)
    sites_left: int = 0
    troubled_left: int = 0
    rules: dict[str, str] = field(default_factory=dict)
    needs: dict[str, int] = field(default_factory=dict)
    gates: list[LaneGauge] = field(default_factory=list)
    lately: Lately = field(default_factory=Lately)
    graves: GravesSeen = field(default_factory=GravesSeen)
    took_ms: float = 0.0

    @property
    def bars(self) -> frozenset[str]:
        """Of `BARS`, where no route takes mail but for moments; more than one where a route has several, or there are
        several routes."""
        most = {name: rule.connections for name, rule in self.limits.items() if rule.connections}
        full = {view.name for view in self.routes if view.standing >= most.get(view.name, math.inf)}
        found = [_bars(each, full=each.way in full) for each in self.gates]
        return frozenset().union(*found) if all(found) else frozenset()

    @property
    def barred(self) -> bool:
        """Each route is closed, or its limit or the queue's has no slot yet: nobody reads what is unread."""
        return bool(self.gates) and not any(each.open and _has_slot(each) for each in self.gates)


def _has_slot(gate: LaneGauge) -> bool:
    return all(gauge.at_us(1, gate.now_us) <= gate.now_us for gauge in gate.gauges[:2])  # of the queue, of the route


def _bars(gate: LaneGauge, *, full: bool) -> frozenset[str]:
    """`full`: as many connections stand as somebody allowed it."""
    if not gate.open:
        return frozenset({"pause" if {each.why for each in gate.closed} == {"operator"} else "closed"})
    found = {"limit"} if full else set()
    for gauge in gate.gauges[:2]:  # of the queue, of the route
        *set_, last = [meter.binds(gate.now_us) for meter in gauge.meters] or [False]
        found |= {"throttle"} if last and gauge.pace else set()
        found |= {"limit"} if any(set_) or (last and not gauge.pace) else set()
    return frozenset(found)


def known_routes(spool: Spool) -> list[str]:
    """Those of these settings. Who looks need not have the workers' file: `relay` is the short way's name."""
    return list(spool.settings.ways) or ["relay"]


class Overviews:
    """Of one queue. `routes`: those that are shown, beside what is closed (else `known_routes`); `fresh_seconds`: so
    old may be what `get` gives; `page`: what only the page shows is looked at, too; `clock` gives seconds; `sleep`
    waits so many."""

    def __init__(
        self,
        spool: Spool,
        *,
        routes: Iterable[str] | None = None,
        fresh_seconds: float = FRESH_SECONDS,
        page: bool = True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.spool = spool
        self.samples: deque[Sample] = deque(maxlen=SAMPLES_MOST)
        self._routes = known_routes(spool) if routes is None else list(routes)
        self._fresh = fresh_seconds
        self._clock = clock
        self._sleep = sleep
        self._recent = Recent(spool) if page else None
        self._graves = Graves(spool) if page else None
        self._troubles = Troubles(spool) if page else None
        self._task: asyncio.Task[Overview] | None = None
        self._last: Overview | None = None
        self._read_at = self._ways_at = self._sites_at = 0.0

    async def get(self, *, anew: bool = False) -> Overview:
        """`anew`: somebody has just changed something, and wants to see it. Raises redis-py's errors, TimeoutError."""
        if anew and self._task is not None:  # what is under way may have begun before the change
            await asyncio.wait({self._task}, timeout=PATIENCE_SECONDS)
        now = self._clock()
        if self._last is not None and not anew and now - self._read_at < self._fresh:
            return self._last
        if self._task is None or self._task.done():
            last = None if anew else self._last
            ways = None if now - self._ways_at >= WAYS_SECONDS else last
            sites = None if now - self._sites_at >= self._sites_for else last
            self._task = asyncio.create_task(self._gathered(ways, sites, now, anew=anew), name="overview")
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())  # maybe nobody waits still
        # Who comes meanwhile gets what this one brings. Who waits no longer cancels nothing: half a reply would be the
        # next command's.
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await asyncio.shield(self._task)

    @property
    def silent_ms(self) -> int | None:
        """Since Redis answered last; None: it never did."""
        return None if self._last is None else round((self._clock() - self._read_at) * 1000)

    async def close(self) -> None:
        """What is under way ends by itself."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=PATIENCE_SECONDS)

    @property
    def _sites_for(self) -> float:
        """Seconds for which what was seen of sites will do."""
        return SITES_SECONDS * (1 + (len(self._last.lanes) // SITES_LANES if self._last else 0))

    async def _gathered(
        self, ways: Overview | None, sites: Overview | None, now: float, *, anew: bool = False
    ) -> Overview:
        """Those of before, whose workers and routes, or whose sites, will still do."""
        began = time.perf_counter()
        found = Overview(await status(self.spool, None if ways is None else ways.status.consumers))
        found.took_ms = (time.perf_counter() - began) * 1000
        if ways is None:
            found.routes = await route_views(self.spool, self._routes)
            found.limits = await rules_of(self.spool, ["*", *(view.name for view in found.routes)])
            found.gates = await gauges(self.spool, [f"{name}|" for name in await self._used(found.routes)])
            many = await command(self.spool.redis, "HLEN", self.spool.keys.holds)
            found.rules, found.needs = await standing(self.spool, whole=many <= HOLDS_MOST)
        else:
            found.routes, found.limits, found.gates = ways.routes, ways.limits, ways.gates
            found.rules, found.needs = ways.rules, ways.needs
        if sites is None:
            await self._sites(found)
        else:
            found.sites, found.lanes, found.sites_left = sites.sites, sites.lanes, sites.sites_left
            found.troubled_left = sites.troubled_left
        if self._recent is not None:
            found.lately = await self._recent.of(found.status, barred=found.barred)
        if self._graves is not None:
            found.graves = await self._graves.of(found.status, now, anew=anew)
        self._last, self._read_at = found, now
        self._ways_at = now if ways is None else self._ways_at
        self._sites_at = now if sites is None else self._sites_at
        return found

    async def _used(self, views: list[RouteView]) -> list[str]:
        """Routes that say something of themselves. Of the others the name may be a guess: workers have another one."""
        limited = [
            name.decode("utf-8", "replace") for name in await command(self.spool.redis, "HKEYS", self.spool.keys.limits)
        ]
        names = [view.name for view in views if view.shares or view.closed]
        names += [name for name in limited if "|" not in name and name != "*"]
        return list(dict.fromkeys(names or (view.name for view in views)))

    async def _sites(self, found: Overview) -> None:
        troubles = [] if self._troubles is None else await self._troubles.of(found.status.now_ms)
        found.troubled_left = max(0, len(troubles) - TROUBLED_MOST)
        found.sites, found.lanes, found.sites_left = await sites_and_lanes(
            self.spool, most=LANES_LOOKED, whole=True, troubles=troubles[:TROUBLED_MOST]
        )

    async def sample(self) -> None:
        """Keep what there is now."""
        self.samples.append(Sample.of((await self.get()).status))

    def flow(self, at: int = -1) -> Flow | None:
        """At that sample, over the last few: what comes in batches would be a saw. None where there are too few."""
        nth = at % len(self.samples) if self.samples else 0
        return flow(self.samples[max(0, nth - FLOW_SAMPLES)], self.samples[nth]) if self.samples else None

    async def watch(self, away: tuple[type[Exception], ...]) -> None:
        """Samples, for ever; one that fails by an error of `away` is left out."""
        while True:
            with contextlib.suppress(*away):
                await self.sample()
            await self._sleep(SAMPLE_SECONDS)

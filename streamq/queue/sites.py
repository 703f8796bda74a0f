"""Looks at sites: those with a limit of their own, a pause, a pace, or parked mails, and those that put mails off or
fail (troubles.py); what limits them, and until when.

A row is a target, `<route>|<site>`: what is parked for a site counts to the route that it takes now. `*` for the route:
nothing is parked for it, and what is set holds for all routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamq.queue.connection import Part, command, pipelined
from streamq.queue.gauge import LaneGauge, Rule, gauges, in_use, rules_of
from streamq.queue.lanes import site_in
from streamq.queue.routes import Closure, closures
from streamq.queue.spool import Spool
from streamq.queue.troubles import Trouble, site_troubles

__all__ = [
    "Lane",
    "SiteView",
    "drained_us",
    "full_first",
    "fullest",
    "lanes",
    "lanes_of",
    "site_views",
    "sites_and_lanes",
]

LANES_MOST = 10_000  # that are looked at, those due first of each priority
PAGE = 1000
TROUBLED_MOST = 200  # sites that are listed for their trouble alone
WAYS_MOST = 1000  # in which lanes may differ


@dataclass(slots=True)
class Lane:
    """The parked mails of one site that may go the same ways, of all tenants: a road (lanes.py). `parked`: mails by
    priority, of the first thousand tenants. Where somebody asked:
    `drained_ms`, as of a site; `open`: one of its ways is."""

    name: str
    parked: dict[str, int] = field(default_factory=dict)
    drained_ms: int | None = None
    open: bool = True

    @property
    def site(self) -> str:
        return site_in(self.name)

    @property
    def many(self) -> int:
        return sum(self.parked.values())


@dataclass(slots=True)
class SiteView:
    """One target. `parked`: mails by priority, or under "" all of them. `next_ms`: until its next mail may go (0: now);
    None: until an operator says so, or nothing is parked. `drained_ms`: until all that is parked has gone at the rate
    in force, alone; None where nobody can tell. `in_use`: transactions under way, where they are limited. `trouble`:
    how it fails lately, or puts mails off."""

    site: str
    route: str
    rule: Rule
    parked: dict[str, int] = field(default_factory=dict)
    lanes: list[str] = field(default_factory=list)
    closed: list[Closure] = field(default_factory=list)
    gauge: LaneGauge | None = None
    next_ms: int | None = None
    drained_ms: int | None = None
    in_use: int = 0
    trouble: Trouble | None = None

    @property
    def target(self) -> str:
        return f"{self.route}|{self.site}"

    @property
    def many(self) -> int:
        return sum(self.parked.values())


# -- lanes -------------------------------------------------------------------------------------------------------


async def lanes(spool: Spool, most: int = LANES_MOST, *, whole: bool = False) -> tuple[list[Lane], int]:
    """So many lanes that hold mails, those due first of each priority; and how many there are beside them, at least.
    `whole`: their mails are counted together, under "", which takes a third of the server's time."""
    found: dict[str, Lane] = {}
    held = await pipelined(spool.redis, [("ZCARD", spool.keys.due(name)) for name in spool.priorities])
    for priority in spool.priorities:
        at = 0
        while at < most:
            rows = await command(spool.redis, "ZRANGE", spool.keys.due(priority), at, min(at + PAGE, most) - 1)
            for row in rows:
                name = row.decode("utf-8", "replace")
                found.setdefault(name, Lane(name))
            at += PAGE
            if len(rows) < PAGE:
                break
    kept = list(found.values())[:most]
    await _count(spool, kept, whole=whole)
    return [lane for lane in kept if lane.many], max(0, max(held, default=0) - len(kept))


async def lanes_of(spool: Spool, site: str) -> list[Lane]:
    """All of one site. Found by their ways, one step over what is parked for each."""
    ways: list[str] = []
    start = b"-"
    while len(ways) < WAYS_MOST:
        rows = await command(spool.redis, "ZRANGEBYLEX", spool.keys.parked, start, "+", "LIMIT", 0, 1)
        if not rows:
            break
        first = rows[0].partition(b"|")[0]
        start = b"(" + first + b"}"
        ways.append(first.decode("utf-8", "replace"))
    found = [Lane(f"{way}|{site}") for way in ways]
    await _count(spool, found)
    return [lane for lane in found if lane.many]


async def _count(spool: Spool, roads: Sequence[Lane], *, whole: bool = False) -> None:
    counted = [""] if whole else list(spool.priorities)
    for road in roads:
        road.parked = dict.fromkeys(counted, 0)
    named = [(road, priority, road.name) for road in roads for priority in counted]
    if await command(spool.redis, "EXISTS", spool.keys.shared):
        pairs = [(road, priority) for road in roads for priority in spool.priorities]
        turns = await _paged(spool, [("ZRANGE", spool.keys.turns(at, road.name), 0, PAGE - 1) for road, at in pairs])
        others: dict[tuple[int, str, str], tuple[Lane, str, str]] = {}
        for (road, priority), found in zip(pairs, turns, strict=True):
            for name in (name.decode("utf-8", "replace") for name in found):
                if name != road.name:
                    under = "" if whole else priority
                    others[id(road), under, name] = road, under, name  # of several priorities once
        named += others.values()
    counts = await _paged(spool, [_range(spool, name, priority) for _, priority, name in named])
    for (road, priority, _), many in zip(named, counts, strict=True):
        road.parked[priority] += many


def _range(spool: Spool, lane: str, priority: str) -> Sequence[Part]:
    if not priority:
        return ("ZLEXCOUNT", spool.keys.parked, f"[{lane}|", f"({lane}}}")
    p = spool.digit(priority)
    return ("ZLEXCOUNT", spool.keys.parked, f"[{lane}|{p}", f"({lane}|{chr(49 + p)}")


async def _paged(spool: Spool, asked: Sequence[Sequence[Part]]) -> list[Any]:
    replies: list[Any] = []
    for start in range(0, len(asked), PAGE):
        replies += await pipelined(spool.redis, asked[start : start + PAGE])
    return replies


async def fullest(spool: Spool, most: int, *, of: int = LANES_MOST, route: str = "") -> tuple[list[Lane], int]:
    """Of the lanes that are looked at, `of` so many, those with the most mails, with `drained_ms`; `route`: whose first
    way it is. And how many lanes there are beside them, at least."""
    found, left = await lanes(spool, of)
    if route:
        found = [lane for lane in found if lane.name.startswith((f"{route}|", f"{route}>"))]
    kept = full_first(found)[:most]
    for lane, gauge in zip(kept, await gauges(spool, [lane.name for lane in kept]), strict=True):
        _drain(lane, gauge)
    return kept, left + len(found) - len(kept)


def full_first(found: Iterable[Lane]) -> list[Lane]:
    return sorted(found, key=lambda lane: (-lane.many, lane.name))


def _drain(lane: Lane, gauge: LaneGauge) -> None:
    drained = drained_us(gauge, lane.many)
    lane.drained_ms = None if drained is None else drained // 1000
    lane.open = gauge.open


def drained_us(gauge: LaneGauge, many: int) -> int | None:
    """µs until so many mails have gone."""
    at = gauge.at_us(many)
    return None if at is None or gauge.rate is None else max(0, round(at) - gauge.now_us)


# -- sites -------------------------------------------------------------------------------------------------------


async def site_views(spool: Spool, site: str | None = None, most: int = LANES_MOST) -> tuple[list[SiteView], int]:
    """Of all sites, or of one: what matters most first: the most parked, the closed, those in trouble, then by name;
    and how many lanes nobody looked at."""
    troubles = await site_troubles(spool, await _now_us(spool) // 1000)
    views, _, left = await sites_and_lanes(spool, site, most, troubles=troubles[:TROUBLED_MOST])
    return views, left


async def sites_and_lanes(
    spool: Spool,
    site: str | None = None,
    most: int = LANES_MOST,
    *,
    whole: bool = False,
    troubles: Sequence[Trouble] = (),
) -> tuple[list[SiteView], list[Lane], int]:
    """The same, and the lanes that they are made of, with `drained_ms`; `whole` as in `lanes`. Sites of `troubles` are
    among them."""
    found, left = (await lanes(spool, most, whole=whole)) if site is None else (await lanes_of(spool, site), 0)
    views: dict[str, SiteView] = {}
    for lane, gauge in zip(found, await gauges(spool, [lane.name for lane in found]), strict=True):
        _drain(lane, gauge)
        target = f"{gauge.way}|{lane.site}"
        view = views.setdefault(target, SiteView(lane.site, gauge.way, Rule(), dict.fromkeys(lane.parked, 0)))
        view.lanes.append(lane.name)
        for priority, many in lane.parked.items():
            view.parked[priority] += many
        if view.gauge is None or (gauge.open and not view.gauge.open):
            view.gauge = gauge
    now_us = next((view.gauge.now_us for view in views.values() if view.gauge), 0) or await _now_us(spool)
    shut = [each for each in await _closures(spool, now_us) if each.site and site in {None, each.site}]
    for target in await _targets(spool, site, shut):
        at, _, name = target.partition("|")
        if at != "*" or not any(view.site == name for view in views.values()):
            views.setdefault(target, SiteView(name, at, Rule(), dict.fromkeys(spool.priorities, 0)))
    _troubled(spool, views, [each for each in troubles if site in {None, each.site}])
    bare = [view for view in views.values() if view.gauge is None and view.route != "*"]
    for view, gauge in zip(bare, await gauges(spool, [view.target for view in bare]), strict=True):
        view.gauge = gauge
    rules = await rules_of(spool, views)
    for target, view in views.items():
        view.rule = rules[target]
        view.closed = [each for each in shut if each.site == view.site and _meets(each.route, view.route)]
        if view.gauge is not None and view.many:
            _tell(view, view.gauge)
    counted = [target for target, view in views.items() if view.rule.connections is not None and view.route != "*"]
    for target, many in zip(counted, await in_use(spool, counted, now_us) if counted else [], strict=True):
        views[target].in_use = many
    return sorted(views.values(), key=_weight), found, left


def _troubled(spool: Spool, views: dict[str, SiteView], troubles: Iterable[Trouble]) -> None:
    """A trouble is its site's: it stands at the row of its route, else at another of that site, else in one of its
    own."""
    of_site = {view.site: view for view in views.values()}
    for each in troubles:
        view = views.get(each.target) or of_site.get(each.site)
        if view is None:
            view = views[each.target] = SiteView(
                each.site, each.route or "*", Rule(), dict.fromkeys(spool.priorities, 0)
            )
        view.trouble = each


def _meets(route: str, other: str) -> bool:
    return route == other or route == "*"


def _weight(view: SiteView) -> tuple[int, bool, bool, str, str]:
    return (-view.many, not view.closed, view.trouble is None, view.site, view.route)


def _tell(view: SiteView, gauge: LaneGauge) -> None:
    view.closed += [each for each in gauge.closed if not each.site]
    opens = gauge.opens_us
    if opens is not None:
        first = max(each.at_us(1, opens) for each in gauge.gauges)
        view.next_ms = max(0, round(first) - gauge.now_us) // 1000
    drained = drained_us(gauge, view.many)
    view.drained_ms = None if drained is None else drained // 1000


async def _targets(spool: Spool, site: str | None, shut: Iterable[Closure]) -> list[str]:
    """Of sites that have a limit of their own, a pause, or a pace (the first thousand of those)."""
    slowed = await command(spool.redis, "ZRANGE", spool.keys.throttled, 0, PAGE - 1)
    names = [name.decode("utf-8", "replace") for name in slowed]
    names += [name.decode("utf-8", "replace") for name in await command(spool.redis, "HKEYS", spool.keys.limits)]
    found = [name for name in names if "|" in name and site in {None, name.partition("|")[2]}]
    return list(dict.fromkeys([*(each.name for each in shut), *found]))


async def _closures(spool: Spool, now_us: int) -> list[Closure]:
    return closures(await command(spool.redis, "HGETALL", spool.keys.pauses), now_us // 1000)


async def _now_us(spool: Spool) -> int:
    seconds, micros = await command(spool.redis, "TIME")
    return int(seconds) * 1_000_000 + int(micros)

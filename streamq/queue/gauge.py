"""What limits a target now: what is set, and by whom; what of it is used; when the next mail may go, and the n-th.

A target is `*` (the whole queue), `<route>`, or `<route>|<site>`, where a limit that is set may have `*` for either.
The one place that knows how limits look from outside: sites, routes, `why` and ETAs are made of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson

from streamq.queue.connection import command, pipelined
from streamq.queue.lanes import site_in, ways_of
from streamq.queue.limits import LAYERS
from streamq.queue.routes import Closure, closures
from streamq.queue.rows import LaneSaid
from streamq.queue.scripts import BATCH
from streamq.queue.spool import Spool
from streamq.settings import Window

__all__ = ["Gauge", "LaneGauge", "Meter", "Pace", "Rule", "fields_of", "gauges", "in_use", "rules_of"]

WINDOW = re.compile(r"(\d+):(\d+)")
MANY = 10 * BATCH  # fields a command
PACE_US, PACE_SLACK_US = 1_000_000, 20_000  # as lib/pace.lua keeps a pace: by the second, evenly


@dataclass(frozen=True, slots=True)
class Rule:
    """What is set for a target. `windows`: mails a window, all at once; `by`: the layer that says so, "" where none
    does; `field`: the entry that holds. `connections`: transactions at once, and `connections_by`."""

    windows: tuple[Window, ...] = ()
    by: str = ""
    field: str = ""
    connections: int | None = None
    connections_by: str = ""

    def __str__(self) -> str:
        parts = [str(window) for window in self.windows]
        if self.connections is not None:
            parts.append(f"{self.connections} at once")
        return ", ".join(parts)

    def __bool__(self) -> bool:
        return bool(self.windows) or self.connections is not None


@dataclass(frozen=True, slots=True)
class Meter:
    """The state of one window, in µs: lib/limit.lua has the words. A mail goes from TAT less `slack_us` on, and each
    moves TAT by `step_us`."""

    window_us: int
    tat_us: float
    step_us: float
    slack_us: float

    def at_us(self, nth: int, now_us: int) -> float:
        """When the nth mail from now on may go, if all slots are taken as they come."""
        return max(now_us, max(now_us, self.tat_us) + (nth - 1) * self.step_us - self.slack_us)

    def binds(self, now_us: int) -> bool:
        """It is used up, but for half of its tolerance: of one that binds at hundreds of mails a second a slot is free
        for moments, and of one that does not as much is hardly ever used."""
        return self.tat_us - self.slack_us / 2 > now_us

    @property
    def rate(self) -> float:
        """Mails a second, in the long run."""
        return 1e6 / self.step_us


@dataclass(frozen=True, slots=True)
class Pace:
    """How its replies slowed a target, field `pace` of its state (lib/pace.lua): `rate` mails a second, none before
    `till_us`; since when, and the `klass` and `reply` of the last refusal."""

    rate: float
    till_us: int
    since_ms: int
    klass: str
    reply: str
    meter: Meter

    def at_us(self, nth: int, now_us: int) -> float:
        return self.meter.at_us(nth, max(now_us, self.till_us))


@dataclass(frozen=True, slots=True)
class Gauge:
    """What limits one target: what is set, and how its replies slowed it: with a `pace` the last of `meters` is its."""

    target: str
    meters: tuple[Meter, ...] = ()
    pace: Pace | None = None

    def at_us(self, nth: int, now_us: int) -> float:
        """When the nth mail from now on may go; now, where nothing limits it."""
        set_ = max((meter.at_us(nth, now_us) for meter in self.meters), default=now_us)
        return set_ if self.pace is None else max(set_, self.pace.at_us(nth, now_us))

    def is_throttled(self, nth: int, now_us: int) -> bool:
        """Whether the nth mail waits for the pace, rather than for what is set."""
        return self.pace is not None and self.pace.at_us(nth, now_us) == self.at_us(nth, now_us)

    @property
    def rate(self) -> float | None:
        """Mails a second that it lets through in the long run; None: it is not limited."""
        slowed = [] if self.pace is None else [self.pace.rate]
        return min([*(meter.rate for meter in self.meters), *slowed], default=None)


@dataclass(frozen=True, slots=True)
class LaneGauge:
    """What limits a lane. `way`: the route that its mails take now, or the first where all are `closed`; `gauges`: of
    the queue, of that route, of route and site; `closed`: all that closes one of its ways."""

    lane: str
    now_us: int
    way: str
    open: bool
    gauges: tuple[Gauge, ...]
    closed: list[Closure] = field(default_factory=list)

    @property
    def opens_us(self) -> int | None:
        """When its first way opens, or is tried again; now, where one is open; None: when an operator says so."""
        if self.open:
            return self.now_us
        times = []
        for way in ways_of(self.lane):
            shut = [each for each in self.closed if each.route in {way, "*"}]
            if all(each.left_ms is not None for each in shut):
                times.append(max((self.now_us + (each.left_ms or 0) * 1000 for each in shut), default=self.now_us))
            if any(each.hold for each in shut):
                break
        return min(times, default=None)

    @property
    def rate(self) -> float | None:
        """Mails a second, if it were alone; None: nothing limits it."""
        return min((gauge.rate for gauge in self.gauges if gauge.rate is not None), default=None)

    def binding(self, nth: int = 1) -> Gauge | None:
        """What the nth mail waits for the longest; None: for nothing of these."""
        last = max(self.gauges, key=lambda gauge: gauge.at_us(nth, self.now_us))
        return last if last.at_us(nth, self.now_us) > self.now_us else None

    def at_us(self, nth: int) -> float | None:
        """When its nth mail may go at the rate in force; None where nobody can tell: it is closed without an end, or
        until a probe succeeds, or nothing but the relay limits it."""
        opens = self.opens_us
        if opens is None or (not self.open and any(each.why != "operator" for each in self.closed)):
            return None
        if self.rate is None and nth > 1:
            return None
        return max(gauge.at_us(nth, opens) for gauge in self.gauges)


def _meters(text: str) -> tuple[Meter, ...]:
    meters = []
    for part in filter(None, text.split(",")):
        window, tat, step, slack = part.split()
        meters.append(Meter(int(window), float(tat), float(step), float(slack)))
    return tuple(meters)


async def gauges(spool: Spool, lanes: Sequence[str]) -> list[LaneGauge]:
    """Of these lanes, parked or not; in a few round trips."""
    if not lanes:
        return []
    now_us, rows = await spool.scripts.gauge(lanes)
    shut = closures(await command(spool.redis, "HGETALL", spool.keys.pauses), now_us // 1000)
    by_target: dict[tuple[str, str], list[Closure]] = {}
    for each in shut:
        by_target.setdefault((each.route, each.site), []).append(each)
    targets = [_targets(lane, said) for lane, said in zip(lanes, rows, strict=True)]
    paces = await _paces(spool, {target for each in targets for target in each[1:]})
    return [
        _gauge(lane, now_us, said, [Gauge(target, pace=paces.get(target)) for target in each], by_target)
        for lane, said, each in zip(lanes, rows, targets, strict=True)
    ]


def _targets(lane: str, said: LaneSaid) -> tuple[str, str, str]:
    way = said.way or ways_of(lane)[0]
    return "*", way, f"{way}|{site_in(lane)}"


def _gauge(
    lane: str, now_us: int, said: LaneSaid, empty: Sequence[Gauge], shut: Mapping[tuple[str, str], list[Closure]]
) -> LaneGauge:
    site = site_in(lane)
    names = ways_of(lane)
    way = said.way or names[0]
    texts = (said.queue, said.route, said.site)
    found = tuple(replace(gauge, meters=_meters(text)) for gauge, text in zip(empty, texts, strict=True))
    closed = [each for name in names for key in ((name, ""), (name, site)) for each in shut.get(key, ())]
    closed += shut.get(("*", site), ())
    return LaneGauge(lane, now_us, way, bool(said.way), found, closed)


async def in_use(spool: Spool, targets: Sequence[str], now_us: int) -> list[int]:
    """Transactions that are under way at each target, by leases that have not run out."""
    return await pipelined(
        spool.redis, [("ZCOUNT", spool.keys.slots(target), f"({now_us}", "+inf") for target in targets]
    )


async def _paces(spool: Spool, targets: Iterable[str]) -> dict[str, Pace]:
    names = sorted(targets)
    found: dict[str, Pace] = {}
    for start in range(0, len(names), MANY):
        part = names[start : start + MANY]
        replies = await pipelined(spool.redis, [("HGET", spool.keys.limit(name), "pace") for name in part])
        made = {name: _pace(text) for name, text in zip(part, replies, strict=True) if text is not None}
        found |= {name: pace for name, pace in made.items() if pace is not None}
    return found


def _pace(text: bytes) -> Pace | None:
    """None where it is none that scripts write."""
    try:
        known = orjson.loads(text)
        rate, tat = float(known["rate"]), float(known.get("tat", 0))
        since_ms, till_us = int(known.get("began", 0)) // 1000, int(known.get("till", 0))
        meter = Meter(PACE_US, tat, (PACE_US + PACE_SLACK_US) / rate, PACE_SLACK_US)
    except (orjson.JSONDecodeError, TypeError, KeyError, ValueError, ZeroDivisionError):
        return None
    return Pace(rate, till_us, since_ms, str(known.get("class", "")), str(known.get("reply", "")), meter)


# -- what is set, and by whom ------------------------------------------------------------------------------------


def fields_of(target: str) -> list[str]:
    """The fields in which a limit of this target may stand, the most specific first."""
    route, bar, site = target.partition("|")
    return list(dict.fromkeys([target, f"*|{site}", f"{route}|*", "*|*"])) if bar else [target]


async def rules_of(spool: Spool, targets: Iterable[str]) -> dict[str, Rule]:
    """What holds for each, and which layer says so. A field inherits what nobody says of it (limits.lua)."""
    wanted = {target: fields_of(target) for target in targets}
    names = list(dict.fromkeys(name for fields in wanted.values() for name in fields))
    holds: dict[str, str] = {}
    said: list[dict[str, str]] = [{} for _ in LAYERS]
    for start in range(0, len(names), MANY):
        part = names[start : start + MANY]
        keys = [spool.keys.limits, *(spool.keys.layer(layer) for layer in LAYERS)]
        replies = await pipelined(spool.redis, [("HMGET", key, *part) for key in keys])
        for known, values in zip((holds, *said), replies, strict=True):
            known.update({name: text.decode() for name, text in zip(part, values, strict=True) if text is not None})
    return {target: _rule(fields, holds, said) for target, fields in wanted.items()}


def _rule(fields: Sequence[str], holds: Mapping[str, str], said: Sequence[Mapping[str, str]]) -> Rule:
    here = next((name for name in fields if name in holds), "")
    rate, _, most = holds.get(here, "").partition(";c")
    windows = _windows(rate)
    return Rule(
        windows,
        _who(fields, said, lambda text: bool(text.partition(";")[0])) if windows else "",
        here,
        int(most) if most.isdigit() else None,
        _who(fields, said, lambda text: ";c" in text) if most else "",
    )


def _windows(text: str) -> tuple[Window, ...]:
    found = (WINDOW.fullmatch(part) for part in text.split(","))
    made = ((int(each[1]), int(each[2]) // 1000) for each in found if each)  # shown as they stand there, good or bad
    return tuple(Window.model_construct(count=count, window_ms=ms) for count, ms in made)


def _who(fields: Sequence[str], said: Sequence[Mapping[str, str]], says: Callable[[str], bool]) -> str:
    for name in fields:
        for layer, known in reversed(list(zip(LAYERS, said, strict=True))):
            if name in known and says(known[name]):
                return layer
    return ""

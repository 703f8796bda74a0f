"""Looks at routes: which are closed and why, whose connections they are, how many mails are parked for them; and what
closes sites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from streamq.queue.connection import command, pipelined
from streamq.queue.spool import Spool

__all__ = ["Closure", "Learnt", "RouteView", "closures", "route_views"]

OPERATOR = "operator"
LEARNT = b"*"  # lib/learnt.lua: of `grants` the field that is no consumer's
NEVER_US = 9 * 10**15  # as lib/route.lua has it: a pause without an end


@dataclass(frozen=True, slots=True)
class Closure:
    """Why nothing goes to `name`: a route, or `<route>|<site>`, `*|<site>`. `why`: `operator`, `breaker`, or the class
    of the failure; `of`: the class that tripped the breaker; `text`: the operator's reason, or what the relay said;
    `left_ms`: until the next probe, or the end of an operator's pause, None where that has none; `hold`: its mails wait
    though another way may be open; `probes`: how many were in vain."""

    name: str
    why: str
    of: str
    text: str
    since_ms: int
    left_ms: int | None
    hold: bool = False
    probes: int = 0

    @property
    def route(self) -> str:
        """`*` for all."""
        return self.name.partition("|")[0]

    @property
    def site(self) -> str:
        """ "" where it is all of the route."""
        return self.name.partition("|")[2]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What its server takes. `connections`: at once, all workers together may have so many now; below what is
    configured while it is being found out, and after a refusal: `refused_ms` ago, None where none is remembered;
    `tries_ms`: until one more is tried. `mails` over a connection, None: as configured."""

    connections: int
    refused_ms: int | None = None
    tries_ms: int | None = None
    mails: int | None = None


@dataclass(slots=True)
class RouteView:
    """One route. `shares`: worker → the connections that it was granted, by grants that have not run out; `standing`:
    how many of all there are. `parked`: mails whose first way it is. `learnt`: None where nobody used it of late."""

    name: str
    parked: int
    shares: dict[str, int]
    closed: list[Closure] = field(default_factory=list)
    standing: int = 0
    learnt: Learnt | None = None

    @property
    def connections(self) -> int:
        return sum(self.shares.values())


def closures(flat: list[Any], now_ms: int) -> list[Closure]:
    """From `HGETALL {q}:pauses`, of routes and of sites. A route may be closed twice: it failed, and an operator paused
    it."""
    found: list[Closure] = []
    for name, text in sorted(zip(flat[::2], flat[1::2], strict=True)):
        found += _closed(name.decode("utf-8", "replace"), orjson.loads(text), now_ms)
    return found


def _closed(name: str, known: Mapping[str, Any], now_ms: int) -> Iterable[Closure]:
    asked = known.get("asked")
    if asked and int(asked["till"]) // 1000 > now_ms:
        till = int(asked["till"])
        yield Closure(
            name,
            OPERATOR,
            "",
            asked.get("reason", ""),
            int(asked["since"]) // 1000,
            None if till >= NEVER_US else till // 1000 - now_ms,
            hold=asked.get("hold", False),
        )
    if known.get("down"):
        left = max(0, int(known["till"]) // 1000 - now_ms)
        yield Closure(
            name,
            known.get("class", ""),
            known.get("of", ""),
            known.get("reply", ""),
            int(known["since"]) // 1000,
            left,
            probes=known["down"] - 1,
        )


async def route_views(spool: Spool, names: Iterable[str] = ()) -> list[RouteView]:
    """Of these names, and of all that are closed; in that order, each once."""
    seconds, micros = await command(spool.redis, "TIME")
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    every = closures(await command(spool.redis, "HGETALL", spool.keys.pauses), now_ms)
    closed = [each for each in every if not each.site]
    all_names = list(dict.fromkeys([*names, *(each.name for each in closed)]))
    asked: list[tuple[str, ...]] = []
    for name in all_names:
        asked += [
            ("HGETALL", spool.keys.grants(name)),
            ("ZLEXCOUNT", spool.keys.parked, f"[{name}>", f"({name}?"),
            ("ZLEXCOUNT", spool.keys.parked, f"[{name}|", f"({name}}}"),
        ]
    replies = await pipelined(spool.redis, asked) if asked else []
    views = []
    for name, flat, others, alone in zip(all_names, replies[::3], replies[1::3], replies[2::3], strict=True):
        view = RouteView(name, others + alone, {}, [each for each in closed if each.name == name])
        for who, text in zip(flat[::2], flat[1::2], strict=True):
            if who == LEARNT:
                view.learnt = _learnt(orjson.loads(text), now_ms)
                continue
            granted, _, till, standing = text.split()
            if int(till) // 1000 > now_ms:
                view.shares[who.decode("utf-8", "replace")] = int(granted)
                view.standing += int(standing)
        views.append(view)
    return views


def _learnt(known: Mapping[str, Any], now_ms: int) -> Learnt:
    found = Learnt(int(known["cap"]), mails=known.get("mails"))
    if "cut" not in known:
        return found
    ago, tries = now_ms - int(known["cut"]) // 1000, int(known["next"]) // 1000 - now_ms
    return replace(found, refused_ms=max(0, ago), tries_ms=max(0, tries))

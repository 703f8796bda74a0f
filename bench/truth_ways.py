"""What limits routes and sites, read from Redis by hand: limits that hold and who set them, paces that replies taught,
pauses, transactions under way; and what follows of it by docs/limits.md: rates in force, next slots, ETAs.

The arithmetic is the documented one, written anew: a window of length W and N mails is kept with τ = W/36 (at most 2 s)
and a slack of τ/2, each mail moves TAT by (W+τ+τ/2)/N and goes from TAT − τ on; a pace is kept by the second, with 2 %.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

__all__ = ["Pace", "Ways", "ways"]

LAYERS = ("operator", "settings", "own", "providers")  # who is heard first
UNITS = {1: "s", 60: "m", 3600: "h", 86_400: "d"}


@dataclass(frozen=True, slots=True)
class Pace:
    rate: float
    klass: str
    reply: str
    till_us: int
    tat_us: float


@dataclass(slots=True)
class Ways:
    """`limits`, and `said` by layer: target → text; `windows`: (target, µs) → TAT; times of Redis' clock in µs."""

    limits: dict[str, str] = field(default_factory=dict)
    said: dict[str, dict[str, str]] = field(default_factory=dict)
    tats: dict[tuple[str, int], float] = field(default_factory=dict)
    paces: dict[str, Pace] = field(default_factory=dict)
    pauses: dict[str, dict[str, Any]] = field(default_factory=dict)
    learnt: dict[str, dict[str, Any]] = field(default_factory=dict)
    slots: dict[str, list[int]] = field(default_factory=dict)  # target → until when each is taken

    def names(self, target: str) -> list[str]:
        route, bar, site = target.partition("|")
        return list(dict.fromkeys([target, f"*|{site}", f"{route}|*", "*|*"])) if bar else [target]

    def rule(self, target: str) -> tuple[list[str], int | None, str]:
        """Mails a window as people write them, transactions at once, and who says the first."""
        text = next((self.limits[name] for name in self.names(target) if name in self.limits), "")
        rate, _, most = text.partition(";c")
        words = [f"{n}/{_unit(int(us))}" for n, us in re.findall(r"(\d+):(\d+)", rate)]
        who = ""
        for name in self.names(target):
            heard = [layer for layer in LAYERS if self._says(layer, name, bool(words))]
            if heard and not who:
                who = heard[0]
        return words, int(most) if most else None, who if text else ""

    def _says(self, layer: str, name: str, rate: bool) -> bool:
        text = self.said.get(layer, {}).get(name, "")
        return bool(text.partition(";")[0]) if rate else ";c" in text

    def meters(self, target: str) -> list[tuple[float, float, float]]:
        """Of windows and pace: TAT, step, and how much before its TAT a mail may go."""
        found: list[tuple[float, float, float]] = []
        text = next((self.limits[name] for name in self.names(target) if name in self.limits), "")
        for many, window in re.findall(r"(\d+):(\d+)", text.partition(";")[0]):
            tau = min(int(window) // 36, 2_000_000)
            found.append((self.tats.get((target, int(window)), 0.0), (int(window) + tau + tau // 2) / int(many), tau))
        pace = self.paces.get(target)
        if pace is not None:
            found.append((max(pace.tat_us, pace.till_us), 1_020_000 / pace.rate, 20_000.0))
        return found

    def targets(self, lane: str) -> list[str]:
        route = lane.partition("|")[0]
        return ["*", route, lane]

    def rate(self, lane: str) -> float | None:
        """Mails a second that all of it lets through."""
        rates = [1e6 / step for target in self.targets(lane) for _, step, _ in self.meters(target)]
        rates += [self.paces[target].rate for target in self.targets(lane) if target in self.paces]
        return min(rates, default=None)

    def pace(self, lane: str) -> Pace | None:
        """The slowest."""
        found = [self.paces[target] for target in self.targets(lane) if target in self.paces]
        return min(found, key=lambda pace: pace.rate, default=None)

    def shut(self, lane: str) -> list[dict[str, Any]]:
        route, _, site = lane.partition("|")
        return [self.pauses[name] for name in (route, lane, f"*|{site}") if name in self.pauses]

    def at_ms(self, lane: str, nth: int, now_us: int) -> float | None:
        """Until its nth mail may go, if all others stay away; None: it is closed."""
        if self.shut(lane):
            return None
        found = [0.0]
        for target in self.targets(lane):
            pace = self.paces.get(target)
            for tat, step, early in self.meters(target):
                found.append(max(now_us, tat) + (nth - 1) * step - early - now_us)
            if pace is not None:
                found.append(pace.till_us - now_us)
        return max(found) / 1000

    def in_use(self, target: str, now_us: int) -> int:
        return sum(till > now_us for till in self.slots.get(target, []))


def _unit(us: int) -> str:
    seconds = us // 1_000_000
    return UNITS.get(seconds, f"{seconds}s")


async def ways(url: str, queue: str = "streamq") -> Ways:
    redis = Redis.from_url(url, protocol=2)
    redis.response_callbacks.clear()
    prefix = f"{{{queue}}}:"

    async def ask(*parts: Any) -> Any:
        return await redis.execute_command(*parts)  # type: ignore[no-untyped-call]

    async def hash_(key: str) -> dict[str, str]:
        flat = [part.decode("utf-8", "replace") for part in await ask("HGETALL", prefix + key)]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    try:
        found = Ways(limits=await hash_("limits"))
        found.said = {layer: await hash_(f"limits:{layer}") for layer in LAYERS}
        found.pauses = {name: json.loads(text) for name, text in (await hash_("pauses")).items()}
        for key in await _keys(ask, f"{prefix}limit:*"):
            target = key.removeprefix(f"{prefix}limit:")
            for name, text in (await hash_(f"limit:{target}")).items():
                if name.isdigit():
                    found.tats[target, int(name)] = float(text.partition(":")[0])
                elif name == "pace":
                    found.paces[target] = _pace(json.loads(text))
        for key in await _keys(ask, f"{prefix}slots:*"):
            rows = await ask("ZRANGE", key, 0, -1, "WITHSCORES")
            found.slots[key.removeprefix(f"{prefix}slots:")] = [int(float(score)) for score in rows[1::2]]
        for key in await _keys(ask, f"{prefix}grants:*"):
            route = key.removeprefix(f"{prefix}grants:")
            grants = await hash_(f"grants:{route}")
            if "*" in grants:
                found.learnt[route] = json.loads(grants["*"])
        return found
    finally:
        await redis.aclose()


def _pace(known: dict[str, Any]) -> Pace:
    till, tat = (float(known.get(name, 0)) for name in ("till", "tat"))
    return Pace(float(known["rate"]), str(known.get("class", "")), str(known.get("reply", "")), int(till), tat)


async def _keys(ask: Any, pattern: str) -> list[str]:
    cursor, found = b"0", set[str]()
    while True:
        cursor, names = await ask("SCAN", cursor, "MATCH", pattern, "COUNT", 5000)
        found.update(name.decode("utf-8", "replace") for name in names)
        if int(cursor) == 0:
            return sorted(found)

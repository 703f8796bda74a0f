"""What a queue is, read from Redis by hand: raw commands on keys by their documented names, every mail and every event
looked at, no code of the queue's own looks. What `python -m bench agree` and the page's tests hold its numbers against.

A million mails are some minutes and some hundred MB of this process. The queue must stand still meanwhile.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

__all__ = ["Truth", "truth"]

PAGE = 5000
OLDEST = 100  # held mails, among which each priority's oldest is looked for
FAILED = {"deferred", "throttled", "bounced", "expired", "failed"}
LETTERS = 2000  # of which the page makes groups
STATES = ("waiting", "leased", "parked", "scheduled", "held")
NAMES = ("high", "normal", "low")


@dataclass(slots=True)
class Truth:
    """`first`: ms of the oldest entry, of (priority, state), and of (priority, "") for any; `held`: by priority, among
    the hundred oldest held. `parked`: by lane."""

    depth: dict[tuple[str, str], int] = field(default_factory=dict)
    first: dict[tuple[str, str], int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    accepted: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    dead: int = 0
    dead_bytes: int = 0
    replies: dict[str, str] = field(default_factory=dict)  # site → of its last attempt that failed
    dead_groups: Counter[tuple[str, str]] = field(default_factory=Counter)  # (class, domain), of the newest 2,000
    events: int = 0
    next_due: int = 0
    parked: Counter[str] = field(default_factory=Counter)
    lanes: dict[str, list[str]] = field(default_factory=dict)  # priority → all that are due, the first one first
    closed: dict[str, set[str]] = field(default_factory=dict)  # route, or route|site → why
    slowed: set[str] = field(default_factory=set)
    limited: set[str] = field(default_factory=set)
    granted: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # route → (granted, standing) each
    pending: Counter[str] = field(default_factory=Counter)  # by consumer
    swept: bool = False
    holds: dict[str, str] = field(default_factory=dict)
    needed: Counter[str] = field(default_factory=Counter)  # what held mails wait for, by their notes
    visit: int = 0  # ms
    evicted: int = 0  # keys, by the server

    @property
    def live(self) -> int:
        return sum(self.depth.values())


async def truth(url: str, queue: str = "streamq") -> Truth:
    redis = Redis.from_url(url, protocol=2)
    redis.response_callbacks.clear()  # replies as the server gives them: lists and bytes
    try:
        return await _read(_Hand(redis, f"{{{queue}}}:"))
    finally:
        await redis.aclose()


async def _read(hand: _Hand) -> Truth:
    seen = Truth()
    where = await _indexes(hand, seen)
    for p, name in enumerate(NAMES):
        await _stream(hand, p, name, where, seen)
    async for _, fields in hand.rows("dead"):
        seen.dead += 1
        seen.dead_bytes += sum(map(len, fields))
        seen.classes[dict(_pairs(fields))[b"dead_class"].decode()] += 1
    await _groups(hand, seen)
    async for _, fields in hand.rows("events"):
        seen.events += 1
        _event(seen, dict(_pairs(fields)))
    await _ways(hand, seen)
    seen.swept = bool(await hand.ask("EXISTS", "leader:keeper"))
    stats = (await hand.redis.execute_command("INFO", "stats")).decode()  # type: ignore[no-untyped-call]
    seen.evicted = int(stats.partition("evicted_keys:")[2].partition("\r")[0])
    return seen


@dataclass(slots=True)
class _Hand:
    redis: Redis
    prefix: str

    async def ask(self, verb: str, key: str, *parts: str | int) -> Any:
        return await self.redis.execute_command(verb, self.prefix + key, *parts)  # type: ignore[no-untyped-call]

    async def scan(self, verb: str, key: str) -> AsyncIterator[tuple[str, str]]:
        """Pairs of a hash or a sorted set, each once."""
        cursor: Any = 0
        told: set[str] = set()
        while True:
            cursor, flat = await self.ask(verb, key, cursor, "COUNT", PAGE)
            for name, value in _pairs(flat):
                if (text := name.decode("utf-8", "replace")) not in told:
                    told.add(text)
                    yield text, value.decode()
            if int(cursor) == 0:
                return

    async def rows(self, key: str) -> AsyncIterator[tuple[str, list[bytes]]]:
        start = "-"
        while True:
            found = await self.ask("XRANGE", key, start, "+", "COUNT", PAGE)
            for id_, flat in found:
                yield id_.decode(), flat
            if len(found) < PAGE:
                return
            start = "(" + found[-1][0].decode()


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _ms(entry: str) -> int:
    return int(entry.partition("-")[0])


async def _indexes(hand: _Hand, seen: Truth) -> dict[str, str]:
    """Entry → the state whose index has it."""
    where: dict[str, str] = {}
    async for entry, due in hand.scan("ZSCAN", "schedule"):
        where[entry] = "scheduled"
        seen.next_due = min(seen.next_due or int(float(due)), int(float(due)))
    async for entry, _ in hand.scan("ZSCAN", "held"):
        where[entry] = "held"
        seen.needed.update(json.loads(await hand.ask("HGET", "notes", entry) or b"{}").get("fields", ()))
    for entry in await hand.ask("ZRANGE", "held", 0, OLDEST - 1):
        seen.held.setdefault(NAMES[int(entry[:1])], _ms(entry[1:].decode()))
    async for member, _ in hand.scan("ZSCAN", "parked"):
        lane, _, padded = member.rpartition("|")
        ms, _, seq = padded[1:].partition("-")
        where[f"{padded[0]}{int(ms)}-{int(seq)}"] = "parked"
        seen.parked[lane] += 1
    return where


async def _stream(hand: _Hand, p: int, name: str, where: dict[str, str], seen: Truth) -> None:
    leased: set[str] = set()
    start = "-"
    while rows := await hand.ask("XPENDING", name, "streamq", start, "+", PAGE):
        leased.update(row[0].decode() for row in rows)
        seen.pending.update(row[1].decode() for row in rows)
        start = "(" + rows[-1][0].decode()
    async for id_, _ in hand.rows(name):
        state = where.get(f"{p}{id_}") or ("leased" if id_ in leased else "waiting")
        seen.depth[name, state] = seen.depth.get((name, state), 0) + 1
        seen.first.setdefault((name, state), _ms(id_))
        seen.first.setdefault((name, ""), _ms(id_))
    said = dict(_pairs(await hand.redis.execute_command("XINFO", "STREAM", hand.prefix + name)))  # type: ignore[no-untyped-call]
    seen.accepted += said[b"entries-added"]  # Redis 7's own count
    for state in STATES:
        seen.depth.setdefault((name, state), 0)
    seen.lanes[name] = [each.decode() for each in await hand.ask("ZRANGE", f"due:{name}", 0, -1)]
    for _, us in _pairs(await hand.ask("ZRANGE", f"due:{name}", 0, 0, "WITHSCORES")):
        seen.visit = min(seen.visit or int(us) // 1000, int(us) // 1000)


def _event(seen: Truth, fields: dict[bytes, bytes]) -> None:
    kind = fields[b"type"].decode()
    if kind.startswith("email.") and kind != "email.held":  # what is held is counted among what is live
        seen.ends[kind[6:]] += 1
    if kind in {"email.deferred", "email.throttled"}:
        seen.classes[json.loads(fields[b"data"])["class"]] += 1
    if kind[6:] in FAILED:
        known = json.loads(fields[b"data"])
        if known.get("site"):
            code, reply = str(known.get("code", "")), known.get("reply", "")
            seen.replies[known["site"]] = reply if reply.startswith(code) else f"{code} {reply}"


async def _groups(hand: _Hand, seen: Truth) -> None:
    for _, flat in await hand.ask("XREVRANGE", "dead", "+", "-", "COUNT", LETTERS):
        fields = dict(_pairs(flat))
        address = (fields.get(b"envelope_to") or fields[b"to"]).decode()
        seen.dead_groups[fields[b"dead_class"].decode(), address.rpartition("@")[2]] += 1


async def _ways(hand: _Hand, seen: Truth) -> None:
    async for name, text in hand.scan("HSCAN", "pauses"):
        known = json.loads(text)
        seen.closed[name] = {"operator"} if known.get("asked") else {known["class"]}
    async for name, _ in hand.scan("ZSCAN", "throttled"):
        seen.slowed.add(name)
    async for name, _ in hand.scan("HSCAN", "limits"):
        seen.limited.add(name)
    for route in {"relay", *(name for name in seen.closed if "|" not in name)}:
        async for who, text in hand.scan("HSCAN", f"grants:{route}"):
            if who != "*":
                granted, _, _, standing = text.split()
                seen.granted.setdefault(route, []).append((int(granted), int(standing)))
    async for name, text in hand.scan("HSCAN", "holds"):
        seen.holds[name] = text

"""The conservation law once more, for tests: in Python, from raw commands, without the scripts it judges."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from streamq.keys import GROUP, TABLE, Keys
from streamq.queue.connection import command

__all__ = ["Survey", "leaks", "queues", "survey"]

FIRST_TOKEN = 16  # smaller delivery counts are XREADGROUP's own
LEFT = {
    "events",
    "counts",
    "lease",
    "meta",
    "seen",
    "dead",
    "template",
    "templates",
    "webhooks",
}  # what a drained queue may keep, but for TTLs


@dataclass(slots=True)
class Survey:
    """A queue at one moment. `states`: entry → waiting, leased, parked, scheduled or held."""

    states: dict[str, str] = field(default_factory=dict)
    leases: dict[str, tuple[str, int]] = field(default_factory=dict)  # entry → consumer, token
    lanes: dict[str, str] = field(default_factory=dict)  # parked entry → lane
    due: dict[str, int] = field(default_factory=dict)  # scheduled entry → ms
    visits: dict[tuple[int, str], int] = field(default_factory=dict)  # (digit, road) → µs
    counts: dict[str, int] = field(default_factory=dict)
    consumers: dict[str, int] = field(default_factory=dict)  # name → pending
    wrong: list[str] = field(default_factory=list)

    def of(self, state: str) -> list[str]:
        """Entries in that state, in the order of their ids."""
        return sorted((entry for entry, where in self.states.items() if where == state), key=_ordered)

    @property
    def depth(self) -> Counter[str]:
        return Counter(self.states.values())


def _ordered(entry: str) -> tuple[int, int, int]:
    ms, _, seq = entry[1:].partition("-")
    return int(entry[0]), int(ms), int(seq)


def _texts(flat: list[Any]) -> list[str]:
    return [part.decode("utf-8", "backslashreplace") if isinstance(part, bytes) else str(part) for part in flat]


def _paired(flat: list[Any]) -> dict[str, str]:
    parts = _texts(flat)
    return dict(zip(parts[::2], parts[1::2], strict=True))


async def _scan(redis: Redis, pattern: str) -> list[str]:
    found: set[str] = set()
    cursor: Any = b"0"
    while True:
        cursor, keys = await command(redis, "SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
        found.update(_texts(keys))
        if cursor in (b"0", "0", 0):
            return sorted(found)


async def queues(redis: Redis) -> list[str]:
    """Names of the queues that this server holds."""
    return [key[1 : -len("}:meta")] for key in await _scan(redis, "{*}:meta")]


async def survey(redis: Redis, queue: str = "streamq") -> Survey:
    """Where every mail stands, and every breach of the law in words."""
    keys = Keys(queue)
    seen = Survey()
    meta = _paired(await command(redis, "HGETALL", keys.meta))
    names = [name for name in meta.get("priorities", "").split(",") if name]
    seen.counts = {name: int(value) for name, value in _paired(await command(redis, "HGETALL", keys.counts)).items()}
    indexes = await _indexes(redis, keys, names, seen)
    for p, name in enumerate(names):
        await _stream(redis, keys.stream(name), p, indexes, seen)
    for entry in indexes:
        if entry not in seen.states:
            seen.wrong.append(f"{entry} is {' and '.join(indexes[entry])} and in no stream")
    await _bell(redis, keys, seen)
    for kind in ("parked", "scheduled", "held"):
        for p in range(len(names)):
            held = sum(1 for entry, where in indexes.items() if kind in where and entry[0] == str(p))
            if seen.counts.get(f"{kind}:{p}", 0) != held:
                seen.wrong.append(f"counts {kind}:{p} says {seen.counts.get(f'{kind}:{p}', 0)}, it is {held}")
    await _dangling(redis, keys, seen)
    await _bodies(redis, keys, names, seen)
    return seen


async def _indexes(redis: Redis, keys: Keys, names: list[str], seen: Survey) -> dict[str, list[str]]:
    """Entry → the indexes it stands in; the parts of each lane must agree."""
    indexes: dict[str, list[str]] = {}
    for entry, ms in _paired(await command(redis, "ZRANGE", keys.schedule, 0, -1, "WITHSCORES")).items():
        indexes.setdefault(entry, []).append("scheduled")
        seen.due[entry] = int(float(ms))
    for entry in _texts(await command(redis, "ZRANGE", keys.held, 0, -1)):
        indexes.setdefault(entry, []).append("held")
    for member in _texts(await command(redis, "ZRANGE", keys.parked, 0, -1)):
        lane, _, padded = member.rpartition("|")
        found = re.fullmatch(r"(\d)(\d{13,20})-(\d{20})", padded)
        if not found:
            seen.wrong.append(f"parked holds {member}")
            continue
        entry = f"{found[1]}{int(found[2])}-{int(found[3])}"
        indexes.setdefault(entry, []).append("parked")
        seen.lanes[entry] = lane
    leads: dict[str, str] = {}
    for bucket in await _scan(redis, keys.prefix + "lane:*"):
        leads |= _paired(await command(redis, "HGETALL", bucket))
    if leads != seen.lanes:
        seen.wrong.append(f"lane hashes {leads} and parked {seen.lanes} differ")
    for p, name in enumerate(names):
        visits = _paired(await command(redis, "ZRANGE", keys.due(name), 0, -1, "WITHSCORES"))
        seen.visits |= {(p, lane): int(float(us)) for lane, us in visits.items()}
        lanes = {lane for entry, lane in seen.lanes.items() if entry[0] == str(p)}
        roads = {lane.partition("/")[0] for lane in lanes}
        if set(visits) != roads:
            seen.wrong.append(f"due:{name} has {sorted(visits)}, parked lanes are {sorted(lanes)}")
        await _turns(redis, keys, name, lanes, seen)
    shared = {f"{p}{lane.partition('/')[0]}" for (entry, lane) in seen.lanes.items() if "/" in lane for p in entry[0]}
    named = set(_texts(await command(redis, "SMEMBERS", keys.shared)))
    if named != shared:
        seen.wrong.append(f"shared has {sorted(named)}, tenants are parked in {sorted(shared)}")
    return indexes


async def _turns(redis: Redis, keys: Keys, name: str, lanes: set[str], seen: Survey) -> None:
    """Tenants' lanes have turns, beside them that of mails without one where it was seen, and no other."""
    known: set[str] = set()
    for key in await _scan(redis, keys.turns(name, "*")):
        road = key.removeprefix(keys.turns(name, ""))
        turns = set(_texts(await command(redis, "ZRANGE", key, 0, -1)))
        if any(lane.partition("/")[0] != road for lane in turns):
            seen.wrong.append(f"{key} has {sorted(turns)}")
        known |= turns
    tenants = {lane for lane in lanes if "/" in lane}
    if not tenants <= known <= lanes:
        seen.wrong.append(f"turns of {name} has {sorted(known)}, parked lanes are {sorted(lanes)}")


async def _delivered(redis: Redis, stream: str) -> str | None:
    """The group's last-delivered id; None where there is no group."""
    if not await command(redis, "EXISTS", stream):
        return None
    groups = [_paired(group) for group in await command(redis, "XINFO", "GROUPS", stream)]
    return next((group["last-delivered-id"] for group in groups if group["name"] == GROUP), None)


async def _stream(redis: Redis, stream: str, p: int, indexes: dict[str, list[str]], seen: Survey) -> None:
    last = await _delivered(redis, stream)
    if last is None:
        seen.wrong.append(f"{stream} has no group")
        return
    for row in await command(redis, "XPENDING", stream, GROUP, "-", "+", 1_000_000):
        seen.leases[f"{p}{row[0].decode()}"] = (row[1].decode(), int(row[3]))
    for row in await command(redis, "XINFO", "CONSUMERS", stream, GROUP):
        consumer = _paired(row)
        name = consumer["name"]
        seen.consumers[name] = seen.consumers.get(name, 0) + int(consumer["pending"])
    rows = await command(redis, "XRANGE", stream, "-", "+")
    for row in rows:
        entry = f"{p}{row[0].decode()}"
        where = list(indexes.get(entry, ()))
        # Read once more after its group was made again, not yet admitted: it counts in its index alone.
        if entry in seen.leases and not (where and seen.leases[entry][1] < FIRST_TOKEN):
            where.append("leased")
        if not where and _ordered(entry) > _ordered(f"{p}{last}"):
            where.append("waiting")
        seen.states[entry] = where[0] if where else "lost"
        if len(where) != 1:
            seen.wrong.append(f"{entry} is {' and '.join(where) or 'nowhere'}")
    for entry in seen.leases:
        if entry[0] == str(p) and entry not in seen.states:
            seen.wrong.append(f"{entry} is leased and in no stream")


async def _bell(redis: Redis, keys: Keys, seen: Survey) -> None:
    if await _delivered(redis, keys.bell) is None:
        seen.wrong.append("the bell has no group")
        return
    for row in await command(redis, "XINFO", "CONSUMERS", keys.bell, GROUP):
        consumer = _paired(row)
        name = consumer["name"]
        seen.consumers[name] = seen.consumers.get(name, 0) + int(consumer["pending"])


async def _dangling(redis: Redis, keys: Keys, seen: Survey) -> None:
    """What hangs on a mail goes with it."""
    hanging = {
        "notes": _texts(await command(redis, "HKEYS", keys.notes)),
        "collapse": _texts(await command(redis, "HVALS", keys.collapse)),
        "expiry": _texts(await command(redis, "ZRANGE", keys.expiry, 0, -1)),
        "holds": [
            name.removeprefix("intent:")
            for name in _texts(await command(redis, "HKEYS", keys.holds))
            if name.startswith("intent:")
        ],
    }
    for key, entries in hanging.items():
        gone = [entry for entry in entries if entry not in seen.states]
        if gone:
            seen.wrong.append(f"{key} still has {gone}")


async def _bodies(redis: Redis, keys: Keys, names: list[str], seen: Survey) -> None:
    """What children share stays while one of them lives, or may still be made, and no longer."""
    said: list[tuple[str, str]] = []  # entry, the one that it says it came of
    for p, name in enumerate(names):
        for id_, flat in await command(redis, "XRANGE", keys.stream(name), "-", "+"):
            of = dict(zip(flat[::2], flat[1::2], strict=True)).get(b"@of")
            if of is not None:
                said.append((f"{p}{id_.decode()}", of.decode("utf-8", "backslashreplace")))
    children: Counter[str] = Counter()
    listed = set(_texts(await command(redis, "ZRANGE", keys.bodies, 0, -1)))
    found = set()
    for key in await _scan(redis, keys.prefix + "body:*"):
        parent = key.rpartition(":")[2]
        body = _paired(await command(redis, "HGETALL", key))
        if "left" not in body:  # put there to be expanded, and nobody did yet
            if await command(redis, "PTTL", key) < 0:
                seen.wrong.append(f"{key} is for ever and nobody's")
            continue
        found.add(parent)
        children[parent] = sum(of == parent and _is_within(entry, parent, body) for entry, of in said)
        to_come = int(body["all"]) - int(body["made"]) if parent in seen.states else 0
        if int(body["left"]) != children[parent] + to_come:
            seen.wrong.append(f"{key} counts {body['left']}: {children[parent]} live, {to_come} to come")
        if await command(redis, "PTTL", key) >= 0:
            seen.wrong.append(f"{key} will go by itself")
    if found != listed:
        seen.wrong.append(f"bodies {sorted(found)}, listed {sorted(listed)}")
    orphans = {of for _, of in said} - found
    if orphans:
        seen.wrong.append(f"children of {sorted(orphans)} have no body")


def _is_within(entry: str, parent: str, body: dict[str, str]) -> bool:
    """Made by the script that makes children: a body notes the first and the last id of each chunk. What only says that
    it is a child is none."""
    ids = [
        _ordered(f"{parent[0]}{id_}")
        for name, value in body.items()
        if name.startswith("ids:")
        for id_ in value.split()
    ]
    return any(first <= _ordered(entry) <= last for first, last in zip(ids[::2], ids[1::2], strict=True))


async def leaks(redis: Redis, *, drained: bool = False) -> list[str]:
    """Keys that no table knows; of a drained queue also what should have gone with its mails."""
    known = [(key, re.compile(r"\{[^{}]+\}:" + re.sub(r"<\w+>", "[^:]+", key.shape))) for key in TABLE]
    streams = {"bell"}
    for queue in await queues(redis):
        streams.update((await command(redis, "HGET", Keys(queue).meta, "priorities")).decode().split(","))
    wrong = []
    for name in await _scan(redis, "*"):
        short = name.partition("}:")[2]
        kind = (await command(redis, "TYPE", name)).decode()
        if kind == "none":  # its time to live ended since the scan
            continue
        if short in streams:
            if kind != "stream":
                wrong.append(f"{name} is a {kind}")
            elif drained and await command(redis, "XLEN", name):
                wrong.append(f"{name} is not empty")
            continue
        found = next((key for key, shape in known if key.name != "stream" and shape.fullmatch(name)), None)
        if found is None:
            wrong.append(f"{name} is no key of ours")
        elif found.type != kind:
            wrong.append(f"{name} is a {kind}, not a {found.type}")
        elif drained and found.name not in LEFT and await command(redis, "PTTL", name) < 0:
            wrong.append(f"{name} is left over")
    return wrong

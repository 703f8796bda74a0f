"""The conservation law once more, for tests: in Python, from raw commands, without the scripts it judges.

A queue is read in one pipeline: every test with a queue ends with that, and a hundred round trips each were a tenth of
the whole suite's time. No transaction, which a server whose memory is full refuses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from streamq.keys import GROUP, TABLE, Keys
from streamq.queue.connection import Part, command, pipelined

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
    "whose",
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


class _Said(dict[tuple[Part, ...], Any]):
    """Replies by their commands; an error is a reply, too."""

    @classmethod
    async def by(cls, redis: Redis, commands: Iterable[tuple[Part, ...]]) -> _Said:
        asked = list(dict.fromkeys(commands))
        replies = await pipelined(redis, asked, raising=False) if asked else []
        return cls(zip(asked, replies, strict=True))

    def texts(self, *asked: Part) -> list[str]:
        return _texts(self[asked])

    def pairs(self, *asked: Part) -> dict[str, str]:
        return _paired(self[asked])


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
    return _queues(await _scan(redis, "{*}:meta"))


def _queues(names: Iterable[str]) -> list[str]:
    return [name[1 : -len("}:meta")] for name in names if name.startswith("{") and name.endswith("}:meta")]


async def survey(redis: Redis, queue: str = "streamq") -> Survey:
    """Where every mail stands, and every breach of the law in words."""
    keys = Keys(queue)
    names = [name for name in _names(await command(redis, "HGET", keys.meta, "priorities")) if name]
    there = await _scan(redis, keys.prefix + "*")
    said = await _Said.by(redis, _questions(keys, names, there))
    seen = Survey()
    seen.counts = {name: int(value) for name, value in said.pairs("HGETALL", keys.counts).items()}
    indexes = _indexes(said, keys, names, there, seen)
    for p, name in enumerate(names):
        _stream(said, keys.stream(name), p, indexes, seen)
    for entry in indexes:
        if entry not in seen.states:
            seen.wrong.append(f"{entry} is {' and '.join(indexes[entry])} and in no stream")
    _bell(said, keys, seen)
    for kind in ("parked", "scheduled", "held"):
        for p in range(len(names)):
            held = sum(1 for entry, where in indexes.items() if kind in where and entry[0] == str(p))
            if seen.counts.get(f"{kind}:{p}", 0) != held:
                seen.wrong.append(f"counts {kind}:{p} says {seen.counts.get(f'{kind}:{p}', 0)}, it is {held}")
    _dangling(said, keys, seen)
    _bodies(said, keys, names, there, seen)
    return seen


def _names(priorities: bytes | None) -> list[str]:
    return (priorities or b"").decode().split(",")


def _questions(keys: Keys, names: list[str], there: list[str]) -> Iterator[tuple[Part, ...]]:
    """The commands whose replies are a queue."""
    for key in (keys.schedule, *(keys.due(name) for name in names)):
        yield "ZRANGE", key, 0, -1, "WITHSCORES"
    for key in (keys.held, keys.parked, keys.expiry, keys.bodies, *_of(there, keys, "turns:")):
        yield "ZRANGE", key, 0, -1
    for key in (keys.counts, *_of(there, keys, "lane:"), *_of(there, keys, "body:")):
        yield "HGETALL", key
    for key in _of(there, keys, "body:"):
        yield "PTTL", key
    yield from (("HKEYS", keys.notes), ("HKEYS", keys.holds), ("HVALS", keys.collapse), ("SMEMBERS", keys.shared))
    for stream in (*(keys.stream(name) for name in names), keys.bell):
        yield "XINFO", "GROUPS", stream
        yield "XINFO", "CONSUMERS", stream, GROUP
        yield "XPENDING", stream, GROUP, "-", "+", 1_000_000
        yield "XRANGE", stream, "-", "+"


def _of(there: list[str], keys: Keys, kind: str) -> list[str]:
    return [name for name in there if name.startswith(keys.prefix + kind)]


def _indexes(said: _Said, keys: Keys, names: list[str], there: list[str], seen: Survey) -> dict[str, list[str]]:
    """Entry → the indexes it stands in; the parts of each lane must agree."""
    indexes: dict[str, list[str]] = {}
    for entry, ms in said.pairs("ZRANGE", keys.schedule, 0, -1, "WITHSCORES").items():
        indexes.setdefault(entry, []).append("scheduled")
        seen.due[entry] = int(float(ms))
    for entry in said.texts("ZRANGE", keys.held, 0, -1):
        indexes.setdefault(entry, []).append("held")
    for member in said.texts("ZRANGE", keys.parked, 0, -1):
        lane, _, padded = member.rpartition("|")
        found = re.fullmatch(r"(\d)(\d{13,20})-(\d{20})", padded)
        if not found:
            seen.wrong.append(f"parked holds {member}")
            continue
        entry = f"{found[1]}{int(found[2])}-{int(found[3])}"
        indexes.setdefault(entry, []).append("parked")
        seen.lanes[entry] = lane
    leads: dict[str, str] = {}
    for bucket in _of(there, keys, "lane:"):
        leads |= said.pairs("HGETALL", bucket)
    if leads != seen.lanes:
        seen.wrong.append(f"lane hashes {leads} and parked {seen.lanes} differ")
    for p, name in enumerate(names):
        visits = said.pairs("ZRANGE", keys.due(name), 0, -1, "WITHSCORES")
        seen.visits |= {(p, lane): int(float(us)) for lane, us in visits.items()}
        lanes = {lane for entry, lane in seen.lanes.items() if entry[0] == str(p)}
        roads = {lane.partition("/")[0] for lane in lanes}
        if set(visits) != roads:
            seen.wrong.append(f"due:{name} has {sorted(visits)}, parked lanes are {sorted(lanes)}")
        _turns(said, keys, name, there, lanes, seen)
    shared = {f"{p}{lane.partition('/')[0]}" for (entry, lane) in seen.lanes.items() if "/" in lane for p in entry[0]}
    named = set(said.texts("SMEMBERS", keys.shared))
    if named != shared:
        seen.wrong.append(f"shared has {sorted(named)}, tenants are parked in {sorted(shared)}")
    return indexes


def _turns(said: _Said, keys: Keys, name: str, there: list[str], lanes: set[str], seen: Survey) -> None:
    """Tenants' lanes have turns, beside them that of mails without one where it was seen, and no other."""
    known: set[str] = set()
    for key in _of(there, keys, f"turns:{name}:"):
        road = key.removeprefix(keys.turns(name, ""))
        turns = set(said.texts("ZRANGE", key, 0, -1))
        if any(lane.partition("/")[0] != road for lane in turns):
            seen.wrong.append(f"{key} has {sorted(turns)}")
        known |= turns
    tenants = {lane for lane in lanes if "/" in lane}
    if not tenants <= known <= lanes:
        seen.wrong.append(f"turns of {name} has {sorted(known)}, parked lanes are {sorted(lanes)}")


def _delivered(said: _Said, stream: str) -> str | None:
    """The group's last-delivered id; None where there is no group."""
    found = said["XINFO", "GROUPS", stream]
    groups = [] if isinstance(found, Exception) else [_paired(group) for group in found]
    return next((group["last-delivered-id"] for group in groups if group["name"] == GROUP), None)


def _stream(said: _Said, stream: str, p: int, indexes: dict[str, list[str]], seen: Survey) -> None:
    last = _delivered(said, stream)
    if last is None:
        seen.wrong.append(f"{stream} has no group")
        return
    for row in said["XPENDING", stream, GROUP, "-", "+", 1_000_000]:
        seen.leases[f"{p}{row[0].decode()}"] = (row[1].decode(), int(row[3]))
    for row in said["XINFO", "CONSUMERS", stream, GROUP]:
        consumer = _paired(row)
        name = consumer["name"]
        seen.consumers[name] = seen.consumers.get(name, 0) + int(consumer["pending"])
    rows = said["XRANGE", stream, "-", "+"]
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


def _bell(said: _Said, keys: Keys, seen: Survey) -> None:
    if _delivered(said, keys.bell) is None:
        seen.wrong.append("the bell has no group")
        return
    for row in said["XINFO", "CONSUMERS", keys.bell, GROUP]:
        consumer = _paired(row)
        name = consumer["name"]
        seen.consumers[name] = seen.consumers.get(name, 0) + int(consumer["pending"])


def _dangling(said: _Said, keys: Keys, seen: Survey) -> None:
    """What hangs on a mail goes with it."""
    hanging = {
        "notes": said.texts("HKEYS", keys.notes),
        "collapse": said.texts("HVALS", keys.collapse),
        "expiry": said.texts("ZRANGE", keys.expiry, 0, -1),
        "holds": [
            name.removeprefix("intent:") for name in said.texts("HKEYS", keys.holds) if name.startswith("intent:")
        ],
    }
    for key, entries in hanging.items():
        gone = [entry for entry in entries if entry not in seen.states]
        if gone:
            seen.wrong.append(f"{key} still has {gone}")


def _bodies(said: _Said, keys: Keys, names: list[str], there: list[str], seen: Survey) -> None:
    """What children share stays while one of them lives, or may still be made, and no longer."""
    claims: list[tuple[str, str]] = []  # entry, the one that it says it came of
    for p, name in enumerate(names):
        for id_, flat in said["XRANGE", keys.stream(name), "-", "+"]:
            of = dict(zip(flat[::2], flat[1::2], strict=True)).get(b"@of")
            if of is not None:
                claims.append((f"{p}{id_.decode()}", of.decode("utf-8", "backslashreplace")))
    children: Counter[str] = Counter()
    listed = set(said.texts("ZRANGE", keys.bodies, 0, -1))
    found = set()
    for key in _of(there, keys, "body:"):
        parent = key.rpartition(":")[2]
        body = said.pairs("HGETALL", key)
        if "left" not in body:  # put there to be expanded, and nobody did yet
            if said["PTTL", key] == -1:
                seen.wrong.append(f"{key} is for ever and nobody's")
            continue
        found.add(parent)
        children[parent] = sum(of == parent and _is_within(entry, parent, body) for entry, of in claims)
        to_come = int(body["all"]) - int(body["made"]) if parent in seen.states else 0
        if int(body["left"]) != children[parent] + to_come:
            seen.wrong.append(f"{key} counts {body['left']}: {children[parent]} live, {to_come} to come")
        if said["PTTL", key] >= 0:
            seen.wrong.append(f"{key} will go by itself")
    if found != listed:
        seen.wrong.append(f"bodies {sorted(found)}, listed {sorted(listed)}")
    orphans = {of for _, of in claims} - found
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
    there = await _scan(redis, "*")
    metas = [Keys(queue).meta for queue in _queues(there)]
    said = await _Said.by(
        redis,
        [
            *(("HGET", meta, "priorities") for meta in metas),
            *((verb, name) for name in there for verb in ("TYPE", "PTTL", "XLEN")),
        ],
    )
    streams = {"bell"}.union(*(_names(said["HGET", meta, "priorities"]) for meta in metas))
    wrong = []
    for name in there:
        short = name.partition("}:")[2]
        kind = said["TYPE", name].decode()
        if kind == "none":  # its time to live ended since the scan
            continue
        if short in streams:
            if kind != "stream":
                wrong.append(f"{name} is a {kind}")
            elif drained and said["XLEN", name]:
                wrong.append(f"{name} is not empty")
            continue
        found = next((key for key, shape in known if key.name != "stream" and shape.fullmatch(name)), None)
        if found is None:
            wrong.append(f"{name} is no key of ours")
        elif found.type != kind:
            wrong.append(f"{name} is a {kind}, not a {found.type}")
        elif drained and found.name not in LEFT and said["PTTL", name] == -1:
            wrong.append(f"{name} is left over")
    return wrong

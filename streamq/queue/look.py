"""Looks at a queue: depth by state, who works, one mail's whole story. Reads only; bounded per call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from streamq.errors import NotFound
from streamq.keys import GROUP
from streamq.queue.connection import command, pipelined
from streamq.queue.spool import Spool, time_ms
from streamq.queue.walk import STATES, MailView, is_entry, notes_from

__all__ = ["Consumer", "Status", "age_ms", "consumers", "locate", "now_ms", "show", "status"]

ALIVE_MS = 60_000  # a worker reads, or renews its leases, far more often
BUCKETS = 16384  # of `{q}:lane:<bucket>`, as lib/index.lua counts them


@dataclass(slots=True)
class Status:
    """Depth per priority and state, O(1): waiting = XLEN less leased and indexed. Ages and times in ms."""

    now_ms: int
    depth: dict[str, dict[str, int]]
    oldest_ms: dict[str, int]  # age of the oldest entry per priority, 0 where there is none
    next_due_ms: int  # of the schedule, 0: nothing is scheduled
    totals: dict[str, int]
    classes: dict[str, int]
    dead: int
    events: int
    workers: int
    memory: int
    memory_max: int
    paused: dict[str, int] = field(default_factory=dict)  # lanes or routes → ms until they open

    def sum(self, state: str) -> int:
        return sum(states[state] for states in self.depth.values())

    @property
    def live(self) -> int:
        return sum(self.sum(state) for state in STATES)


@dataclass(slots=True)
class Consumer:
    """A worker process as Redis sees it."""

    name: str
    pending: int
    idle_ms: int


async def now_ms(spool: Spool) -> int:
    """The server's clock: the one that decides."""
    seconds, micros = await command(spool.redis, "TIME")
    return int(seconds) * 1000 + int(micros) // 1000


async def consumers(spool: Spool) -> list[Consumer]:
    """All of them, with what they hold over all priorities."""
    streams = [spool.keys.stream(name) for name in spool.priorities]
    return _consumers(await pipelined(spool.redis, [("XINFO CONSUMERS", stream, GROUP) for stream in streams]))


def _consumers(replies: list[Any]) -> list[Consumer]:
    found: dict[str, Consumer] = {}
    for row in (row for rows in replies for row in rows):
        known = dict(zip(row[::2], row[1::2], strict=True))
        who = known[b"name"].decode("utf-8", "replace")
        one = found.setdefault(who, Consumer(who, 0, known[b"idle"]))
        one.pending += known[b"pending"]
        one.idle_ms = min(one.idle_ms, known[b"idle"])
    return sorted(found.values(), key=lambda one: one.name)


async def status(spool: Spool) -> Status:
    """One round trip, whatever is in the queue."""
    keys = spool.keys
    streams = [keys.stream(name) for name in spool.priorities]
    replies = await pipelined(
        spool.redis,
        [
            ("TIME",),
            ("HGETALL", keys.counts),
            ("XLEN", keys.dead),
            ("XLEN", keys.events),
            ("ZRANGE", keys.schedule, 0, 0, "WITHSCORES"),
            ("INFO", "memory"),
            *(("XLEN", stream) for stream in streams),
            *(("XPENDING", stream, GROUP) for stream in streams),
            *(("XRANGE", stream, "-", "+", "COUNT", 1) for stream in streams),
        ],
    )
    (seconds, micros), flat, dead, events, due, info = replies[:6]
    many = len(streams)
    lengths, pending, heads = (replies[6 + at * many : 6 + (at + 1) * many] for at in range(3))
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    counts = {name.decode(): int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
    memory = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    depth: dict[str, dict[str, int]] = {}
    oldest: dict[str, int] = {}
    for p, name in enumerate(spool.priorities):
        states = {state: counts.get(f"{state}:{p}", 0) for state in ("parked", "scheduled", "held")}
        states["leased"] = pending[p][0]
        states["waiting"] = max(0, lengths[p] - sum(states.values()))
        depth[name] = {state: states[state] for state in STATES}
        oldest[name] = max(0, now_ms - int(heads[p][0][0].split(b"-")[0])) if heads[p] else 0
    alive = [one for one in await consumers(spool) if one.idle_ms < 60_000]
    return Status(
        now_ms=now_ms,
        depth=depth,
        oldest_ms=oldest,
        next_due_ms=int(float(due[1])) if due else 0,
        totals={name[6:]: value for name, value in counts.items() if name.startswith("total:")},
        classes={name[6:]: value for name, value in counts.items() if name.startswith("class:")},
        dead=dead,
        events=events,
        workers=len(alive),
        memory=int(memory.get("used_memory", 0)),
        memory_max=int(memory.get("maxmemory", 0)),
        paused=await _paused(spool, now_ms),
    )


async def _paused(spool: Spool, now_ms: int) -> dict[str, int]:
    """Routes that are down, and for how long yet."""
    names = list(spool.settings.ways)
    rows = [("HGET", spool.keys.limit(name), "until") for name in names]
    found = await pipelined(spool.redis, rows) if rows else []
    left = {name: int(value) // 1000 - now_ms for name, value in zip(names, found, strict=True) if value}
    return {name: ms for name, ms in left.items() if ms > 0}


async def locate(spool: Spool, text: str, tenant: str | None = None) -> str:
    """The entry that `text` names: an entry, or a producer's id. Raises `NotFound`."""
    if is_entry(text) and int(text[0]) < len(spool.priorities):
        return text
    entry = (await spool.scripts.find([(tenant, text)]))[0]
    if not entry:
        raise NotFound(f"no live or recent mail has the id {text!r}" + (f" of tenant {tenant!r}" if tenant else ""))
    return entry


async def show(spool: Spool, entry: str) -> MailView:
    """Everything about one live mail. Raises `NotFound`."""
    found = (await spool.fetch([entry]))[0]
    if found is None:
        raise NotFound(f"{entry} is not in the queue (any more): `streamq dead show`, or its events, may know it")
    _, *rows = await spool.scripts.check("stream", int(entry[0]), _before(entry), 1)
    state = rows[1].decode() if rows and rows[0].decode() == entry else "waiting"
    view = MailView(entry, spool.priorities[int(entry[0])], state, found.fields)
    keys = spool.keys
    notes, due, pending, intent = await pipelined(
        spool.redis,
        [
            ("HGET", keys.notes, entry),
            ("ZSCORE", keys.schedule, entry),
            ("XPENDING", spool.stream(entry), GROUP, entry[1:], entry[1:], 1),
            ("HGET", keys.holds, f"intent:{entry}"),
        ],
    )
    view.notes = orjson.loads(notes) if notes else {}
    view.due_ms = int(float(due)) if due else 0
    view.intent = intent.decode() if intent else ""
    if pending:
        view.holder, view.idle_ms, view.token = pending[0][1].decode(), pending[0][2], pending[0][3]
    if state == "parked":
        view.lane = await _lane(spool, entry)
    return view


async def _lane(spool: Spool, entry: str) -> str:
    p, (ms, seq) = entry[0], entry[1:].split("-")
    suffix = f"|{p}{int(ms):013d}-{int(seq):020d}"
    at = 0
    while True:  # the lane's hash is the scripts' own; a look may take the longer way
        at, rows = await command(spool.redis, "ZSCAN", spool.keys.parked, at, "MATCH", f"*{suffix}", "COUNT", 1000)
        if rows:
            return str(rows[0].decode()).removesuffix(suffix)
        if int(at) == 0:
            return ""


def _before(entry: str) -> str:
    ms, seq = (int(part) for part in entry[1:].split("-"))
    if seq:
        return f"{ms}-{seq - 1}"
    return f"{ms - 1}-{2**64 - 1}" if ms else ""



"""Looks at a queue: depth by state, who works, one mail's whole story. Reads only; bounded per call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from streamq.errors import NotFound, OfTenants
from streamq.keys import ALIVE_MS, GROUP
from streamq.queue.connection import Part, command, pipelined
from streamq.queue.routes import Closure, closures
from streamq.queue.spool import Spool, time_ms
from streamq.queue.walk import PAGE, STATES, MailView, is_entry, notes_from, walk

__all__ = [
    *("ENDED", "SENT", "BoundSeen", "Consumer", "Status", "age_ms", "before", "consumers", "locate", "located"),
    *("now_ms", "of_tenants", "owner", "placed", "server_facts", "show", "status"),
]

HELD_LOOKED = 100  # of the oldest held mails: where none of them is of a priority, nobody says how old its oldest is
SENT = ("relayed", "delivered")  # totals of what receivers took
ENDED = frozenset({  # totals of ends: with each a mail leaves the spool
    *(*SENT, "bounced", "expired", "rejected", "cancelled", "superseded", "duplicate", "failed"),
    "expanded",
})  # fmt: skip
BUCKETS, NEIGHBOURS = 16384, 16  # of `{q}:lane:<bucket>`, as lib/index.lua counts them
TENANTS_SHOWN = 5


@dataclass(slots=True)
class Consumer:
    """A worker process as Redis sees it."""

    name: str
    pending: int
    idle_ms: int

    @property
    def alive(self) -> bool:
        return self.idle_ms < ALIVE_MS


@dataclass(frozen=True, slots=True)
class BoundSeen:
    """A bound that is near, `level` filling, or reached, full; as the leading worker saw it last. `name`: queue (live
    mails), memory (bytes of Redis), ids (bytes of them, about), dead (bytes of dead letters)."""

    name: str
    level: str
    used: int
    most: int


@dataclass(slots=True)
class Status:
    """Depth per priority and state, O(1): waiting = XLEN less leased and indexed. Ages and times in ms.

    `aged_ms`: how old the oldest of a state is, by priority, where that costs no search: waiting, leased, held; no key
    where there is none. `tallies`: what scripts count beside outcomes and classes (reclaimed, vanished, resettled,
    late, dead, dead_bytes). `swept`: some worker leads the sweeps. `visit_ms`: when the first lane of parked mail may
    have a slot, 0: nothing is parked. `evicts`: the policy by which a full server throws keys away, "": it does not;
    `evicted`: how many it has thrown away since it started, of whomever.
    `added`: entries that the server counted itself, 0 before Redis 7; `salt`: of the
    queue, another one where it was flushed."""

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
    closed: list[Closure] = field(default_factory=list)
    aged_ms: dict[str, dict[str, int]] = field(default_factory=dict)
    tallies: dict[str, int] = field(default_factory=dict)
    swept: bool = False
    consumers: list[Consumer] = field(default_factory=list)
    bounds: list[BoundSeen] = field(default_factory=list)
    visit_ms: int = 0
    evicts: str = ""
    evicted: int = 0
    added: int = 0
    salt: bytes = b""

    @property
    def shown(self) -> dict[str, Any]:
        """As JSON has it: without what its numbers stand on (`added`, and the `salt`, which is no text)."""
        known = asdict(self)
        del known["added"], known["salt"]
        return known

    @property
    def paused(self) -> dict[str, int]:
        """Routes → ms until they are tried, or open; not those whose pause has no end."""
        return {each.name: each.left_ms for each in self.closed if each.left_ms and not each.site}

    def sum(self, state: str) -> int:
        return sum(states[state] for states in self.depth.values())

    @property
    def live(self) -> int:
        return sum(self.sum(state) for state in STATES)

    @property
    def accepted(self) -> int:
        """How many entries the streams have ever taken. Children, reports and requeued letters are entries, too.
        Redis before 7 does not count them itself, and one that was upgraded begins with what was there: then by the
        law, what is live and what has ended; which falls where somebody trims a stream or deletes of it."""
        ended = sum(self.totals.get(name, 0) for name in ENDED) + self.tallies.get("vanished", 0)
        return max(self.added, self.live + ended)

    @property
    def late_ms(self) -> int:
        """For how long the first of the schedule has been due: more than seconds, and nobody releases, or nobody has
        room."""
        return max(0, self.now_ms - self.next_due_ms) if self.next_due_ms else 0

    @property
    def parked_late_ms(self) -> int:
        """The same of parked mail: limits and pauses would have let it go, and nobody has released it."""
        return max(0, self.now_ms - self.visit_ms) if self.visit_ms else 0


async def now_ms(spool: Spool) -> int:
    """The server's clock: the one that decides."""
    seconds, micros = await command(spool.redis, "TIME")
    return int(seconds) * 1000 + int(micros) // 1000


async def consumers(spool: Spool) -> list[Consumer]:
    """All of them, with what they hold over all priorities."""
    streams = [spool.keys.bell, *(spool.keys.stream(name) for name in spool.priorities)]
    return _consumers(await pipelined(spool.redis, [("XINFO CONSUMERS", stream, GROUP) for stream in streams]))


def _consumers(replies: list[Any]) -> list[Consumer]:
    """Of the bell, where an idle worker is to be seen (`Spool.touch`), then of the priorities."""
    found: dict[str, Consumer] = {}
    for at, rows in enumerate(replies):
        for row in rows:
            known = dict(zip(row[::2], row[1::2], strict=True))
            who = _text(known[b"name"])
            one = found.setdefault(who, Consumer(who, 0, known[b"idle"]))
            one.pending += known[b"pending"] if at else 0
            one.idle_ms = min(one.idle_ms, known[b"idle"])
    return sorted(found.values(), key=lambda one: one.name)


async def status(spool: Spool, known: Sequence[Consumer] | None = None) -> Status:
    """Two round trips, whatever is in the queue. What is counted is of one moment. `known`: who works, of a moment ago;
    asking anew takes the server a microsecond or two for each worker and stream."""
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
            ("INFO", "stats"),
            ("EXISTS", keys.leader("keeper")),
            ("ZRANGE", keys.held, 0, HELD_LOOKED - 1),
            ("HGETALL", keys.pauses),
            ("HMGET", keys.meta, "bounds", "salt"),
            *(("XLEN", stream) for stream in streams),
            *(("XINFO GROUPS", stream) for stream in streams),
            *(("XPENDING", stream, GROUP, "-", "+", 1) for stream in streams),  # its summary goes through all consumers
            *(("ZRANGE", keys.due(name), 0, 0, "WITHSCORES") for name in spool.priorities),
            *(("XINFO CONSUMERS", stream, GROUP) for stream in [keys.bell, *streams] if known is None),
        ],
        atomic=True,
    )
    (seconds, micros), flat, dead, events, due, info, stats, swept, held, pauses, (bounds, salt) = replies[:11]
    many = len(streams)
    lengths, groups, first, visits = (replies[11 + at * many : 11 + (at + 1) * many] for at in range(4))
    workers = _consumers(replies[11 + 4 * many :]) if known is None else list(known)
    now = int(seconds) * 1000 + int(micros) // 1000
    counts = {_text(name): int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
    memory = _info(info)
    heads, unread, added = await spool.scripts.heads()
    depth: dict[str, dict[str, int]] = {}
    oldest: dict[str, int] = {}
    aged: dict[str, dict[str, int]] = {}
    for p, name in enumerate(spool.priorities):
        states = {state: counts.get(f"{state}:{p}", 0) for state in ("parked", "scheduled", "held")}
        states["leased"] = _pending(groups[p])
        states["waiting"] = max(0, lengths[p] - sum(states.values()))
        depth[name] = {state: states[state] for state in STATES}
        oldest[name] = max(1, now - time_ms(heads[p])) if heads[p] else 0
        firsts = {
            "waiting": unread[p],
            "leased": f"{p}{_text(first[p][0][0])}" if first[p] else "",
            "held": next(
                (_text(entry) for entry in held if entry.startswith(b"%d" % p) and is_entry(_text(entry))), ""
            ),
        }
        aged[name] = {state: max(1, now - time_ms(entry)) for state, entry in firsts.items() if entry}
    return Status(
        now_ms=now,
        depth=depth,
        oldest_ms=oldest,
        next_due_ms=int(float(due[1])) if due else 0,
        totals={name[6:]: value for name, value in counts.items() if name.startswith("total:")},
        classes={name[6:]: value for name, value in counts.items() if name.startswith("class:")},
        dead=dead,
        events=events,
        workers=sum(one.alive for one in workers),
        memory=int(memory.get("used_memory", 0)),
        memory_max=int(memory.get("maxmemory", 0)),
        closed=closures(pauses, now),
        aged_ms=aged,
        tallies={name: value for name, value in counts.items() if ":" not in name},
        swept=bool(swept),
        consumers=workers,
        bounds=_bounds(bounds),
        visit_ms=min((int(float(visit[1])) // 1000 for visit in visits if visit), default=0),
        evicts=_evicts(memory),
        evicted=int(_info(stats).get("evicted_keys", 0)),
        added=added,
        salt=salt or b"",
    )


async def server_facts(spool: Spool) -> tuple[str, str]:
    """Its `run_id` (as `Spool.run_id`), and the policy by which it throws keys away when it is full, "": it does not;
    in one round trip."""
    who, memory = await pipelined(spool.redis, [("INFO", "server"), ("INFO", "memory")])
    return _info(who).get("run_id", ""), _evicts(_info(memory))


def _info(text: bytes) -> dict[str, str]:
    return dict(line.split(":", 1) for line in _text(text).splitlines() if ":" in line)


def _evicts(memory: dict[str, str]) -> str:
    """Mails, or the ids by which a second one is refused, would go in silence."""
    policy = memory.get("maxmemory_policy", "noeviction").strip()
    return policy if policy != "noeviction" and int(memory.get("maxmemory", 0)) else ""


def _bounds(text: bytes | None) -> list[BoundSeen]:
    """None where it is nothing that the script writes."""
    try:
        known = orjson.loads(text or b"{}")
        return [BoundSeen(name, str(b["level"]), int(b["used"]), int(b["most"])) for name, b in sorted(known.items())]
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        return []


def _pending(rows: list[Any]) -> int:
    """Of our group; 0 where it is gone."""
    groups = (dict(zip(row[::2], row[1::2], strict=True)) for row in rows)
    return next((int(each[b"pending"]) for each in groups if each[b"name"] == GROUP.encode()), 0)


def _text(found: bytes) -> str:
    return found.decode("utf-8", "replace")


async def locate(spool: Spool, text: str, tenant: str | None = None, *, deep: bool = False) -> str:
    """The entry that `text` names: an entry, or a producer's id (which may look like an entry). Raises
    `NotFound`. The entry of an id that was sent of late may be gone. `deep`: also a mail that nobody has
    read yet; then all entries may be visited, 100 a call. Raises `OfTenants` where that finds some with the id."""
    if tenant is None and is_entry(text) and int(text[0]) < len(spool.priorities):
        found = await spool.scripts.check("stream", int(text[0]), before(text), 1)
        if found[1:2] == [text.encode()]:
            return text
    entry = (await spool.scripts.find([(tenant, text)]))[0] or await _held_as(spool, text, tenant)
    if not entry and deep:
        entry = await _seek(spool, text, tenant)
    if not entry:
        whose = f" of tenant {tenant!r}" if tenant is not None else ""
        raise NotFound(f"no live mail has the entry, and none that was seen has the id {text[:300]!r}{whose}")
    return entry


async def owner(spool: Spool, word: str, tenant: str | None = None) -> str:
    """The live mail that has a word as its id, which may as well be an address: as `locate`, of ids that were read.
    "" for none: one that has ended is one of those to the address."""
    entry = (await spool.scripts.find([(tenant, word)]))[0]
    return entry if entry and (await spool.raw([entry]))[0] is not None else ""


async def located(spool: Spool, text: str, tenant: str | None = None) -> tuple[str, str | None]:
    """As `locate`, deep, for who only looks: where no tenant was said and one alone has such a mail it is that one, and
    its tenant. Raises `NotFound`."""
    try:
        return await locate(spool, text, tenant, deep=True), tenant
    except OfTenants as theirs:
        if len(theirs.entries) > 1:
            raise
        [(tenant, entry)] = theirs.entries.items()
        return entry, tenant


async def _seek(spool: Spool, id_: str, tenant: str | None) -> str:
    theirs: dict[str, str] = {}
    for p in range(len(spool.priorities)):
        at = ""
        while True:
            at, _, found = await spool.scripts.search(p, at, PAGE, id_=id_)
            for each in found:
                if each.tenant == (tenant or ""):
                    return f"{p}{each.name}"
                theirs.setdefault(each.tenant, f"{p}{each.name}")
            if not at:
                break
    if theirs and tenant is None:
        raise of_tenants(id_, theirs)
    return ""


def of_tenants(id_: str, theirs: Mapping[str, str], what: str = "live mail") -> OfTenants:
    shown = ", ".join(f"--tenant {name[:80]}" for name in list(theirs)[:TENANTS_SHOWN])
    more = ", …" if len(theirs) > TENANTS_SHOWN else ""
    none = f"no {what} without a tenant has the id {id_[:300]!r}"
    return OfTenants(f"{none}, but one of a tenant: {shown}{more}", theirs)


async def _held_as(spool: Spool, id_: str, tenant: str | None) -> str:
    """A mail that is held since this version does not know all of it: its id counts for nothing yet."""
    async for view in walk(spool, ("held",), sweep=True):
        if view.text("id") == id_ and (view.text("tenant") or None) == tenant:
            return view.entry
    return ""


async def show(spool: Spool, entry: str) -> MailView:
    """Everything about one live mail. Raises `NotFound`."""
    found = (await spool.fetch([entry]))[0]
    if found is None:
        raise NotFound(f"{entry} is not in the queue any more: `streamq dead show`, or its events, may know it")
    _, *rows = await spool.scripts.check("stream", int(entry[0]), before(entry), 1)
    state = rows[1].decode() if rows and rows[0].decode() == entry else "gone"
    view = (await placed(spool, [entry]))[0]
    view.state, view.fields = state, found.fields
    return view


async def placed(spool: Spool, entries: Sequence[str]) -> list[MailView]:
    """What the indexes and the notes say of each, in one round trip, without bodies; `waiting` where none of
    them has it, though it may be gone."""
    replies = await pipelined(spool.redis, [asked for entry in entries for asked in _questions(spool, entry)])
    views = []
    for at, entry in enumerate(entries):
        notes, due, held, pending, intent, lane = replies[6 * at : 6 * at + 6]
        view = MailView(entry, spool.priorities[int(entry[0])], "waiting", notes=notes_from(notes))
        view.due_ms = int(float(due)) if due else 0
        view.intent = _text(intent) if intent else ""
        view.lane = _text(lane) if lane else ""
        if pending:
            view.holder, view.idle_ms, view.token = _text(pending[0][1]), pending[0][2], pending[0][3]
        said = {"held": held is not None, "scheduled": due is not None, "parked": view.lane, "leased": view.holder}
        view.state = next((state for state, there in said.items() if there), "waiting")
        views.append(view)
    return views


def _questions(spool: Spool, entry: str) -> list[tuple[Part, ...]]:
    keys = spool.keys
    return [
        ("HGET", keys.notes, entry),
        ("ZSCORE", keys.schedule, entry),
        ("ZSCORE", keys.held, entry),
        ("XPENDING", spool.stream(entry), GROUP, entry[1:], entry[1:], 1),
        ("HGET", keys.holds, f"intent:{entry}"),
        ("HGET", keys.lane(_bucket(entry)), entry),
    ]


def _bucket(entry: str) -> int:
    ms, seq = entry[1:].split("-")
    return (int(ms[-9:]) * 31 + int(seq[-9:]) // NEIGHBOURS) % BUCKETS


def before(entry: str) -> str:
    """The id that stands in front of it: where a look begins that is to find it."""
    ms, seq = (int(part) for part in entry[1:].split("-"))
    if seq:
        return f"{ms}-{seq - 1}"
    return f"{ms - 1}-{2**64 - 1}" if ms else ""


def age_ms(view: MailView, now: int) -> int:
    """How long it has been in the queue."""
    return max(0, now - time_ms(view.entry))

"""A queue in a test's hands: what producers, workers and operators do to it, by the scripts, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from law import Survey, survey

from streamq.mail.identity import content_hash, digest
from streamq.queue.connection import command
from streamq.queue.rows import (
    AdmitRow,
    Admitted,
    FinishRow,
    Leased,
    Moved,
    Reclaimed,
    Released,
    Settled,
    SettleRow,
    StartRow,
)
from streamq.queue.scripts import why
from streamq.queue.spool import Spool

__all__ = ["DAY", "LANE", "START", "Event", "Lease", "Mailroom", "ident", "texts"]

START = 1_700_000_000_000  # ms: when virtual time begins
DAY = 86_400_000
LANE = "main|example.net"


@dataclass(frozen=True, slots=True)
class Lease:
    entry: str
    token: int
    consumer: str
    left: int = 0  # µs: when it got its slot


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    id: str
    data: dict[str, Any]


def texts(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}


class Mailroom:
    """`now` is virtual, in ms; entries get their ids from it, so that ages are virtual, too."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.scripts = spool.scripts
        self.keys = spool.keys
        self.now = START
        self._seq = 0
        self.to(START)

    def to(self, ms: float) -> None:
        self.now = int(ms)
        self.scripts.now = str(round(ms * 1000))

    def tick(self, ms: float) -> None:
        self.to(self.now + ms)

    async def do(self, *parts: str | bytes | int | float) -> Any:
        """A raw command."""
        return await command(self.spool.redis, *parts)

    async def say_pii(self, pii: str) -> None:
        """As workers do: until one has, scripts hash the addresses of what they end, only so many a call."""
        self.spool.settings = self.spool.settings.model_copy(update={"pii": pii})
        await self.do("HSET", self.keys.meta, "pii", pii)

    async def add(self, priority: str = "normal", **fields: Any) -> str:
        """XADD, as a producer does it; the entry."""
        self._seq += 1
        given = fields or {"to": "bob@example.net", "subject": "Hi"}
        pairs = [part for pair in given.items() for part in pair]
        id_ = f"{self.now}-{self._seq}"
        await self.do("XADD", self.keys.stream(priority), id_, *pairs)
        return f"{self.spool.digit(priority)}{id_}"

    async def read(self, consumer: str = "w1", many: int = 100) -> list[str]:
        """What a worker reads, high to low; the entries."""
        reading = await self.spool.read(consumer, [(name, many) for name in self.spool.priorities])
        return [entry.entry for entry in reading.entries]

    def row(self, entry: str, **known: Any) -> AdmitRow:
        """What intake makes of it: send it, in five days at the latest, unless `known` says otherwise."""
        made: dict[str, Any] = {"kind": "send", "lane": LANE, "deadline": self.now + 5 * DAY, "id": entry}
        return AdmitRow(entry=entry, **(made | known))

    async def admit(self, *rows: AdmitRow | str, consumer: str = "w1", **known: Any) -> Admitted:
        made = [self.row(row, **known) if isinstance(row, str) else row for row in rows]
        return await self.scripts.admit(consumer, made)

    async def admitted(self, *rows: AdmitRow | str, consumer: str = "w1", **known: Any) -> list[str]:
        """Their statuses."""
        return [status for status, *_ in (await self.admit(*rows, consumer=consumer, **known)).statuses]

    async def start(self, *entries: str, consumer: str = "w1", lane: str = LANE, seen: bytes = b"") -> tuple[int, str]:
        """The token and the letters of the plain way."""
        rows = [StartRow(entry, lane, self.now + 5 * DAY, seen) for entry in entries]
        return (await self.scripts.start(consumer, rows))[1:3]

    async def finish(self, *leases: Lease, way: str = LANE, tail: bytes = b"", at_once: int = 0) -> str:
        """The letters. `at_once`: so many of them, the first ones, are among so many transactions at once."""
        rows = [FinishRow(each.entry, each.token, way, each.entry, "email.relayed", tail) for each in leases]
        return (await self.scripts.finish(leases[0].consumer, rows, range(at_once)))[2]

    async def well(self, route: str = "main", consumer: str = "w1") -> None:
        """It was told of late that the route takes mail."""
        await self.do("HSET", self.keys.limit(route), "good", f"{consumer} {self.now * 1000}")

    async def lease(self, priority: str = "normal", *, consumer: str = "w1", lane: str = LANE, **fields: Any) -> Lease:
        """A new mail, read and admitted."""
        entry = await self.add(priority, **fields)
        assert entry in await self.read(consumer)
        found = await self.admit(entry, consumer=consumer, lane=lane)
        assert found.statuses[0][0] == "go", found
        return Lease(entry, found.token, consumer, self.now * 1000)

    async def parked(self, priority: str = "normal", *, lane: str = LANE, **fields: Any) -> str:
        """A new mail in its lane, for a minute if it is the first one there."""
        entry = await self.add(priority, **fields)
        assert entry in await self.read()
        found = await self.admit(entry, lane=lane)
        if found.statuses[0][0] == "go":  # else its lane was there before it
            lease = Lease(entry, found.token, "w1")
            assert await self.settled("park", lease, lane=lane, wait=60_000) == "ok"
        return entry

    async def scheduled(self, priority: str = "normal", *, after: int = 60_000, **fields: Any) -> str:
        """A new mail with `send_at` ahead."""
        entry = await self.add(priority, **fields)
        assert entry in await self.read()
        assert await self.admitted(entry, due=self.now + after) == ["scheduled"]
        return entry

    async def held(self, priority: str = "normal", **fields: Any) -> str:
        """A new mail that intake held."""
        entry = await self.add(priority, **fields)
        assert entry in await self.read()
        reason = why(reason="unknown fields: colour", fields=["colour"], **{"class": "unknown_field"})
        assert await self.admitted(entry, kind="hold", why=reason) == ["held"]
        return entry

    async def in_state(self, state: str, priority: str = "normal", **fields: Any) -> str:
        """A new mail in that state; leased by w1."""
        match state:
            case "waiting":
                return await self.add(priority, **fields)
            case "leased":
                return (await self.lease(priority, **fields)).entry
            case "parked":
                return await self.parked(priority, **fields)
            case "scheduled":
                return await self.scheduled(priority, **fields)
            case "held":
                return await self.held(priority, **fields)
        raise ValueError(state)

    async def settle(self, op: str, lease: Lease, *, lane: str = LANE, kind: str = "", **arg: Any) -> Settled:
        return await self.scripts.settle(lease.consumer, [self.end(op, lease, lane=lane, kind=kind, **arg)])

    async def settled(self, op: str, lease: Lease, *, lane: str = LANE, kind: str = "", **arg: Any) -> str:
        """Its status."""
        return (await self.settle(op, lease, lane=lane, kind=kind, **arg)).statuses[0]

    def end(
        self, op: str, lease: Lease, *, lane: str = LANE, kind: str = "", tail: bytes = b"", **arg: Any
    ) -> SettleRow:
        """The end of an attempt as the settler tells it."""
        kinds = {"sent": "relayed", "defer": "deferred", "dead": "bounced", "hold": "held", "throttled": "throttled"}
        usual: dict[str, dict[str, Any]] = {
            "sent": {},
            "gone": {},
            "park": {"wait": 0},
            "defer": {"wait": 60_000, "deadline": self.now + 5 * DAY, "class": "greylisted", "reply": "450 no"},
            "throttled": {
                "wait": 60_000,
                "deadline": self.now + 5 * DAY,
                "class": "site_rate",
                "reply": "421 slow down",
                "hint": 0,
                "scope": "site",
                "words": "slow down",
                "took": 0,
                "took_way": 0,
                "park": True,
            },
            "dead": {"reason": "rcpt: 550 no", "class": "bad_address", "reply": "550 no", "judged": True},
            "hold": {"reason": "ambiguous", "class": "ambiguous"},
        }
        made = usual[op] | arg
        event = kind or (f"email.{kinds[op]}" if op in kinds else "")
        return SettleRow(op, lease.entry, lease.token, lane, lease.entry, event, tail, why(**made), "", lease.left)

    async def release(self, consumer: str = "w1", room: int = 100, bell: Sequence[str] = ()) -> Released:
        return await self.scripts.release(consumer, room, bell)

    async def released(self, consumer: str = "w1", room: int = 100) -> list[str]:
        return [lease.entry for lease in (await self.release(consumer, room)).leases]

    async def taken(self, consumer: str = "w1", room: int = 100) -> list[tuple[Lease, Leased]]:
        found = await self.release(consumer, room)
        return [(Lease(each.entry, found.token, consumer, self.now * 1000), each) for each in found.leases]

    async def silent(self, entry: str, consumer: str, ms: int = 60_000) -> None:
        """Its lease's heartbeat stopped so long ago (real time: the server knows no other for that)."""
        stream = self.spool.stream(entry)
        await self.do("XCLAIM", stream, "streamq", consumer, 0, entry[1:], "IDLE", ms, "JUSTID")

    async def reclaim(
        self,
        consumer: str = "w2",
        *,
        room: int = 100,
        most: int = 3,
        cursor: str = "",
        suspects: int | None = None,
    ) -> Reclaimed:
        """What was silent for a minute."""
        return await self.scripts.reclaim(
            consumer, idle_ms=60_000, room=room, most=most, cursor=cursor, suspects=suspects
        )

    async def move(self, verb: str, *entries: str, at_ms: int | None = None) -> Moved:
        return await self.scripts.move(verb, entries, at_ms)

    async def moved(self, verb: str, *entries: str, at_ms: int | None = None) -> list[str]:
        return (await self.move(verb, *entries, at_ms=at_ms)).statuses

    # -- looks -----------------------------------------------------------------------------------

    async def survey(self) -> Survey:
        """Where everything stands; the law must hold."""
        seen = await survey(self.spool.redis, self.spool.keys.queue)
        assert seen.wrong == []
        return seen

    async def states(self) -> dict[str, str]:
        return (await self.survey()).states

    async def state(self, entry: str) -> str:
        """Its state; "" where it is gone."""
        return (await self.states()).get(entry, "")

    async def length(self, priority: str = "normal") -> int:
        many: int = await self.do("XLEN", self.keys.stream(priority))
        return many

    async def pending(self, priority: str = "normal") -> int:
        summary = await self.do("XPENDING", self.keys.stream(priority), "streamq")
        return int(summary[0])

    async def counts(self) -> dict[str, int]:
        flat = await self.do("HGETALL", self.keys.counts)
        return {name.decode(): int(many) for name, many in zip(flat[::2], flat[1::2], strict=True)}

    async def count(self, name: str) -> int:
        return int(await self.do("HGET", self.keys.counts, name) or 0)

    async def notes(self, entry: str) -> dict[str, Any]:
        found = await self.do("HGET", self.keys.notes, entry)
        notes: dict[str, Any] = orjson.loads(found) if found else {}
        return notes

    async def events(self) -> list[Event]:
        """All of them; each is three fields, the third a JSON object."""
        events = []
        for _, flat in await self.do("XRANGE", self.keys.events, "-", "+"):
            assert flat[::2] == [b"type", b"id", b"data"]
            events.append(Event(flat[1].decode(), flat[3].decode(), orjson.loads(flat[5])))
        return events

    async def kinds(self) -> list[str]:
        return [event.kind for event in await self.events()]

    async def letters(self) -> list[tuple[str, dict[str, str]]]:
        """Dead letters: id in their stream, fields."""
        rows = await self.do("XRANGE", self.keys.dead, "-", "+")
        return [(id_.decode(), texts(dict(zip(flat[::2], flat[1::2], strict=True)))) for id_, flat in rows]


def ident(mail_id: str, tenant: str = "", **fields: str) -> bytes:
    """What intake makes of a producer's id. (No mail is without content: the hash of nothing stands for a mail that
    nobody has looked at.)"""
    fields = fields or {"to": "bob@example.net"}
    given = {name.encode(): value.encode() for name, value in fields.items()}
    return digest(tenant, mail_id) + content_hash(given)

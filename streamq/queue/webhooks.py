"""A webhook's place in the events: a consumer group of its own, `webhook:<name>`, and what is known of how it does.

What was read and not acked is sent again, by whoever comes next; no mail waits for any of it. What is counted is in
Redis, counted in the same step as it happens: it outlives whoever listens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from redis.exceptions import ResponseError

from streamq.mail.domain import to_wire
from streamq.queue.connection import command, pipelined
from streamq.queue.events import Event, EventFilter, event_from
from streamq.queue.spool import Spool
from streamq.settings import WebhookSettings

__all__ = ["Feed", "Place", "filter_of", "id_parts"]

COUNTED = 1000
STEP = 200  # events that a script reads at once: a millisecond
CONSUMER = "listener"  # as hear.lua has it
COUNTS = ("sent", "failures", "gone", "gone_some")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a webhook is. `behind`: events that it has not read; None where the server cannot tell. `pending`: read
    and not delivered. `paused`: why, {} where it is not.

    `state`: `error` and `at` (ms) of its last round, and what is counted, whoever listened: `sent` events, `failures`
    in a row (rounds), events that are `gone` without having been sent, those included that it is still to find out;
    `gone_some`: how often some went, and the server could not say how many."""

    name: str
    behind: int | None
    pending: int
    last: str
    state: dict[str, Any]
    paused: dict[str, Any]


class Feed:
    """The events that one webhook has not had."""

    def __init__(self, spool: Spool, name: str) -> None:
        self.spool = spool
        self.name = name
        self.group = f"webhook:{name}"
        self._begun = False

    async def begin(self) -> None:
        """From now on, the first time; where it is known already its group was lost, and it gets all that are kept."""
        await self._hear(0)

    async def read(self, many: int) -> tuple[list[Event], int, int]:
        """So many at most: those that are pending, else new ones. How many of the pending ones are gone by now; and how
        many went before it read them, -1 where there were some and the server cannot say how many."""
        events: list[Event] = []
        gone, lost, after, full = 0, 0, "0", True
        while full and many > 0:
            step = min(many, STEP)
            rows, now_gone, now_lost = await self._hear(step, after=after)
            events += (event_from(row) for row in rows if row[1])
            gone += now_gone
            lost = -1 if min(lost, now_lost) < 0 else lost + now_lost
            many -= step
            full = len(rows) == step
            after = rows[-1][0].decode() if rows else after
        return events, gone, lost

    async def _hear(self, many: int, **where: str) -> tuple[list[Any], int, int]:
        heard = await self.spool.scripts.hear(self.name, many, "0" if self._begun else "$", **where)
        self._begun = True
        return heard

    async def ack(self, ids: list[str]) -> None:
        """Of those that are nothing to it."""
        if ids:
            await command(self.spool.redis, "XACK", self.spool.keys.events, self.group, *ids)

    async def took(self, ids: list[str], state: dict[str, Any], *, failed: bool) -> int:
        """A round's end: what was taken, how it does, whether something was not taken. Returns rounds that failed
        in a row, this one with them; where nothing failed: those until it."""
        _, failures = await self.spool.scripts.heard(self.name, ids, orjson.dumps(state), failed=failed)
        return failures

    async def pending(self) -> list[str]:
        rows = await command(
            self.spool.redis, "XPENDING", self.spool.keys.events, self.group, "-", "+", 10_000, CONSUMER
        )
        return [row[0].decode() for row in rows]

    async def go_to(self, id_: str) -> None:
        """The next one that it reads is the first behind that id in the stream."""
        await self._hear(0, to=id_)

    async def place(self) -> Place | None:
        """None where it has never been used."""
        keys = self.spool.keys
        fields = [f"{self.name}:{what}" for what in ("read", *COUNTS)]
        asked = (
            ("HMGET", keys.webhooks, *fields),
            ("XINFO", "GROUPS", keys.events),
            ("XINFO", "STREAM", keys.events),
        )
        told, groups, stream = await pipelined(self.spool.redis, asked, raising=False)
        last, pending, lag, lost = "", 0, None, 0
        for known in () if isinstance(groups, ResponseError) else map(_info, groups):  # that: no event yet
            if known[b"name"] == self.group.encode():
                last, pending = known[b"last-delivered-id"].decode(), known[b"pending"]
                lag = known.get(b"lag")
                lost = _lost(last, told[0], _info(stream))
                if lost:  # all that is there is behind it; some servers' `lag` counts what went, too
                    lag = _info(stream)[b"length"]
        state = await self._get("state")
        if not last and not state:
            return None
        counts = {name: _number(value) for name, value in zip(COUNTS, told[1:], strict=True)}
        counts["gone"] += max(lost, 0)
        counts["gone_some"] += lost < 0
        behind = lag if lag is not None else await self._behind(last or "0")
        return Place(self.name, behind, pending, last, state | counts, await self.paused())

    async def _behind(self, last: str) -> int | None:
        """Counted, up to a thousand: `lag` is new in Redis 7, and unknown after an XDEL or XGROUP SETID."""
        rows = await command(self.spool.redis, "XRANGE", self.spool.keys.events, f"({last}", "+", "COUNT", COUNTED)
        return len(rows) if len(rows) < COUNTED else None

    async def paused(self) -> dict[str, Any]:
        """Why; {} where it is not."""
        return await self._get("paused")

    async def pause(self, why: dict[str, Any]) -> None:
        """A resume has all its tries again."""
        field = f"{self.name}:paused", orjson.dumps(why), f"{self.name}:failures", 0
        await command(self.spool.redis, "HSET", self.spool.keys.webhooks, *field)

    async def resume(self) -> bool:
        """False where it was not paused."""
        return bool(await command(self.spool.redis, "HDEL", self.spool.keys.webhooks, f"{self.name}:paused"))

    async def _get(self, what: str) -> dict[str, Any]:
        found = await command(self.spool.redis, "HGET", self.spool.keys.webhooks, f"{self.name}:{what}")
        try:
            known = orjson.loads(found) if found else {}
        except orjson.JSONDecodeError:
            return {"reason": "not readable"}
        return known if isinstance(known, dict) else {}


def filter_of(settings: WebhookSettings) -> EventFilter:
    """The events that it wants."""
    domain = to_wire(settings.domain).lower() if settings.domain else ""
    return EventFilter(types=settings.types, domain=domain, tenant=settings.tenant, tag=settings.tag)


def _number(value: bytes | None) -> int:
    return int(value) if value and value.isdigit() else 0


def _info(flat: list[Any]) -> dict[bytes, Any]:
    """XINFO's replies are lists of names and values."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _lost(last: str, read: bytes | None, stream: dict[bytes, Any]) -> int:
    """What it will not get, as hear.lua will count it when it reads on: how many, -1 for some."""
    first, added = stream.get(b"first-entry"), stream.get(b"entries-added")
    at, _, rank = (read or b"").decode().partition(" ")
    if not first or at != last or not id_parts(last) < id_parts(first[0].decode()):
        return 0
    if rank and added is not None:
        return max(0, int(added) - int(stream[b"length"]) - int(rank))
    return 0 if last == "0-0" else -1


def id_parts(id_: str) -> tuple[int, ...]:
    """Of an id in a stream: as they are in order."""
    return tuple(map(int, id_.split("-")))

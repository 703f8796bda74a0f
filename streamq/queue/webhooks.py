"""A webhook's place in the events: a consumer group of its own, `webhook:<name>`, and what is known of how it does.

What was read and not acked is sent again, by whoever comes next; no mail waits for any of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from redis.exceptions import ResponseError

from streamq.queue.connection import command
from streamq.queue.events import Event, event_from
from streamq.queue.spool import Spool

__all__ = ["Feed", "Place"]

COUNTED = 1000
CONSUMER = "listener"  # one process at a time has the role, so what is pending is its own


@dataclass(frozen=True, slots=True)
class Place:
    """Where a webhook is. `behind`: events that it has not read; None where the server cannot tell. `pending`: read
    and not delivered. `state`: as its listener wrote it; `paused`: why, {} where it is not."""

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

    async def begin(self, start: str = "$") -> None:
        """From now on, the first time; where it is known already its group was lost, and it gets all that are kept."""
        known = self._begun or await self._get("state")
        try:
            await command(
                self.spool.redis,
                "XGROUP CREATE",
                self.spool.keys.events,
                self.group,
                "0" if known else start,
                "MKSTREAM",
            )
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._begun = True

    async def read(self, many: int) -> tuple[list[Event], int]:
        """So many at most: those that are pending, else new ones. And how many of the pending ones are gone by now."""
        for start in ("0", ">"):
            reply = await self._read(many, start)
            rows = reply[0][1] if reply else []
            there = [event_from(row) for row in rows if row[1]]
            gone = [row[0].decode() for row in rows if not row[1]]  # trimmed since
            await self.ack(gone)
            if rows:
                return there, len(gone)
        return [], 0

    async def _read(self, many: int, start: str) -> Any:
        events = self.spool.keys.events
        asked = ("XREADGROUP", "GROUP", self.group, CONSUMER, "COUNT", many, "STREAMS", events, start)
        try:
            return await command(self.spool.redis, *asked)
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            await self.begin()
            return await command(self.spool.redis, *asked)

    async def ack(self, ids: list[str]) -> None:
        if ids:
            await command(self.spool.redis, "XACK", self.spool.keys.events, self.group, *ids)

    async def pending(self) -> list[str]:
        rows = await command(
            self.spool.redis, "XPENDING", self.spool.keys.events, self.group, "-", "+", 10_000, CONSUMER
        )
        return [row[0].decode() for row in rows]

    async def go_to(self, id_: str) -> None:
        """The next one that it reads is the first behind that id in the stream."""
        await self.begin()
        await command(self.spool.redis, "XGROUP SETID", self.spool.keys.events, self.group, id_)

    async def place(self) -> Place | None:
        """None where it has never been used."""
        last, pending, lag = "", 0, None
        try:
            groups = await command(self.spool.redis, "XINFO GROUPS", self.spool.keys.events)
        except ResponseError:  # no event yet
            groups = []
        for row in groups:
            known = dict(zip(row[::2], row[1::2], strict=True))
            if known[b"name"] == self.group.encode():
                last, pending = known[b"last-delivered-id"].decode(), known[b"pending"]
                lag = known.get(b"lag")
        state = await self._get("state")
        if not last and not state:
            return None
        behind = lag if lag is not None else await self._behind(last or "0")
        return Place(self.name, behind, pending, last, state, await self.paused())

    async def _behind(self, last: str) -> int | None:
        """Counted, up to a thousand: `lag` is new in Redis 7, and unknown after an XDEL or XGROUP SETID."""
        rows = await command(self.spool.redis, "XRANGE", self.spool.keys.events, f"({last}", "+", "COUNT", COUNTED)
        return len(rows) if len(rows) < COUNTED else None

    async def paused(self) -> dict[str, Any]:
        """Why; {} where it is not."""
        return await self._get("paused")

    async def pause(self, why: dict[str, Any]) -> None:
        await self._set("paused", why)

    async def resume(self) -> bool:
        """False where it was not paused."""
        return bool(await command(self.spool.redis, "HDEL", self.spool.keys.webhooks, f"{self.name}:paused"))

    async def tell(self, state: dict[str, Any]) -> None:
        """How it does, for whoever looks."""
        await self._set("state", state)

    async def _get(self, what: str) -> dict[str, Any]:
        found = await command(self.spool.redis, "HGET", self.spool.keys.webhooks, f"{self.name}:{what}")
        try:
            known = orjson.loads(found) if found else {}
        except orjson.JSONDecodeError:
            return {"reason": "not readable"}
        return known if isinstance(known, dict) else {}

    async def _set(self, what: str, known: dict[str, Any]) -> None:
        field = f"{self.name}:{what}"
        await command(self.spool.redis, "HSET", self.spool.keys.webhooks, field, orjson.dumps(known))

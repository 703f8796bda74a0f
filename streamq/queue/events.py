"""Reads the stream of events. An entry that is none (somebody else's XADD) stops nobody: its data is empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from streamq.queue.connection import command
from streamq.queue.spool import Spool

__all__ = ["Event", "event_from", "last_events"]


@dataclass(frozen=True, slots=True)
class Event:
    """`at`: its id in the stream; `id`: the producer's, else the entry, or a route's or site's name; `raw`: the data
    as it stands there, `data`: what it says, {} where it is no JSON object."""

    at: str
    kind: str
    id: str
    raw: bytes
    data: dict[str, Any]

    @property
    def at_ms(self) -> int:
        """When the script wrote it, by its data; else by its id in the stream."""
        at = self.data.get("at")
        return at if isinstance(at, int) else int(self.at.partition("-")[0])

    def text(self, name: str) -> str:
        """What its data says of that; "" for nothing."""
        value = self.data.get(name)
        return "" if value is None else str(value)


def event_from(row: tuple[bytes, Sequence[bytes]]) -> Event:
    """Of a row as XRANGE and XREADGROUP bring it."""
    id_, flat = row
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    raw = fields.get(b"data", b"")
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError:
        data = {}
    kind, name = (fields.get(field, b"").decode("utf-8", "replace") for field in (b"type", b"id"))
    return Event(id_.decode(), kind, name, raw, data if isinstance(data, dict) else {})


async def last_events(spool: Spool, many: int) -> list[Event]:
    """The newest first."""
    return [
        event_from(row) for row in await command(spool.redis, "XREVRANGE", spool.keys.events, "+", "-", "COUNT", many)
    ]

"""Reads the stream of events: the newest, all since a moment, those that come. An entry that is none (somebody else's
XADD) stops nobody: its data is empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import orjson
from redis.exceptions import RedisError

from streamq.mail.event import hashed_address, hide_addresses
from streamq.queue.connection import command
from streamq.queue.spool import Spool

__all__ = [
    "DEAD",
    "OPERATOR",
    "Event",
    "EventFilter",
    "event_from",
    "events_since",
    "first_event",
    "follow_events",
    "hidden",
    "last_events",
    "newest_pages",
    "with_code",
]

PAGE = 1000  # of half a kilobyte each
NEWEST_PAGES = 20
BLOCK_MS = 5000
TEXT_MOST = 10_000  # of a text in which addresses are looked for
AWAY_SECONDS = 1.0
HASHED = "sha256:"
OPERATOR = "operator"  # the class of what an operator held, or bounced
DEAD = frozenset({"dead", "email.bounced", "email.expired", "email.rejected", "email.failed"})  # they leave a letter


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

    @property
    def event_id(self) -> str:
        """The same when an event was written again; its id in the stream where its data has none."""
        return self.text("event_id") or self.at

    def text(self, name: str) -> str:
        """What its data says of that; "" for nothing."""
        value = self.data.get(name)
        return "" if value is None else str(value)

    @property
    def is_asked(self) -> bool:
        """An operator ended it so: no receiver's failure."""
        return self.text("class") == OPERATOR or bool(self.text("asked"))

    @property
    def said(self) -> str:
        """The reply with its code, "" where there was none."""
        return with_code(self.data.get("code"), self.text("reply"))


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events: all that fit every given part. `types` are globs (`email.*`); `names`: a mail's id, entry or
    parent (or the parent's id), a route's or site's name, or a recipient; `rcpt` an address. Addresses are found
    hashed, too."""

    types: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    rcpt: str = ""
    domain: str = ""
    tenant: str | None = None
    tag: str = ""
    klass: str = ""
    _rcpts: frozenset[str] = field(init=False)
    _named: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        address = self.rcpt.lower()
        object.__setattr__(self, "_rcpts", frozenset({address, hashed_address(address)} if address else ()))
        people = [name.lower() for name in self.names if "@" in name]
        object.__setattr__(self, "_named", frozenset((*people, *map(hashed_address, people))))

    def fits(self, event: Event) -> bool:
        if self.types and not any(fnmatchcase(event.kind, each) for each in self.types):
            return False
        named = {event.id, event.text("entry"), event.text("parent"), event.event_id}
        if event.text("parent"):
            named.add(event.id.rpartition("#")[0])  # the id of the mail for several that it came of
        rcpt = event.text("rcpt").lower()
        if self.names and not named.intersection(self.names) and rcpt not in self._named:
            return False
        if self._rcpts and rcpt not in self._rcpts:
            return False
        tags = event.data.get("tags")
        if self.tag and not (isinstance(tags, list) and self.tag in tags):
            return False
        if self.tenant is not None and event.text("tenant") != self.tenant:
            return False
        return self.domain in ("", event.text("site")) and self.klass in ("", event.text("class"))


async def newest_pages(spool: Spool) -> AsyncIterator[list[Any]]:
    """Rows of the newest 20,000 events, the newest first, for who looks for what may be none of them."""
    last = "+"
    for _ in range(NEWEST_PAGES):
        rows = await command(spool.redis, "XREVRANGE", spool.keys.events, last, "-", "COUNT", PAGE)
        yield rows
        if len(rows) < PAGE:
            return
        last = f"({rows[-1][0].decode()}"


def with_code(code: object, reply: str) -> str:
    """A reply as the server said it: its code stands beside it."""
    return f"{code} {reply}".strip() if code and not reply.startswith(str(code)) else reply


def event_from(row: tuple[bytes, Sequence[bytes]]) -> Event:
    """Of a row as XRANGE and XREADGROUP bring it."""
    id_, flat = row
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    raw = fields.get(b"data", b"")
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError:
        data = {}
    kind, name = (fields.get(name, b"").decode("utf-8", "replace") for name in (b"type", b"id"))
    return Event(id_.decode(), kind, name, raw, data if isinstance(data, dict) else {})


def hidden(event: Event) -> Event:
    """Without an address in the clear, for logs and listeners of which `pii` says so, whatever the workers' says: of
    recipient, reply and reason. (What the producer put into id, tags or metadata is the producer's.)"""
    data = dict(event.data)
    rcpt = event.text("rcpt")
    if rcpt and not rcpt.startswith(HASHED):
        data["rcpt"] = hashed_address(rcpt)
    for name in ("reply", "reason"):
        if isinstance(data.get(name), str):
            data[name] = hide_addresses(data[name][:TEXT_MOST])
    return Event(event.at, event.kind, event.id, orjson.dumps(data), data)


async def last_events(spool: Spool, many: int, wanted: EventFilter | None = None) -> list[Event]:
    """The newest first, so many of those that are wanted: as far back as it takes."""
    found: list[Event] = []
    end = "+"
    while len(found) < many:
        page = many if wanted is None else PAGE
        rows = await command(spool.redis, "XREVRANGE", spool.keys.events, end, "-", "COUNT", page)
        found += (event for event in map(event_from, rows) if wanted is None or wanted.fits(event))
        if len(rows) < page:
            break
        end = f"({rows[-1][0].decode()}"
    return found[:many]


async def first_event(spool: Spool) -> Event | None:
    """The oldest that is kept."""
    rows = await command(spool.redis, "XRANGE", spool.keys.events, "-", "+", "COUNT", 1)
    return event_from(rows[0]) if rows else None


async def events_since(spool: Spool, start: str = "-") -> AsyncIterator[Event]:
    """Oldest first, from that id in the stream on (`(` before it: behind it), to what is there now."""
    while True:
        rows = await command(spool.redis, "XRANGE", spool.keys.events, start, "+", "COUNT", PAGE)
        for row in rows:
            yield event_from(row)
        if len(rows) < PAGE:
            return
        start = f"({rows[-1][0].decode()}"


async def follow_events(spool: Spool, last: str, away: Callable[[RedisError], object]) -> AsyncIterator[list[Event]]:
    """Those behind that id, for ever, as they come, in pages. `away` is told when the server is not there: they go on
    behind the last one when it is."""
    while True:
        try:
            reply = await command(
                spool.reader, "XREAD", "COUNT", PAGE, "BLOCK", BLOCK_MS, "STREAMS", spool.keys.events, last
            )
        except RedisError as error:
            away(error)
            await asyncio.sleep(AWAY_SECONDS)
            continue
        for _, rows in reply or ():
            page = [event_from(row) for row in rows]
            last = page[-1].at
            yield page

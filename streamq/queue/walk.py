"""Walks over live mails, state by state, in pages that are bounded in mails and, as far as can be known, bytes.

The states are walked in the order in which mail flows through them, so that one that moves on is met at least
once. Two orders: oldest or soonest first, for people; and, for sweeps, one that misses no mail that stays
where it is (pages by rank would, whenever one in front of them leaves).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from streamq.keys import GROUP
from streamq.queue.connection import command
from streamq.queue.spool import Entry, Spool

__all__ = ["PAGE", "STATES", "MailView", "Pages", "filled", "is_entry", "notes_from", "walk"]

STATES = ("waiting", "leased", "parked", "scheduled", "held")
PAGE = 100
FIRST_PAGE = 10
PAGE_BYTES = 8_000_000
LARGEST_PART = 2**64  # of an id: its ms, its number


@dataclass(slots=True)
class MailView:
    """A live mail. `due_ms`: next attempt, where it is scheduled; `lane` where it is parked; `holder` and
    `token` where it is leased. `fields` is empty where a walk was told to leave bodies alone. `past_dot`, where
    somebody looked: its holder's dots name it, so it is ambiguous if that one dies now."""

    entry: str
    priority: str
    state: str
    fields: dict[bytes, bytes] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    due_ms: int = 0
    lane: str = ""
    holder: str = ""
    token: int = 0
    idle_ms: int = 0
    intent: str = ""
    past_dot: bool = False

    @property
    def klass(self) -> str:
        """What its last reply, or what holds it, was taken for; "" where nothing was said yet."""
        return str(self.notes.get("class") or "")

    def text(self, name: str) -> str:
        return self.fields.get(name.encode(), b"").decode("utf-8", "replace")


class Pages:
    """How many mails to ask for at once. Bodies travel, and a hundred of 25 MB would be one reply of 2.5 GB: a
    page is no more than twice the last one, and what `PAGE_BYTES` holds of the last one's mails."""

    def __init__(self, many: int = FIRST_PAGE) -> None:
        self.many = many

    def saw(self, sizes: Sequence[int]) -> None:
        mean = max(1, sum(sizes) // max(1, len(sizes)))
        self.many = max(1, min(PAGE, 2 * self.many, PAGE_BYTES // mean))


def is_entry(text: str) -> bool:
    """`11732237561234-0`: a digit, and an id that a stream takes. A producer's id may look like one, too."""
    ms, dash, seq = text.partition("-")
    if not (dash and 1 < len(ms) < 22 and 0 < len(seq) < 21 and text.isascii()):
        return False
    return ms.isdigit() and seq.isdigit() and int(ms[1:]) < LARGEST_PART and int(seq) < LARGEST_PART


def notes_from(found: bytes | None) -> dict[str, Any]:
    """A mail's notes; {} where there are none, or where they are not what scripts write."""
    try:
        notes = orjson.loads(found) if found else {}
    except orjson.JSONDecodeError:
        return {}
    return notes if isinstance(notes, dict) else {}


async def walk(
    spool: Spool, states: Sequence[str] = STATES, *, bodies: bool = True, notes: bool = False, sweep: bool = False
) -> AsyncIterator[MailView]:
    """Every live mail of these states. A mail that moves meanwhile may come twice; in a `sweep` none that stays
    is missed, in no particular order. Without `bodies` only what the indexes say, with `notes` what those say, too.
    (What nobody has read has none. Of leased mail they come where they are asked for.)"""
    for state in states:
        if state == "waiting" or state == "leased":
            for p, name in enumerate(spool.priorities):
                pages = _leased(spool, p, name, bodies, notes) if state == "leased" else _unread(spool, p, name, bodies)
                async for view in pages:
                    yield view
        elif state == "parked":
            async for view in _parked(spool, bodies, notes):
                yield view
        else:
            async for view in _indexed(spool, state, bodies, notes, sweep):
                yield view


async def _unread(spool: Spool, p: int, name: str, bodies: bool) -> AsyncIterator[MailView]:
    last = await spool.passed(name) or "0-0"
    pages = Pages()
    while not bodies and last is not None:
        reached, *rows = await spool.scripts.check("stream", p, last, PAGE)
        for entry, state in zip(rows[::2], rows[1::2], strict=True):
            if state == b"waiting":
                yield MailView(entry.decode(), name, "waiting")
        last = reached.decode()
        if not last:
            return
    while True:
        many = pages.many
        rows = await spool.peek(name, last, many)
        found = [Entry.of(f"{p}{id_.decode()}", flat) for id_, flat in rows]
        async for entry in _each_complete(spool, found):
            yield MailView(entry.entry, name, "waiting", entry.fields)
        if len(rows) < many:
            return
        last = rows[-1][0].decode()
        pages.saw([sum(map(len, flat)) for _, flat in rows])


async def _leased(spool: Spool, p: int, name: str, bodies: bool, notes: bool) -> AsyncIterator[MailView]:
    last = "-"
    pages = Pages()
    while True:
        rows = await command(spool.redis, "XPENDING", spool.keys.stream(name), GROUP, last, "+", PAGE)
        views = [MailView(f"{p}{row[0].decode()}", name, "leased") for row in rows]
        for view, row in zip(views, rows, strict=True):
            view.holder, view.idle_ms, view.token = row[1].decode("utf-8", "replace"), row[2], row[3]
        async for view in filled(spool, views, pages, noted=notes) if bodies else _bare(spool, views, notes):
            yield view
        if len(rows) < PAGE:
            return
        last = f"({rows[-1][0].decode()}"


async def _parked(spool: Spool, bodies: bool, notes: bool) -> AsyncIterator[MailView]:
    """By lane, most urgent and oldest first; the next page begins behind the last member, not at a rank."""
    last: bytes = b"-"
    pages = Pages()
    while True:
        rows: list[bytes] = await command(spool.redis, "ZRANGEBYLEX", spool.keys.parked, last, "+", "LIMIT", 0, PAGE)
        views = [view for member in rows if (view := _parked_view(spool, member)) is not None]
        async for view in filled(spool, views, pages, noted=True) if bodies else _bare(spool, views, notes):
            yield view
        if len(rows) < PAGE:
            return
        last = b"(" + rows[-1]


def _parked_view(spool: Spool, member: bytes) -> MailView | None:
    lane, _, padded = member.decode("utf-8", "replace").rpartition("|")
    if not is_entry(padded):
        return None
    ms, seq = padded[1:].split("-")
    return _view(spool, f"{padded[0]}{int(ms)}-{int(seq)}", "parked", lane=lane)


async def _indexed(spool: Spool, state: str, bodies: bool, notes: bool, sweep: bool) -> AsyncIterator[MailView]:
    key = {"scheduled": spool.keys.schedule, "held": spool.keys.held}[state]
    pages = Pages()
    at = 0
    while True:
        if sweep:
            at, rows = await command(spool.redis, "ZSCAN", key, at, "COUNT", PAGE)
            at = int(at)
        else:
            rows = await command(spool.redis, "ZRANGE", key, at, at + PAGE - 1, "WITHSCORES")
            at = at + PAGE if len(rows) == 2 * PAGE else 0
        views = []
        for member, score in zip(rows[::2], rows[1::2], strict=True):
            view = _view(spool, member.decode("utf-8", "replace"), state)
            if view is not None:
                view.due_ms = int(float(score)) if state == "scheduled" else 0
                views.append(view)
        async for view in filled(spool, views, pages, noted=True) if bodies else _bare(spool, views, notes):
            yield view
        if at == 0:
            return


def _view(spool: Spool, entry: str, state: str, lane: str = "") -> MailView | None:
    """None for what no script writes: `check` finds that, walks pass it by."""
    if not is_entry(entry) or int(entry[0]) >= len(spool.priorities):
        return None
    return MailView(entry, spool.priorities[int(entry[0])], state, lane=lane)


async def _bare(spool: Spool, views: Sequence[MailView], noted: bool) -> AsyncIterator[MailView]:
    """Without fields; those that have ended meanwhile are not left out."""
    if noted and views:
        found = await command(spool.redis, "HMGET", spool.keys.notes, *(view.entry for view in views))
        for view, note in zip(views, found, strict=True):
            view.notes = notes_from(note)
    for view in views:
        yield view


async def filled(
    spool: Spool, views: Sequence[MailView], pages: Pages, *, noted: bool = False
) -> AsyncIterator[MailView]:
    """With fields, and notes where they matter; those that have ended meanwhile are left out."""
    at = 0
    while at < len(views):
        part = views[at : at + pages.many]
        at += len(part)
        names = [view.entry for view in part]
        there = [entry for entry in await spool.raw(names) if entry is not None]
        notes = await command(spool.redis, "HMGET", spool.keys.notes, *names) if noted else [None] * len(part)
        known = {view.entry: (view, note) for view, note in zip(part, notes, strict=True)}
        async for entry in _each_complete(spool, there):
            view, note = known[entry.entry]
            yield replace(view, fields=entry.fields, notes=notes_from(note) if noted else view.notes)
        if there:
            pages.saw([sum(map(len, entry.fields.values())) for entry in there])


async def _each_complete(spool: Spool, entries: Sequence[Entry]) -> AsyncIterator[Entry]:
    """Children with what they share: not all of a page at once, where those are large."""
    at = 0
    while at < len(entries):
        for entry in await spool.complete(entries[at:], PAGE_BYTES):
            yield entry
            at += 1

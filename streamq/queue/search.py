"""Looks for mails by what no index has: whom they are to, or the id of one that nobody has read yet.

All live mails stand in the streams of their priorities, whatever state they are in: these are gone through from the
newest on, a hundred a script (lua/search.lua), which leaves nearly all of them out; those that are left are read.
Nothing is kept of what was looked at, so that a search may be left off anywhere, and gone on with.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from streamq.mail.event import hashed_address
from streamq.queue.events import DEAD, Event, event_from, newest_pages
from streamq.queue.letters import dead_letter
from streamq.queue.look import placed
from streamq.queue.person import Person, recipients_of
from streamq.queue.scripts import BATCH
from streamq.queue.spool import Spool
from streamq.queue.walk import MailView, Pages, filled, is_entry

__all__ = [
    *("BEGINNING", "End", "Found", "Page", "ends_of", "ends_of_children", "is_place", "letters_to", "look_on"),
    *("mails_to", "sought"),
]

BEGINNING = "0:"
PLACE = re.compile(r"([0-9]):(?:[0-9]{1,20}-[0-9]{1,20})?")
LETTERS_LOOKED = 100_000  # the newest
NOT_ENDS = frozenset({"deferred", "throttled", "held", "ambiguous", "requeued", "expanded"})


@dataclass(slots=True)
class Page:
    """Part of a search. `at`: where it goes on, "" at its end; `looked`: how many mails were passed. `named`: of those
    with the id, entry → tenant ("" for none); `views`: those to the address, with their fields and notes."""

    at: str
    looked: int
    named: dict[str, str] = field(default_factory=dict)
    views: list[MailView] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class End:
    """How a mail to somebody ended: its last event, or its dead letter (`kind` is `dead` then). `letter` of the data is
    that one's id, where it is kept; `place` the event's own in its stream, "" of a letter."""

    kind: str
    at_ms: int
    id: str
    entry: str
    data: dict[str, Any]
    place: str = ""


def is_place(spool: Spool, at: str) -> bool:
    """Whether a search can go on there."""
    found = PLACE.fullmatch(at)
    return found is not None and int(found[1]) < len(spool.priorities)


async def look_on(spool: Spool, who: Person | None, at: str = BEGINNING, id_: str = "") -> Page:
    """At a hundred mails, or fewer where they are large: which are to `who`, which have the id."""
    priority, _, below = at.partition(":")
    p = int(priority)
    local, domain = (who.local, who.domain) if who is not None else ("", "")
    reached, looked, found = await spool.scripts.search(p, below, BATCH, local=local, domain=domain, id_=id_)
    page = Page(f"{p}:{reached}" if reached else f"{p + 1}:" if p + 1 < len(spool.priorities) else "", looked)
    page.named = {f"{p}{each.name}": each.tenant for each in found if each.same}
    if who is not None and found:
        views = await placed(spool, [f"{p}{each.name}" for each in found])
        page.views = [v async for v in filled(spool, views, Pages()) if who.is_one_of(recipients_of(v))]
    return page


@dataclass(slots=True)
class Found:
    """What a whole search came to. `named`, `views` as of `Page`; `more`: it ended early, with so many `views`."""

    named: dict[str, str] = field(default_factory=dict)
    views: list[MailView] = field(default_factory=list)
    looked: int = 0
    more: bool = False

    def of(self, tenant: str | None) -> str:
        """The entry that has the id, of that tenant, or (None) of nobody; "" for none."""
        return next((entry for entry, whose in self.named.items() if whose == (tenant or "")), "")


async def sought(
    spool: Spool,
    who: Person | None,
    id_: str,
    visited: Callable[[int], object] = lambda many: None,
    *,
    most: int = 0,
    tenant: str | None = None,
) -> Found:
    """All live mails that have the id, or are to `who`; up to `most` of the latter (0: all), of that tenant alone,
    where one is said. Seconds for a million."""
    found = Found()
    at = BEGINNING
    while at and not (most and len(found.views) > most):
        page = await look_on(spool, who, at, id_)
        visited(page.looked)
        found.looked += page.looked
        found.named |= page.named
        found.views += (view for view in page.views if tenant is None or view.text("tenant") == tenant)
        at = page.at
    found.more = bool(most) and len(found.views) > most
    if found.more:
        del found.views[most:]
    return found


async def mails_to(
    spool: Spool, who: Person, visited: Callable[[int], object] = lambda many: None
) -> AsyncIterator[MailView]:
    """The live mails to somebody, in whatever state, of each priority the newest first. `visited` is told how many were
    looked at. What comes meanwhile is not among them."""
    at = BEGINNING
    while at:
        page = await look_on(spool, who, at)
        visited(page.looked)
        for view in page.views:
            yield view
        at = page.at


async def ends_of(spool: Spool, who: Person, most: int, tenant: str | None = None) -> list[End]:
    """How the last mails to somebody ended, the newest first, as far as it is known: by the newest 20,000 events of the
    queue, and its dead letters. `tenant`: of that one alone."""
    found = await _last_ends(spool, partial(_events_of, who=who), most, tenant)
    async for end in letters_to(spool, who, most, tenant):
        found.setdefault(end.entry, end).data["letter"] = end.data["letter"]
    return sorted(found.values(), key=lambda end: -end.at_ms)[:most]


async def ends_of_children(spool: Spool, parent: str, most: int) -> list[End]:
    """How the last ones that a mail to several recipients became ended, by the newest 20,000 events."""
    found = await _last_ends(spool, partial(_events_below, parent=parent), most, None)
    last = sorted(found.values(), key=lambda end: -end.at_ms)[:most]
    for end in last:
        if end.kind in DEAD:
            await _find_letter(spool, end)
    return last


async def _find_letter(spool: Spool, end: End) -> None:
    """Of the script that wrote the event, just before it. (Of a hashed address nobody knows whom to look for.)"""
    local, _, domain = str(end.data.get("rcpt") or "").lower().rpartition("@")
    ms = int(end.place.partition("-")[0])
    _, _, rows = await spool.scripts.search(None, f"{ms + 1}-0", BATCH, local=local, domain=domain)
    for row in rows if domain else ():
        letter = await dead_letter(spool, row.name)
        if letter is not None and letter.text("dead_entry") == end.entry:
            end.data["letter"] = letter.letter


async def _last_ends(
    spool: Spool, events: Callable[[list[Any]], list[Event]], most: int, tenant: str | None
) -> dict[str, End]:
    """By entry; `events`: those that are meant, of rows of the events' stream."""
    found: dict[str, End] = {}
    async for rows in newest_pages(spool):
        for event in events(rows):
            entry = event.text("entry")
            theirs = tenant is None or event.text("tenant") == tenant
            if theirs and event.kind.removeprefix("email.") not in NOT_ENDS:
                found.setdefault(entry, End(event.kind, event.at_ms, event.id, entry, event.data, event.at))
        if len(found) >= most:
            break
    return found


def _events_below(rows: list[Any], parent: str) -> list[Event]:
    mentioned = (row for row in rows if any(parent.encode() in part for part in row[1][1::2]))
    return [event for event in map(event_from, mentioned) if event.text("parent") == parent]


def _events_of(rows: list[Any], who: Person) -> list[Event]:
    """JSON is read only of those that mention the address."""
    forms = (who.spec.encode(), hashed_address(who.spec).encode())
    said = (row for row in rows if any(form in part.lower() for part in row[1][1::2] for form in forms))
    return [event for event in map(event_from, said) if event.kind.startswith("email.") and who.gets(event)]


async def letters_to(spool: Spool, who: Person, most: int, tenant: str | None = None) -> AsyncIterator[End]:
    """The dead letters of mails to somebody, the newest first, so many at most; `letter` of an end's data is its id."""
    below, looked, found = "", 0, 0
    while looked < LETTERS_LOOKED and found < most:
        below, many, rows = await spool.scripts.search(None, below, BATCH, local=who.local, domain=who.domain)
        looked += many
        for row in rows:
            letter = await dead_letter(spool, row.name)
            entry = letter.text("dead_entry") if letter is not None else ""
            if letter is None or not is_entry(entry) or tenant not in {None, letter.text("tenant")}:
                continue
            if who.is_one_of(recipients_of(MailView(entry, "", "dead", letter.mail))):
                found += 1
                named = {"class": "dead_class", "reason": "dead_reason", "reply": "last_reply", "attempt": "attempts"}
                data = {name: said for name, field in named.items() if (said := letter.text(field))}
                at = letter.text("dead_at")
                at_ms = int(at) if at.isdecimal() and len(at) < 15 else int(letter.letter.partition("-")[0])
                yield End("dead", at_ms, letter.text("id") or entry, entry, data | {"letter": letter.letter})
        if not below:
            return

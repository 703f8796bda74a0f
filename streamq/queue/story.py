"""A mail's story: where it is and why it waits, and every event of it that is kept. The mails to somebody: the same in
short, of all there are."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from streamq.errors import NotFound
from streamq.queue.children import Family, family_after, family_at, family_seen, first_children
from streamq.queue.events import DEAD
from streamq.queue.look import located, owner
from streamq.queue.person import Person
from streamq.queue.search import BEGINNING, End, ends_of, ends_of_children, look_on
from streamq.queue.spool import Spool
from streamq.queue.why import Ended, Why, ended_somewhere, ends, letter_end, why

__all__ = ["Mailbox", "Story", "mailbox", "story"]

FOUND_MOST = 50  # live mails to an address in one look, about: a page has a hundred at most
ENDS_MOST = 10
CHILDREN_MOST = 20
EVENTS_MOST = 200  # of one mail: one that is deferred for five days has thirty


@dataclass(slots=True)
class Story:
    """`why`: of a live mail; `last`: of one that is gone, where no event of it is kept. `events`: oldest first, among
    the newest 20,000 of the queue; `more`: there are more of this mail than are here. `letter`: of one that is dead,
    its dead letter's id, "" where none is kept. `family`: of a mail to several recipients, what it became; the first
    `children` of it that live (`more_children`: there are more), and how the last others `ended`."""

    why: Why | None = None
    last: Ended | None = None
    events: list[Ended] = field(default_factory=list)
    more: bool = False
    letter: str = ""
    family: Family | None = None
    children: list[Why] = field(default_factory=list)
    more_children: bool = False
    ended: list[End] = field(default_factory=list)


async def story(spool: Spool, name: str, tenant: str | None = None) -> Story:
    """Of an entry, or a producer's id (of that tenant). Raises `NotFound` where nothing at all is known of it."""
    found = Story()
    names = [name]
    missing: NotFound | None = None
    try:
        entry, tenant = await located(spool, name, tenant)
        names.append(entry)
        found.why = await why(spool, entry)
    except NotFound as gone:
        missing = gone
    await _events(spool, found, names, tenant)
    if missing is not None:
        found.family = await family_at(spool, names)
    if missing is not None and not found.events:
        found.last = await ended_somewhere(spool, names, tenant)
        if found.last is None and found.family is None:
            raise missing
        whose = found.last.data.get("tenant") if found.last is not None else None
        if tenant is None and isinstance(whose, str):
            tenant = whose
            await _events(spool, found, names, tenant)
    end = found.events[-1] if found.events else found.last
    if missing is not None:
        found.family = found.family or await family_after(spool, end, names, tenant)
        await _children(spool, found)
    if missing is not None and end is not None and end.kind in DEAD:
        letter = await letter_end(spool, names, tenant)
        found.letter = letter.data["letter"] if letter is not None else ""
    return found


async def _children(spool: Spool, found: Story) -> None:
    if found.family is None:
        return
    views, found.more_children = await first_children(spool, found.family, CHILDREN_MOST)
    for view in views:
        with contextlib.suppress(NotFound):  # it has ended meanwhile
            found.children.append(await why(spool, view.entry))
    found.ended = await ends_of_children(spool, found.family.parent, ENDS_MOST)


async def _events(spool: Spool, found: Story, names: list[str], tenant: str | None) -> None:
    async for event in ends(spool, names, tenant):
        found.more = len(found.events) == EVENTS_MOST
        if found.more:
            break
        found.events.append(event)
    found.events.reverse()


@dataclass(slots=True)
class Mailbox:
    """Live mails to an address, as far as was looked: on goes it `at`, "" at the end. `named`: entries that have the
    address as their id; `ends`: how the last ones ended, at the beginning alone."""

    at: str
    looked: int = 0
    named: list[str] = field(default_factory=list)
    mails: list[Why] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)


async def mailbox(spool: Spool, who: Person, word: str, tenant: str | None, at: str, seconds: float) -> Mailbox:
    """For about so long, or till some are found. `word`: what was typed, which may be an id after all."""
    found = Mailbox(at or BEGINNING)
    if not at:
        if entry := await owner(spool, word, tenant):
            found.named.append(entry)
            return found
        if family := await family_seen(spool, [word], tenant):
            found.named.append(family.parent)
            return found
        found.ends = await ends_of(spool, who, ENDS_MOST, tenant)
    until = asyncio.get_running_loop().time() + seconds
    while True:  # once at least: who goes on gets on
        page = await look_on(spool, who, found.at, word)
        found.at, found.looked = page.at, found.looked + page.looked
        found.named += (entry for entry, whose in page.named.items() if tenant is None or whose == tenant)
        for view in page.views:
            if tenant is None or view.text("tenant") == tenant:
                with contextlib.suppress(NotFound):  # it has ended meanwhile
                    found.mails.append(await why(spool, view.entry))
        if not found.at or len(found.mails) >= FOUND_MOST or asyncio.get_running_loop().time() >= until:
            return found

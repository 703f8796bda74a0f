"""Forgets a person: the mails to an address, their dead letters, the events that name it, and what counts its reports.

What is a mail of several people is left alone and counted: until it is expanded its others would lose it with this one.
A To or Cc that every copy of a mail shows is part of what the others get, and stays until their mails have gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from hashlib import sha1

from streamq.queue.connection import command
from streamq.queue.events import events_since
from streamq.queue.letters import dead_letters, remove_dead
from streamq.queue.person import Person, person, recipients_of
from streamq.queue.scripts import BATCH
from streamq.queue.spool import Spool
from streamq.queue.steer import apply
from streamq.queue.walk import STATES, MailView, is_entry, walk

__all__ = ["Erased", "Person", "Traces", "erase", "person", "traces"]


@dataclass(slots=True)
class Traces:
    """What was found. `entries` → state: live mails to nobody else. `letters` → bytes. `shared`: mails, live or dead,
    to this person and others."""

    entries: dict[str, str] = field(default_factory=dict)
    letters: dict[str, int] = field(default_factory=dict)
    shared: list[str] = field(default_factory=list)
    events: int = 0


@dataclass(slots=True)
class Erased:
    """How many: `mails` by what `cancel` answered, letters, events, reasons (why something is closed, or slowed)."""

    mails: Counter[str]
    letters: int = 0
    events: int = 0
    reasons: int = 0


async def traces(spool: Spool, who: Person, visited: Callable[[], object] = lambda: None) -> Traces:
    """Looks everywhere, changes nothing: all mails, dead letters and events are read, a page at a time."""
    found = Traces()
    async for view in walk(spool, STATES, sweep=True):
        visited()
        if _is_alone(who, view, found.shared):
            found.entries[view.entry] = view.state
    async for letter in dead_letters(spool):
        visited()
        entry = letter.text("dead_entry")
        view = MailView(entry if is_entry(entry) else f"0{letter.letter}", "", "dead", letter.mail)
        if _is_alone(who, view, found.shared):
            found.letters[letter.letter] = letter.size
    async for event in events_since(spool):
        visited()
        found.events += who.is_named_in(event)
    return found


def _is_alone(who: Person, view: MailView, shared: list[str]) -> bool:
    """Whether it is this person's mail and nobody else's; one to others as well is `shared`."""
    recipients = recipients_of(view) if who.may_stand_in(view.fields) else []
    if not who.is_one_of(recipients):
        return False
    if len(set(recipients)) > 1:
        shared.append(view.entry)
    return len(set(recipients)) == 1


async def erase(spool: Spool, who: Person, found: Traces, moved: Callable[[int], None] = lambda many: None) -> Erased:
    """Mails end as cancelled, one in delivery when its attempt ends unsent. Events last: those of the ends, too."""
    done = Erased(await apply(spool, "cancel", found.entries, progress=moved))
    done.letters = await remove_dead(spool, found.letters)
    async for names in _paged(event.at async for event in events_since(spool) if who.is_named_in(event)):
        done.events += await command(spool.redis, "XDEL", spool.keys.events, *names)
    rank = 0
    while True:
        rank, blanked = await spool.scripts.hush(rank, who.forms)
        done.reasons += blanked
        if not rank:
            break
    await command(spool.redis, "DEL", spool.keys.reports(sha1(who.spec.encode()).hexdigest()[:20]))
    return done


async def _paged(names: AsyncIterator[str]) -> AsyncIterator[list[str]]:
    page: list[str] = []
    async for name in names:
        page.append(name)
        if len(page) == BATCH:
            yield page
            page = []
    if page:
        yield page

"""A mail's story: where it is and why it waits, and every event of it that is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamq.errors import NotFound
from streamq.queue.look import locate
from streamq.queue.spool import Spool
from streamq.queue.why import Ended, Why, ended, ends, why

__all__ = ["Story", "story"]

EVENTS_MOST = 200  # of one mail: one that is deferred for five days has thirty


@dataclass(slots=True)
class Story:
    """`why`: of a live mail; `last`: of one that is gone, where no event of it is kept. `events`: oldest first, among
    the newest 20,000 of the queue; `more`: there are more of this mail than are here."""

    why: Why | None = None
    last: Ended | None = None
    events: list[Ended] = field(default_factory=list)
    more: bool = False


async def story(spool: Spool, name: str, tenant: str | None = None) -> Story:
    """Of an entry, or a producer's id (of that tenant). Raises `NotFound` where nothing at all is known of it."""
    found = Story()
    names = [name]
    missing: NotFound | None = None
    try:
        entry = await locate(spool, name, tenant, deep=True)
        names.append(entry)
        found.why = await why(spool, entry)
    except NotFound as gone:
        missing = gone
    await _events(spool, found, names, tenant)
    if missing is not None and not found.events:
        found.last = await ended(spool, names, tenant)
        if found.last is None:
            raise missing
    return found


async def _events(spool: Spool, found: Story, names: list[str], tenant: str | None) -> None:
    async for event in ends(spool, names, tenant):
        found.more = len(found.events) == EVENTS_MOST
        if found.more:
            break
        found.events.append(event)
    found.events.reverse()

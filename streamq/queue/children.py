"""A mail to several recipients by its own name, when it has become one mail each: those of them that are live.

What they share notes the first and the last id of each chunk that was made (lib/child.lua), and between these stand its
children alone. One that died and was requeued is an entry of its own, of which the event of that tells, while it is
kept. (By its id, `<id>#<n>`, a stranger's mail would be taken for it.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from streamq.mail.several import KIN
from streamq.queue.connection import command
from streamq.queue.events import event_from, newest_pages
from streamq.queue.look import before, of_tenants, placed
from streamq.queue.spool import Spool
from streamq.queue.walk import MailView, Pages, filled, is_entry
from streamq.queue.why import Ended, ended_somewhere

__all__ = [
    "Family",
    "children_named",
    "family_after",
    "family_at",
    "family_named",
    "family_of",
    "family_seen",
    "first_children",
    "live_children",
    "standing_for",
]

EXPANDED = "email.expanded"
REQUEUED = b"email.requeued"


@dataclass(frozen=True, slots=True)
class Family:
    """A mail that became one for each of its `all` recipients, and how many are `made`; `id` its producer's, "" where
    nobody knows."""

    parent: str
    all: int
    made: int
    id: str = ""
    tenant: str | None = None


async def family_of(spool: Spool, parent: str) -> Family | None:
    """None where it has no live children, but for requeued ones."""
    known = await command(spool.redis, "HMGET", spool.keys.body(parent), "left", "all", "made", "=id", "=tenant")
    left, many, made = (int(each) if each is not None and each.isdigit() else 0 for each in known[:3])
    if left <= 0:
        return None
    own, whose = (each.decode("utf-8", "replace") if each is not None else "" for each in known[3:])
    return Family(parent, many, made, own, whose or None)


async def family_named(spool: Spool, names: Sequence[str], tenant: str | None = None) -> Family | None:
    """Of the mail that has one of these names: an entry, or its producer's id, which workers may have forgotten, so
    that its event has to tell. Raises `OfTenants` where no tenant was said, and several had such a mail."""
    if (found := await family_at(spool, names)) or (found := await family_seen(spool, names, tenant)):
        return found
    return await family_after(spool, await ended_somewhere(spool, names, tenant), names, tenant)


async def family_seen(spool: Spool, names: Sequence[str], tenant: str | None = None) -> Family | None:
    """By an id that workers know still, whatever events are kept."""
    entries = [entry for entry in await spool.scripts.find([(tenant, name) for name in names]) if entry]
    return await family_at(spool, entries)


async def family_at(spool: Spool, names: Sequence[str]) -> Family | None:
    """By an entry alone, while children live that were not requeued."""
    for name in names:
        if is_entry(name) and int(name[0]) < len(spool.priorities) and (found := await family_of(spool, name)):
            return found
    return None


async def family_after(spool: Spool, end: Ended | None, names: Sequence[str], tenant: str | None) -> Family | None:
    """Of the mail with these names that ended so; where none of its children lives `made` is 0."""
    if end is None or end.kind != EXPANDED:
        return None
    entry, many, whose = (end.data.get(name) for name in ("entry", "children", "tenant"))
    if not isinstance(entry, str) or not is_entry(entry):
        return None
    tenant = whose if isinstance(whose, str) else tenant
    id_ = next((name for name in names if not is_entry(name)), "")
    found = await family_of(spool, entry)
    return found or Family(entry, many if isinstance(many, int) else 0, 0, id_, tenant)


async def live_children(spool: Spool, family: Family) -> AsyncIterator[list[str]]:
    """In pages, in the order of their recipients, without what they share; then requeued ones."""
    async for page in _made(spool, family):
        yield page
    for entry in await _again(spool, family.parent):
        if await _is_live(spool, entry):
            yield [entry]
        elif (own := await family_of(spool, entry)) is not None:  # it was given other recipients
            async for page in _made(spool, own):
                yield page


async def _made(spool: Spool, family: Family) -> AsyncIterator[list[str]]:
    pages = Pages()
    p = family.parent[0]
    stream, body = spool.stream(family.parent), spool.keys.body(family.parent)
    for kin in range((family.made + KIN - 1) // KIN):
        ids = (await command(spool.redis, "HGET", body, f"ids:{kin}") or b"").decode().split()
        for first, last in zip(ids[::2], ids[1::2], strict=True):
            at = first
            while rows := await command(spool.redis, "XRANGE", stream, at, last, "COUNT", pages.many):
                yield [f"{p}{id_.decode()}" for id_, _ in rows]
                if len(rows) < pages.many:
                    break
                at = f"({rows[-1][0].decode()}"
                pages.saw([sum(map(len, flat)) for _, flat in rows])


async def _again(spool: Spool, parent: str) -> list[str]:
    """What those became that were requeued, the first first; also of those that died and were requeued once more."""
    found: list[tuple[str, str, bool]] = []  # the new entry, the old one, whether that was a child
    async for rows in newest_pages(spool):
        events = [event_from(row) for row in rows if REQUEUED in row[1]]
        found += [(each.text("entry"), each.text("of"), each.text("parent") == parent) for each in events]
    again: dict[str, None] = {}
    for entry, of, is_child in reversed(found):
        if (is_child or of in again) and is_entry(entry) and int(entry[0]) < len(spool.priorities):
            again[entry] = None
    return list(again)


async def standing_for(spool: Spool, entry: str, word: str, tenant: str | None = None) -> list[str]:
    """The live entries that one stands for which `word` named: itself, and its children; itself alone where there is
    none at all."""
    live = await _is_live(spool, entry)
    family = await (family_of(spool, entry) if live else family_named(spool, [entry, word], tenant))
    found = [entry] if live else []
    return found + await all_children(spool, family) or [entry]


async def _is_live(spool: Spool, entry: str) -> bool:
    _, *rows = await spool.scripts.check("stream", int(entry[0]), before(entry), 1)
    return rows[:1] == [entry.encode()]


async def all_children(spool: Spool, family: Family | None) -> list[str]:
    if family is None:
        return []
    return [entry async for page in live_children(spool, family) for entry in page]


async def children_named(spool: Spool, word: str, tenant: str | None) -> list[str]:
    """For who acts: what a mail became whose id workers have forgotten, or that its entry names. Raises `OfTenants`
    where it is a tenant's, and none was said."""
    family = await family_named(spool, [word], tenant)
    found = await all_children(spool, family)
    if found and family is not None and family.tenant and tenant is None and not is_entry(word):
        raise of_tenants(word, {family.tenant: family.parent})
    return found


async def first_children(spool: Spool, family: Family, most: int) -> tuple[list[MailView], bool]:
    """So many of them, whole and with what is known of each; whether there are more."""
    found: list[str] = []
    async for page in live_children(spool, family):
        found += page
        if len(found) > most:
            break
    views = await placed(spool, found[:most])
    return [view async for view in filled(spool, views, Pages())], len(found) > most

"""A mail to several recipients by its own name, when it has become one mail each: those of them that are live.

What they share notes the first and the last id of each chunk that was made (lib/child.lua), and between these stand its
children alone. One that died and was requeued has another entry, but still its id, `<id>#<n>`: it is asked for by that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from streamq.mail.several import KIN
from streamq.queue.connection import command
from streamq.queue.look import before, of_tenants, placed
from streamq.queue.scripts import BATCH
from streamq.queue.spool import Entry, Spool
from streamq.queue.walk import MailView, Pages, filled, is_entry
from streamq.queue.why import Ended, ended_somewhere

__all__ = [
    "Family",
    "children_named",
    "family_after",
    "family_at",
    "family_named",
    "family_of",
    "first_children",
    "live_children",
    "standing_for",
]

EXPANDED = "email.expanded"
AGAIN_MOST = 1000  # children that are asked for by their ids


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
    that its event has to tell."""
    found = await family_at(spool, names)
    return found or await family_after(spool, await ended_somewhere(spool, names, tenant), names, tenant)


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


async def live_children(spool: Spool, family: Family) -> AsyncIterator[list[Entry]]:
    """In pages, in the order of their recipients, without what they share; then requeued ones."""
    pages = Pages()
    p = family.parent[0]
    stream, body = spool.stream(family.parent), spool.keys.body(family.parent)
    for kin in range((family.made + KIN - 1) // KIN):
        ids = (await command(spool.redis, "HGET", body, f"ids:{kin}") or b"").decode().split()
        for first, last in zip(ids[::2], ids[1::2], strict=True):
            at = first
            while rows := await command(spool.redis, "XRANGE", stream, at, last, "COUNT", pages.many):
                yield [Entry.of(f"{p}{id_.decode()}", flat) for id_, flat in rows]
                if len(rows) < pages.many:
                    break
                at = f"({rows[-1][0].decode()}"
                pages.saw([sum(map(len, flat)) for _, flat in rows])
    if family.id:
        async for page in _again(spool, family):
            yield page


async def _again(spool: Spool, family: Family) -> AsyncIterator[list[Entry]]:
    """Those that were requeued: mails of their own, outside of what was made."""
    for start in range(1, min(family.all, AGAIN_MOST) + 1, BATCH):
        ids = [f"{family.id}#{n}" for n in range(start, min(start + BATCH, family.all + 1))]
        entries = [found for found in await spool.scripts.find([(family.tenant, id_) for id_ in ids]) if found]
        page = [entry for entry in await spool.raw(entries) if entry is not None and b"@of" not in entry.fields]
        if page:
            yield page


async def standing_for(spool: Spool, entry: str, word: str, tenant: str | None = None) -> list[str]:
    """The live entries that one stands for which `word` named: itself, and its children; itself alone where there is
    none at all."""
    _, *rows = await spool.scripts.check("stream", int(entry[0]), before(entry), 1)
    live = rows[:1] == [entry.encode()]
    family = await (family_of(spool, entry) if live else family_named(spool, [entry, word], tenant))
    found = [entry] if live else []
    return found + await all_children(spool, family) or [entry]


async def all_children(spool: Spool, family: Family | None) -> list[str]:
    if family is None:
        return []
    return [each.entry async for page in live_children(spool, family) for each in page]


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
        found += [each.entry for each in page]
        if len(found) > most:
            break
    views = await placed(spool, found[:most])
    return [view async for view in filled(spool, views, Pages())], len(found) > most

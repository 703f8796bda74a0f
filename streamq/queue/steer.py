"""Steers a queue: verbs on mails, standing rules. In batches of 100, one script each, or several where they are big."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from shlex import quote
from typing import Any

import orjson

from streamq.errors import MailError, UnknownFields, UnknownTemplate, UnsupportedFields
from streamq.mail import parse
from streamq.mail.domain import to_wire
from streamq.mail.glance import plain_site
from streamq.queue.connection import command
from streamq.queue.lanes import site_in
from streamq.queue.person import Person, recipients_of
from streamq.queue.reports import fetch_reports
from streamq.queue.scripts import BATCH
from streamq.queue.search import mails_to
from streamq.queue.spool import Spool, time_ms
from streamq.queue.walk import PAGE, STATES, MailView, is_entry, notes_from, walk

__all__ = [
    "Selector",
    "apply",
    "ends_rule",
    "has_rule",
    "id_rule",
    "intended",
    "rule_flags",
    "rules",
    "rules_among",
    "select",
    "set_rule",
    "site_of",
    "standing",
    "tags_of",
    "unable",
    "unset_rule",
]

INTENT = "intent:"
NEED = "need:"
# Held since a worker's version, or settings, had not what is named in them.
UNREAD = frozenset({"unknown_field", "unsupported", "unknown_template", "unknown_route"})


@dataclass(frozen=True, slots=True)
class Selector:
    """Which mails: all that fit every given part. Nothing given: all of them. `domain` is read as an address'
    domain is: any case, A-labels for IDN, with or without the root's dot. `klass`: of their last reply, or of what
    holds them. `to`: one of their recipients. Raises ValueError where the domain is none."""

    priority: str | None = None
    domain: str | None = None
    tenant: str | None = None
    tag: str | None = None
    klass: str | None = None
    to: Person | None = None
    states: tuple[str, ...] = STATES

    def __post_init__(self) -> None:
        if self.domain is not None:
            site = to_wire(self.domain.removesuffix(".") or self.domain)
            object.__setattr__(self, "domain", site if site.startswith("[") else site.lower())

    def among(self, *states: str) -> Selector:
        return replace(self, states=states)

    @property
    def parts(self) -> list[str]:
        named = {"priority": self.priority, "domain": self.domain, "tenant": self.tenant, "tag": self.tag}
        named |= {"class": self.klass, "to": self.to.spec if self.to is not None else None}
        return [f"{name}:{value}" for name, value in named.items() if value is not None]

    @property
    def rule(self) -> str | None:
        """Its name as a standing rule; None where more than one part is given, or the class: what is read for the
        first time has none; or an address, which the rules do not know."""
        if self.klass is not None or self.to is not None:
            return None
        return "all" if not self.parts else self.parts[0] if len(self.parts) == 1 else None

    def fits(self, view: MailView) -> bool:
        if self.priority is not None and view.priority != self.priority:
            return False
        if self.klass is not None and view.klass != self.klass:
            return False
        if self.tenant is not None and view.text("tenant") != self.tenant:
            return False
        if self.tag is not None and self.tag not in tags_of(view):
            return False
        if self.to is not None and not self.to.is_one_of(recipients_of(view)):
            return False
        return self.domain is None or site_of(view) == self.domain


def tags_of(view: MailView) -> list[str]:
    """A comma list, or a JSON array."""
    text = view.text("tags")
    if text.startswith("["):
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError:
            return []
        return [tag for tag in found if isinstance(tag, str)] if isinstance(found, list) else []
    return [tag.strip() for tag in text.split(",") if tag.strip()]


def site_of(view: MailView) -> str:
    """The recipient's domain. A mail that is held since this version does not know it all has one, too; "" where
    there is none, or several."""
    if view.lane:
        return site_in(view.lane)
    if site := plain_site(view.fields):
        return site
    sites = {address.rpartition("@")[2].lower() for address in recipients_of(view)}
    return sites.pop() if len(sites) == 1 else ""


async def select(
    spool: Spool,
    selector: Selector,
    *,
    sweep: bool = False,
    wanted: Collection[str] = (),
    visited: Callable[[int], object] = lambda many: None,
) -> AsyncIterator[MailView]:
    """The live mails that fit. A `sweep` (walk.py) gets no bodies where they are not needed to tell: a million
    of them would be gigabytes. `wanted`: what it gets all the same, of `site` (what `site_of` needs), `fields`,
    `notes`. `visited` is told how many more were looked at. Those to an address come of each priority the newest
    first, with all that is known of them, whatever their state."""
    if selector.to is not None:
        async for view in mails_to(spool, selector.to, visited):
            if view.state in selector.states and selector.fits(view):
                yield view
        return
    plain = selector.tenant is None and selector.tag is None and "fields" not in wanted
    sited = selector.domain is not None or "site" in wanted
    classed = selector.klass is not None
    for state in selector.states:
        if classed and state == "waiting":  # nobody has read them: nothing was said of them
            continue
        bodies = not sweep or not plain or (sited and state != "parked")  # a lane names its site
        notes = classed or "notes" in wanted
        async for view in walk(spool, (state,), bodies=bodies, notes=notes, sweep=sweep):
            visited(1)
            if selector.fits(view):
                yield view


async def apply(
    spool: Spool,
    verb: str,
    entries: Iterable[str],
    *,
    at_ms: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Counter[str]:
    """Carry the verb out; how many answered what (move.lua)."""
    done: Counter[str] = Counter()
    names = list(dict.fromkeys(entries))
    for start in range(0, len(names), BATCH):
        part = names[start : start + BATCH]
        statuses = await _moved(spool, verb, part, at_ms)
        told = [entry for entry, status in zip(part, statuses, strict=True) if status == "report"]
        done.update(status for status in statuses if status != "report")
        if told:
            reports = await fetch_reports(spool, told, "operator")
            done.update(await _moved(spool, verb, told, at_ms, reports))
        if progress:
            progress(len(part))
    return done


async def unable(spool: Spool, entries: Iterable[str]) -> dict[str, str]:
    """Which of these held mails would be held again as soon as they were let go, and why: what this version, or these
    settings, do not know in them is still there. (A worker that knows it takes them up by itself.)"""
    found: dict[str, str] = {}
    names = list(entries)
    for start in range(0, len(names), BATCH):
        part = names[start : start + BATCH]
        notes = await command(spool.redis, "HMGET", spool.keys.notes, *part)
        for entry, note in zip(part, notes, strict=True):
            if notes_from(note).get("class") in UNREAD:
                why = await _unread(spool, entry)
                found |= {entry: why} if why else {}
    return found


async def _unread(spool: Spool, name: str) -> str:
    entry = (await spool.fetch([name]))[0]
    if entry is None:
        return ""
    known: dict[str, Any] = {"twice": entry.twice, "parent": entry.parent, "nth": entry.nth}
    at_ms = time_ms(entry.parent or name)
    try:
        mail = parse(
            entry.fields, entry=name, at_ms=at_ms, salt=b"", max_bytes=2**31, template=spool.templates.find, **known
        )
    except (UnknownFields, UnsupportedFields, UnknownTemplate) as still:
        return str(still)
    except MailError:  # it ends as a dead letter then, and says why
        return ""
    routes = {*spool.settings.ways, *spool.settings.groups}
    return f"route: no such route: {mail.route!r}" if mail.route and mail.route not in routes else ""


async def _moved(
    spool: Spool, verb: str, entries: list[str], at_ms: int | None, reports: Mapping[str, bytes] | None = None
) -> list[str]:
    """A status each, of as many calls as their bytes take: the script stops where it has read and written many."""
    statuses: list[str] = []
    while len(statuses) < len(entries):
        statuses += (await spool.scripts.move(verb, entries[len(statuses) :], at_ms, reports)).statuses
    return statuses


async def intended(spool: Spool, verb: str) -> AsyncIterator[MailView]:
    """The mails for which that was asked while they could not be reached. Once more than one of them may come."""
    async for field, asked in _holds(spool):
        entry = field.removeprefix(INTENT)
        if field.startswith(INTENT) and asked == verb and is_entry(entry) and int(entry[0]) < len(spool.priorities):
            body = (await spool.fetch([entry]))[0]
            if body is not None:
                yield MailView(entry, spool.priorities[int(entry[0])], "", body.fields, intent=verb)


def id_rule(id_: str, tenant: str | None = None) -> str:
    """The rule for a producer's id that was not seen yet: `id:I`, of a tenant `id:I` LF `T`."""
    return f"id:{id_}\n{tenant}" if tenant else f"id:{id_}"


async def set_rule(spool: Spool, name: str, verb: str) -> None:
    """A standing rule that admission carries out: `all`, `priority:P`, `domain:D`, `tenant:T`, `tag:G`; or an
    `id_rule`, which it carries out once."""
    await command(spool.redis, "HSET", spool.keys.holds, _field(name), verb)


async def has_rule(spool: Spool, name: str) -> bool:
    return bool(await command(spool.redis, "HEXISTS", spool.keys.holds, _field(name)))


async def unset_rule(spool: Spool, name: str) -> bool:
    return bool(await command(spool.redis, "HDEL", spool.keys.holds, _field(name)))


def _field(name: str) -> str:
    return name if name.startswith("id:") else f"rule:{name}"


async def rules_among(spool: Spool, names: Sequence[str]) -> dict[str, str]:
    """Those of these names that stand: name → verb, in their order. One look, whatever else stands."""
    verbs = await command(spool.redis, "HMGET", spool.keys.holds, *map(_field, names))
    return {name: verb.decode("utf-8", "replace") for name, verb in zip(names, verbs, strict=True) if verb is not None}


def rule_flags(name: str) -> str:
    """A standing rule as the flags, or the id, that made it, as a shell takes them: what `unhold` wants to hear."""
    if name == "all":
        return "--all"
    kind, _, value = name.partition(":")
    if kind != "id":
        return f"--{kind} {quote(value)}"
    id_, _, tenant = value.partition("\n")
    return quote(id_) + (f" --tenant {quote(tenant)}" if tenant else "")


def ends_rule(name: str) -> str:
    """The command that ends it."""
    return f"streamq unhold {rule_flags(name)}"


async def rules(spool: Spool) -> dict[str, str]:
    """The standing rules: name → verb."""
    return (await standing(spool))[0]


async def standing(spool: Spool, *, whole: bool = True) -> tuple[dict[str, str], dict[str, int]]:
    """The standing rules; and what held mails wait for (`able`, in mail/fields.py) → how many do. Not `whole`: of the
    first page of what stands beside these, with an intent per mail."""
    found: dict[str, str] = {}
    needs: dict[str, int] = {}
    async for field, value in _holds(spool, whole=whole):
        if field.startswith(("rule:", "id:")):
            found[field.removeprefix("rule:")] = value
        elif field.startswith(NEED) and value.isdigit():
            needs[field.removeprefix(NEED)] = int(value)
    return found, needs


async def _holds(spool: Spool, *, whole: bool = True) -> AsyncIterator[tuple[str, str]]:
    """In pages: it holds an intent per mail, and there may be many."""
    at = 0
    while True:
        reached, flat = await command(spool.redis, "HSCAN", spool.keys.holds, at, "COUNT", 10 * PAGE)
        for field, value in zip(flat[::2], flat[1::2], strict=True):
            yield field.decode("utf-8", "replace"), value.decode("utf-8", "replace")
        at = int(reached)
        if at == 0 or not whole:
            return

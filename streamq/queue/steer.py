"""Steers a queue: verbs on mails, standing rules, dead letters. In batches of 100, one script each."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

import orjson

from streamq.errors import MailError
from streamq.mail import parse
from streamq.queue.connection import command
from streamq.queue.look import STATES, MailView, walk
from streamq.queue.scripts import BATCH
from streamq.queue.spool import Spool, time_ms

__all__ = [
    "DeadLetter",
    "Selector",
    "apply",
    "dead_letters",
    "remove_dead",
    "rules",
    "select",
    "set_rule",
    "unset_rule",
]


@dataclass(frozen=True, slots=True)
class Selector:
    """Which mails: all that fit every given part. Nothing given: all of them."""

    priority: str | None = None
    domain: str | None = None
    tenant: str | None = None
    tag: str | None = None
    states: tuple[str, ...] = STATES

    @property
    def rule(self) -> str | None:
        """Its name as a standing rule; None where more than one part is given."""
        parts = [
            f"{name}:{value}"
            for name, value in (
                ("priority", self.priority),
                ("domain", self.domain),
                ("tenant", self.tenant),
                ("tag", self.tag),
            )
            if value is not None
        ]
        return "all" if not parts else parts[0] if len(parts) == 1 else None

    def fits(self, view: MailView) -> bool:
        if self.priority is not None and view.priority != self.priority:
            return False
        if self.tenant is not None and view.text("tenant") != self.tenant:
            return False
        if self.tag is not None and self.tag not in tags_of(view):
            return False
        return self.domain is None or site_of(view) == self.domain.lower()


def tags_of(view: MailView) -> list[str]:
    """A comma list, or a JSON array."""
    text = view.text("tags")
    if text.startswith("["):
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError:
            return []
        return [tag for tag in found if isinstance(tag, str)]
    return [tag.strip() for tag in text.split(",") if tag.strip()]


def site_of(view: MailView) -> str:
    """The recipient's domain; "" where the mail is malformed."""
    try:
        mail = parse(view.fields, entry=view.entry, at_ms=time_ms(view.entry), salt=b"", max_bytes=2**31)
    except MailError:
        return ""
    return mail.site


async def select(spool: Spool, selector: Selector) -> AsyncIterator[MailView]:
    """The live mails that fit."""
    async for view in walk(spool, selector.states):
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
        done.update((await spool.scripts.move(verb, part, at_ms)).statuses)
        if progress:
            progress(len(part))
    return done


async def set_rule(spool: Spool, name: str, verb: str) -> None:
    """A standing rule that admission carries out: `all`, `priority:P`, `domain:D`, `tenant:T`, `tag:G`; or
    `id:I`, once, for a producer's id that was not seen yet."""
    field = name if name.startswith("id:") else f"rule:{name}"
    await command(spool.redis, "HSET", spool.keys.holds, field, verb)


async def unset_rule(spool: Spool, name: str) -> bool:
    field = name if name.startswith("id:") else f"rule:{name}"
    return bool(await command(spool.redis, "HDEL", spool.keys.holds, field))


async def rules(spool: Spool) -> dict[str, str]:
    """The standing rules: name → verb."""
    flat = await command(spool.redis, "HGETALL", spool.keys.holds)
    found = {name.decode(): verb.decode() for name, verb in zip(flat[::2], flat[1::2], strict=True)}
    return {name.removeprefix("rule:"): verb for name, verb in found.items() if name.startswith(("rule:", "id:"))}


@dataclass(slots=True)
class DeadLetter:
    """One dead letter: its id in the stream, the mail's fields and why it died."""

    letter: str
    fields: dict[bytes, bytes]

    def text(self, name: str) -> str:
        return self.fields.get(name.encode(), b"").decode("utf-8", "replace")


async def dead_letters(spool: Spool, start: str = "-") -> AsyncIterator[DeadLetter]:
    """Oldest first."""
    while True:
        rows = await command(spool.redis, "XRANGE", spool.keys.dead, start, "+", "COUNT", BATCH)
        for id_, flat in rows:
            yield DeadLetter(id_.decode(), dict(zip(flat[::2], flat[1::2], strict=True)))
        if len(rows) < BATCH:
            return
        start = f"({rows[-1][0].decode()}"


async def remove_dead(spool: Spool, letters: Iterable[str]) -> int:
    """Discard dead letters for good; how many there were."""
    removed = 0
    names = list(letters)
    for at in range(0, len(names), BATCH):
        removed += await command(spool.redis, "XDEL", spool.keys.dead, *names[at : at + BATCH])
    return removed

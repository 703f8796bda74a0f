"""The mails that may be delivered already: for each a dot went out, and no reply to it was recorded.

Found from two sides, neither of which grows with the queue's depth alone: `{q}:dots`, which has one field a
connection, for those that are past their dot now; and `{q}:notes`, which has one field a mail that was ever tried,
for those whose notes count ambiguous ends (settle.lua, reclaim.lua). Pages of 100 by cursor; bodies are read only of
what is listed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from streamq.keys import GROUP
from streamq.queue.connection import command, pipelined
from streamq.queue.look import placed
from streamq.queue.spool import Spool
from streamq.queue.walk import PAGE, MailView, Pages, filled, is_entry, notes_from

__all__ = ["ambiguous", "is_ambiguous"]


def is_ambiguous(view: MailView) -> bool:
    """`past_dot` now, or with an ambiguous end behind it. One that was held for it before ends were counted has the
    class alone."""
    return view.past_dot or bool(view.notes.get("ambiguous")) or view.notes.get("class") == "ambiguous"


async def ambiguous(spool: Spool) -> AsyncIterator[MailView]:
    """Those past their dot first, then the others, in no particular order. Each comes once; one whose end is
    recorded meanwhile may come or not."""
    seen: set[str] = set()
    pages = Pages()
    async for entries, past_dot in _found(spool):
        fresh = [entry for entry in dict.fromkeys(entries) if entry not in seen]
        seen.update(fresh)
        views = await placed(spool, fresh)
        for view in views:
            view.past_dot = view.entry in past_dot
        async for view in filled(spool, [view for view in views if is_ambiguous(view)], pages):
            yield view


async def _found(spool: Spool) -> AsyncIterator[tuple[list[str], set[str]]]:
    """Pages of entries, and which of them are past their dot."""
    async for fields in _scanned(spool, spool.keys.dots):
        named = [(who, entry) for who, entry in map(_dot, fields) for entry in entry.split(",")]
        marks = [(who, entry) for who, entry in named if _is_ours(spool, entry)]
        for start in range(0, len(marks), PAGE):
            part = marks[start : start + PAGE]
            asked = [("XPENDING", spool.stream(entry), GROUP, entry[1:], entry[1:], 1) for _, entry in part]
            replies = await pipelined(spool.redis, asked)
            # A dot stays named until its connection's next mail: only its holder's own says anything.
            past = [
                entry
                for (who, entry), rows in zip(part, replies, strict=True)
                if rows and rows[0][1].decode("utf-8", "replace") == who
            ]
            yield past, set(past)
    async for fields in _scanned(spool, spool.keys.notes):
        counted = []
        for field, value in fields:
            entry = field.decode("utf-8", "replace")
            # Most notes are of plain retries: their JSON is not even read.
            if b"ambiguous" in value and _is_ours(spool, entry) and is_ambiguous(_noted(entry, value)):
                counted.append(entry)
        yield counted, set()


async def _scanned(spool: Spool, key: str) -> AsyncIterator[list[tuple[bytes, bytes]]]:
    at = 0
    while True:
        reached, flat = await command(spool.redis, "HSCAN", key, at, "COUNT", PAGE)
        fields = list(zip(flat[::2], flat[1::2], strict=True))
        for start in range(0, len(fields), PAGE):  # a small hash comes as a whole, whatever COUNT says
            yield fields[start : start + PAGE]
        at = int(reached)
        if at == 0:
            return


def _dot(field: tuple[bytes, bytes]) -> tuple[str, str]:
    """Consumer, entries."""
    name, value = (part.decode("utf-8", "replace") for part in field)
    return name.rpartition("/")[0], value


def _noted(entry: str, value: bytes) -> MailView:
    return MailView(entry, "", "", notes=notes_from(value))


def _is_ours(spool: Spool, entry: str) -> bool:
    return is_entry(entry) and int(entry[0]) < len(spool.priorities)

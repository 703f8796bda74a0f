"""Dead letters: read them, requeue them, discard them. Bounded in mails and, as far as can be known, bytes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import orjson

from streamq.mail.alike import alike
from streamq.queue.connection import command
from streamq.queue.scripts import BATCH
from streamq.queue.spool import Spool
from streamq.queue.walk import Pages, is_entry

__all__ = [
    "GROUPED_MOST",
    "DeadBrief",
    "DeadGroup",
    "DeadLetter",
    "DeadReason",
    "dead_briefs",
    "dead_letter",
    "dead_letters",
    "dead_reasons",
    "grouped",
    "remove_dead",
    "requeue_dead",
    "trim_dead",
]

# Of the letter, not of its mail.
OWN = frozenset(
    (
        b"dead_reason",
        b"dead_class",
        b"dead_at",
        b"dead_entry",
        b"dead_body",
        b"dead_head",
        b"dead_made",
        b"dead_stamp",
        b"attempts",
        b"last_reply",
    )
)
REQUEUED_BYTES = 4_000_000  # bodies go through the script: so many a call
GROUPED_MOST, GROUPED_BYTES = 2000, 32_000_000  # letters, the newest, that are looked at to group them
GIST_MOST = 120  # characters: what stands behind them differs by mail, if at all
TEXT_MOST = 500  # characters of a class, a reason, a reply, as a group has them
QUOTED = re.compile(r'"[^"]*"')  # a local part, or a name, which may hold an @
DOMAIN = re.compile(r"@([^\s@,;<>\"()|]{1,255})")


@dataclass(slots=True)
class DeadLetter:
    """One dead letter: its id in the stream, the mail's fields and why it died. `pairs` are all of them, `fields` the
    last of each name: that one was given twice may be why it died."""

    letter: str
    pairs: list[tuple[bytes, bytes]]
    fields: dict[bytes, bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.fields = dict(self.pairs)

    @property
    def mail(self) -> dict[bytes, bytes]:
        """The fields that its mail had, as far as they were kept."""
        return {name: value for name, value in self.fields.items() if name not in OWN}

    @property
    def size(self) -> int:
        return sum(len(value) for _, value in self.pairs)

    def named(self, shown: Callable[[bytes], object], without: Collection[bytes] = ()) -> dict[str, object]:
        """For people and programs: each value as `shown` has it; of a name that was given twice, a list of them."""
        found: dict[str, list[object]] = {}
        for name, value in self.pairs:
            if name not in without:
                found.setdefault(name.decode("utf-8", "backslashreplace"), []).append(shown(value))
        return {name: values[0] if len(values) == 1 else values for name, values in found.items()}

    def text(self, name: str) -> str:
        return self.fields.get(name.encode(), b"").decode("utf-8", "replace")


async def dead_letters(spool: Spool, *, newest: bool = False) -> AsyncIterator[DeadLetter]:
    """Oldest first; or the newest."""
    pages = Pages()
    verb, start, end = ("XREVRANGE", "+", "-") if newest else ("XRANGE", "-", "+")
    while True:
        many = pages.many
        rows = await command(spool.redis, verb, spool.keys.dead, start, end, "COUNT", many)
        letters = [_letter(row) for row in rows]
        for letter in letters:
            yield letter
        if len(rows) < many:
            return
        start = f"({letters[-1].letter}"
        pages.saw([letter.size for letter in letters])


@dataclass(frozen=True, slots=True)
class DeadBrief:
    """What a group is made of: small, whatever the letter is. `gist`: of its reason, or reply, what it shares with
    others of that cause; `size`: bytes of the letter."""

    letter: str
    klass: str
    gist: str
    domain: str
    size: int
    reason: str
    reply: str


@dataclass(slots=True)
class DeadGroup:
    """Letters of one reason and recipients' domain. `letters`: id → bytes, the newest first."""

    domain: str
    letters: dict[str, int] = field(default_factory=dict)

    @property
    def newest_ms(self) -> int:
        return int(next(iter(self.letters)).partition("-")[0])


@dataclass(slots=True)
class DeadReason:
    """Letters of one class and gist. `reason`, `reply`: of the newest; `domains`: the one with the most letters
    first."""

    klass: str
    gist: str
    reason: str
    reply: str
    domains: list[DeadGroup] = field(default_factory=list)

    @property
    def many(self) -> int:
        return sum(len(group.letters) for group in self.domains)

    @property
    def bytes(self) -> int:
        return sum(sum(group.letters.values()) for group in self.domains)

    @property
    def newest_ms(self) -> int:
        return max(group.newest_ms for group in self.domains)

    def letters(self, domain: str | None = None) -> dict[str, int]:
        """Id → bytes; of that domain, or of all."""
        chosen = (group.letters for group in self.domains if domain in {None, group.domain})
        return {name: size for letters in chosen for name, size in letters.items()}


async def dead_briefs(spool: Spool, after: str = "") -> list[DeadBrief]:
    """The newest first, `GROUPED_MOST` and `GROUPED_BYTES` at most; `after`: no further back than to that letter."""
    found: list[DeadBrief] = []
    pages = Pages()
    last, size = "+", 0
    while len(found) < GROUPED_MOST and size < GROUPED_BYTES:
        many = min(pages.many, GROUPED_MOST - len(found))
        start = f"({after}" if after else "-"
        rows = await command(spool.redis, "XREVRANGE", spool.keys.dead, last, start, "COUNT", many)
        page = [_brief(_letter(row)) for row in rows]
        found += page
        size += sum(each.size for each in page)
        if len(page) < many:
            break
        last = f"({page[-1].letter}"
        pages.saw([each.size for each in page])
    return found


def _brief(letter: DeadLetter) -> DeadBrief:
    klass, reason, reply = (letter.text(name)[:TEXT_MOST] for name in ("dead_class", "dead_reason", "last_reply"))
    gist = alike(reason or reply, codes=True)[:GIST_MOST]
    return DeadBrief(letter.letter, klass, gist, _domain(letter), letter.size, reason, reply)


def grouped(briefs: Iterable[DeadBrief]) -> list[DeadReason]:
    """Of the newest letters first, the reason with the most letters first."""
    reasons: dict[tuple[str, str], DeadReason] = {}
    groups: dict[tuple[str, str, str], DeadGroup] = {}
    for each in briefs:
        reason = reasons.setdefault((each.klass, each.gist), DeadReason(each.klass, each.gist, each.reason, each.reply))
        group = groups.get(key := (each.klass, each.gist, each.domain))
        if group is None:
            group = groups[key] = DeadGroup(each.domain)
            reason.domains.append(group)
        group.letters[each.letter] = each.size
    for reason in reasons.values():
        reason.domains.sort(key=lambda group: (-len(group.letters), group.domain))
    return sorted(reasons.values(), key=lambda reason: (-reason.many, reason.klass, reason.gist))


async def dead_reasons(spool: Spool) -> tuple[list[DeadReason], int]:
    """Of the newest letters; and how many were looked at. Reads them all: who looks again and again takes `Graves`."""
    briefs = await dead_briefs(spool)
    return grouped(briefs), len(briefs)


def _domain(letter: DeadLetter) -> str:
    """Of its first recipient; "" where none can be read."""
    given = letter.fields.get(b"envelope_to") or letter.fields.get(b"to", b"")
    found = DOMAIN.search(QUOTED.sub("", given[:2000].decode("utf-8", "replace")))
    return found[1].lower().rstrip(".") if found else ""


async def dead_letter(spool: Spool, letter: str) -> DeadLetter | None:
    """By its id in the stream of dead letters."""
    if not is_entry(f"0{letter}"):
        return None
    rows = await command(spool.redis, "XRANGE", spool.keys.dead, letter, letter)
    return _letter(rows[0]) if rows else None


def _letter(row: tuple[bytes, list[bytes]]) -> DeadLetter:
    id_, flat = row
    return DeadLetter(id_.decode(), list(zip(flat[::2], flat[1::2], strict=True)))


async def requeue_dead(
    spool: Spool, letters: Iterable[tuple[str, int]], changes: Mapping[str, str] | None = None, *, dry: bool = False
) -> list[str]:
    """They become waiting mails again; (letter, bytes) each. `changes`: fields that shall be otherwise, "" for none.
    Returns, in their order, the new entry or why not (requeue.lua). `dry`: nothing is done, and "" for an entry."""
    said = orjson.dumps([part for pair in changes.items() for part in pair]) if changes else b""
    done: list[str] = []
    part: list[str] = []
    size = 0
    for letter, bytes_ in letters:
        if part and (len(part) == BATCH or size + bytes_ > REQUEUED_BYTES):
            done += await spool.scripts.requeue(part, said, dry=dry)
            part, size = [], 0
        part.append(letter)
        size += bytes_
    return done + (await spool.scripts.requeue(part, said, dry=dry) if part else [])


async def remove_dead(spool: Spool, letters: Iterable[str]) -> int:
    """Discard dead letters for good; how many there were."""
    removed = 0
    names = list(letters)
    while names:
        done, gone = await spool.scripts.discard(names[:BATCH], REQUEUED_BYTES)
        del names[:done]
        removed += gone
    return removed


async def trim_dead(spool: Spool, age_ms: int, most_bytes: int, steps: int) -> tuple[int, bool]:
    """Letters that are too old, or too many bytes, oldest first; so many scripts at most. How many went, and whether
    more have to."""
    removed, more = 0, True
    while more and steps > 0:
        gone, more = await spool.scripts.trim(age_ms, most_bytes)
        removed += gone
        steps -= 1
    return removed, more

"""Several recipients: one mail becomes one each.

to, cc, bcc (or envelope_to) are copies: the same bytes for everybody. `recipients` are mails of their own, each with
its To and its values. What they have in common is kept once, beside the entries; an entry of a child holds only what
is its own, and `@of` (the entry of the mail that it came of) and `@n` (which of its children it is, from 1).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from streamq.mail.address import Address
from streamq.mail.rules import MAX_KEY, Given
from streamq.mail.values import wrong

__all__ = [
    "NTH",
    "OF",
    "Child",
    "Shared",
    "copies",
    "fields_of",
    "kin",
    "kinship",
    "merged",
    "read_chunks",
    "shared_fields",
    "weight_of",
]

OF, NTH = b"@of", b"@n"
KIN = 500  # numbers whose chunks stand together, as lib/child.lua has it
Id = tuple[int, int]  # of an entry in its stream
JOINED = (b"vars", b"metadata")  # JSON objects: a child's members stand over the shared ones
# What no child has: who the recipients are, and when the mail may go, which it has waited for
NOT_SHARED = frozenset({b"recipients", b"envelope_to", b"bcc", b"send_at", b"delay"})
ROOM = len("#100000")
PARENT = re.compile(rb"\d{2,21}-\d{1,20}")
OBJECT = re.compile(rb"\s*\{(.*)\}\s*", re.S)


class Child(NamedTuple):
    """One recipient: the field that names it and its value, and what else is its own, b"" for nothing."""

    name: str
    value: bytes
    vars: bytes = b""
    metadata: bytes = b""
    id: bytes = b""


# Of one child, with its place in the list; of each text of its own, rounded up as they are to 16
CHILD_SIZE = sys.getsizeof(Child("", b"")) + 8
BYTES_SIZE = sys.getsizeof(b"") + 8


@dataclass(frozen=True, slots=True)
class Shared:
    """What the children of `parent` have in common. `personal`: each has a message of its own. `chunks`: the first and
    the last id of those that were made together, by their numbers in `KIN`s, as far as they are known here; `size`:
    octets of all fields."""

    parent: str
    fields: dict[bytes, bytes]
    personal: bool
    chunks: dict[int, list[tuple[Id, Id]]] = field(default_factory=dict)
    size: int = 0

    def has(self, entry: str, nth: int) -> bool:
        """Whether this entry came of that mail (lib/child.lua): its own `@of` proves nothing."""
        ms, _, seq = entry[1:].partition("-")
        own = (int(ms), int(seq))
        made = self.chunks.get(kin(nth), ())
        return entry[0] == self.parent[0] and any(first <= own <= last for first, last in made)


def kin(nth: int) -> int:
    """Which field of a body the ids of the nth child's chunk stand in."""
    return (nth - 1) // KIN


def kinship(fields: Mapping[bytes, bytes]) -> tuple[str, int] | None:
    """The entry that an entry says it came of, and which of its children it says it is; None where that can't be."""
    parent, nth = fields.get(OF, b""), fields.get(NTH, b"")
    if not PARENT.fullmatch(parent) or not nth.isdigit() or len(nth) > len("1000000"):
        return None
    return parent.decode(), int(nth)


def read_chunks(value: bytes) -> list[tuple[Id, Id]]:
    """One field of a body: `first last first last …`, ids as in their stream."""
    ids = [(int(ms), int(seq)) for ms, _, seq in (part.partition(b"-") for part in value.split())]
    return list(zip(ids[::2], ids[1::2], strict=True))


def copies(recipients: Sequence[Address]) -> list[Child]:
    """One child for each mailbox; twice the same mailbox is one recipient."""
    once = {(each.local, each.domain.lower()): each.spec for each in recipients}
    return [Child("envelope_to", spec.encode()) for spec in once.values()]


def weight_of(children: Iterable[Child], fields: Mapping[bytes, bytes]) -> int:
    """Octets that they take in memory: a short address is a tenth of what a child is."""
    own = sum(CHILD_SIZE + sum([BYTES_SIZE + len(part) for part in child[1:] if part]) for child in children)
    return own + sum(len(name) + len(value) for name, value in fields.items())


def shared_fields(given: Given) -> dict[bytes, bytes]:
    """What goes beside the entries. Raises MalformedMail where a child's id would be too long."""
    if len(given.get(b"id", b"")) > MAX_KEY - ROOM:
        raise wrong(b"id", given[b"id"], f"longer than {MAX_KEY - ROOM} bytes, which leaves no room for its children's")
    return {name: value for name, value in given.items() if name not in NOT_SHARED}


def fields_of(child: Child, parent: str, nth: int) -> dict[bytes, bytes]:
    """What `expand` writes of it."""
    own = {b"vars": child.vars, b"metadata": child.metadata, b"id": child.id}
    known = {name: value for name, value in own.items() if value}
    return {OF: parent.encode(), NTH: b"%d" % nth, child.name.encode(): child.value, **known}


def merged(own: Mapping[bytes, bytes], shared: Shared) -> dict[bytes, bytes]:
    """A child's fields as if its producer had written them all. lib/dead.lua does the same for a dead letter."""
    fields = {**shared.fields, **own}
    del fields[OF], fields[NTH]
    for name in JOINED:
        if name in own and name in shared.fields:
            fields[name] = _joined(shared.fields[name], own[name])
    if b"id" in shared.fields and b"id" not in own:
        fields[b"id"] = shared.fields[b"id"] + b"#" + own[NTH]
    return fields


def _joined(theirs: bytes, ours: bytes) -> bytes:
    """Of two members of one name the last is read."""
    first, second = OBJECT.fullmatch(theirs), OBJECT.fullmatch(ours)
    if first is None or second is None:
        return ours
    parts = [inner for inner in (first[1].strip(), second[1].strip()) if inner]
    return b"{" + b",".join(parts) + b"}"

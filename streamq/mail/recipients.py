"""The field `recipients`: a JSON array of `{to, vars, id, metadata}`, up to a hundred thousand of them.

Read in steps of some milliseconds, so that a worker can do other things between them. For that the array is cut at its
own commas into smaller arrays: where each of those is JSON, the whole of them is, wherever it was cut. (A thread was
the alternative that lost: a parser of JSON keeps all others waiting while it reads, in a thread, too.)
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import orjson

from streamq.errors import MalformedMail
from streamq.mail.numbers import packed, written
from streamq.mail.rules import Given
from streamq.mail.several import Child
from streamq.mail.twice import doubled
from streamq.mail.values import TOO_DEEP, is_deep, wrong

__all__ = ["PIECE", "Recipients", "read_in_steps", "read_recipients"]

FIELD = b"recipients"
MOST = 100_000  # of one entry: read by one worker
MOST_BYTES = 1_000_000  # of one recipient
PERSONAL = frozenset({"to", "vars", "id", "metadata"})
PIECE = 16_384  # octets of a step, or a little more
TOKENS = 10_000
# What a cut looks at. A text that does not end goes to the end: else each quote in it would be tried.
TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[{}\[\],]', re.S)
COMMA, QUOTE, END, OPEN = *b',"]', frozenset(b"[{")
BLANK = b" \t\r\n"
SHOWN = 80  # octets of what has no end


@dataclass(frozen=True, slots=True)
class Recipients:
    """What came of reading them: children, or why they are none."""

    children: list[Child]
    wrong: MalformedMail | None = None

    def get(self) -> list[Child]:
        """Raises MalformedMail."""
        if self.wrong is not None:
            raise MalformedMail(self.wrong.field, self.wrong.value, self.wrong.why)
        return self.children


def read_recipients(given: Given) -> list[Child]:
    """All at once. Whether an address is one, or vars are enough, is each child's own matter: one that is wrong must
    not keep a thousand from theirs. Raises MalformedMail."""
    steps = read_in_steps(given)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: Recipients = done.value
            return found.get()


def read_in_steps(given: Given) -> Generator[None, None, Recipients]:
    """The same, one step for each value that it gives."""
    children: list[Child] = []
    try:
        name = "envelope_to" if b"raw" in given else "to"
        for piece in _pieces(given[FIELD]):
            if piece is not None:
                children += _read(piece, name, len(children))
            yield
        for other in (b"to", b"cc", b"bcc", b"envelope_to"):
            if other in given:
                raise wrong(other, given[other], "may not stand beside recipients, which names each one")
    except MalformedMail as broken:
        return Recipients([], broken)
    return Recipients(children)


def _read(piece: bytes, name: str, at: int) -> list[Child]:
    try:
        found: list[object] = written(b"[%b]" % piece)
    except orjson.JSONDecodeError as broken:
        where = f", from recipients[{at}] on" if at else ""
        raise wrong(FIELD, piece, f"not JSON: {broken}{where}") from None
    except RecursionError:
        raise wrong(FIELD, piece, f"{TOO_DEEP}, from recipients[{at}] on") from None
    if not found:
        raise wrong(FIELD, piece, f"not JSON: nothing behind the last comma, at recipients[{at}]")
    if at + len(found) > MOST:
        raise wrong(FIELD, "", f"more than {MOST} recipients")
    children = [_child(name, nth, one) for nth, one in enumerate(found, at)]
    if (twice := doubled(b"[%b]" % piece, found)) is not None:
        raise wrong(FIELD, twice, f"a name twice in one object, from recipients[{at}] on")
    return children


def _pieces(value: bytes) -> Iterator[bytes | None]:
    """An array's elements, some at a time, with the commas between them; None where nothing is ready yet and time has
    passed."""
    start = len(value) - len(value.lstrip(BLANK)) + 1
    if value[start - 1 : start] != b"[" or value[start:].lstrip(BLANK)[:1] == b"]":
        raise wrong(FIELD, value, "not a JSON array with at least one recipient")
    since = start  # of the element that is looked at
    depth = 0
    for number, token in enumerate(TOKEN.finditer(value, start), 1):
        at = token.start()
        sign = value[at]
        if at - since > MOST_BYTES:
            raise wrong(FIELD, value[since:], f"one of them is longer than {MOST_BYTES} bytes")
        if sign == COMMA:
            if not depth:
                since = at + 1
                if at - start >= PIECE:
                    yield value[start:at]
                    start = since
        elif sign in OPEN:
            depth += 1
        elif sign != QUOTE:
            depth -= 1
            if depth < 0:
                break
        if not number % TOKENS:
            yield None
    else:
        raise wrong(FIELD, value[-SHOWN:], "not JSON: the array has no end")
    if sign != END or value[at + 1 :].strip(BLANK):
        raise wrong(FIELD, value[at:], "not JSON: the array's end is not its last character")
    yield value[start:at]


def _child(name: str, at: int, one: object) -> Child:
    where = f"recipients[{at}]"
    if not isinstance(one, dict):
        raise wrong(FIELD, _shown(one), f"{where} is not a JSON object")
    if not one.keys() <= PERSONAL:
        extra = min(one.keys() - PERSONAL)
        raise wrong(FIELD, extra, f"{where}: not one of {', '.join(sorted(PERSONAL))}")
    to, mail_id = one.get("to"), one.get("id", "")
    if not isinstance(to, str) or not to:
        raise wrong(FIELD, _shown(to), f"{where}.to: not a text with an address")
    if not isinstance(mail_id, str):
        raise wrong(FIELD, _shown(mail_id), f"{where}.id: not a text")
    parts = {}
    for part in ("vars", "metadata"):
        found = one.get(part, {})
        if not isinstance(found, dict):
            raise wrong(FIELD, _shown(found), f"{where}.{part}: not a JSON object")
        parts[part] = _dumped(found, f"{where}.{part}") if found else b""
    return Child(name, to.encode(), parts["vars"], parts["metadata"], mail_id.encode())


def _dumped(found: dict[str, object], where: str) -> bytes:
    """Of what is nested too deep for orjson to write even (254 levels) nothing can be shown."""
    try:
        made = packed(found)
    except TypeError:
        raise wrong(FIELD, "", f"{where}: {TOO_DEEP}") from None
    if is_deep(found, made):
        raise wrong(FIELD, made, f"{where}: {TOO_DEEP}")
    return made


def _shown(found: object) -> bytes:
    """For a reason, which stays one where that cannot be written."""
    try:
        return packed(found)
    except TypeError:
        return b""

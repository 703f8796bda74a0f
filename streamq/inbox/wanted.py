"""Which mails are looked for: what the filters of the API say, and whether a mail fits them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from streamq.errors import NotFound
from streamq.inbox.box import Kept
from streamq.inbox.reader import Reader
from streamq.mail.domain import to_wire

__all__ = ["Unclear", "Wanted", "moment"]

LONGEST = 1000  # characters of a filter
FILTERS = ("to", "from", "subject", "text", "q", "after", "before", "unread")
NS = 1_000_000_000
# RFC 5890, section 2.3.2.1: 63 octets at most; of longer ones decoding would take its time.
_A_LABEL = re.compile(r"\bxn--([a-z0-9-]{1,59})(?![a-z0-9-])", re.ASCII | re.IGNORECASE)


class Unclear(ValueError):
    """A filter that cannot be read; the text names it and its value."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that are given must fit; letters' case is nothing. `after`, `before`: numbers of mails, both left out."""

    to: str = ""  # a recipient's address, or "@" and a domain, or a domain
    from_: str = ""  # the same of From, or of the return path
    subject: str = ""  # is in it
    text: str = ""  # is in its text, or in what its html says
    q: str = ""  # each word of it is in an address, a name, the subject, the text
    after: int = 0
    before: int | None = None
    unread: bool | None = None

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Wanted:
        """Raises `Unclear`. Names that are no filters are the caller's."""
        for name in FILTERS:
            if len(given.get(name, "")) > LONGEST:
                raise Unclear(f"{name}: at most {LONGEST} characters (got {len(given[name])})")
        unread = given.get("unread", "").strip().lower()
        if unread not in {"", "true", "false", "1", "0"}:
            raise Unclear(f"unread: true or false (got {unread[:80]!r})")
        text = {name: _folded(given.get(name, "")) for name in ("subject", "text", "q")}
        people = {name: _person(name, given.get(name, "")) for name in ("to", "from")}
        return cls(
            to=people["to"],
            from_=people["from"],
            subject=text["subject"],
            text=text["text"],
            q=text["q"],
            after=moment("after", given["after"]) if given.get("after") else 0,
            before=moment("before", given["before"]) if given.get("before") else None,
            unread=None if not unread else unread in {"true", "1"},
        )

    def fits(self, kept: Kept, reader: Reader) -> bool:
        """What costs least is asked first; a mail whose file is gone fits nothing but the empty wish."""
        if kept.number <= self.after or (self.before is not None and kept.number >= self.before):
            return False
        if self.unread is not None and kept.unread != self.unread:
            return False
        try:
            return (
                (not self.to or any(_is(self.to, each) for each in reader.recipients(kept)))
                and (not self.from_ or any(_is(self.from_, each) for each in reader.senders(kept)))
                and (not self.subject or self.subject in _folded(reader.head(kept).subject))
                and (not self.text or self.text in reader.words(kept))
                and (not self.q or _has(self.q.split(), kept, reader))
            )
        except NotFound:
            return False

    def those(self, mails: Iterable[Kept], reader: Reader, most: int) -> list[Kept]:
        """The first `most` that fit, in the order in which they come."""
        found: list[Kept] = []
        for kept in mails:
            if len(found) == most:
                break
            if self.fits(kept, reader):
                found.append(kept)
        return found


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _person(name: str, text: str) -> str:
    """What `to` or `from` asks for. Raises `Unclear`."""
    text = text.rstrip()
    if '"' not in text and re.search(r"\s", text):
        raise Unclear(f"{name}: a blank, which no address has: in a URL + is one, write %2B (got {text[:80]!r})")
    return _on_the_wire(" ".join(text.split()))


def _on_the_wire(address: str) -> str:
    """An address, or a domain, in A-labels, as mails go out, in small letters; what is none stays as it is.

    Not of folded text: that has `ss` for `ß`, which is somebody else's domain.
    """
    if address.isascii():
        return address.casefold()
    local, at, domain = address.rpartition("@")
    with contextlib.suppress(ValueError):
        domain = to_wire(domain)
    return f"{local}{at}{domain}".casefold()


def _in_letters(text: str) -> str:
    """With its A-labels as people write them."""

    def letters(found: re.Match[str]) -> str:
        with contextlib.suppress(ValueError):
            return found[1].encode("ascii").decode("punycode")
        return found[0]

    return _A_LABEL.sub(letters, text)


def _is(wish: str, address: str) -> bool:
    address = _on_the_wire(address)
    return address == wish or (
        "@" not in wish.removeprefix("@") and address.rpartition("@")[2] == wish.removeprefix("@")
    )


def _has(words: list[str], kept: Kept, reader: Reader) -> bool:
    """The text is read only where a word is nowhere in the head."""
    head = " ".join([reader.head(kept).subject, *(text for each in reader.people(kept) for text in each)])
    folded = _folded(f"{head} {_in_letters(head)}" if "xn--" in head.casefold() else head)
    rest = [word for word in words if word not in folded and _on_the_wire(word) not in folded]
    return not rest or all(word in reader.words(kept) for word in rest)


def moment(name: str, text: str) -> int:
    """A mail's id; or a time: RFC 3339, Unix seconds or milliseconds. In ns. Raises `Unclear`."""
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,9})?", text, re.ASCII):
        number = Decimal(text)
        for digits, factor in ((11, NS), (14, 1_000_000), (17, 1000)):
            if number < 10**digits:
                return int(number * factor)
        return int(number)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise Unclear(f"{name}: a mail's id, RFC 3339 with offset, Unix seconds or milliseconds (got {text[:80]!r})")
    return int(at.timestamp() * 1_000_000) * 1000

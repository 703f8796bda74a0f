"""A message that its producer built: not a byte of it changes but what CONTRACT, section 2, names.

Line ends become CRLF, a first mbox line, Bcc, Resent-Bcc and Return-Path go, Date and Message-ID come where
they are missing, and a head that runs into its body gets the empty line between them, because readers that
had to guess would not agree on which lines are headers. Lines over 998 octets stay: most servers take them.

A head of more than a megabyte is refused, as Exim does (`header_maxsize`): to look for its fields would take seconds.

Where such a line stands in the middle of the head (a Subject that was given with a line break in it), what comes
behind it is body to every reader; a Bcc there is dropped all the same, up to the first empty line. A line of text
that looks like one goes with it: that is the smaller harm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from streamq.mail.address import Address, WrongAddress, parse_list
from streamq.mail.wire import PIECE, crlf

__all__ = ["MAX_HEAD", "RESENT", "Raw", "RawHead"]

# RFC 5322, sections 2.2 and 4.5 (blanks before the colon). The text is normalised: no CR without its LF.
CONTINUED = rb"[^\r]*+\r\n(?>(?:[ \t][^\r]*+\r\n)*)"
HEAD = re.compile(rb"(?>(?:[!-9;-~]++[ \t]*+:" + CONTINUED + rb")*)")
DROPPED = re.compile(rb"^(?:bcc|resent-bcc|return-path)[ \t]*+:" + CONTINUED, re.I | re.M)
# Behind a line that is no header, with whatever blanks and control characters stand around the name
BLANKS = rb"[\x01-\x09\x0b\x0c\x0e- \x7f\xa0]*+"
STRAYED = re.compile(
    rb"^(?:\xef\xbb\xbf)?%b(?:bcc|resent-bcc|return-path)%b:%b" % (BLANKS, BLANKS, CONTINUED), re.I | re.M
)
DROPPED_NAMES = frozenset({b"bcc", b"resent-bcc", b"return-path"})
# Looked for in a lower-case copy: a case-insensitive pattern can't skip to line ends and costs ten times that
NAMES = re.compile(
    rb"\n(bcc|cc|date|from|message-id|resent-(?:bcc|cc|date|from|message-id|sender|to)|return-path|sender|to)"
    rb"(?=[ \t]*+:)"
)
RESENT = frozenset(b"resent-" + name for name in (b"bcc", b"cc", b"date", b"from", b"message-id", b"sender", b"to"))
VALUE = re.compile(rb"[ \t]*+:(" + CONTINUED + rb")")
MBOX_LINE = re.compile(rb"From (?![ \t]*:)[^\r]*+\r\n")
# In front of a head it makes all of that a part of the body, to every reader: its Bcc, too.
HIDING = re.compile(rb"(?:\r\n)+")
TELLING = frozenset({b"from", b"sender", b"date", b"message-id"})  # no text begins so
MESSAGE_ID_SHOWN = 255
MAX_HEAD = 1_048_576  # octets
BEGUN = re.compile(rb"[!-9;-~]++[ \t]*+(?::|\Z)")  # a field, or at the end of what is looked at a part of its name
UNFOLDED = re.compile(rb"\r\n(?![ \t])")


def _names_in(head: bytes) -> frozenset[bytes]:
    """Those of NAMES that stand in it; it is lower case, behind a LF."""
    return frozenset(NAMES.findall(head))


def _was_meant_as_head(data: bytes, at: int) -> bool:
    """What stands there, and is body to every reader."""
    found = HEAD.match(data, at, at + MAX_HEAD)
    names = _names_in(b"\n" + found[0].lower()) if found else frozenset[bytes]()
    return bool(names & TELLING or (names & DROPPED_NAMES and names - DROPPED_NAMES))


def _unstrayed(data: bytes, most: int) -> bytes:
    """Without what strayed into its first `most` octets: piece by piece, none of which ends within a field."""
    pieces = []
    start = 0
    while start < most:
        cut = UNFOLDED.search(data, start + PIECE, most)
        end = cut.start() + 2 if cut else most
        pieces.append(STRAYED.sub(b"", data[start:end]))
        start = end
    return b"".join([*pieces, data[most:]])


class RawHead:
    """A `raw` field taken apart. `raw` may be any bytes but NUL; raises ValueError for those, where its header would
    be body to every reader, and where it is longer than `MAX_HEAD`."""

    __slots__ = ("_body_at", "_data", "_head", "_lower", "_names", "_start")

    def __init__(self, raw: bytes) -> None:
        if b"\0" in raw:
            raise ValueError("NUL in it")
        data = crlf(raw)
        if not data.endswith(b"\r\n"):
            data += b"\r\n"
        self._data = data
        mbox = MBOX_LINE.match(data, 0, MAX_HEAD)
        self._start = mbox.end() if mbox else 0
        most = self._start + MAX_HEAD
        if (hiding := HIDING.match(data, self._start, most)) and _was_meant_as_head(data, hiding.end()):
            raise ValueError("an empty line stands in front of its header")
        found = HEAD.match(data, self._start, most)
        self._body_at = found.end() if found else self._start
        if most < len(data) and self._goes_on(data, most):
            raise ValueError(f"its header is longer than {MAX_HEAD} bytes")
        self._head = data[self._start : self._body_at]
        self._lower = b"\n" + self._head.lower()
        self._names = _names_in(self._lower)

    def _goes_on(self, data: bytes, most: int) -> bool:
        """Whether the head does, behind as much as is looked at."""
        folded = self._body_at > self._start and data[self._body_at : self._body_at + 1] in (b" ", b"\t")
        return folded or BEGUN.match(data, self._body_at, max(most, self._body_at + 1)) is not None

    def _raw_values(self, name: bytes) -> list[bytes]:
        found: list[bytes] = []
        if name not in self._names:
            return found
        line = b"\n" + name
        at = self._lower.find(line)
        while at >= 0:
            if value := VALUE.match(self._head, at + len(name)):
                found.append(value[1])
            at = self._lower.find(line, at + 1)
        return found

    def values(self, name: bytes) -> list[str]:
        """The unfolded values of all fields of that (lower-case) name. Bytes that are no UTF-8 become lone
        surrogates, which no address may hold."""
        return [
            found.replace(b"\r\n", b"").decode("utf-8", "surrogateescape").strip(" \t")
            for found in self._raw_values(name)
        ]

    def addresses(self, *names: bytes, limit: int, most: int | None = None) -> list[Address]:
        """All addresses in fields of those names (of each `most`, the first ones), which may be `limit` characters
        together. Raises ValueError."""
        found: list[Address] = []
        for name in names:
            for value in self.values(name)[:most]:
                limit -= len(value)
                if limit < 0:
                    raise ValueError(f"its {name.decode().title()} is too long")
                try:
                    found += parse_list(value) if value else []
                except WrongAddress as broken:
                    raise WrongAddress(f"its {name.decode().title()}: {broken}", broken.shown) from None
        return found

    @property
    def prefix(self) -> bytes:
        """Which fields say from whom and to whom it goes now: b"resent-" where it was resent (RFC 5322, section 3.6.6)
        and its old ones tell of a journey that is over, else b"". One such field is enough, as for sendmail."""
        return b"" if RESENT.isdisjoint(self._names) else b"resent-"

    def recipients(self, *, limit: int) -> list[Address]:
        """Whom To, Cc and Bcc name, or Resent-To, Resent-Cc and Resent-Bcc where it was resent. Raises ValueError: also
        where it was resent more than once, since nobody can tell which of these are the last: of one time each of them
        stands once (RFC 5322, section 3.6)."""
        prefix = self.prefix
        if prefix and any(len(self._raw_values(name)) > 1 for name in RESENT & self._names):
            raise ValueError("it was resent more than once: who gets it is for envelope_to to say")
        return self.addresses(prefix + b"to", prefix + b"cc", prefix + b"bcc", limit=limit)

    def author(self, *, limit: int) -> Address | None:
        """Who stands in From, or in Sender where From is not one address; None when neither is good. Where it was
        resent, in Resent-From or Resent-Sender, the first ones: these are put in front."""
        prefix = self.prefix
        for name in (prefix + b"from", prefix + b"sender"):
            try:
                found = self.addresses(name, limit=limit, most=1 if prefix else None)
            except ValueError:
                continue
            if len(found) == 1:
                return found[0]
        return None

    @property
    def message_id(self) -> str | None:
        """What stands in its Message-ID, cut to a sane length; None where it has none."""
        if not (found := self.values(b"message-id")):
            return None
        shown = found[0][:MESSAGE_ID_SHOWN]
        return shown if shown.isascii() else shown.encode("utf-8", "replace").decode()

    @property
    def has_date(self) -> bool:
        return b"date" in self._names

    def message(self, *, date: str, message_id: str) -> Raw:
        """The message as it will be sent; `date` and `message_id` are put in where they are not ""."""
        head = self._head
        if not self._names.isdisjoint(DROPPED_NAMES):
            head = DROPPED.sub(b"", head)
        added = (f"Date: {date}\r\n" if date else "") + (f"Message-ID: {message_id}\r\n" if message_id else "")
        bare = self._body_at < len(self._data) and not self._data.startswith(b"\r\n", self._body_at)
        if head is self._head and not self._start and not added and not bare:
            return Raw((self._data,))
        rest = self._data[self._body_at :]
        if bare:
            added += "\r\n"
            end = rest.find(b"\r\n\r\n") + 2
            rest = _unstrayed(rest, end if end > 1 else len(rest))
        return Raw((head, added.encode(), rest))


@dataclass(slots=True, eq=False)
class Raw:
    """A whole message in pieces, to be joined when it is sent."""

    pieces: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Octets, exactly."""
        return sum(map(len, self.pieces))

    @property
    def eight_bit(self) -> bool:
        return not all(map(bytes.isascii, self.pieces))

    @property
    def smtputf8(self) -> bool:
        """Only addresses of the envelope ask for it: raw 8-bit headers pass wherever 8-bit bodies do, and to
        fail them with 5.6.7 would lose mail that Postfix and Exim send."""
        return False

    def content(self) -> bytes:
        return b"".join(self.pieces)

"""What the sink really accepted, counted: the truth that senders' own books are held against."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import orjson

__all__ = ["Counters", "Ledger", "header_of", "message_id_of", "write_whole"]

Name = TypeVar("Name", str, bytes, tuple[bytes, str])

LONGEST_ID = 998  # bytes kept of a Message-ID: a line of RFC 5322 section 2.1.1
HEADER_BYTES = 262_144  # of a message are searched for it
USUAL = {"greeting": 220, "starttls": 220, "auth": 235, "data": 354, "quit": 221}  # all others: 250
CRLF = b"\r\n"
MESSAGE_ID = re.compile(rb"\r\nmessage-id[ \t]*:", re.IGNORECASE)


@dataclass(slots=True)
class Counters:
    """Since the start. A mail is a transaction, whatever the number of its recipients."""

    connections: int = 0
    connections_refused: int = 0  # their greeting was a refusal
    open: int = 0
    most_open: int = 0  # connections at once
    commands: int = 0
    accepted: int = 0  # mails
    recipients: int = 0  # of accepted mails
    content_bytes: int = 0  # of accepted mails
    refused: int = 0  # 4xx and 5xx replies to a greeting, EHLO, HELO, MAIL, RCPT, DATA or the dot
    refused_by: Counter[str] = field(default_factory=Counter)  # "rcpt 450" → how often
    cut: int = 0  # connections that ended in the middle of a mail's content
    transactions: int = 0  # begun: MAIL was accepted
    handshakes: int = 0  # of TLS, that succeeded
    authenticated: int = 0  # AUTH with 235
    orphans: int = 0  # contents sent although no recipient was left: all but an empty one
    dropped: int = 0  # what rules did to connections: closed, reset, left without a word
    drops: Counter[str] = field(default_factory=Counter)  # "dot rst" → how often
    by_stage: defaultdict[tuple[str, bytes], int] = field(default_factory=lambda: defaultdict(int))
    usual: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))  # of by_stage: nobody judged

    @property
    def replies(self) -> dict[str, int]:
        """ "rcpt 250" → how often that was replied at that stage."""
        found = Counter({f"{stage} {code.decode()}": count for (stage, code), count in self.by_stage.items()})
        found.update({f"{stage} {USUAL.get(stage, 250)}": count for stage, count in self.usual.items()})
        return dict(sorted(found.items()))

    def as_json(self) -> dict[str, Any]:
        found = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("by_stage", "usual")}
        return {**found, "replies": self.replies}


class Ledger:
    """Counts of accepted mails per recipient and per Message-ID, at most `limit` names of each.

    Names beyond the limit are not counted, and `complete` says so: to push out old ones would make doubles
    look like first deliveries.
    """

    def __init__(self, limit: int = 5_000_000) -> None:
        self.recipients: dict[str, int] = {}
        self.message_ids: dict[bytes, int] = {}
        self.mails: dict[tuple[bytes, str], int] = {}  # Message-ID and recipient: copies of a mail share the former
        self.ids: dict[bytes, int] = {}  # values of the header that the sink was told to count
        self.without_id = 0  # accepted mails that had no Message-ID
        self.complete = True
        self._limit = limit

    def add(self, recipients: Iterable[str], message_id: bytes) -> None:
        """One accepted mail; `message_id` is empty where it had none."""
        if message_id:
            self._count(self.message_ids, message_id)
        else:
            self.without_id += 1
        for recipient in recipients:
            self._count(self.recipients, recipient)
            if message_id:
                self._count(self.mails, (message_id, recipient))

    def add_id(self, value: bytes) -> None:
        """The counted header of one accepted mail; empty where it had none."""
        if value:
            self._count(self.ids, value)

    def _count(self, names: dict[Name, int], name: Name) -> None:
        before = names.get(name, 0)
        if before or len(names) < self._limit:
            names[name] = before + 1
        else:
            self.complete = False

    def doubles(self) -> dict[bytes, int]:
        """Message-IDs accepted more than once; the copies to several recipients count, too."""
        return {name: count for name, count in self.message_ids.items() if count > 1}

    def repeated(self) -> dict[tuple[bytes, str], int]:
        """(Message-ID, recipient) accepted more than once: a mail that its recipient has twice."""
        return {name: count for name, count in self.mails.items() if count > 1}

    def as_json(self, counters: Counters) -> dict[str, Any]:
        return {
            "counters": counters.as_json(),
            "recipients": self.recipients,
            "message_ids": {_shown(name): count for name, count in self.message_ids.items()},
            "repeated": [[_shown(name), to, count] for (name, to), count in self.repeated().items()],
            "ids": {_shown(name): count for name, count in self.ids.items()},
            "without_id": self.without_id,
            "complete": self.complete,
        }

    def write(self, path: Path, counters: Counters) -> None:
        """Write all of it as JSON; the file is there whole or not at all. Raises `OSError`."""
        write_whole(path, orjson.dumps(self.as_json(counters)))


def write_whole(path: Path, data: bytes) -> None:
    """The file is there whole or not at all. Raises `OSError`."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    new.replace(path)


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def message_id_of(text: bytes) -> bytes:
    """The Message-ID of a message, unfolded; empty where it has none.

    `text` is the message with a CRLF in front, so that the first header begins like every other.
    """
    end = _end_of_header(text)
    at = text.find(b"\r\nMessage-ID:", 0, end)  # nearly every mail: a tenth of the pattern's price
    if at >= 0:
        return _value(text, at + 13, end)
    found = MESSAGE_ID.search(text, 0, end)
    return b"" if found is None else _value(text, found.end(), end)


def header_of(text: bytes, name: bytes) -> bytes:
    """The first header of that name, in lower case; `text` as for `message_id_of`."""
    end = _end_of_header(text)
    at = text[:end].lower().find(b"\r\n" + name + b":")
    return b"" if at < 0 else _value(text, at + len(name) + 3, end)


def _end_of_header(text: bytes) -> int:
    end = text.find(b"\r\n\r\n", 0, HEADER_BYTES)
    return min(len(text), HEADER_BYTES) if end < 0 else end + 2


def _value(text: bytes, at: int, end: int) -> bytes:
    stop = text.find(CRLF, at, end)
    while stop >= 0 and text[stop + 2 : stop + 3] in (b" ", b"\t") and stop - at < LONGEST_ID:
        stop = text.find(CRLF, stop + 2, end)
    return b" ".join(text[at : stop if stop >= 0 else end][:LONGEST_ID].split())

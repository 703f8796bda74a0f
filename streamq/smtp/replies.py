"""What a reply means: the table of replies.toml, and a user's own in front of it.

An entry matches a reply by its code, its enhanced status code (RFC 3463), its text, the stage, and whether
this is the connection's first transaction; the first entry that matches decides. It gives the class, its
scope, what to do, and perhaps how long to wait. The class decides, never the first digit alone: `550 5.4.5 Daily
sending quota exceeded` says nothing about the mail, `552 5.2.2` is what RFC 3463 calls a persistent transient failure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

from streamq.errors import SettingsError
from streamq.smtp.hints import hint_ms
from streamq.smtp.letter import Action, Scope, Stage
from streamq.smtp.reply_entry import Entry, read_entries

__all__ = ["Replies", "Verdict", "default_replies", "load_replies"]

READ = 1000  # characters of a reply that patterns look at
LARGEST_TABLE = 1_000_000  # bytes of a user's own
TABLE = "replies.toml"
ENHANCED = re.compile(r"#?(([245])\.\d{1,3}\.\d{1,3})(?!\S)", re.ASCII)
# qmail and its children, and Cisco's: the code is behind the words, in brackets.
BEHIND = re.compile(r"\(#(([245])\.\d{1,3}\.\d{1,3})\b", re.ASCII)
# What a recipient is called means nothing: <dkim@example.net> unknown, bob@spamhaus.org over quota.
ADDRESS = re.compile(r"[^\s@<>()\[\]:;,=\"']{1,64}@[\w.-]{1,255}")
OF_OUR_ACCOUNT = {"site_rate": "route_rate"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`enhanced` is "" where the server gave none, or one whose class contradicts the code (RFC 2034, 4).

    `hint_ms`: not before that: the server's own "try again in", else the entry's; 0 where neither says so, and for
    what went out; at most a day. `about_recipient`: it was about this one recipient, so it says nothing of the
    route, however often it comes. False where nobody knows: a bare `550` to RCPT may as well mean us, and a breaker
    must not take it for a bad address. `entry`: the one that decided; None: no table knows such a reply.
    """

    klass: str
    scope: Scope
    action: Action
    enhanced: str = ""
    hint_ms: int = 0
    about_recipient: bool = False
    entry: Entry | None = field(default=None, compare=False, repr=False)


class Replies:
    """Tables in the order in which they are asked; `entries` are all of theirs."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = tuple(entries)
        self._by_code: dict[int, list[Entry]] = {}
        for entry in self.entries:
            for code in entry.codes:
                self._by_code.setdefault(code, []).append(entry)

    @classmethod
    def read(cls, text: str, name: str = TABLE) -> Replies:
        """One table from its text. Raises `SettingsError` that names the entry and what is wrong with it."""
        return cls(read_entries(text, name))

    def classify(self, stage: Stage, code: int, text: str, first: bool, relay_for: str | None = None) -> Verdict:
        """`text` without the code, lines joined by a blank; `first`: the connection's first transaction.

        `relay_for`: the route is a relay, and this the recipient's domain ("" where it is not known). What it says of
        a site is then about our account with the relay, unless the words are one receiver's own, or name the domain.
        None: the server is the recipient's own mail exchanger.
        """
        text = text[:READ]
        enhanced = enhanced_code(code, text)
        words = ADDRESS.sub("@", text) if "@" in text else text
        for entry in self._by_code.get(code, ()):
            if entry.matches(stage, enhanced, words, first):
                return _verdict(entry, enhanced, text, words, relay_for)
        return Verdict("protocol", Scope.SESSION, Action.PARK, enhanced)


def _verdict(entry: Entry, enhanced: str, text: str, words: str, relay_for: str | None) -> Verdict:
    klass, scope = entry.klass, entry.scope
    if scope is Scope.SITE and relay_for is not None and not entry.names_site and not _names(text, relay_for):
        klass, scope = OF_OUR_ACCOUNT.get(klass, klass), Scope.ROUTE
    hint = 0 if entry.action is Action.SENT else hint_ms(words) or entry.hint_ms
    about = scope is Scope.RECIPIENT and not entry.guess
    return Verdict(klass, scope, entry.action, enhanced, hint, about, entry)


def _names(text: str, domain: str) -> bool:
    """As a whole: `example.net` is named by `bob@example.net` and by `mx.example.net`, not by `example.network`."""
    return bool(domain) and bool(re.search(rf"(?<![\w-]){re.escape(domain)}(?![\w-])", text, re.IGNORECASE))


def enhanced_code(code: int, text: str) -> str:
    found = ENHANCED.match(text) or BEHIND.search(text)
    return found[1] if found and found[2] == str(code)[0] else ""


@cache
def _own_entries() -> tuple[Entry, ...]:
    return read_entries(files("streamq.smtp").joinpath(TABLE).read_text("utf-8"), TABLE)


@cache
def default_replies() -> Replies:
    """The table that comes with the package."""
    return Replies(_own_entries())


def load_replies(path: str | Path | None, more: Iterable[Entry] = ()) -> Replies:
    """A user's own table, asked first; `more` entries; and the package's behind them. Without a path the latter alone.
    Raises `SettingsError` that names the file, the entry, the key and the value."""
    more = tuple(more)
    if path is None:
        return Replies((*more, *_own_entries())) if more else default_replies()
    try:
        with Path(path).open("rb") as file:
            raw = file.read(LARGEST_TABLE + 1)
        if len(raw) > LARGEST_TABLE:
            raise SettingsError(f"{path}: a reply table of more than {LARGEST_TABLE:,} bytes")
        text = raw.decode("utf-8")
    except OSError as wrong:
        raise SettingsError(f"replies: {path}: {wrong.strerror}") from None
    except UnicodeDecodeError as wrong:
        raise SettingsError(f"{path}: not UTF-8: {wrong.reason}") from None
    return Replies((*read_entries(text, str(path), sourced=False), *more, *_own_entries()))

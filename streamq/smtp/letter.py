"""What the courier is handed, and what it hands back.

The courier knows nothing of Redis, leases or entries: a `Letter` is an envelope with wire-ready bytes, a
`Report` is what the receiver made of it. Whoever gives letters may subclass `Letter` to carry its own.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from math import inf

from streamq.mail.dsn import Dsn

__all__ = ["Action", "Letter", "Report", "RouteState", "Scope", "Stage"]


class Stage(StrEnum):
    """Where in the session it was decided."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"


class Scope(StrEnum):
    """Whom a reply is about."""

    SESSION = "session"
    ROUTE = "route"
    SENDER = "sender"
    SITE = "site"
    MAIL = "mail"
    RECIPIENT = "recipient"


class Action(StrEnum):
    """What a report asks of the queue."""

    SENT = "sent"  # 250 after the dot
    RETRY = "retry"  # judged, not now: attempt + 1, on the schedule
    FAIL = "fail"  # judged, never
    PARK = "park"  # not judged: no attempt; back to its lane
    AMBIGUOUS = "ambiguous"  # the dot went out, no reply came (RFC 1047)
    ABANDON = "abandon"  # the mark said that this mail was sent already, or is no longer ours


@dataclass(slots=True, kw_only=True, eq=False)
class Letter:
    """One mail for one recipient, ready for the wire.

    `content` is a whole RFC 5322 message: every line ends with CRLF, the last one too; no bare CR or LF; not
    dot-stuffed. `envelope_from` is "" for the null sender; addresses carry A-label domains. `patience` is how often
    this mail was under way before and not sent: its time limit doubles with each. `fresh_until`: loop time; a MAIL that
    would go out later asks again first (`Again` of the courier). `counted`: it is one of so many transactions at once
    where it goes, so it should wait for no other letter's connection.
    """

    envelope_from: str
    envelope_to: str
    content: bytes
    site: str
    priority: int = 0  # 0 is the most urgent
    eight_bit: bool = False  # the content holds bytes above 127
    smtputf8: bool = False  # an address or a header needs RFC 6531
    dsn: Dsn | None = None
    require_tls: bool = False  # RFC 8689
    patience: int = 0
    fresh_until: float = inf
    counted: bool = False

    @property
    def late(self) -> bool:
        return self.fresh_until < asyncio.get_running_loop().time()


@dataclass(slots=True, kw_only=True)
class Report:
    """What became of a letter. `duration_ms` runs from the first byte of MAIL (of a letter sent ahead: from the report
    of the one before it) to the deciding reply."""

    action: Action
    stage: Stage
    scope: Scope
    klass: str  # the class of the reply, from replies.toml
    code: int = 0  # 0: no reply (time-out, reset)
    enhanced: str = ""  # "4.7.1"
    reply: str = ""  # the text, lines joined by a blank, cut at 500 characters
    peer: str = ""  # "mx1.example.net[192.0.2.1]:25"
    tls: str = ""  # "TLSv1.3"
    duration_ms: int = 0
    hint_ms: int = 0  # not before that: the server's own "try again in", or the courier's next probe; 0: no hint
    about_recipient: bool = False  # the words were about this recipient: no sign that anything is wrong with the route
    tried: bool = True  # False: parked unseen, since the route is down; the rest tells why it is


@dataclass(frozen=True, slots=True)
class RouteState:
    """What became of the route: called on going down, on each probe that failed, and on coming up.

    `stage`, `klass`, `code`, `reply`: why it is down. `probe_in_ms`: letters before that are parked unseen.
    """

    name: str
    up: bool
    stage: Stage | None = None
    klass: str = ""
    code: int = 0
    reply: str = ""
    probe_in_ms: int = 0

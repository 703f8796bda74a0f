"""Limits as receivers have them: connections at once, mails in a window, greylisting, a penalty box.

    [[connections]]
    most = 5                            # at once
    per = "address"                     # or "all"
    reply = "421 4.7.0 Too many connections"

    [[rate]]
    most = 100                          # in no window of so many seconds, of any phase, more than that
    seconds = 60
    per = "all"                         # or address, connection, sender, user, recipient, domain (the last two: rcpt)
    stage = "mail"                      # greeting auth mail rcpt data dot
    match = "*"                         # only senders (at rcpt recipients) like this; a glob as in a rule
    reply = "450 4.7.1 Too much mail"
    count_refused = false               # true: who goes on while refused is let in later, as Postfix's anvil has it

    [[greylist]]
    seconds = 300                       # refused until so long after the first attempt of (client, sender, recipient)
    keep_seconds = 86400                # after so long without an attempt a triple is unknown again
    reply = "451 4.7.1 Greylisted, try again later"

    [[penalty]]
    offences = 3                        # refusals by the limits above,
    within_seconds = 60                 # in so long, put a client's address into the box
    block_seconds = 60
    factor = 2.0                        # whoever knocks while blocked is blocked anew, so many times longer
    longest_seconds = 3600
    stage = "greeting"                  # or mail, for the connections that it keeps
    reply = "421 4.7.0 Blocked, try again later"

Several limits of one stage: all must let a command through, and only then all count it. Times come from the clock
that the sink was given. Every table is bounded; who is pushed out begins anew.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from fnmatch import translate
from typing import Literal, NamedTuple, Protocol, get_args

from streamq.sink.checks import Check, is_number, is_reply, is_seconds, is_text, one_of, require

__all__ = ["Connections", "Greylist", "Guard", "Limit", "Penalty", "Rate", "Visitor"]

MOST = 1_000_000  # of a rate: each is a time that is kept
KEYS = 100_000  # addresses, senders, domains of a rate, or of the penalty box
STAMPS = 4_000_000  # times kept by a rate over all its keys
TRIPLES = 1_000_000  # of a greylist
LONGEST = 366 * 86_400.0

Per = Literal["all", "address", "connection", "sender", "user", "recipient", "domain"]
RateStage = Literal["greeting", "auth", "mail", "rcpt", "data", "dot"]


def _reply(value: str) -> Check:
    return Check("reply", value, is_reply(value) and value[0] in "45", 'not a refusal (write "450 4.2.1 text")')


def _seconds(entry: str, value: float) -> Check:
    return Check(entry, value, is_seconds(value, LONGEST), f"not a number above 0, up to {LONGEST:.0f}")


def _count(entry: str, value: int, most: int) -> Check:
    return Check(entry, value, is_number(value, 1, most), f"not a whole number from 1 to {most}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """At most `most` connections at once; what is beyond gets `reply` for a greeting. Raises `EntryWrong`."""

    most: int
    per: Literal["address", "all"] = "address"
    reply: str = "421 4.7.0 Too many connections"

    def __post_init__(self) -> None:
        require(_count("most", self.most, 10**6), one_of("per", self.per, ("address", "all")), _reply(self.reply))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """At most `most` in any window of `seconds`, for each `per`. Raises `EntryWrong`."""

    most: int
    seconds: float = 1.0
    per: Per = "all"
    stage: RateStage = "mail"
    match: str = "*"
    reply: str = "450 4.7.1 Too much mail"
    count_refused: bool = False

    def __post_init__(self) -> None:
        late = self.per not in ("recipient", "domain") or self.stage == "rcpt"
        require(
            _count("most", self.most, MOST),
            _seconds("seconds", self.seconds),
            one_of("per", self.per, get_args(Per)),
            one_of("stage", self.stage, get_args(RateStage)),
            Check("per", self.per, late, 'needs stage = "rcpt"'),
            Check("match", self.match, is_text(self.match, 256), "not a glob of 1 to 256 characters"),
            _reply(self.reply),
            Check("count_refused", self.count_refused, isinstance(self.count_refused, bool), "not true or false"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Greylist:
    """The first attempt of (client, sender, recipient) is refused: RFC 6647. Raises `EntryWrong`."""

    seconds: float = 300.0
    keep_seconds: float = 86_400.0
    reply: str = "451 4.7.1 Greylisted, try again later"

    def __post_init__(self) -> None:
        require(_seconds("seconds", self.seconds), _seconds("keep_seconds", self.keep_seconds), _reply(self.reply))


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """A box for addresses that other limits refused, and refused again. Raises `EntryWrong`."""

    offences: int = 3
    within_seconds: float = 60.0
    block_seconds: float = 60.0
    factor: float = 2.0
    longest_seconds: float = 3600.0
    stage: Literal["greeting", "mail"] = "greeting"
    reply: str = "421 4.7.0 Blocked, try again later"

    def __post_init__(self) -> None:
        require(
            _count("offences", self.offences, 1000),
            _seconds("within_seconds", self.within_seconds),
            _seconds("block_seconds", self.block_seconds),
            Check("factor", self.factor, is_seconds(self.factor, 1000) and self.factor >= 1, "not from 1 to 1000"),
            _seconds("longest_seconds", self.longest_seconds),
            one_of("stage", self.stage, ("greeting", "mail")),
            _reply(self.reply),
        )


Limit = Connections | Rate | Greylist | Penalty


class Visitor(NamedTuple):
    """Who asks."""

    address: str
    sender: str = ""
    user: str = ""
    connection: int = 0


class Question(NamedTuple):
    """A command that wants to pass."""

    visitor: Visitor
    subject: str  # the recipient at rcpt
    now: float  # seconds on the sink's clock


class _Live(Protocol):
    """A limit at work. `allows` changes nothing but what it knows of attempts; `count` follows if all allowed."""

    stage: str
    reply: str

    def allows(self, question: Question) -> bool: ...
    def count(self, question: Question) -> None: ...


class _Connections:
    stage = "greeting"

    def __init__(self, limit: Connections, inside: dict[Hashable, str]) -> None:
        self.reply = limit.reply
        self._limit = limit
        self._inside = inside  # the guard's: it outlives this limit
        self._open = Counter(inside.values())

    def allows(self, question: Question) -> bool:
        if self._limit.per == "all":
            return len(self._inside) < self._limit.most
        return self._open[question.visitor.address] < self._limit.most

    def count(self, question: Question) -> None:
        return  # who has passed this limit may still be refused by another: `entered` counts

    def entered(self, address: str) -> None:
        self._open[address] += 1

    def left(self, address: str) -> None:
        self._open[address] -= 1
        if self._open[address] <= 0:
            del self._open[address]


class _Rate:
    def __init__(self, limit: Rate) -> None:
        self.stage: str = limit.stage
        self.reply = limit.reply
        self._limit = limit
        self._pattern = re.compile(translate(limit.match.lower())) if limit.match != "*" else None
        self._times: dict[Hashable, deque[float]] = {}  # the last `most` of each key, the least used key first
        self._stamps = 0

    def allows(self, question: Question) -> bool:
        if not self._concerns(question):
            return True
        times = self._times.get(self._key(question))
        if times is None or len(times) < self._limit.most or question.now - times[0] >= self._limit.seconds:
            return True
        if self._limit.count_refused:
            self.count(question)
        return False

    def count(self, question: Question) -> None:
        if not self._concerns(question):
            return
        key = self._key(question)
        times = self._times.pop(key, None)
        if times is None:
            times = deque(maxlen=self._limit.most)
        self._stamps += len(times) < self._limit.most
        times.append(question.now)
        self._times[key] = times
        while len(self._times) > 1 and (len(self._times) > KEYS or self._stamps > STAMPS):
            self._stamps -= len(self._times.pop(next(iter(self._times))))

    def _key(self, question: Question) -> Hashable:
        if self._limit.per == "all":
            return None
        if self._limit.per == "recipient":
            return question.subject.lower()
        if self._limit.per == "domain":
            return question.subject.rpartition("@")[2].lower()
        key: str | int = getattr(question.visitor, self._limit.per)
        return key.lower() if isinstance(key, str) else key

    def _concerns(self, question: Question) -> bool:
        if self._pattern is None:
            return True
        text = (question.subject if self.stage == "rcpt" else question.visitor.sender).lower() or "<>"
        return self._pattern.match(text if "@" in self._limit.match else text.rpartition("@")[2]) is not None


class _Greylist:
    stage = "rcpt"

    def __init__(self, limit: Greylist) -> None:
        self.reply = limit.reply
        self._limit = limit
        self._seen: dict[tuple[str, str, str], tuple[float, float]] = {}  # first and last attempt; oldest last first

    def allows(self, question: Question) -> bool:
        visitor, now = question.visitor, question.now
        triple = (visitor.address, visitor.sender.lower(), question.subject.lower())
        first, last = self._seen.pop(triple, (now, now))
        if now - last > self._limit.keep_seconds:
            first = now
        self._seen[triple] = (first, now)
        if len(self._seen) > TRIPLES:
            del self._seen[next(iter(self._seen))]
        return now - first >= self._limit.seconds

    def count(self, question: Question) -> None:
        return


class _Blocked:
    __slots__ = ("length", "offences", "until")

    def __init__(self, most: int) -> None:
        self.offences: deque[float] = deque(maxlen=most)
        self.until = 0.0  # on the sink's clock; 0: it was never in the box
        self.length = 0.0


class _Penalty:
    def __init__(self, limit: Penalty) -> None:
        self.stage: str = limit.stage
        self.reply = limit.reply
        self._limit = limit
        self._known: dict[str, _Blocked] = {}  # least used first

    def allows(self, question: Question) -> bool:
        known = self._known.get(question.visitor.address)
        if known is None or not known.length or question.now >= known.until:
            return True
        self._block(known, question.now)
        return False

    def count(self, question: Question) -> None:
        return

    def offended(self, question: Question) -> None:
        """Another limit refused it."""
        limit, address = self._limit, question.visitor.address
        known = self._known.pop(address, None) or _Blocked(limit.offences)
        self._known[address] = known
        if len(self._known) > KEYS:
            del self._known[next(iter(self._known))]
        known.offences.append(question.now)
        if len(known.offences) == limit.offences and question.now - known.offences[0] < limit.within_seconds:
            if question.now > known.until + limit.longest_seconds:  # it has behaved for long
                known.length = 0.0
            self._block(known, question.now)
            known.offences.clear()

    def _block(self, known: _Blocked, now: float) -> None:
        limit = self._limit
        known.length = min(known.length * limit.factor if known.length else limit.block_seconds, limit.longest_seconds)
        known.until = now + known.length


class Guard:
    """All limits of a sink at work. A limit that `before` had too keeps what it knows."""

    def __init__(self, limits: tuple[Limit, ...], clock: Callable[[], float], before: Guard | None = None) -> None:
        self._clock = clock
        self._inside: dict[Hashable, str] = before._inside if before is not None else {}  # who was let in
        old = before._live if before is not None else {}
        self._live: dict[Limit, _Live] = {limit: old.get(limit) or self._at_work(limit) for limit in limits}
        self._boxes = [live for live in self._live.values() if isinstance(live, _Penalty)]
        self._stages: dict[str, list[_Live]] = {}
        for live in (*self._boxes, *(each for each in self._live.values() if not isinstance(each, _Penalty))):
            self._stages.setdefault(live.stage, []).append(live)
        self._replies = {id(live): f"{live.reply}\r\n".encode() for live in self._live.values()}
        self.stages = frozenset(self._stages)

    def _at_work(self, limit: Limit) -> _Live:
        match limit:
            case Connections():
                return _Connections(limit, self._inside)
            case Rate():
                return _Rate(limit)
            case Greylist():
                return _Greylist(limit)
            case Penalty():
                return _Penalty(limit)

    def refusal(self, stage: str, visitor: Visitor, subjects: tuple[str, ...]) -> bytes:
        """The reply of the limit that refuses; empty where none does, and then all have counted it."""
        concerned = self._stages.get(stage)
        if concerned is None:
            return b""
        subject = subjects[0] if subjects else ""
        if stage == "mail":
            visitor = visitor._replace(sender=subject)
        elif stage == "auth":
            visitor = visitor._replace(user=subject)
        question = Question(visitor, subject, self._clock())
        for live in concerned:
            if not live.allows(question):
                if not isinstance(live, _Penalty):
                    for box in self._boxes:
                        box.offended(question)
                return self._replies[id(live)]
        for live in concerned:
            live.count(question)
        return b""

    def entered(self, session: Hashable, address: str) -> None:
        """It got its greeting."""
        self._inside[session] = address
        for live in self._live.values():
            if isinstance(live, _Connections):
                live.entered(address)

    def left(self, session: Hashable) -> None:
        address = self._inside.pop(session, None)
        if address is None:
            return
        for live in self._live.values():
            if isinstance(live, _Connections):
                live.left(address)

"""Models of providers: what each answers, and when. One class each; their fields are what a scenario may set.

A model is asked when a connection comes and when a mail's recipient is named, always with the time (seconds since the
simulation's begin), and answers `None`, it takes that, or says no. It knows no other clock, and its chance is seeded:
what it answers follows from what it was asked. It stands for a relay (`whose` is "": the words are about our account)
or for a site behind one (its words name the domain, as a relay passes them on).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, ClassVar

__all__ = ["MODELS", "Answer", "Asked", "Model", "check", "model", "parameters"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A refusal. `code` 0: no answer, the connection is refused or lost. `closes`: the server hangs up behind it."""

    code: int
    text: str
    closes: bool = False


LOST = Answer(0, "", closes=True)
SHORTEST = 1.0  # seconds of a spell, or a window


@dataclass(frozen=True, slots=True)
class Asked:
    """A mail at RCPT. `at`: seconds; `under_way`: mails to the same receiver that are, without this one; `line`: the
    number of the connection, over all that there ever were."""

    at: float
    recipient: str
    under_way: int
    line: int


@dataclass(kw_only=True, slots=True)
class Model:
    """Takes all, as fast as it comes."""

    name: ClassVar[str] = "open"
    whose: str = ""
    seed: int = 1

    def opens(self, at: float, open_now: int) -> Answer | None:
        """A connection comes, beside `open_now` others."""
        return None

    def takes(self, asked: Asked) -> Answer | None:
        """A mail comes."""
        return None

    def capacity(self, at: float) -> float:
        """Mails a second that a client who knew it could send; inf: no limit of its own."""
        return inf

    def connections(self, at: float) -> float:
        """Connections, or mails under way, that it takes at once; inf: any number."""
        return inf

    def _no(self, text: str, code: int = 450, enhanced: str = "4.7.1") -> Answer:
        """About the pace: through a relay without a site it is our account's."""
        if not self.whose:
            return Answer(454, "4.7.0 Throttling failure: Maximum sending rate exceeded")
        return Answer(code, f"{enhanced} {self.whose}: {text}")


@dataclass(kw_only=True, slots=True)
class FixedRate(Model):
    """So many mails a second, and a burst of `burst` seconds' worth; what is more is refused, and costs nothing."""

    name = "rate"
    rate: float = 50.0
    burst: float = 1.0
    _full: float = field(default=-1.0, repr=False)
    _at: float = field(default=0.0, repr=False)

    def takes(self, asked: Asked) -> Answer | None:
        most = max(1.0, self.rate * self.burst)
        filled = most if self._full < 0 else min(most, self._full + (asked.at - self._at) * self.rate)
        self._at = asked.at
        whole = filled >= 1 - 1e-9  # ten tenths are one
        self._full = max(0.0, filled - 1) if whole else filled
        return None if whole else self._no("too many messages, slow down")

    def capacity(self, at: float) -> float:
        return self.rate


@dataclass(kw_only=True, slots=True)
class PenaltyBox(FixedRate):
    """A rate; whoever exceeds it is served nothing for `box` seconds, and knocking begins them anew."""

    name = "penalty"
    box: float = 30.0
    _until: float = field(default=0.0, repr=False)

    def takes(self, asked: Asked) -> Answer | None:
        answer = FixedRate.takes(self, asked) if asked.at >= self._until else self._no("too many messages, slow down")
        if answer is not None:
            self._until = asked.at + self.box
        return answer


@dataclass(kw_only=True, slots=True)
class ConnectionCap(Model):
    """So many connections (a relay), or mails under way (a site), at once. `box` seconds without service follow a
    connection too many, and begin anew with each."""

    name = "connections"
    most: int = 5
    box: float = 0.0
    _until: float = field(default=0.0, repr=False)

    def opens(self, at: float, open_now: int) -> Answer | None:
        if self.whose or not self._is_over(at, open_now):
            return None
        return Answer(421, "4.7.0 Error: too many connections", closes=True)

    def takes(self, asked: Asked) -> Answer | None:
        if not self.whose or not self._is_over(asked.at, asked.under_way):
            return None
        return self._no("too many messages at once", 451, "4.7.0")

    def _is_over(self, at: float, others: int) -> bool:
        over = others >= self.most or at < self._until
        if over and self.box:
            self._until = at + self.box
        return over

    def connections(self, at: float) -> float:
        return self.most


@dataclass(kw_only=True, slots=True)
class Quota(Model):
    """So many mails in each window of `seconds` (a day); then none until the next one begins."""

    name = "quota"
    mails: int = 10_000
    seconds: float = 86_400.0
    _used: int = field(default=0, repr=False)
    _window: int = field(default=-1, repr=False)

    def takes(self, asked: Asked) -> Answer | None:
        window = int(asked.at // max(SHORTEST, self.seconds))
        if window != self._window:
            self._window, self._used = window, 0
        if self._used < self.mails:
            self._used += 1
            return None
        if not self.whose:
            return Answer(454, "4.7.0 Throttling failure: Daily message quota exceeded")
        return self._no("too many messages for today, slow down")


@dataclass(kw_only=True, slots=True)
class Greylisting(Model):
    """Refuses each recipient's first mail, and takes it `delay` seconds later."""

    name = "greylisting"
    delay: float = 300.0
    _seen: dict[str, float] = field(default_factory=dict, repr=False)

    def takes(self, asked: Asked) -> Answer | None:
        first = self._seen.setdefault(asked.recipient, asked.at)
        if asked.at - first >= self.delay:
            return None
        return Answer(451, f"4.7.1 {self.whose or 'mx'}: Greylisted, please try again in {self.delay:.0f} seconds")


@dataclass(kw_only=True, slots=True)
class Storm(Model):
    """Spells of about `lasts` seconds, `every` so many on average, in which most (`share`) is answered with 421."""

    name = "storm"
    every: float = 600.0
    lasts: float = 60.0
    share: float = 0.9
    _chance: random.Random = field(init=False, repr=False)
    _begins: float = field(default=-1.0, repr=False)
    _ends: float = field(default=-1.0, repr=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(f"{self.seed} {self.whose}")

    def opens(self, at: float, open_now: int) -> Answer | None:
        return self._blown(at) if not self.whose else None

    def takes(self, asked: Asked) -> Answer | None:
        return self._blown(asked.at)

    def _blown(self, at: float) -> Answer | None:
        while at >= self._ends:
            self._begins = max(self._ends, 0.0) + self._chance.uniform(0.5, 1.5) * self.every
            self._ends = self._begins + max(SHORTEST, self._chance.uniform(0.5, 1.5) * self.lasts)
        if at < self._begins or self._chance.random() >= self.share:
            return None
        if self.whose:
            return self._no("temporarily deferred due to unexpected volume", 421, "4.7.0")
        return Answer(421, "4.3.2 Service not available, closing transmission channel", closes=True)


@dataclass(kw_only=True, slots=True)
class Outage(Model):
    """Away from `begins` to `ends` (seconds): a relay takes no connection, of a site the relay says that it waits."""

    name = "outage"
    begins: float = 60.0
    ends: float = 360.0

    def opens(self, at: float, open_now: int) -> Answer | None:
        return LOST if not self.whose and self.begins <= at < self.ends else None

    def takes(self, asked: Asked) -> Answer | None:
        if not self.begins <= asked.at < self.ends:
            return None
        return Answer(451, f"4.4.1 {self.whose}: no answer from the mail server") if self.whose else LOST


@dataclass(kw_only=True, slots=True)
class OneBad(Model):
    """Several servers behind a name, `bad` of which fail each mail."""

    name = "one-bad"
    servers: int = 4
    bad: int = 1

    def takes(self, asked: Asked) -> Answer | None:
        # A relay's connection stays with a server; behind a relay each mail meets another one.
        key = f"{self.seed} {asked.at} {asked.recipient}" if self.whose else f"{self.seed} {asked.line}"
        which = random.Random(key).randrange(max(1, self.servers))
        if which >= self.bad:
            return None
        name = self.whose or "mx.example"
        return Answer(451, f"4.3.0 mx{which + 1}.{name}: temporary system problem, try again later")


MODELS: Mapping[str, type[Model]] = {
    kind.name: kind for kind in (Model, FixedRate, PenaltyBox, ConnectionCap, Quota, Greylisting, Storm, Outage, OneBad)
}


def model(name: str, whose: str = "", seed: int = 1, **given: Any) -> Model:
    """Raises `ValueError` that names what is wrong."""
    kind = MODELS.get(name)
    if kind is None:
        raise ValueError(f"model: one of {', '.join(MODELS)}: {name!r}")
    known = parameters(kind)
    for each, value in given.items():
        if each not in known:
            raise ValueError(f"{each}: model {name!r} knows {', '.join(known) or 'no parameters'}")
        check(each, value, known[each])
    return kind(whose=whose, seed=seed, **given)


def parameters(kind: type[Model]) -> dict[str, type]:
    """What a scenario may set of it, with their types."""
    return {
        each.name: type(each.default)
        for each in fields(kind)
        if not each.name.startswith("_") and each.name not in {"whose", "seed"}
    }


def check(name: str, value: object, wanted: type) -> None:
    """Raises `ValueError`."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < inf
    if not good or (wanted is int and not isinstance(value, int)):
        kind = "a whole number" if wanted is int else "a number"
        raise ValueError(f"{name}: {kind} from 0 on: {value!r}")

"""What happened in a simulation: what was taken and refused, when, per site."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

from streamq.simulate.models import Answer
from streamq.smtp.letter import Stage
from streamq.smtp.replies import Replies

__all__ = ["Record", "SiteRecord"]

ABOUT_PACE = frozenset({"site_rate", "route_rate", "recipient_rate", "connection_limit"})


@dataclass(slots=True)
class SiteRecord:
    """Seconds since the begin, in their order. `met`: recipients that were refused at least once; `classes`: what the
    courier's table of replies makes of the refusals."""

    taken: array[float] = field(default_factory=lambda: array("d"))
    refused: array[float] = field(default_factory=lambda: array("d"))
    met: set[str] = field(default_factory=set)
    classes: Counter[str] = field(default_factory=Counter)
    doubles: int = 0

    @property
    def throttles(self) -> int:
        return sum(many for klass, many in self.classes.items() if klass in ABOUT_PACE)


class Record:
    """`taken_once` holds each recipient that was served, so that a double is seen as one."""

    def __init__(self, rules: Replies) -> None:
        self.rules = rules
        self.sites: dict[str, SiteRecord] = {}
        self.opened: dict[str, array[float]] = {}  # relay → when connections came
        self.turned_away: dict[str, array[float]] = {}
        self._served: set[str] = set()
        self._classes: dict[tuple[str, Answer], str] = {}

    def site(self, name: str) -> SiteRecord:
        return self.sites.setdefault(name, SiteRecord())

    def opens(self, relay: str, at: float, *, refused: bool) -> None:
        self.opened.setdefault(relay, array("d")).append(at)
        if refused:
            self.turned_away.setdefault(relay, array("d")).append(at)

    def takes(self, site: str, recipient: str, at: float) -> None:
        known = self.site(site)
        if recipient in self._served:
            known.doubles += 1
            return
        self._served.add(recipient)
        known.taken.append(at)

    def refuses(self, site: str, recipient: str, at: float, answer: Answer) -> None:
        known = self.site(site)
        known.refused.append(at)
        known.met.add(recipient)
        known.classes[self._class(site, answer)] += 1

    def _class(self, site: str, answer: Answer) -> str:
        if not answer.code:
            return "disconnected"
        key = (site, answer)
        if key not in self._classes:
            self._classes[key] = self.rules.classify(Stage.RCPT, answer.code, answer.text, False, site).klass
        return self._classes[key]

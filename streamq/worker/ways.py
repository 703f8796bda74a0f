"""Which routes a mail may take, in which order: the worker's half of failover.

CHOICE   The mail's field `route` names a route, and then that is the only one; or a group. Else the first `[[choice]]`
         that fits. Else all that are not reserved.
ORDER    A draw by weight, of the entry and the queue's salt: a retry, and another worker, draw alike, and over many
         mails the weights hold. (Counters per route would hold them over few, and send a retry elsewhere.) Those of
         weight 0 come last. A route that is added or removed moves no mail but its own share (rendezvous hashing).
LANE     What came of it stands in the name of the mail's lane, `main>backup|example.net`: whoever gives out a slot
         knows where it may go without looking at the mail.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from math import inf, log

from streamq.mail import Mail
from streamq.settings import Settings

__all__ = ["UnknownRoute", "Ways"]

MOST = 4  # a name that is too long for nothing: who waits for a fifth relay has another trouble


class UnknownRoute(Exception):
    """The mail's field `route` names nothing that these settings have; never leaves the worker."""


class Ways:
    """`priorities` by their digits, as the queue has them."""

    def __init__(self, settings: Settings, salt: bytes, priorities: tuple[str, ...]) -> None:
        self.salt = salt
        self.priorities = priorities
        self.weights = {name: way.weight for name, way in settings.ways.items()}
        self.groups = {name: self._known(members) for name, members in settings.groups.items()}
        self.usual = self._known(name for name, way in settings.ways.items() if not way.reserved)
        self.choices = [
            (choice, self._known(part for name in choice.routes for part in settings.groups.get(name, (name,))))
            for choice in settings.choice
        ]
        self.names = frozenset((*self.weights, *self.groups))
        # A glance at a mail tells its priority, and not its sender.
        self.at_a_glance = not any(choice.sender for choice in settings.choice)
        # Where a plain mail can go one way only, a script can tell which.
        chosen = any(not choice.tenant for choice in settings.choice)
        self.only = self.usual[0] if len(self.usual) == 1 and not chosen else None

    def _known(self, names: Iterable[str]) -> tuple[str, ...]:
        """Without repeats, in the settings' order, and without `relay` where no variable names one."""
        wanted = set(names)
        return tuple(name for name in self.weights if name in wanted)

    def of(self, entry: str, mail: Mail) -> tuple[str, ...]:
        """Best first. Raises `UnknownRoute`."""
        if mail.route:
            if mail.route in self.weights:
                return (mail.route,)
            members = self.groups.get(mail.route)
            if not members:
                raise UnknownRoute(mail.route)
            return self._drawn(entry, members)
        return self._chosen(entry, mail.tenant, mail.envelope_from.rpartition("@")[2].lower())

    def plain(self, entry: str) -> tuple[str, ...]:
        """Of a mail that names neither route nor tenant; only where `at_a_glance`."""
        return self._chosen(entry, None, "")

    def _chosen(self, entry: str, tenant: str | None, sender: str) -> tuple[str, ...]:
        for choice, routes in self.choices:
            if routes and choice.fits(tenant, self.priorities[int(entry[0])], sender):
                return self._drawn(entry, routes)
        return self._drawn(entry, self.usual)

    def _drawn(self, entry: str, routes: tuple[str, ...]) -> tuple[str, ...]:
        if len(routes) == 1:
            return routes
        return tuple(sorted(routes, key=lambda route: self._place(entry, route))[:MOST])

    def _place(self, entry: str, route: str) -> tuple[float, int]:
        """Exponential times at the rate of the weights: who comes first is drawn by weight, and so are the next."""
        drawn = int.from_bytes(blake2b(f"{entry} {route}".encode(), digest_size=7, key=self.salt[:64]).digest(), "big")
        weight = self.weights[route]
        return (-log((drawn + 1) / 2**56) / weight if weight else inf), drawn

"""What is known of providers: their limits, which domains and relays are theirs, what their texts mean.

The package's own rules (`providers.toml`) are off until the setting `providers` switches them on; a user's own file
stands over them. What they say becomes two layers of limits (queue/limits.py), ceilings of routes, and entries of the
reply table. A number of a provider's is a ceiling: it never raises what streamq does by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from typing import NamedTuple

from streamq.settings import RouteSettings, Window
from streamq.smtp.reply_entry import Entry

__all__ = ["Cap", "Provider", "Rules", "capped"]


class Cap(NamedTuple):
    """At most so much; None: nobody says so. `rate`: every window holds at once."""

    rate: tuple[Window, ...] | None = None
    connections: int | None = None
    mails_per_connection: int | None = None

    def or_else(self, other: Cap) -> Cap:
        """Each number of this one, or of the other where this one says nothing of it."""
        return Cap(
            other.rate if self.rate is None else self.rate,
            other.connections if self.connections is None else self.connections,
            other.mails_per_connection if self.mails_per_connection is None else self.mails_per_connection,
        )


@dataclass(frozen=True, slots=True)
class Provider:
    """`domains` of recipients, or `relays`: globs for the hosts of routes. `sources`: where its numbers stand."""

    name: str
    domains: tuple[str, ...]
    relays: tuple[str, ...]
    cap: Cap
    entries: tuple[Entry, ...]
    sources: tuple[tuple[str, date | None], ...]


class Rules:
    """The rules of one file, in its order."""

    def __init__(self, providers: Iterable[Provider] = ()) -> None:
        self.providers = tuple(providers)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Known texts, as the reply table has them."""
        return tuple(entry for provider in self.providers for entry in provider.entries)

    def of_site(self) -> dict[str, Cap]:
        """Domain → its limits."""
        return {domain: each.cap for each in self.providers for domain in each.domains}

    def groups(self) -> dict[str, str]:
        """Domain → its provider's name, as short as a label: of "Microsoft, consumers" `microsoft`."""
        return {domain: each.name.partition(",")[0].lower() for each in self.providers for domain in each.domains}

    def of_relay(self, host: str) -> Cap:
        """What the providers of this relay say; the first that says something of a number decides."""
        found = Cap()
        for provider in self.providers:
            if any(fnmatchcase(host.lower(), glob) for glob in provider.relays):
                found = found.or_else(provider.cap)
        return found

    def of_routes(self, routes: Mapping[str, RouteSettings]) -> dict[str, Cap]:
        """Route → what its relay's provider says; without those of whom nothing is known."""
        found = {name: self.of_relay(route.host) for name, route in routes.items()}
        return {name: cap for name, cap in found.items() if cap != Cap()}


def capped(route: RouteSettings, cap: Cap) -> RouteSettings:
    """The route with connections and mails per connection that its provider allows, where its own settings do not say
    how many."""
    lower = {
        name: most
        for name, most in (("connections", cap.connections), ("mails_per_connection", cap.mails_per_connection))
        if most is not None and name not in route.model_fields_set and most < getattr(route, name)
    }
    return route.model_copy(update=lower) if lower else route

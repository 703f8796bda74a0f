"""What the settings, the package's provider rules and a user's own file say together: one reading of all of them."""

from __future__ import annotations

from dataclasses import dataclass

from streamq.limits.rules import Cap, Rules, capped
from streamq.limits.rules_file import load_rules, own_rules
from streamq.settings import RouteSettings, Settings
from streamq.smtp.replies import Replies, load_replies

__all__ = ["Rulebook"]


@dataclass(frozen=True, slots=True)
class Rulebook:
    """`shipped`: the package's rules, as far as they are switched on; `own`: the user's."""

    settings: Settings
    shipped: Rules
    own: Rules
    replies: Replies

    @classmethod
    def read(cls, settings: Settings) -> Rulebook:
        """Raises `SettingsError` that names file, line, key and value of what is wrong in a file that they name."""
        shipped = own_rules() if settings.providers in {"relays", "all"} else Rules()
        own = load_rules(settings.provider_rules)
        replies = load_replies(settings.replies, (*own.entries, *shipped.entries))
        return cls(settings, shipped, own, replies)

    def layers(self) -> dict[str, dict[str, Cap] | None]:
        """Layer → field of the queue's limits → what it says; None: the settings say nothing of such a layer."""
        sites = self.shipped.of_site() if self.settings.providers == "all" else {}
        return {
            "providers": None if self.settings.providers is None else self._fields(self.shipped, sites),
            "own": None if self.settings.provider_rules is None else self._fields(self.own, self.own.of_site()),
        }

    def _fields(self, rules: Rules, sites: dict[str, Cap]) -> dict[str, Cap]:
        """Of a route only the rate: its connections are its workers' to share (`routes`)."""
        found = {name: Cap(rate=cap.rate) for name, cap in rules.of_routes(self.settings.ways).items()}
        return found | {f"*|{site}": cap for site, cap in sites.items()}

    def groups(self) -> dict[str, str]:
        """Domain → provider, for whoever counts: by the package's rules, whether they limit anything or not, and by the
        user's own."""
        return own_rules().groups() | self.own.groups()

    def routes(self) -> dict[str, RouteSettings]:
        """All routes, with what their providers allow."""
        return {
            name: capped(route, self.own.of_relay(route.host).or_else(self.shipped.of_relay(route.host)))
            for name, route in self.settings.ways.items()
        }

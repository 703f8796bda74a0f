"""What a route needs to be let in, made once: TLS, the way there, the token.

FAILS    `Access` and `check_routes` raise `SettingsError` that names route, setting and file; they read files, so
         only who delivers calls them.
"""

from __future__ import annotations

from collections.abc import Mapping

from streamq.settings import RouteSettings
from streamq.smtp.reach import Reach
from streamq.smtp.tls import tls_context
from streamq.smtp.tokens import Tokens

__all__ = ["Access", "check_routes"]


class Access:
    """One for all connections of a route; `name` is the route's, for errors."""

    def __init__(self, route: RouteSettings, name: str = "") -> None:
        where = f"routes.{name}." if name else ""
        self.route = route
        self.context = tls_context(route, where)
        self.reach = Reach(route)
        self.tokens = Tokens(route.token, f"{where}token.") if route.token is not None else None

    def holds(self, serial: int) -> bool:
        """Whether what a connection logged in with (`Connection.serial`) is what one would log in with now."""
        return self.tokens is None or self.tokens.holds(serial)


def check_routes(ways: Mapping[str, RouteSettings]) -> None:
    """That every route's files are there and right, before anything starts."""
    for name, route in ways.items():
        Access(route, name)

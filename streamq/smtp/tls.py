"""TLS to a relay: the context that a route's settings ask for."""

from __future__ import annotations

import ssl

from streamq.settings import RouteSettings

__all__ = ["tls_context"]


def tls_context(route: RouteSettings) -> ssl.SSLContext | None:
    """One for all connections of a route: building one reads every certificate of the system."""
    if route.tls == "none" and not route.implicit_tls:
        return None
    context = ssl.create_default_context()
    if not route.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

"""The limits of a queue as they are set, in layers: who says what, and what holds of it (limits.lua).

A field is a target: `*` the whole queue, `<route>`, or `<route>|<site>` with `*` for any of either. A later layer
stands over an earlier one, part by part: an operator who sets a rate leaves the transactions at once as they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from streamq.queue.connection import command
from streamq.queue.spool import Spool
from streamq.settings import Settings, Window

__all__ = [
    "LAYERS",
    "OPERATOR",
    "limit_text",
    "look_anew",
    "operator_text",
    "set_limits",
    "settings_layer",
    "windows_text",
]

LAYERS = ("providers", "own", "settings", "operator")


OPERATOR = "operator"


def windows_text(windows: Iterable[Window]) -> str:
    """`50:1000000,60000:3600000000`: mails and microseconds, as lib/limit.lua reads them."""
    return ",".join(f"{window.count}:{window.window_ms * 1000}" for window in windows)


def limit_text(rate: Iterable[Window] | None = None, connections: int | None = None) -> str:
    """A layer's value of one field. None: it says nothing of that part; no windows, and 0: there is no limit."""
    windows = None if rate is None else windows_text(rate)
    text = "" if windows is None else windows or "-"
    return text if connections is None else f"{text};c{connections}"


async def operator_text(spool: Spool, target: str, windows: Iterable[Window] | None, connections: int | None) -> str:
    """What operators say of the target when they say this: with what they had said of the other part (None)."""
    had = (await command(spool.redis, "HGET", spool.keys.layer(OPERATOR), target) or b"").decode()
    rate, _, most = had.partition(";c")
    connections = int(most) if connections is None and most else connections
    if windows is not None or not rate:
        return limit_text(windows, connections)
    return rate if connections is None else f"{rate};c{connections}"


async def set_limits(spool: Spool, layer: str, rows: Mapping[str, str], *, whole: bool = False) -> int:
    """The layer says this of these fields (`limit_text`; "": it says nothing of the field); `whole`: and of no other
    one. What waits for old limits is looked at anew. How many fields changed of what holds."""
    changed, left = await spool.scripts.limits("set" if whole else "change", layer, rows)
    while left:
        _, left = await spool.scripts.limits("look")
    return changed


async def look_anew(spool: Spool) -> None:
    """Goes on with what `set_limits` began, where that ended half-way."""
    left = bool(await command(spool.redis, "HEXISTS", spool.keys.meta, "look"))
    while left:
        _, left = await spool.scripts.limits("look")


def settings_layer(settings: Settings) -> dict[str, str] | None:
    """What the settings say: `[limits]`, rates of routes, `[sites]`; None: nothing of any limit."""
    layer = {}
    if "rate" in settings.limits.model_fields_set:
        layer["*"] = limit_text(settings.limits.rate)
    for name, route in settings.routes.items():
        if "rate" in route.model_fields_set:
            layer[name] = limit_text(route.rate)
    for site, limit in (settings.sites or {}).items():
        rate = limit.rate if "rate" in limit.model_fields_set else None
        layer[f"*|{site}"] = limit_text(rate, limit.connections)
    return None if settings.sites is None and not layer else layer

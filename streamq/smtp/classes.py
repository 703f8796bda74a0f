"""The classes of refusals and dead letters that this package has; somebody's tables of replies may have more."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

__all__ = ["class_names"]

# Those that no reply has: of intake, of operators, of age, of connections.
OTHER_CLASSES = (
    *("ambiguous", "expired", "id_conflict", "internal", "malformed", "operator", "poison", "unknown_field"),
    *("stream", "unknown_route", "unknown_template", "unsupported"),
    *("disconnected", "protocol", "settings", "slow", "timeout", "unreachable"),
)


@cache
def class_names() -> tuple[str, ...]:
    """Of the package's table of replies, and those that no reply has; sorted."""
    table = tomllib.loads(resources.files("streamq.smtp").joinpath("replies.toml").read_text("utf-8"))
    names = {entry["class"] for entry in table["reply"]} - {"sent"}
    return tuple(sorted({*names, *OTHER_CLASSES}))

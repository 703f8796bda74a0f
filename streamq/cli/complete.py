"""What a shell completes behind an option. At a key's press: from files and settings alone, never from Redis, which
may be away, or slow, or not started yet."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from importlib import resources

from streamq.errors import SettingsError
from streamq.queue.walk import STATES
from streamq.settings import Settings, load_settings

__all__ = ["class_names", "classes", "one_of", "priorities", "routes", "states", "webhooks"]

Complete = Callable[[str], list[str]]

# Those that no reply has: of intake, of operators, of age, of connections.
OTHER_CLASSES = (
    *("ambiguous", "expired", "id_conflict", "internal", "malformed", "operator", "poison", "unknown_field"),
    *("stream", "unknown_route", "unknown_template", "unsupported"),
    *("disconnected", "protocol", "settings", "slow", "timeout", "unreachable"),
)


def one_of(names: Iterable[str]) -> Complete:
    """A fixed list."""
    known = tuple(names)
    return lambda incomplete: [name for name in known if name.startswith(incomplete)]


def class_names() -> list[str]:
    """Of the package's table of replies, and those that no reply has."""
    table = tomllib.loads(resources.files("streamq.smtp").joinpath("replies.toml").read_text("utf-8"))
    names = {entry["class"] for entry in table["reply"]} - {"sent"}
    return sorted({*names, *OTHER_CLASSES})


def classes(incomplete: str) -> list[str]:
    return one_of(class_names())(incomplete)


def priorities(incomplete: str) -> list[str]:
    """Of the settings."""
    return _from_settings(incomplete, lambda known: known.priorities)


def routes(incomplete: str) -> list[str]:
    return _from_settings(incomplete, lambda known: known.ways)


def webhooks(incomplete: str) -> list[str]:
    return _from_settings(incomplete, lambda known: known.webhooks)


states = one_of(STATES)


def _from_settings(incomplete: str, names: Callable[[Settings], Iterable[str]]) -> list[str]:
    try:
        known = load_settings()
    except SettingsError:  # the command itself will say so
        return []
    return one_of(names(known))(incomplete)

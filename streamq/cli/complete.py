"""What a shell completes behind an option. At a key's press: from files and settings alone, never from Redis, which
may be away, or slow, or not started yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from streamq.errors import SettingsError
from streamq.queue.walk import STATES
from streamq.settings import Settings, load_settings
from streamq.smtp.classes import class_names

__all__ = ["classes", "one_of", "priorities", "routes", "states", "webhooks"]

Complete = Callable[[str], list[str]]


def one_of(names: Iterable[str]) -> Complete:
    """A fixed list."""
    known = tuple(names)
    return lambda incomplete: [name for name in known if name.startswith(incomplete)]


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

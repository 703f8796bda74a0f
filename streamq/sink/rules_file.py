"""Rules, limits and users from a TOML file, or from a profile of the package.

    seed = 1
    [[rule]] [[connections]] [[rate]] [[greylist]] [[penalty]] [[user]] [auth]

`rules`, `limits` and `auth` say what stands in them. A mistake is named with file, line, entry and value. A profile is
such a file, named after a provider's behaviour, in `profiles/`; each of its tables also has a `source`, where the
public can read of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from streamq.errors import SHOWN, SettingsError
from streamq.sink.auth import Auth, User
from streamq.sink.checks import EntryWrong, is_number
from streamq.sink.limits import Connections, Greylist, Penalty, Rate
from streamq.sink.rules import Rule, Rules
from streamq.toml import NotToml, read_toml

__all__ = ["joined", "load_profile", "load_rules", "profiles"]

TABLES: dict[str, type[Any]] = {
    "rule": Rule,
    "connections": Connections,
    "rate": Rate,
    "greylist": Greylist,
    "penalty": Penalty,
    "user": User,
}
LIMITS = ("connections", "rate", "greylist", "penalty")
NAMES = (*TABLES, "auth", "seed")


def profiles() -> tuple[str, ...]:
    """The names of all profiles."""
    found = (each.name for each in files("streamq.sink").joinpath("profiles").iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


def load_profile(name: str) -> Rules:
    """Raises `SettingsError` for a name that there is not."""
    if name not in profiles():
        raise SettingsError(f"profile: not one of {', '.join(profiles())} (got {name!r})")
    text = files("streamq.sink").joinpath("profiles", f"{name}.toml").read_text("utf-8")
    return read_rules(text, name, sourced=True)


def load_rules(path: str | Path) -> Rules:
    """Read a rules file. Raises `SettingsError` that names line, entry and value."""
    try:
        text = Path(path).read_text("utf-8")
    except OSError as wrong:
        raise SettingsError(f"{path}: {wrong.strerror}") from None
    except UnicodeDecodeError as wrong:
        raise SettingsError(f"{path}: {wrong}") from None
    return read_rules(text, path)


def joined(first: Rules, *others: Rules) -> Rules:
    """One set of rules out of several; the first outranks the others, whose `auth` and seed are not used."""
    every = (first, *others)
    auth = next((each.auth for each in every if each.auth != Auth()), Auth())
    return Rules(
        rules=tuple(rule for each in every for rule in each.rules),
        seed=first.seed,
        limits=tuple(dict.fromkeys(limit for each in every for limit in each.limits)),
        users=tuple(user for each in every for user in each.users),
        auth=auth,
    )


def read_rules(text: str, path: str | Path, *, sourced: bool = False) -> Rules:
    """The text of a rules file; `path` is its name in errors. With `sourced`, each table must have a source."""
    try:
        given = read_toml(text)
    except NotToml as wrong:
        raise SettingsError(f"{path}: {wrong}") from None
    for name in given.keys() - set(NAMES):
        raise SettingsError(
            f"{path}{_line(text, name)}: {name}: no such entry (there are {', '.join(sorted(NAMES))}) "
            f"(got {str(given[name])[:SHOWN]!r})"
        )
    seed = given.get("seed", 0)
    if not is_number(seed, -(2**63), 2**63):
        raise SettingsError(f"{path}{_line(text, 'seed')}: seed: not a whole number (got {seed!r})")
    made: dict[str, tuple[Any, ...]] = {}
    for name, kind in TABLES.items():
        listed = given.get(name, [])
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise SettingsError(f"{path}{_line(text, name)}: {name}: write [[{name}]] above each {name}")
        made[name] = tuple(
            _made(kind, entries, sourced, path, f"{name} {number + 1}", (text, name, number, len(listed)))
            for number, entries in enumerate(listed)
        )
    auth = given.get("auth", {})
    if not isinstance(auth, dict):
        raise SettingsError(f"{path}{_line(text, 'auth')}: auth: write [auth] above its entries")
    return Rules(
        rules=made["rule"],
        seed=seed,
        limits=tuple(limit for name in LIMITS for limit in made[name]),
        users=made["user"],
        auth=_made(Auth, auth, False, path, "auth", (text, "auth", 0, 1)),
    )


def _made(
    kind: type[Any],
    entries: Mapping[str, Any],
    sourced: bool,
    path: str | Path,
    label: str,
    where: tuple[str, str, int, int],
) -> Any:
    names = [field.name for field in fields(kind)]
    needed = [field.name for field in fields(kind) if field.default is MISSING]
    given = {name: value for name, value in entries.items() if not (sourced and name == "source")}
    try:
        if sourced and not entries.get("source"):
            raise EntryWrong("source", "", "where can the public read of this?")
        for name in given:
            if name not in names:
                raise EntryWrong(name, given[name], f"no such entry (there are {', '.join(names)})")
        for name in needed:
            if name not in given:
                raise EntryWrong(name, None, "is missing")
        return kind(**given)
    except EntryWrong as wrong:
        raise SettingsError(f"{path}{_line_in_table(*where, wrong.entry)}, {label}: {wrong}") from None


def _line(text: str, name: str) -> str:
    """`, line N` of a top-level entry, or nothing where it cannot be told (tomllib keeps no lines)."""
    found = re.search(rf"^[ \t]*\[*[ \t]*[\"']?{re.escape(name)}\b", text, re.MULTILINE)
    return f", line {text.count(chr(10), 0, found.start()) + 1}" if found else ""


def _line_in_table(text: str, table: str, number: int, total: int, entry: str) -> str:
    heads = [head.start() for head in re.finditer(rf"^[ \t]*\[\[?[ \t]*{table}[ \t]*\]", text, re.MULTILINE)]
    if len(heads) != total:  # written in another way, or the words stand in a string: no line is better
        return ""
    after = re.compile(r"^[ \t]*\[\[?[ \t]*[a-z]", re.MULTILINE).search(text, heads[number] + 1)
    end = after.start() if after else len(text)
    found = re.compile(rf"^[ \t]*[\"']?{re.escape(entry)}[\"']?[ \t]*=", re.MULTILINE).search(text, heads[number], end)
    at = found.start() if found else heads[number]
    return f", line {text.count(chr(10), 0, at) + 1}"

"""One entry of a reply table: what it matches, what that means, and how it is read from TOML.

Every mistake is a `SettingsError` that names the table, the entry by its number and class, the key and the value:
the table that comes with the package is data like a user's own. Files that hold entries among other things read them
with `read_entry`, whose `Misfit` says which key it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from streamq.errors import SHOWN, SettingsError
from streamq.settings.values import cut, duration_ms
from streamq.smtp.letter import Action, Scope, Stage
from streamq.smtp.patterns import most_ways
from streamq.toml import NotToml, read_toml

__all__ = ["Entry", "Misfit", "read_entries", "read_entry"]

KEYS = {
    "class",
    "scope",
    "action",
    "code",
    "enhanced",
    "text",
    "stage",
    "first",
    "guess",
    "names_site",
    "hint",
    "source",
}
MANDATORY = {"class", "scope", "action", "code"}
VERDICTS = {Action.SENT, Action.RETRY, Action.FAIL, Action.PARK}
CLASS = re.compile(r"[a-z][a-z0-9_]{0,40}")
LONGEST_HINT_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Entry:
    """`table` and `number` (from 1) say where it stands; `hint_ms` is the table's own wait, 0: none."""

    table: str
    number: int
    source: str
    klass: str
    scope: Scope
    action: Action
    codes: frozenset[int]
    enhanced: re.Pattern[str] | None
    text: re.Pattern[str] | None
    stages: frozenset[Stage]
    first: bool | None
    guess: bool
    names_site: bool
    hint_ms: int

    def matches(self, stage: Stage, enhanced: str, text: str, first: bool) -> bool:
        return (
            stage in self.stages
            and (self.first is None or self.first is first)
            and (self.enhanced is None or self.enhanced.fullmatch(enhanced) is not None)
            and (self.text is None or self.text.search(text) is not None)
        )


class Misfit(ValueError):
    """A mistake in an entry: the text, and the key that it is about ("": the whole entry)."""

    def __init__(self, key: str, text: str) -> None:
        self.key = key
        super().__init__(text)


def read_entries(text: str, table: str, *, sourced: bool = True) -> tuple[Entry, ...]:
    """The entries of a TOML text, in order. `sourced`: each must have a source. Raises `SettingsError`."""
    try:
        found = read_toml(text)
    except NotToml as wrong:
        raise SettingsError(f"{table}: {wrong}") from None
    if set(found) != {"reply"} or not isinstance(found["reply"], list):
        raise SettingsError(f"{table}: a list of [[reply]] and nothing else")
    return tuple(_named(raw, table, at, sourced) for at, raw in enumerate(found["reply"], 1))


def _named(raw: Any, table: str, number: int, sourced: bool) -> Entry:
    try:
        return read_entry(raw, table, number, sourced=sourced)
    except Misfit as wrong:
        klass = f" ({str(raw.get('class', 'no class'))[:SHOWN]})" if isinstance(raw, dict) else ""
        raise SettingsError(f"{table}: reply {number}{klass}: {wrong}") from None


def read_entry(raw: Any, table: str, number: int, *, sourced: bool = True) -> Entry:
    """One entry, as TOML has it; `table` and `number` are noted in it. Raises `Misfit`."""
    if not isinstance(raw, dict):
        raise Misfit("", f"not a table: {cut(raw)}")
    if wrong := sorted(set(raw) - KEYS):
        raise Misfit(wrong[0], f"unknown: {', '.join(wrong)}")
    if missing := sorted((MANDATORY | ({"source"} if sourced else set())) - set(raw)):
        raise Misfit("", f"missing: {', '.join(missing)}")
    if not isinstance(raw["class"], str) or not CLASS.fullmatch(raw["class"]):
        raise Misfit("class", f"class: a name of a-z, 0-9 and _, not {cut(raw['class'])}")
    source = raw.get("source", "")
    if not isinstance(source, str) or (sourced and not source.strip()):
        raise Misfit("source", f"source: a text, not {cut(source)}")
    for key in ("first", "guess", "names_site"):
        if not isinstance(raw.get(key, True), bool):
            raise Misfit(key, f"{key}: true or false, not {cut(raw[key])}")
    action = _one_of(Action, raw["action"], "action")
    if action not in VERDICTS:
        raise Misfit("action", f"action: no reply can mean {action.value!r}")
    codes = frozenset(code for part in _texts(raw, "code") for code in _codes(part))
    if action is Action.SENT and max(codes) >= 300:
        raise Misfit("action", f"action: only a 2xx can mean 'sent', not {cut(raw['code'])}")
    if action is not Action.SENT and min(codes) < 400:
        raise Misfit("action", f"action: a 2xx or 3xx cannot mean {action.value!r}: code {cut(raw['code'])}")
    enhanced = [_dotted(part) for part in _texts(raw, "enhanced")]
    stages = [_one_of(Stage, stage, "stage") for stage in _texts(raw, "stage")]
    return Entry(
        table=table,
        number=number,
        source=source,
        klass=raw["class"],
        scope=_one_of(Scope, raw["scope"], "scope"),
        action=action,
        codes=codes,
        enhanced=re.compile("|".join(enhanced)) if enhanced else None,
        text=_pattern(raw.get("text")),
        stages=frozenset(stages or Stage),
        first=raw.get("first"),
        guess=raw.get("guess", False),
        names_site=raw.get("names_site", False),
        hint_ms=_hint(raw.get("hint")),
    )


def _pattern(text: Any) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        pattern = re.compile(text, re.IGNORECASE)
        most_ways(text)
    except (re.error, TypeError, ValueError, OverflowError, RecursionError) as wrong:
        raise Misfit("text", f"text: {wrong}: {cut(text)}") from None
    return pattern


def _hint(value: Any) -> int:
    if value is None:
        return 0
    try:
        ms = duration_ms(value if isinstance(value, str) else repr(value))
    except ValueError as wrong:
        raise Misfit("hint", f"hint: {wrong}") from None
    if ms > LONGEST_HINT_MS:
        raise Misfit("hint", f"hint: longer than a day: {cut(value)}")
    return ms


def _texts(raw: dict[str, Any], key: str) -> list[str]:
    value = raw.get(key, [])
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(part, str) for part in listed):
        raise Misfit(key, f"{key}: a text or a list of texts, not {cut(value)}")
    if key in raw and not listed:
        raise Misfit(key, f"{key}: empty")
    return listed


def _codes(part: str) -> list[int]:
    """`550`, `55x`, `5xx`."""
    if not re.fullmatch(r"[2-5](?:\d\d|\dx|xx)", part, re.ASCII):
        raise Misfit("code", f"code: three digits like 550, 55x, 5xx, not {cut(part)}")
    low = int(part.replace("x", "0"))
    return list(range(low, low + 10 ** part.count("x")))


def _dotted(part: str) -> str:
    """`5.1.1`, `4.7.*`, `*.2.2` as a pattern; "none": the server gave no enhanced code."""
    if part == "none":
        return ""
    if not re.fullmatch(r"[245*]\.(?:\d{1,3}|\*)\.(?:\d{1,3}|\*)", part, re.ASCII):
        raise Misfit("enhanced", f"enhanced: like 5.1.1, 4.7.*, *.2.2 or none, not {cut(part)}")
    return part.replace(".", r"\.").replace("*", r"\d+")


def _one_of(kind: Any, value: object, key: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise Misfit(key, f"{key}: one of {', '.join(kind)}, not {cut(value)}") from None

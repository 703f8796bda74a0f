"""What a reply means: the table of replies.toml, read once.

An entry matches a reply by its code, its enhanced status code (RFC 3463), its text, the stage, and whether
this is the connection's first transaction; the first entry that matches decides. It gives the class, its
scope, and what to do. The class decides, never the first digit alone: `550 5.4.5 Daily sending quota
exceeded` says nothing about the mail, `552 5.2.2` is what RFC 3463 calls a persistent transient failure.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from streamq.errors import SettingsError
from streamq.smtp.letter import Action, Scope, Stage

__all__ = ["Replies", "Verdict", "default_replies"]

READ = 1000  # characters of a reply that patterns look at
LONGEST_HINT_MS = 24 * 3_600_000
UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000}
ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?!\S)")
AGAIN_IN = re.compile(
    r"\b(?:in|after|for|wait|within)\s+(?:another\s+)?(\d{1,7})\s*(s|secs?|seconds?|m|mins?|minutes?|h|hours?)\b",
    re.IGNORECASE,
)
AGAIN_AT = re.compile(r"\b(?:in|after|for|wait)\s+(\d{1,2}):(\d\d):(\d\d)\b", re.IGNORECASE)
KEYS = {"class", "scope", "action", "code", "enhanced", "text", "stage", "first", "guess", "source"}
MANDATORY = {"class", "scope", "action", "code", "source"}
VERDICTS = {Action.SENT, Action.RETRY, Action.FAIL, Action.PARK}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`enhanced` is "" where the server gave none, or one whose class contradicts the code (RFC 2034, 4).

    `hint_ms`: the server's own "try again in", 0 when it gave none; at most a day. `about_recipient`: it was
    about this one recipient, so it says nothing of the route, however often it comes. False where nobody knows:
    a bare `550` to RCPT may as well mean us, and a breaker must not take it for a bad address.
    """

    klass: str
    scope: Scope
    action: Action
    enhanced: str = ""
    hint_ms: int = 0
    about_recipient: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    klass: str
    scope: Scope
    action: Action
    codes: frozenset[int]
    enhanced: re.Pattern[str] | None
    text: re.Pattern[str] | None
    stages: frozenset[Stage]
    first: bool | None
    about_recipient: bool

    def matches(self, stage: Stage, enhanced: str, text: str, first: bool) -> bool:
        return (
            stage in self.stages
            and (self.first is None or self.first is first)
            and (self.enhanced is None or self.enhanced.fullmatch(enhanced) is not None)
            and (self.text is None or self.text.search(text) is not None)
        )


class Replies:
    """`Replies.read` makes one; raises `SettingsError` that names the entry and what is wrong with it."""

    def __init__(self, entries: tuple[Entry, ...]) -> None:
        self._by_code: dict[int, list[Entry]] = {}
        for entry in entries:
            for code in entry.codes:
                self._by_code.setdefault(code, []).append(entry)

    @classmethod
    def read(cls, text: str, name: str = "replies.toml") -> Replies:
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as wrong:
            raise SettingsError(f"{name}: {wrong}") from None
        if set(table) != {"reply"} or not isinstance(table["reply"], list):
            raise SettingsError(f"{name}: a list of [[reply]] and nothing else")
        return cls(tuple(_entry(raw, f"{name}: reply {at}") for at, raw in enumerate(table["reply"], 1)))

    def classify(self, stage: Stage, code: int, text: str, first: bool) -> Verdict:
        """`text` without the code, lines joined by a blank; `first`: the connection's first transaction."""
        text = text[:READ]
        enhanced = enhanced_code(code, text)
        for entry in self._by_code.get(code, ()):
            if entry.matches(stage, enhanced, text, first):
                hint = 0 if entry.action is Action.SENT else hint_ms(text)
                return Verdict(entry.klass, entry.scope, entry.action, enhanced, hint, entry.about_recipient)
        return Verdict("protocol", Scope.SESSION, Action.PARK, enhanced)


def enhanced_code(code: int, text: str) -> str:
    found = ENHANCED.match(text)
    return found[0] if found and found[1] == str(code)[0] else ""


def hint_ms(text: str) -> int:
    """Milliseconds of "try again in 300 seconds", "5 minutes", "00:04:59"; 0 when there is none."""
    if found := AGAIN_AT.search(text):
        ms = (int(found[1]) * 3600 + int(found[2]) * 60 + int(found[3])) * 1000
    elif found := AGAIN_IN.search(text):
        ms = int(found[1]) * UNITS_MS[found[2][0].lower()]
    else:
        return 0
    return min(ms, LONGEST_HINT_MS)


@cache
def default_replies() -> Replies:
    """The table that comes with the package."""
    return Replies.read(files("streamq.smtp").joinpath("replies.toml").read_text("utf-8"))


def _entry(raw: Any, where: str) -> Entry:
    if not isinstance(raw, dict):
        raise SettingsError(f"{where}: not a table: {raw!r}")
    where = f"{where} ({raw.get('class', 'no class')})"
    if wrong := sorted(set(raw) - KEYS):
        raise SettingsError(f"{where}: unknown: {', '.join(wrong)}")
    if missing := sorted(MANDATORY - set(raw)):
        raise SettingsError(f"{where}: missing: {', '.join(missing)}")
    for key in ("class", "source"):
        if not isinstance(raw[key], str) or not raw[key].strip():
            raise SettingsError(f"{where}: {key}: a text, not {raw[key]!r}")
    for key in ("first", "guess"):
        if not isinstance(raw.get(key, True), bool):
            raise SettingsError(f"{where}: {key}: true or false, not {raw[key]!r}")
    action = _one_of(Action, raw["action"], f"{where}: action")
    if action not in VERDICTS:
        raise SettingsError(f"{where}: action: no reply can mean {action.value!r}")
    stages = [_one_of(Stage, stage, f"{where}: stage") for stage in _texts(raw, "stage", where)]
    enhanced = [_dotted(part, where) for part in _texts(raw, "enhanced", where)]
    text = raw.get("text")
    try:
        pattern = re.compile(text, re.IGNORECASE) if text is not None else None
    except (re.error, TypeError) as wrong_text:
        raise SettingsError(f"{where}: text: {wrong_text}: {text!r}") from None
    scope = _one_of(Scope, raw["scope"], f"{where}: scope")
    return Entry(
        klass=raw["class"],
        scope=scope,
        action=action,
        codes=frozenset(code for part in _texts(raw, "code", where) for code in _codes(part, where)),
        enhanced=re.compile("|".join(enhanced)) if enhanced else None,
        text=pattern,
        stages=frozenset(stages or Stage),
        first=raw.get("first"),
        about_recipient=scope is Scope.RECIPIENT and not raw.get("guess", False),
    )


def _texts(raw: dict[str, Any], key: str, where: str) -> list[str]:
    value = raw.get(key, [])
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(part, str) for part in listed):
        raise SettingsError(f"{where}: {key}: a text or a list of texts, not {value!r}")
    if key in raw and not listed:
        raise SettingsError(f"{where}: {key}: empty")
    return listed


def _codes(part: str, where: str) -> list[int]:
    """`550`, `55x`, `5xx`."""
    if not re.fullmatch(r"[2-5](?:\d\d|\dx|xx)", part):
        raise SettingsError(f"{where}: code: three digits like 550, 55x, 5xx, not {part!r}")
    low = int(part.replace("x", "0"))
    return list(range(low, low + 10 ** part.count("x")))


def _dotted(part: str, where: str) -> str:
    """`5.1.1`, `4.7.*`, `*.2.2` as a pattern; "none": the server gave no enhanced code."""
    if part == "none":
        return ""
    if not re.fullmatch(r"[245*]\.(?:\d{1,3}|\*)\.(?:\d{1,3}|\*)", part):
        raise SettingsError(f"{where}: enhanced: like 5.1.1, 4.7.*, *.2.2 or none, not {part!r}")
    return part.replace(".", r"\.").replace("*", r"\d+")


def _one_of(kind: Any, value: object, where: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise SettingsError(f"{where}: one of {', '.join(kind)}, not {value!r}") from None

"""Provider rules from TOML, and every mistake in them with its line.

The form stands at the head of providers.toml. A user's own file is read as strictly, but needs no sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from streamq.errors import SettingsError
from streamq.limits.rules import Cap, Provider, Rules
from streamq.settings.places import Path as KeyPath
from streamq.settings.places import line_of, lines_of
from streamq.settings.values import Names, Windows, cut
from streamq.smtp.reply_entry import Entry, Misfit, read_entry
from streamq.toml import NotToml, read_toml

__all__ = ["Mistake", "check_rules", "load_rules", "own_rules", "read_text"]

TABLE = "providers.toml"
LARGEST = 1_000_000  # bytes of a user's own file
MOST_DOMAINS = 10_000  # of all providers of a file: each is a field of the queue's limits
MISTAKES = 100  # that are told at once
LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
DOMAIN = re.compile(rf"(?=.{{1,253}}$){LABEL}(?:\.{LABEL})*")
HOST = re.compile(rf"(?=.{{1,253}}$)(?:\*\.)?{LABEL}(?:\.{LABEL})*|\[[0-9a-f:.]+\]|[0-9a-f:]*:[0-9a-f:.]+")
LINE = re.compile(r" \(at line (\d+), column \d+\)$")


@dataclass(frozen=True, slots=True)
class Mistake:
    """`line` from 1, 0 where the file as a whole is wrong; `key` and `value` are "" where it is about neither."""

    line: int
    key: str
    what: str
    value: str = ""

    def of(self, file: str) -> str:
        """On one line, for people."""
        value = "" if self.value in self.what else self.value
        parts = (f"{file}:{self.line}" if self.line else file, self.key, self.what, value)
        return ": ".join(part for part in parts if part)


class _Limit(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    rate: Windows | None = None
    connections: int | None = Field(None, ge=1, le=100_000, strict=True)
    mails_per_connection: int | None = Field(None, ge=1, le=1_000_000, strict=True)
    source: str | None = Field(None, pattern=r"\S")
    read: date | None = None

    @model_validator(mode="after")
    def _says_something(self, info: ValidationInfo) -> _Limit:
        if self.rate is None and self.connections is None and self.mails_per_connection is None:
            raise ValueError("limits nothing: give rate, connections or mails_per_connection")
        if self.rate == ():
            raise ValueError("rate: at least one window")
        _is_sourced(self, info)
        return self


class _Provider(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(min_length=1, max_length=200)
    domains: Names = ()
    relays: Names = ()
    source: str | None = Field(None, pattern=r"\S")
    read: date | None = None
    limit: tuple[_Limit, ...] = ()
    reply: tuple[Any, ...] = ()

    @model_validator(mode="after")
    def _is_somebody(self, info: ValidationInfo) -> _Provider:
        if bool(self.domains) == bool(self.relays):
            raise ValueError("domains, or relays: one of the two, and not empty")
        if not self.limit and not self.reply:
            raise ValueError("says nothing: give it a [[provider.limit]] or a [[provider.reply]]")
        _is_sourced(self, info)
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    provider: tuple[_Provider, ...] = ()


def _is_sourced(part: _Limit | _Provider, info: ValidationInfo) -> None:
    if info.context and info.context["sourced"] and (part.source is None or part.read is None):
        raise ValueError("needs source and read: where the public can read it, and when it was read there")


def check_rules(text: str, table: str, *, sourced: bool = False) -> tuple[Rules, list[Mistake]]:
    """The rules of a TOML text, or its mistakes in the order of their lines, at most `MISTAKES`; `table` names the
    text in its entries. `sourced`: each line must have a source and the day when it was read there."""
    try:
        found = read_toml(text)
    except NotToml as wrong:
        said = LINE.search(str(wrong))
        at_end = text.count("\n") + 1 if "(at end of document)" in str(wrong) else 0
        line = int(said[1]) if said else at_end
        return Rules(), [Mistake(line, "", f"not TOML: {LINE.sub('', str(wrong))}")]
    lines = lines_of(text)
    try:
        file = _File.model_validate(found, context={"sourced": sourced})
    except ValidationError as wrong:
        return Rules(), sorted(_mistakes(wrong, lines), key=lambda each: each.line)[:MISTAKES]
    mistakes = [*_names(file, lines)]
    providers = [_provider(one, at, table, lines, sourced, mistakes) for at, one in enumerate(file.provider)]
    return Rules(() if mistakes else providers), sorted(mistakes, key=lambda each: each.line)[:MISTAKES]


def _mistakes(wrong: ValidationError, lines: Mapping[KeyPath, int]) -> Iterator[Mistake]:
    for error in wrong.errors(include_url=False):
        path, value = error["loc"], error["input"]
        named = [part for part in path if isinstance(part, str)]
        match error["type"]:
            case "extra_forbidden":
                what = "no such key"
            case "missing":
                what = "missing"
            case "tuple_type" | "model_type":
                what = f"tables: [[{'.'.join(named)}]]"
            case _:
                what = error["msg"].removeprefix("Value error, ")
        whole = error["type"] == "missing" or isinstance(value, dict | BaseModel)
        yield Mistake(line_of(lines, path), named[-1] if named else "", what, "" if whole else cut(value))


def _names(file: _File, lines: Mapping[KeyPath, int]) -> Iterator[Mistake]:
    """Domains and hosts that are none, or that stand there twice."""
    first: dict[str, int] = {}
    for at, provider in enumerate(file.provider):
        for key, form, what in (
            ("domains", DOMAIN, "a domain in lower case (A-labels, xn--…, where it is not ASCII)"),
            ("relays", HOST, "a host in lower case, or '*.' and a domain"),
        ):
            for number, name in enumerate(getattr(provider, key)):
                line = line_of(lines, ("provider", at, key, number))
                if not form.fullmatch(name):
                    yield Mistake(line, key, what, cut(name))
                elif key == "domains" and name in first:
                    yield Mistake(line, key, f"stands in line {first[name]} already", cut(name))
                first.setdefault(name, line)
    if len(first) > MOST_DOMAINS:
        yield Mistake(0, "domains", f"more than {MOST_DOMAINS:,} names", str(len(first)))


def _provider(
    one: _Provider, at: int, table: str, lines: Mapping[KeyPath, int], sourced: bool, mistakes: list[Mistake]
) -> Provider:
    cap = Cap()
    for number, limit in enumerate(one.limit):
        said = Cap(limit.rate, limit.connections, limit.mails_per_connection)
        for key, mine, theirs in zip(Cap._fields, said, cap, strict=True):
            if mine is not None and theirs is not None:
                line = line_of(lines, ("provider", at, "limit", number, key))
                mistakes.append(Mistake(line, key, f"said of {one.name!r} already"))
        cap = cap.or_else(said)
    entries = []
    for number, raw in enumerate(one.reply):
        entry = _entry(raw, ("provider", at, "reply", number), table, lines, sourced, mistakes)
        if entry is not None:
            entries.append(entry)
    sources = ((limit.source or "", limit.read) for limit in one.limit)
    return Provider(one.name, one.domains, one.relays, cap, tuple(entries), tuple(sources))


def _entry(
    raw: Any, path: KeyPath, table: str, lines: Mapping[KeyPath, int], sourced: bool, mistakes: list[Mistake]
) -> Entry | None:
    """Its number in the table is its line: the only one by which it is found there."""
    line = line_of(lines, path)
    raw = dict(raw) if isinstance(raw, dict) else raw
    read = raw.pop("read", None) if isinstance(raw, dict) else None
    if read is not None and type(read) is not date:
        mistakes.append(Mistake(line_of(lines, (*path, "read")), "read", "a date (2026-11-27)", cut(read)))
    elif sourced and read is None:
        mistakes.append(Mistake(line, "", "needs source and read: where the public can read it, and when it was read"))
    try:
        return read_entry(raw, table, line, sourced=sourced)
    except Misfit as wrong:
        where = (*path, wrong.key) if wrong.key else path
        value = cut(raw[wrong.key]) if isinstance(raw, dict) and wrong.key in raw else ""
        mistakes.append(Mistake(line_of(lines, where), wrong.key, str(wrong).removeprefix(f"{wrong.key}: "), value))
    return None


def read_text(path: str | Path) -> str:
    """The text of a user's own file. Raises `SettingsError` that names the file and what is wrong with it."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(LARGEST + 1)
        text = raw.decode("utf-8")
    except OSError as wrong:
        raise SettingsError(f"{path}: {wrong.strerror}") from None
    except UnicodeDecodeError as wrong:
        raise SettingsError(f"{path}: not UTF-8: {wrong.reason}") from None
    if len(raw) > LARGEST:
        raise SettingsError(f"{path}: rules of more than {LARGEST:,} bytes")
    return text


def load_rules(path: str | Path | None) -> Rules:
    """A user's own file; without a path no rules. Raises `SettingsError`: each mistake with file, line, key, value."""
    if path is None:
        return Rules()
    rules, mistakes = check_rules(read_text(path), str(path))
    if mistakes:
        raise SettingsError("; ".join(each.of(str(path)) for each in mistakes))
    return rules


@cache
def own_rules() -> Rules:
    """Those that come with the package."""
    text = files("streamq.limits").joinpath(TABLE).read_text("utf-8")
    rules, mistakes = check_rules(text, TABLE, sourced=True)
    if mistakes:
        raise SettingsError("; ".join(each.of(TABLE) for each in mistakes))
    return rules

"""Rules from a TOML file. A mistake is named with file, line, entry and value."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from streamq.errors import SHOWN, SettingsError
from streamq.sink.checks import EntryWrong, is_number
from streamq.sink.rules import Rule, Rules

__all__ = ["load_rules"]


def load_rules(path: str | Path) -> Rules:
    """Read a rules file. Raises `SettingsError` that names line, entry and value."""
    try:
        text = Path(path).read_text("utf-8")
        given = tomllib.loads(text)
    except OSError as wrong:
        raise SettingsError(f"{path}: {wrong.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as wrong:
        raise SettingsError(f"{path}: {wrong}") from None
    except RecursionError:
        raise SettingsError(f"{path}: nested too deep") from None
    for name in given.keys() - {"rule", "seed"}:
        raise SettingsError(
            f"{path}{_line(text, name)}: {name}: no such entry (there are rule and seed) "
            f"(got {str(given[name])[:SHOWN]!r})"
        )
    seed, listed = given.get("seed", 0), given.get("rule", [])
    if not is_number(seed, -(2**63), 2**63):
        raise SettingsError(f"{path}{_line(text, 'seed')}: seed: not a whole number (got {seed!r})")
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise SettingsError(f"{path}{_line(text, 'rule')}: rule: write [[rule]] above each rule")
    return Rules(tuple(_rule(path, text, listed, number) for number in range(len(listed))), seed)


def _rule(path: str | Path, text: str, listed: list[dict[str, Any]], number: int) -> Rule:
    entries = listed[number]
    names = [field.name for field in fields(Rule)]
    try:
        for name in entries:
            if name not in names:
                raise EntryWrong(name, entries[name], f"no such entry (there are {', '.join(names)})")
        return Rule(**entries)
    except EntryWrong as wrong:
        line = _line_in_rule(text, number, len(listed), wrong.entry)
        raise SettingsError(f"{path}{line}, rule {number + 1}: {wrong}") from None


def _line(text: str, name: str) -> str:
    """`, line N` of a top-level entry, or nothing where it cannot be told (tomllib keeps no lines)."""
    found = re.search(rf"^[ \t]*\[*[ \t]*[\"']?{re.escape(name)}\b", text, re.MULTILINE)
    return f", line {text.count(chr(10), 0, found.start()) + 1}" if found else ""


def _line_in_rule(text: str, number: int, total: int, entry: str) -> str:
    heads = [head.start() for head in re.finditer(r"^[ \t]*\[\[[ \t]*rule[ \t]*\]\]", text, re.MULTILINE)]
    if len(heads) != total:  # written in another way, or the words stand in a string: no line is better
        return ""
    end = heads[number + 1] if number + 1 < total else len(text)
    found = re.compile(rf"^[ \t]*[\"']?{re.escape(entry)}[\"']?[ \t]*=", re.MULTILINE).search(text, heads[number], end)
    at = found.start() if found else heads[number]
    return f", line {text.count(chr(10), 0, at) + 1}"

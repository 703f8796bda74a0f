"""What a script of lua/ says and what it does, as far as its text shows it: for tests that hold both together."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from streamq.queue.script import LUA, VERBS

__all__ = ["LIBS", "LuaText", "known_keys", "library", "verb_text"]

LIBS = tuple(sorted(file.name[:-4] for file in (LUA / "lib").iterdir() if file.name.endswith(".lua")))
KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        "and break do else elseif end false for function if in local nil not or repeat return then true until while",
    )
)
BUILTINS = frozenset(("ipairs", "pairs", "tonumber", "tostring", "type", "next", "unpack", "error", "pcall"))


def code(text: str) -> str:
    """Without comments and texts; lines stay."""
    lines = []
    for line in text.splitlines():
        bare = re.sub(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"", "''", line)
        lines.append(re.sub(r"--.*", "", bare))
    return "\n".join(lines)


@dataclass(slots=True)
class LuaText:
    """One file. `chunks`: top-level functions; `always`: what runs whenever the file is loaded."""

    name: str
    text: str
    code: str = field(init=False)
    chunks: dict[str, str] = field(default_factory=dict)
    always: str = ""

    def __post_init__(self) -> None:
        self.code = code(self.text)
        always: list[str] = []
        lines = iter(self.code.splitlines())
        for line in lines:
            found = re.match(r"(?:local )?function (\w+)\(", line)
            if not found:
                always.append(line)
                continue
            body = [line]
            if not re.search(r"\bend\s*$", line):
                for line in lines:
                    body.append(line)
                    if line.startswith("end"):
                        break
            self.chunks[found[1]] = "\n".join(body)
        self.always = "\n".join(always)

    def labelled(self, label: str) -> list[str] | None:
        """The words behind a label of the header, those on lines that go on with three blanks included."""
        found = re.search(rf"^-- {label}:(.*(?:\n--   [\w ]+$)*)", self.text, re.M)
        return None if found is None else found[1].replace("--", " ").split()

    def said(self, label: str) -> str | None:
        """Everything behind a label up to the next one."""
        found = re.search(rf"^-- {label}:(.*?)(?=^-- [A-Z]+:|^[^-]|^$)", self.text, re.M | re.S)
        return None if found is None else found[1].strip()

    @property
    def header(self) -> str:
        return self.text[: self.text.index("\n\n")]

    @property
    def names(self) -> set[str]:
        """What its top level defines for whoever needs it."""
        names = set(self.chunks)
        for line in self.always.splitlines():
            found = re.match(r"local (?!function)([\w, ]+?)\s*(=|$)", line)
            if found:
                names |= {name.strip() for name in found[1].split(",")}
        return names


def words(text: str) -> set[str]:
    """Identifiers that are neither members (`.name`, `:name`) nor names of a table's fields (`name =` in braces)."""
    return set(re.findall(r"(?<![\w.:])[A-Za-z_]\w*", text)) - KEYWORDS


def calls(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w.:])([A-Za-z_]\w*)\(", text)) - KEYWORDS - BUILTINS


def library(name: str) -> LuaText:
    return LuaText(name, (LUA / "lib" / f"{name}.lua").read_text("utf-8"))


def verb_text(verb: str) -> LuaText:
    assert verb in VERBS
    return LuaText(verb, (LUA / f"{verb}.lua").read_text("utf-8"))


def known_keys(verb: LuaText) -> set[str]:
    """The keys that a script can touch: its own, those of the functions that it reaches, and those of the
    statements that run whenever a part is loaded."""
    parts = [library(name) for name in verb.labelled("needs") or ()]
    chunks = {name: text for part in parts for name, text in part.chunks.items()}
    pending = [verb.code, *(part.always for part in parts)]
    reached: set[str] = set()
    keys: set[str] = set()
    while pending:
        text = pending.pop()
        keys |= set(re.findall(r"\bK\.(\w+)", text))
        for name in words(text) & set(chunks) - reached:
            reached.add(name)
            pending.append(chunks[name])
    return keys

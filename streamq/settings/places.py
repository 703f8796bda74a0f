"""Where in a TOML text a key stands: tomllib tells values without lines, and a mistake is found by its line.

The text has been read by tomllib, so it is well formed; this only walks over it and notes the line of every table,
key and element. (tomlkit lost: it keeps the text, and gives no positions. A parser of our own for the values, too: then
two would have to agree on what TOML is.)
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Mapping, Sequence

__all__ = ["Path", "line_of", "lines_of"]

Path = tuple[str | int, ...]

BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
BARE = re.compile(r"[A-Za-z0-9_-]+")
# What a value may be, but for arrays and inline tables; the last is a number, a date, a word.
TEXT = re.compile(
    r'"""(?:\\.|[^\\])*?"""+|'
    r"'''.*?'''+|"
    r'"(?:\\.|[^"\\\n])*"|'
    r"'[^'\n]*'|"
    r"[^\s,\]}#][^,\]}#\n]*",
    re.DOTALL,
)


def line_of(lines: Mapping[Path, int], path: Sequence[str | int]) -> int:
    """The line (from 1) of what stands at that path, or of the nearest thing around it; 0: of nothing."""
    for many in range(len(path), 0, -1):
        found = lines.get(tuple(path[:many]))
        if found:
            return found
    return 0


def lines_of(text: str) -> dict[Path, int]:
    """Path (names of keys, numbers of elements from 0) → line, from 1. Where the text is no TOML: up to there."""
    walk = _Walk(text)
    with contextlib.suppress(_Strange, RecursionError):
        walk.document()
    return walk.lines


class _Strange(Exception):
    """Nothing that this walk knows."""


class _Walk:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._line, self._counted = 1, 0
        self._many: dict[Path, int] = {}  # arrays of tables → how many

    def document(self) -> None:
        table: Path = ()
        while self._blank():
            if self.text.startswith("[", self.at):
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        line, several = self._here(), self.text.startswith("[[", self.at)
        self.at += 2 if several else 1
        names = self._key()
        self._take("]]" if several else "]")
        path = self._resolved(names[:-1]) + names[-1:]
        if several:
            self._note(path, line)
            self._many[path] = self._many.get(path, 0) + 1
        path = self._resolved(names)
        self._note(path, line)  # of an array of tables: the table itself
        return path

    def _resolved(self, names: Path) -> Path:
        """A table inside an array of tables is in its last one."""
        path: Path = ()
        for name in names:
            path += (name,)
            self._note(path, self._here())
            if path in self._many:
                path += (self._many[path] - 1,)
        return path

    def _pair(self, table: Path) -> None:
        line = self._here()
        names = self._key()
        self._take("=")
        path = table
        for name in names:
            path += (name,)
            self._note(path, line)
        self._value(path)

    def _key(self) -> Path:
        names: list[str | int] = []
        while True:
            self._blank()
            found = BARE.match(self.text, self.at) or TEXT.match(self.text, self.at)
            if not found:
                raise _Strange
            self.at = found.end()
            plain = found[0]
            names.append(plain if BARE.fullmatch(plain) else _unquoted(plain))
            self._blank()
            if not self.text.startswith(".", self.at):
                return tuple(names)
            self.at += 1

    def _value(self, path: Path) -> None:
        self._blank()
        if self.text.startswith("[", self.at):
            self._array(path)
        elif self.text.startswith("{", self.at):
            self._inline(path)
        else:
            found = TEXT.match(self.text, self.at)
            if not found:
                raise _Strange
            self.at = found.end()

    def _array(self, path: Path) -> None:
        self.at += 1
        number = 0
        while self._blank() and not self.text.startswith("]", self.at):
            self._note((*path, number), self._here())
            self._value((*path, number))
            number += 1
            self._comma("]")
        self._take("]")

    def _inline(self, path: Path) -> None:
        self.at += 1
        while self._blank() and not self.text.startswith("}", self.at):
            self._pair(path)
            self._comma("}")
        self._take("}")

    def _comma(self, end: str) -> None:
        self._blank()
        if self.text.startswith(",", self.at):
            self.at += 1
        elif not self.text.startswith(end, self.at):
            raise _Strange

    def _take(self, word: str) -> None:
        self._blank()
        if not self.text.startswith(word, self.at):
            raise _Strange
        self.at += len(word)

    def _blank(self) -> bool:
        """Steps over blanks and comments; False at the end."""
        found = BLANK.match(self.text, self.at)
        assert found is not None
        self.at = found.end()
        return self.at < len(self.text)

    def _here(self) -> int:
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def _note(self, path: Path, line: int) -> None:
        self.lines.setdefault(path, line)


def _unquoted(plain: str) -> str:
    try:
        return str(tomllib.loads(f"key = {plain}")["key"])
    except tomllib.TOMLDecodeError:
        raise _Strange from None

"""The linker of the Lua scripts: of the parts that a script needs only what it can reach goes along.

A script's top level runs anew at every call, and to make a function costs the server as much as to call one: of the
120 functions of all parts together most scripts reach half. And numbers that have a name at a part's top level stand
where they are used: Lua 5.1 has room for 200 names in a function, and a whole script is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["link"]

# On one line, or up to an `end` that stands at its beginning.
FUNCTION = re.compile(r"^local function (\w+)\((?:[^\n]*\bend(?: --[^\n]*)?$|.*?^end$)", re.M | re.S)
NUMBERS = re.compile(
    r"^local ([A-Z][A-Z_]*(?:, [A-Z][A-Z_]*)*) = (\d+(?:\.\d+)?(?:, \d+(?:\.\d+)?)*)(?: --.*)?\n", re.M
)
WORD = re.compile(r"[A-Za-z_]\w*")


def _words(text: str) -> set[str]:
    """Names that it mentions; comments mention nothing."""
    return set(WORD.findall(re.sub(r"--.*", "", text)))


def _inlined(parts: list[str], body: str) -> tuple[list[str], str]:
    numbers: dict[str, str] = {}
    for part in parts:
        for found in NUMBERS.finditer(part):
            numbers.update(zip(found[1].split(", "), found[2].split(", "), strict=True))
    if not numbers:
        return parts, body
    name = re.compile(rf"(?<![\w.'\"])(?:{'|'.join(numbers)})(?![\w'\"])")

    def filled(text: str) -> str:
        return name.sub(lambda found: numbers[found[0]], NUMBERS.sub("", text))

    return [filled(part) for part in parts], name.sub(lambda found: numbers[found[0]], body)


def link(parts: Iterable[str], body: str) -> str:
    """`body` behind `parts` (texts, each standing on those before it), without the top-level functions of the parts
    that nothing of what stays mentions. Whatever else runs when a part is loaded stays."""
    parts, body = _inlined(list(parts), body)
    functions = {found[1]: found[0] for part in parts for found in FUNCTION.finditer(part)}
    pending = [body, *(FUNCTION.sub("", part) for part in parts)]
    kept: set[str] = set()
    while pending:
        reached = _words(pending.pop()) & functions.keys() - kept
        kept |= reached
        pending.extend(functions[name] for name in reached)
    return "\n".join(
        [*(FUNCTION.sub(lambda found: found[0] if found[1] in kept else "", part) for part in parts), body]
    )

"""The linker of the Lua scripts: of the parts that a script needs only what it can reach goes along.

A script's top level runs anew at every call, and to make a function costs the server as much as to call one: of the
functions of all parts together most scripts reach half. A function of Lua 5.1 has 200 local variables at the most,
and a script's top level is one: constants are none, they are written where they are used; and what only its own part
mentions is local to a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

__all__ = ["link"]

# On one line, or up to an `end` that stands at its beginning.
FUNCTION = re.compile(r"^local function (\w+)\((?:[^\n]*\bend(?: --[^\n]*)?$|.*?^end$)", re.M | re.S)
WORD = re.compile(r"[A-Za-z_]\w*")
LITERAL = r"(?:\d+(?:\.\d+)?|'[^'\\\n]*')"
NAME = r"[A-Z][A-Z_]*"
# Of one line, at the top; `local FIRST, MOST = 1, 60 -- µs`
CONSTANTS = re.compile(rf"^local ({NAME}(?:, {NAME})*) = ({LITERAL}(?:, {LITERAL})*) *(?:--[^\n]*)?\n", re.M)
LOCAL = re.compile(r"^local (?:function (\w+)\(|(\w+(?:, \w+)*)( =|(?= *(?:--|$))))", re.M)  # at the top
BETWEEN = "\n-- part --\n"
OPENS, CLOSES = "do -- a part", "end -- of a part"
OTHERS = r"'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"|--[^\n]*"  # texts and comments, in which a name is none


@lru_cache(2048)  # each part is linked into many scripts, before a worker's first mail
def _words(text: str) -> frozenset[str]:
    """Names that it mentions; comments mention nothing."""
    return frozenset(WORD.findall(re.sub(r"--.*", "", text)))


def link(parts: Iterable[str], body: str) -> str:
    """`body` behind `parts` (texts, each standing on those before it), without the top-level functions of the parts
    that nothing of what stays mentions. Whatever else runs when a part is loaded stays."""
    parts = list(parts)
    functions = {found[1]: found[0] for part in parts for found in FUNCTION.finditer(part)}
    pending = [body, *(FUNCTION.sub("", part) for part in parts)]
    kept: set[str] = set()
    while pending:
        reached = _words(pending.pop()) & functions.keys() - kept
        kept |= reached
        pending.extend(functions[name] for name in reached)
    texts = [FUNCTION.sub(lambda found: found[0] if found[1] in kept else "", part) for part in parts]
    *texts, body = inlined(BETWEEN.join([*texts, body])).split(BETWEEN)  # constants are everybody's
    return "\n".join([*(_block(text, [*texts[at + 1 :], body]) for at, text in enumerate(texts)), body])


def _block(text: str, others: Iterable[str]) -> str:
    """A part as a block: what those behind it mention is declared before it, the rest is gone after it."""
    behind = set[str]().union(*map(_words, others))
    declared = [found[1] or found[2] for found in LOCAL.finditer(text)]
    shared = [names for names in declared if behind & set(names.split(", "))]
    if len(shared) == len(declared):
        return text

    def undeclared(found: re.Match[str]) -> str:
        if (found[1] or found[2]) not in shared:
            return found[0]
        if found[1]:
            return f"function {found[1]}("
        return found[2] + found[3] if found[3] else ""

    head = f"local {', '.join(shared)}\n" if shared else ""
    return f"{head}{OPENS}\n{LOCAL.sub(undeclared, text)}\n{CLOSES}\n"


def inlined(text: str) -> str:
    """Numbers and texts that have a name in capitals, one line at the top level, stand where the name did. Raises
    ValueError where two parts call different ones the same: one would stand for both."""
    constants: dict[str, str] = {}
    for names, values in CONSTANTS.findall(text):
        literals = [f"({value})" if value[0] == "'" else value for value in re.findall(LITERAL, values)]
        for name, literal in zip(names.split(", "), literals, strict=True):
            if constants.setdefault(name, literal) != literal:
                raise ValueError(f"constant {name} is {constants[name]} and {literal}")
    if not constants:
        return text
    token = rf"{OTHERS}|\b(?:{'|'.join(constants)})\b"
    return re.sub(token, lambda found: constants.get(found[0], found[0]), CONSTANTS.sub("", text))

"""The loader of the Lua scripts: `lua/<verb>.lua` with the parts of `lua/lib/` that its header needs.

A header is the contract: `ARGV:` names the head of the arguments, `EACH:` the fields of a row; rows follow
the head. The loader counts both, so a stub that passes too few or too many fails before Redis is asked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from streamq.keys import lua_names
from streamq.queue.connection import command, pipelined
from streamq.queue.link import link

__all__ = ["VERBS", "Caller", "Script", "load"]

Arg = str | bytes | int
LOADS = 10  # of a script that the server keeps losing
LUA = files("streamq.queue") / "lua"
VERBS = tuple(sorted(file.name[:-4] for file in LUA.iterdir() if file.name.endswith(".lua")))


@dataclass(frozen=True, slots=True)
class Script:
    """One verb: its arguments by name, its whole text and that text's SHA-1."""

    verb: str
    head: tuple[str, ...]
    row: tuple[str, ...]
    source: str
    sha: str

    def arguments(self, head: Sequence[Arg], rows: Iterable[Sequence[Arg]]) -> list[Arg]:
        if len(head) != len(self.head):
            raise TypeError(f"{self.verb}: takes {' '.join(self.head)}, got {len(head)} arguments")
        flat = list(head)
        for row in rows:
            if len(row) != len(self.row):
                raise TypeError(f"{self.verb}: a row is {' '.join(self.row)}, got {len(row)} fields")
            flat.extend(row)
        return flat


def _named(text: str, label: str) -> tuple[str, ...]:
    found = re.search(rf"^-- {label}:(.*)$", text, re.M)
    return tuple(found[1].split()) if found and found[1].split() != ["none"] else ()


@cache
def load(verb: str) -> Script:
    body = (LUA / f"{verb}.lua").read_text("utf-8")
    head, row = _named(body, "ARGV"), _named(body, "EACH")
    parts = [(LUA / "lib" / f"{name}.lua").read_text("utf-8") for name in _named(body, "needs")]
    text = link(parts, body)
    names = lua_names(set(re.findall(r"\bK\.(\w+)", text)))
    source = f"{names}local HEAD, EACH = {len(head)}, {len(row)}\n{text}"
    return Script(verb, head, row, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class Caller:
    """Calls scripts on one queue. A server that lost its scripts is given them again; a queue that lost its
    groups is opened again (`reopen`); in both cases exactly the call that failed is repeated."""

    __slots__ = ("_redis", "calls", "prefix", "reopen")

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self.prefix = prefix
        self.reopen: Callable[[], Awaitable[None]] | None = None
        self.calls: dict[str, int] = {}

    def script(self, verb: str) -> Script:
        """What is called by that name."""
        return load(verb)

    async def call(self, verb: str, head: Sequence[Arg] = (), rows: Iterable[Sequence[Arg]] = ()) -> Any:
        script = self.script(verb)
        evalsha = ("EVALSHA", script.sha, 1, self.prefix, *script.arguments(head, rows))
        self.calls[verb] = self.calls.get(verb, 0) + 1
        try:
            return await self._evalsha(script, evalsha)
        except ResponseError as error:
            if not _no_group(error) or self.reopen is None:
                raise
        await self.reopen()
        return await self._evalsha(script, evalsha)

    async def _evalsha(self, script: Script, evalsha: tuple[Arg, ...]) -> Any:
        try:
            return await command(self._redis, *evalsha)
        except NoScriptError:  # EVAL brings it along: between a LOAD and a second try it could be lost again
            return await command(self._redis, "EVAL", script.source, *evalsha[2:])

    async def pipeline(self, verb: str, calls: Sequence[tuple[Sequence[Arg], Iterable[Sequence[Arg]]]]) -> list[Any]:
        """Several calls of one verb whose order does not matter, in one round trip. Those that a server
        without the script or the group refused, and only those, are repeated."""
        script = self.script(verb)
        commands = [("EVALSHA", script.sha, 1, self.prefix, *script.arguments(head, rows)) for head, rows in calls]
        self.calls[verb] = self.calls.get(verb, 0) + len(commands)
        replies = await pipelined(self._redis, commands, raising=False)
        for _ in range(LOADS):
            again = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if not again:
                break
            await command(self._redis, "SCRIPT LOAD", script.source)
            await self._repeat(commands, replies, again)
        again = [at for at, reply in enumerate(replies) if _no_group(reply)]
        if again and self.reopen is not None:
            await self.reopen()
            await self._repeat(commands, replies, again)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def _repeat(self, commands: Sequence[tuple[Arg, ...]], replies: list[Any], again: Sequence[int]) -> None:
        found = await pipelined(self._redis, [commands[at] for at in again], raising=False)
        for at, reply in zip(again, found, strict=True):
            replies[at] = reply


def _no_group(reply: object) -> bool:
    return isinstance(reply, ResponseError) and "NOGROUP" in str(reply)

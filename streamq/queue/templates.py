"""Stored templates: put, removed, and known to whoever builds mails of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson
from redis.asyncio import Redis

from streamq.keys import Keys
from streamq.mail.template import Template, split_name
from streamq.queue.connection import command
from streamq.queue.scripts import Scripts

__all__ = ["Stored", "Templates"]

KEPT_NAMES = 1000
KEPT_BYTES = 32_000_000  # of sources, of all versions; what is compiled of them is some times that


@dataclass(frozen=True, slots=True)
class Stored:
    """One version: when it was put, in ms, and what it holds."""

    version: int
    at_ms: int
    template: Template


class Templates:
    """Of one queue. `know` looks whether there are newer versions; `find` decides by the mail's time, so that every
    worker, at every attempt, builds the same bytes."""

    def __init__(self, redis: Redis, keys: Keys, scripts: Scripts) -> None:
        self.redis = redis
        self.keys = keys
        self.scripts = scripts
        self._newest: dict[str, int] = {}
        self._versions: OrderedDict[str, list[Stored]] = OrderedDict()  # the last used one last
        self._bytes: dict[str, int] = {}

    async def know(self, entries: Iterable[Mapping[bytes, bytes]]) -> None:
        """Be ready for these mails; nothing is asked where none has a template."""
        names = {split_name(fields[b"template"])[0] for fields in entries if fields.get(b"template")}
        if not names:
            return
        listed = sorted(names)
        found = await command(self.redis, "HMGET", self.keys.templates, *listed)
        newest = {name: int(number or 0) for name, number in zip(listed, found, strict=True)}
        changed = [name for name in listed if newest[name] != self._newest.get(name, 0)]
        for name in changed:  # one by one: each may be a hundred versions
            flat = await command(self.redis, "HGETALL", self.keys.template(name))
            self._versions[name] = sorted(map(_stored, flat[::2], flat[1::2]), key=lambda each: each.version)
            self._newest[name], self._bytes[name] = newest[name], sum(map(len, flat))
        for name in names & self._versions.keys():
            self._versions.move_to_end(name)
        self._forget_down_to(len(names))

    def _forget_down_to(self, used: int) -> None:
        """The least used, as long as all are too many; those that are `used` now stay."""
        size = sum(self._bytes.values())
        while len(self._versions) > used and (size > KEPT_BYTES or len(self._versions) > KEPT_NAMES):
            name, _ = self._versions.popitem(last=False)
            del self._newest[name]
            size -= self._bytes.pop(name)

    def find(self, asked: bytes, at_ms: int) -> Template | None:
        """`name@3` as it is; of `name` the version that was the newest at that time, or, before all, the first."""
        name, version = split_name(asked)
        found = self._versions.get(name, [])
        if version is not None:
            return next((each.template for each in found if each.version == version), None)
        known = [each for each in found if each.at_ms <= at_ms] or found[:1]
        return known[-1].template if known else None

    async def names(self) -> dict[str, int]:
        """Name → newest version."""
        flat = await command(self.redis, "HGETALL", self.keys.templates)
        found = {name.decode(): int(number) for name, number in zip(flat[::2], flat[1::2], strict=True)}
        return {name: number for name, number in sorted(found.items()) if number > 0}

    async def versions(self, name: str) -> list[Stored]:
        """Oldest first; empty where there is none of that name."""
        flat = await command(self.redis, "HGETALL", self.keys.template(name))
        return sorted(map(_stored, flat[::2], flat[1::2]), key=lambda each: each.version)

    async def put(self, name: str, template: Template) -> int:
        """Its version: a new one where it differs from the newest."""
        parts = {part: text for part, text in template.parts.items() if text}
        return await self.scripts.template("put", name, orjson.dumps(parts))

    async def remove(self, name: str) -> int:
        """How many versions went; mails that name it are held from here on."""
        return await self.scripts.template("rm", name)


def _stored(number: bytes, value: bytes) -> Stored:
    at_ms, _, content = value.partition(b" ")
    return Stored(int(number), int(at_ms), Template(orjson.loads(content)))

"""What the children of an expanded mail share: fetched once, kept while it is of use, and put there.

A body stands under `body:<entry>`: its fields by name behind `=`, which weigh `bytes`; `left`, `made` and `all` count
children, `ids:<k>` are theirs (lib/child.lua); `personal` is there where each has a message of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from redis.asyncio import Redis

from streamq.keys import Keys
from streamq.mail.several import Shared, kin, kinship, read_chunks
from streamq.queue.connection import pipelined

__all__ = ["Bodies"]

KEPT_BYTES = 64_000_000
FETCHED_BYTES = 8_000_000  # of one round trip: a hundred bodies of 25 MB would be one reply of 2.5 GB
UPLOAD_MS = 86_400_000  # what nobody expanded goes away by itself
IDS = b"ids:"

Named = tuple[str, Mapping[bytes, bytes]]  # an entry and its fields


class Bodies:
    """The bodies that one process has seen of late."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.redis = redis
        self.keys = keys
        self.bytes = 0
        self._kept: OrderedDict[str, Shared] = OrderedDict()

    async def weights(self, entries: Iterable[Named]) -> dict[str, int]:
        """By parent, how many bytes these children share; 0 where it is gone. One small round trip, or none."""
        parents = {found[0] for _, fields in entries if (found := kinship(fields)) is not None}
        known = {parent: self._kept[parent].size for parent in parents if parent in self._kept}
        missing = sorted(parents - known.keys())
        replies = await pipelined(self.redis, [("HGET", self.keys.body(parent), "bytes") for parent in missing])
        return known | {parent: int(size or 0) for parent, size in zip(missing, replies, strict=True)}

    async def of(
        self, entries: Sequence[Named], weights: Mapping[str, int] | None = None
    ) -> dict[str, tuple[Shared, int]]:
        """Of each entry that is a child: what it shares, and which of the children it is. None where that is gone, or
        where the entry says that it is one and is not. `weights`: where they are known already."""
        said = {entry: found for entry, fields in entries if (found := kinship(fields)) is not None}
        weights = await self.weights(entries) if weights is None else weights
        bodies = await self._fetched({parent for parent, _ in said.values()}, weights)
        await self._learn({(parent, kin(nth)) for entry, (parent, nth) in said.items()
                           if parent in bodies and not bodies[parent].has(entry, nth)}, bodies)  # fmt: skip
        return {
            entry: (bodies[parent], nth)
            for entry, (parent, nth) in said.items()
            if parent in bodies and bodies[parent].has(entry, nth)
        }

    async def upload(self, name: str, fields: Mapping[bytes, bytes], personal: bool) -> None:
        """Outside of any script, since it may be large; `expand` gives it its name."""
        flat: list[bytes] = [b"bytes", b"%d" % _size(fields)]
        for field, value in fields.items():
            flat += (b"=" + field, value)
        if personal:
            flat += (b"personal", b"1")
        key = self.keys.body(name)
        await pipelined(self.redis, [("HSET", key, *flat), ("PEXPIRE", key, UPLOAD_MS)], atomic=True)

    def forget(self) -> None:
        """Another server answers: what it lost may be made once more, under other ids."""
        self._kept.clear()
        self.bytes = 0

    async def _fetched(self, parents: set[str], weights: Mapping[str, int]) -> dict[str, Shared]:
        found = {parent: self._kept[parent] for parent in parents if parent in self._kept}
        for parent in found:
            self._kept.move_to_end(parent)
        for part in _parts(sorted(parents - found.keys()), weights):
            replies = await pipelined(self.redis, [("HGETALL", self.keys.body(parent)) for parent in part])
            for parent, flat in zip(part, replies, strict=True):
                shared = _shared(parent, dict(zip(flat[::2], flat[1::2], strict=True)))
                if shared is not None:
                    found[parent] = self._keep(shared)
        return found

    async def _learn(self, asked: set[tuple[str, int]], bodies: Mapping[str, Shared]) -> None:
        """Chunks that were made since a body came here."""
        listed = sorted(asked)
        replies = await pipelined(
            self.redis, [("HGET", self.keys.body(parent), f"ids:{number}") for parent, number in listed]
        )
        for (parent, number), value in zip(listed, replies, strict=True):
            bodies[parent].chunks[number] = read_chunks(value or b"")

    def _keep(self, shared: Shared) -> Shared:
        before = self._kept.pop(shared.parent, None)  # two may have fetched it at once
        self._kept[shared.parent] = shared
        self.bytes += shared.size - (before.size if before is not None else 0)
        while self.bytes > KEPT_BYTES and len(self._kept) > 1:
            self.bytes -= self._kept.popitem(last=False)[1].size
        return shared


def _shared(parent: str, body: Mapping[bytes, bytes]) -> Shared | None:
    """None where there is none."""
    fields = {name[1:]: value for name, value in body.items() if name.startswith(b"=")}
    if not fields:
        return None
    chunks = {int(name[len(IDS) :]): read_chunks(value) for name, value in body.items() if name.startswith(IDS)}
    return Shared(parent, fields, b"personal" in body, chunks, _size(fields))


def _size(fields: Mapping[bytes, bytes]) -> int:
    return sum(len(name) + len(value) for name, value in fields.items())


def _parts(parents: Iterable[str], weights: Mapping[str, int]) -> Iterator[list[str]]:
    part: list[str] = []
    size = 0
    for parent in parents:
        size += weights.get(parent, 0)
        if part and size > FETCHED_BYTES:
            yield part
            part, size = [], weights.get(parent, 0)
        part.append(parent)
    if part:
        yield part

"""What the children of an expanded mail share: fetched once, kept while it is of use, and put there.

A body stands under `body:<entry>`: its fields by name behind `=`; `left`, `made` and `all` count children; `personal`
is there where each has a message of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from redis.asyncio import Redis

from streamq.keys import Keys
from streamq.mail.several import OF, Shared
from streamq.queue.connection import pipelined

__all__ = ["Bodies"]

KEPT_BYTES = 64_000_000
UPLOAD_MS = 86_400_000  # what nobody expanded goes away by itself


class Bodies:
    """The bodies that one process has seen of late."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.redis = redis
        self.keys = keys
        self.bytes = 0
        self._kept: OrderedDict[str, Shared] = OrderedDict()

    async def of(self, entries: Iterable[Mapping[bytes, bytes]]) -> dict[str, Shared]:
        """By parent, what these children share; none where it is gone. One round trip for all that are not here."""
        parents = {fields[OF].decode("utf-8", "replace") for fields in entries if OF in fields}
        found = {parent: self._kept[parent] for parent in parents if parent in self._kept}
        for parent in found:
            self._kept.move_to_end(parent)
        missing = sorted(parents - found.keys())
        replies = await pipelined(self.redis, [("HGETALL", self.keys.body(parent)) for parent in missing])
        for parent, flat in zip(missing, replies, strict=True):
            body = dict(zip(flat[::2], flat[1::2], strict=True))
            fields = {name[1:]: value for name, value in body.items() if name.startswith(b"=")}
            if fields:
                found[parent] = self._keep(Shared(parent, fields, b"personal" in body))
        return found

    async def upload(self, name: str, fields: Mapping[bytes, bytes], personal: bool) -> None:
        """Outside of any script, since it may be large; `expand` gives it its name."""
        flat: list[bytes] = []
        for field, value in fields.items():
            flat += (b"=" + field, value)
        if personal:
            flat += (b"personal", b"1")
        key = self.keys.body(name)
        await pipelined(self.redis, [("HSET", key, *flat), ("PEXPIRE", key, UPLOAD_MS)], atomic=True)

    def _keep(self, shared: Shared) -> Shared:
        self._kept[shared.parent] = shared
        self.bytes += _size(shared)
        while self.bytes > KEPT_BYTES and len(self._kept) > 1:
            self.bytes -= _size(self._kept.popitem(last=False)[1])
        return shared


def _size(shared: Shared) -> int:
    return sum(len(name) + len(value) for name, value in shared.fields.items())

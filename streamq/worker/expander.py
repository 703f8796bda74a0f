"""The expander: a mail of several recipients becomes one mail each, a chunk a call, the most urgent mail first.

What is left of a mail when its worker dies, or hands it back, is made by the next one from where this one came to.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from redis.exceptions import ResponseError

from streamq.mail.mail import Several
from streamq.mail.several import Child
from streamq.queue.rows import ChildRow, Expanded
from streamq.queue.spool import Spool
from streamq.worker.hand import Hand
from streamq.worker.link import Link, is_full

__all__ = ["Expander", "Expansion", "chunk"]

CHUNK = 500  # children of a call: some milliseconds of the server's time
CHUNK_BYTES = 250_000
log = logging.getLogger("streamq.expander")


@dataclass(slots=True, kw_only=True, eq=False)
class Expansion:
    """A lease of a mail that becomes several. `id` and `event` as its events say them."""

    entry: str
    token: int
    id: str
    event: bytes
    several: Several
    lost: bool = False
    uploads: Iterator[int] = field(default_factory=itertools.count)

    @property
    def weight(self) -> int:
        return self.several.weight


class Expander:
    """Takes leases from admission."""

    def __init__(self, spool: Spool, link: Link, hand: Hand, consumer: str) -> None:
        self.spool = spool
        self.link = link
        self.hand = hand
        self.consumer = consumer
        self.expanded = 0
        self._queue: asyncio.PriorityQueue[tuple[str, int, Expansion]] = asyncio.PriorityQueue()
        self._turn = itertools.count()
        self._stopping = False

    def put(self, expansion: Expansion) -> None:
        self.hand.add(expansion)
        self._queue.put_nowait((expansion.entry[0], next(self._turn), expansion))

    async def run(self) -> None:
        while True:
            _, _, expansion = await self._queue.get()
            await self._expand(expansion)
            self.hand.drop_lease(expansion.entry, expansion.token)
            self._queue.task_done()

    def stop(self) -> None:
        """What is left goes to the next worker; `run` goes on until that is said."""
        self._stopping = True

    async def flushed(self) -> None:
        await self._queue.join()

    async def _expand(self, expansion: Expansion) -> None:
        several = expansion.several
        made, upload, full = 0, "", False
        while not expansion.lost:
            verb = "back" if self._stopping else "later" if full else "more"
            found = await self._call(expansion, several, made, upload, verb)
            if found is None:
                # Not in hand: a hand full of such mails would deliver nothing, and nothing would free the memory.
                log.warning("%s waits to be expanded: the memory of redis is full", expansion.entry)
                full = True
            elif found.status == "upload":
                # A name of its own: a worker that stood still must not write over what its successor put there.
                upload = f"{expansion.entry}.{expansion.token}.{next(expansion.uploads)}"
            elif verb != "more" or found.status not in {"ok", "resume"}:
                self.expanded += found.status == "done"
                return
            else:
                made, upload = found.made, ""

    async def _call(self, expansion: Expansion, several: Several, made: int, upload: str, verb: str) -> Expanded | None:
        """One chunk; None where memory is full. That is not the link's business: all others go on, and free some."""
        rows = list(chunk(several.children, made)) if verb == "more" else []

        async def call() -> Expanded | None:
            try:
                if upload and verb == "more":
                    await self.spool.bodies.upload(upload, several.fields, several.personal)
                return await self.spool.scripts.expand(
                    self.consumer,
                    expansion.entry,
                    expansion.token,
                    expansion.id,
                    expansion.event,
                    rows,
                    verb=verb,
                    upload=upload,
                    all_=len(several.children),
                    start=made,
                )
            except ResponseError as error:
                if not is_full(error):
                    raise
                return None

        return await self.link.call(call)


def chunk(children: Sequence[Child], start: int) -> Iterator[ChildRow]:
    """The next ones, as many as one call should make."""
    size = 0
    for child in children[start : start + CHUNK]:
        own = len(child.value) + len(child.vars) + len(child.metadata) + len(child.id)
        if size and size + own > CHUNK_BYTES:
            return
        size += own
        yield ChildRow(child.name, child.value, child.vars, child.metadata, child.id)

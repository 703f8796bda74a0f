"""A closed lane, and a look at what waits with a call of sift.lua: for the tests of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mailroom import DAY, START, Mailroom

from streamq.queue.rows import Sifted, SiftRow
from streamq.queue.spool import Spool
from streamq.queue.stow import stowage
from streamq.worker.sifter import row

__all__ = ["SLOW", "Passed", "passed", "sift", "slow"]

SLOW = "main|slow.example"


@dataclass(frozen=True, slots=True)
class Passed:
    """`taken`: entry, flat fields."""

    said: Sifted
    taken: list[tuple[str, list[bytes]]]

    @property
    def visited(self) -> int:
        return len(self.said.letters)

    @property
    def parked(self) -> int:
        return self.said.letters.count("p")


async def slow(room: Mailroom) -> None:
    """slow.example takes one mail a minute, and the next one in a minute."""
    await room.do("HSET", room.keys.limits, "*|slow.example", "1:60000000")
    await room.do("HSET", room.keys.limit(SLOW), "60000000", f"{START * 1000 + 61_666_666}:62499999")


async def passed(
    spool: Spool, consumer: str, p: int, *, room: int, route: str = "main", max_bytes: int = 25_000_000,
    max_age_ms: int = 5 * DAY, most: int = 100, stows: bool = False,
) -> Passed:  # fmt: skip
    """What waits is looked at, and offered, behind whatever was passed last; `stows`: as a page that parks as a whole,
    if it is one."""
    known: dict[str, Any] = {"route": route, "room": room, "max_age_ms": max_age_ms}
    name = spool.priorities[p]
    behind = await spool.passed(name)
    found = await spool.peek(name, behind, most) if behind else []
    rows: list[SiftRow] = [row(id_.decode(), flat, max_bytes) for id_, flat in found]
    page = stowage(rows, p, route) if stows and rows else None
    said = None
    if page is not None:
        said = await spool.scripts.stow(p, page, route=route, max_age_ms=max_age_ms, behind=behind)
    if said is None:
        said = await spool.scripts.sift(consumer, p, rows, behind=behind, **known)
    seen = zip(found, said.letters, strict=False)
    return Passed(said, [(f"{p}{id_.decode()}", flat) for (id_, flat), letter in seen if letter == "t"])


async def sift(room: Mailroom, p: int = 1, *, consumer: str = "w1", room_for: int = 100, **known: Any) -> Passed:
    return await passed(room.spool, consumer, p, room=room_for, **known)

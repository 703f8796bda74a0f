"""A closed lane, and a call of sift.lua: for the tests of it."""

from __future__ import annotations

from typing import Any

from mailroom import DAY, START, Mailroom

from streamq.queue.rows import Sifted

__all__ = ["SLOW", "sift", "slow"]

SLOW = "main|slow.example"


async def slow(room: Mailroom) -> None:
    """slow.example takes one mail a minute, and the next one in a minute."""
    await room.do("HSET", room.keys.limits, "*|slow.example", "1:60000000")
    await room.do("HSET", room.keys.limit(SLOW), "60000000", f"{START * 1000 + 61_666_666}:62499999")


async def sift(room: Mailroom, p: int = 1, *, consumer: str = "w1", room_for: int = 100, **known: Any) -> Sifted:
    made: dict[str, Any] = {"max_age_ms": 5 * DAY, "max_bytes": 25_000_000}
    return await room.scripts.sift(consumer, p, route="main", room=room_for, **(made | known))

"""A queue whose receivers have a pace, in a test's hands."""

from __future__ import annotations

from typing import Any

import orjson
from conftest import MakeSpool
from mailroom import LANE, Lease, Mailroom

__all__ = ["adaptive", "next_one", "pace", "refused", "sent", "slowed"]


async def adaptive(make_spool: MakeSpool) -> Mailroom:
    """With a policy; no receiver is known."""
    spool = await make_spool()
    await spool.publish_adapt()
    return Mailroom(spool)


async def pace(room: Mailroom, target: str = LANE) -> dict[str, Any]:
    found = await room.do("HGET", room.keys.limit(target), "pace")
    state: dict[str, Any] = orjson.loads(found) if found else {}
    return state


async def slowed(room: Mailroom) -> list[str]:
    return sorted(name.decode() for name in await room.do("ZRANGE", room.keys.throttled, 0, -1))


async def refused(room: Mailroom, lane: str = LANE, **known: Any) -> Lease:
    """A new mail, and it is refused for its pace."""
    lease = await room.lease(lane=lane)
    assert await room.settled("throttled", lease, lane=lane, **known) == "ok"
    return lease


async def sent(room: Mailroom, many: int, lane: str = LANE) -> None:
    """So many mails that are taken."""
    for _ in range(many):
        assert await room.settled("sent", await room.lease(lane=lane), lane=lane) == "ok"


async def next_one(room: Mailroom) -> Lease:
    """What goes next, when it may."""
    for _ in range(100):
        if got := await room.taken():
            [(lease, _)] = got
            return lease
        room.to((await room.release()).next_us / 1000)
    raise AssertionError("nothing goes")

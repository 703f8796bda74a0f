"""leader.lua and reap.lua: one of all leads; consumers that are gone leave nothing behind."""

from __future__ import annotations

import pytest
from mailroom import Lease, Mailroom

from streamq.queue.rows import MarkRow

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
LONG = 3_600_000


async def consumers(room: Mailroom) -> set[str]:
    return set((await room.survey()).consumers)


async def test_one_leads(room: Mailroom) -> None:
    assert await room.scripts.leader("keeper", "w1", 60_000)
    assert not await room.scripts.leader("keeper", "w2", 60_000)
    assert await room.scripts.leader("other", "w2", 60_000)
    assert await room.scripts.leader("keeper", "w1", 30_000)
    assert 0 < await room.do("PTTL", room.keys.leader("keeper")) <= 30_000
    assert not await room.scripts.leader("keeper", "w2", 0)  # only its own is given back
    assert await room.scripts.leader("keeper", "w1", 0) is False
    assert await room.scripts.leader("keeper", "w2", 60_000)


async def test_the_silent_are_reaped_with_their_dots(room: Mailroom) -> None:
    lease = await room.lease(consumer="w1")
    await room.scripts.mark(
        "w1", [MarkRow("main.1", lease.entry, lease.token), MarkRow("main.2", lease.entry, lease.token)]
    )
    await room.settled("sent", lease)
    assert await room.scripts.reap(LONG) == []  # heard of a moment ago
    assert await room.do("HLEN", room.keys.dots) == 2
    assert await room.scripts.reap(0) == ["w1"]
    assert await consumers(room) == set()
    assert await room.do("EXISTS", room.keys.dots) == 0


async def test_never_with_leases_of_any_priority_or_the_bell(room: Mailroom) -> None:
    lease = await room.lease("low", consumer="w1")
    await room.scripts.mark("w1", [MarkRow("main.1", lease.entry, lease.token)])
    await room.do("XADD", room.keys.bell, "*", "due", "1")
    reading = await room.spool.wait("w2", 1, 1)
    assert await room.scripts.reap(0) == []
    assert await room.scripts.reap(LONG, "w1") == []
    assert await consumers(room) == {"w1", "w2"}
    assert await room.do("HLEN", room.keys.dots) == 1
    await room.release("w2", 0, reading.bell)
    await room.settled("sent", lease)
    assert sorted(await room.scripts.reap(0)) == ["w1", "w2"]


async def test_a_worker_that_ends_takes_itself_out(room: Mailroom) -> None:
    for name in ("w1", "w2"):
        lease = await room.lease(consumer=name)
        await room.settled("sent", Lease(lease.entry, lease.token, name))
    assert await room.scripts.reap(LONG, "w1") == ["w1"]
    assert await consumers(room) == {"w2"}


async def test_dots_of_who_is_in_no_group_go(room: Mailroom) -> None:
    await room.do("HSET", room.keys.dots, "w9/1", "11-1")
    assert await room.scripts.reap(LONG) == []
    assert await room.do("EXISTS", room.keys.dots) == 0

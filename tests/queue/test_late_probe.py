"""A probe whose slot ran out while its connection was opened: it goes all the same, or nothing would ever."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import MakeSpool
from mailroom import LANE, Lease, Mailroom

from streamq.queue.rows import Leased, Turn, TurnRow

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
ROUTES = "main,backup"
FAILED: dict[str, Any] = {"down": True, "class": "unreachable", "hint": 0}


async def again(room: Mailroom, lease: Leased, token: int, lane: str = LANE) -> Turn:
    """It is late: its slot is of half a second ago."""
    room.tick(501)
    _, [turn] = await room.scripts.turn("w1", [TurnRow(lease.entry, token, lane, lease.slot, lease.way)], ROUTES)
    return turn


async def next_one(room: Mailroom) -> tuple[Leased, int]:
    """Who goes next, when the time has come, and its token."""
    while not (released := await room.scripts.release("w1", 10, (), ROUTES)).leases:
        room.to(released.next_us / 1000 + 1)
    [probe] = released.leases
    return probe, released.token


async def down(room: Mailroom, lane: str = LANE) -> None:
    lease = await room.lease(lane=lane)
    assert await room.settled("park", lease, lane=lane, **FAILED) == "ok"


async def test_of_a_route_that_is_down(room: Mailroom) -> None:
    await room.do("HSET", room.keys.limits, "main", "50:1000000")
    await down(room)
    second = await room.add()
    await room.read()
    assert await room.admitted(second) == ["parked"]
    for _ in range(8):  # as long as it is down each is later
        probe, token = await next_one(room)
        assert probe.slot
        turn = await again(room, probe, token)
        assert (turn.status, turn.way) == ("go", "main")
        assert (await room.scripts.release("w1", 10, (), ROUTES)).leases == [], "it goes alone"
        lease = Lease(probe.entry, token, "w1", room.now * 1000)
        assert await room.settled("park", lease, **FAILED) == "ok"
    assert (await room.do("HLEN", room.keys.pauses)) == 1


async def test_what_goes_another_way_is_no_probe(room: Mailroom) -> None:
    lane = "main>backup|example.net"
    await room.do("HSET", room.keys.limits, "*", "50:1000000")
    await down(room, lane)
    released = await room.scripts.release("w1", 10, (), ROUTES)
    [lease] = released.leases
    assert lease.way == "backup"
    assert (await again(room, lease, released.token, lane)).way == "backup"


async def test_what_was_leased_before_it_went_down_is_no_probe(room: Mailroom) -> None:
    await room.do("HSET", room.keys.limits, "main", "50:1000000")
    entry = await room.add()
    await room.read()
    found = await room.admit(entry)
    await down(room)
    _, [turn] = await room.scripts.turn(
        "w1", [TurnRow(entry, found.token, LANE, found.statuses[0].slot, "main")], ROUTES
    )
    assert turn.status == "park"


async def test_of_a_pace_that_only_refused(make_spool: MakeSpool) -> None:
    spool = await make_spool()
    await spool.publish_adapt()
    room = Mailroom(spool)
    lease = await room.lease()
    for _ in range(5):
        assert await room.settled("throttled", lease, took=40.0) == "ok"
        probe, token = await next_one(room)
        turn = await again(room, probe, token)
        assert turn.status == "go"
        second = await room.add()
        await room.read()
        assert await room.admitted(second) == ["parked"], "it goes alone"
        assert await room.moved("cancel", second) == ["cancelled"]
        lease = Lease(probe.entry, token, "w1", room.now * 1000)

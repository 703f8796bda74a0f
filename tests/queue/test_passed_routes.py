"""A route that is full, with many roads: those of other routes behind them are visited all the same."""

from __future__ import annotations

import pytest
from mailroom import Mailroom

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]

ROUTES = "slow,quick"
MANY = 1200  # more roads than one release looks at


async def crowd(room: Mailroom) -> None:
    """Many roads of the slow route are due, and behind them one of the quick one."""
    await room.do("HSET", room.keys.limits, "slow", "1:1000000", "quick|example.net", "1:1000000")
    for start in range(0, MANY, 100):
        entries = [await room.add() for _ in range(100)]
        await room.read()
        rows = [room.row(entry, lane=f"slow|d{start + at}.example") for at, entry in enumerate(entries)]
        await room.scripts.admit("w1", rows, ROUTES)
    room.tick(2000)
    first, second = await room.add(), await room.add()
    await room.read()
    rows = [room.row(entry, lane="quick|example.net") for entry in (first, second)]
    found = await room.scripts.admit("w1", rows, ROUTES)
    assert [each.status for each in found.statuses] == ["go", "parked"]
    room.tick(1100)


async def test_roads_of_a_full_route_hide_no_other_route_s(room: Mailroom) -> None:
    await crowd(room)
    ways: list[str] = []
    for _ in range(MANY // 100):
        released = await room.scripts.release("w1", 100, (), ROUTES)
        ways += [lease.way for lease in released.leases]
        if released.next_us > room.now * 1000:
            break
    else:
        pytest.fail("a worker would ask without an end")
    assert sorted(ways) == ["quick", "slow"]


@pytest.mark.parametrize(("limit", "routes"), [("slow", ROUTES), ("slow", "slow"), ("*", ROUTES)])
async def test_roads_take_turns_at_a_wider_limit(room: Mailroom, limit: str, routes: str) -> None:
    """The one that waits longest, with the most mails, has not all of its slots."""
    await room.do("HSET", room.keys.limits, "*|*", "1:1000000")
    lanes = [f"slow|{name}.example" for name in ("b", "a", "c")]
    for lane in lanes:
        entries = [await room.add() for _ in range(4)]
        await room.read()
        found = await room.scripts.admit("w1", [room.row(entry, lane=lane) for entry in entries], routes)
        assert [each.status for each in found.statuses] == ["go"] + 3 * ["parked"]
        room.tick(1)
    await room.do("DEL", room.keys.limits)
    await room.do("HSET", room.keys.limits, limit, "1:1000000")
    room.tick(3000)
    went = []
    for _ in range(6):
        went += [lease.entry for lease in (await room.scripts.release("w1", 100, (), routes)).leases]
        room.tick(1100)
    assert len(went) == 6
    assert len({entry.partition("-")[0] for entry in went[:3]}) == 3  # a lane's mails are of one ms


async def test_roads_that_are_others_hide_nothing_for_ever(room: Mailroom) -> None:
    """Of a route that this worker does not use now: it asks again a second later, and comes to what is behind them."""
    await crowd(room)
    ways: list[str] = []
    for _ in range(4):
        released = await room.scripts.release("w1", 100, (), "-slow,quick")
        assert released.next_us >= (room.now + 1000) * 1000
        ways += [lease.way for lease in released.leases]
        room.tick(1000)
    assert ways == ["quick"]

"""sites.py: which sites there are to look at, how many mails they hold, what matters first."""

from __future__ import annotations

import pytest
from mailroom import Mailroom

from streamq.queue.limits import limit_text, set_limits
from streamq.queue.sites import fullest, lanes, lanes_of, site_views, sites_and_lanes
from streamq.queue.why import why
from streamq.settings import window

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]


async def parked(room: Mailroom, lane: str, many: int, priority: str = "normal") -> None:
    """In a lane that is closed, by a route of it that is."""
    entries = [await room.add(priority) for _ in range(many)]
    await room.read(many=many)
    assert set(await room.admitted(*entries, lane=lane)) == {"parked"}


async def test_lanes_are_counted_by_priority(room: Mailroom) -> None:
    await room.scripts.pause("pause", ["main"])
    await parked(room, "main|a.example", 3)
    await parked(room, "main|a.example", 2, "low")
    await parked(room, "main|ab.example", 1, "high")
    found, left = await lanes(room.spool)
    assert left == 0
    assert {lane.name: lane.parked for lane in found} == {
        "main|a.example": {"high": 0, "normal": 3, "low": 2},
        "main|ab.example": {"high": 1, "normal": 0, "low": 0},
    }


async def test_no_more_lanes_than_asked_for_are_looked_at(room: Mailroom) -> None:
    await room.scripts.pause("pause", ["main"])
    for number in range(7):
        await parked(room, f"main|{number}.example", 1)
    found, left = await lanes(room.spool, 4)
    assert (len(found), left) == (4, 3)
    views, left = await site_views(room.spool, most=4)
    assert (len(views), left) == (4, 3)


async def test_all_lanes_of_a_site_whatever_their_ways(room: Mailroom) -> None:
    await room.scripts.pause("pause", ["main", "other"])
    for lane in ("main|a.example", "main>other|a.example", "other|a.example", "main|b.example", "main|aa.example"):
        await parked(room, lane, 1)
    assert [lane.name for lane in await lanes_of(room.spool, "a.example")] == [
        "main>other|a.example",
        "main|a.example",
        "other|a.example",
    ]
    assert await lanes_of(room.spool, "c.example") == []


async def test_what_is_parked_counts_to_the_route_that_it_takes(room: Mailroom) -> None:
    await room.scripts.pause("pause", ["main", "other"])
    await parked(room, "main>other|a.example", 2)
    await parked(room, "main|a.example", 3)
    await room.scripts.pause("resume", ["other"])
    views, _ = await site_views(room.spool)
    assert {view.target: view.many for view in views} == {"other|a.example": 2, "main|a.example": 3}


async def test_sites_with_a_limit_a_pause_or_mails_the_fullest_first(room: Mailroom) -> None:
    await set_limits(room.spool, "settings", {"*|limited.example": limit_text([window("5/s")])})
    await set_limits(room.spool, "settings", {"main": limit_text([window("50/s")])})
    await room.scripts.pause("pause", ["*|paused.example", "main|both.example", "main"])
    await parked(room, "main|few.example", 1)
    await parked(room, "main|many.example", 4)
    await parked(room, "main|both.example", 2)
    views, _ = await site_views(room.spool)
    assert [view.target for view in views] == [
        "main|many.example",
        "main|both.example",
        "main|few.example",
        "*|paused.example",
        "*|limited.example",
    ]
    assert [[each.name for each in view.closed] for view in views] == [
        ["main"],
        ["main|both.example", "main"],
        ["main"],
        ["*|paused.example"],
        [],
    ]
    assert [view.target for view in (await site_views(room.spool, "limited.example"))[0]] == ["*|limited.example"]
    assert (await site_views(room.spool, "none.example"))[0] == []


async def test_when_the_next_goes_and_when_all_have_gone(room: Mailroom) -> None:
    await set_limits(room.spool, "settings", {"*|a.example": limit_text([window("60/m")])})
    entries = [await room.add() for _ in range(33)]
    await room.read()
    statuses = await room.admitted(*entries, lane="main|a.example")
    many = statuses.count("parked")
    [view], _ = await site_views(room.spool)
    assert (view.many, view.rule.by) == (many, "settings")
    assert view.next_ms is not None
    assert view.drained_ms is not None
    assert 0 < view.next_ms < 1200
    gone_at = room.now + view.drained_ms
    while (await room.survey()).depth["parked"]:
        found = await room.release()
        if not found.leases:
            room.to(-(-found.next_us // 1000))
    assert abs(room.now - gone_at) <= 3


async def test_the_fullest_of_a_route(room: Mailroom) -> None:
    await room.scripts.pause("pause", ["main", "main2"], till_us=(room.now + 5000) * 1000)
    for lane, many in (
        ("main|a.example", 1),
        ("main>main2|b.example", 3),
        ("main2|c.example", 5),
        ("main|d.example", 2),
    ):
        await parked(room, lane, many)
    found, more = await fullest(room.spool, 2, route="main")
    assert [(lane.name, lane.many, lane.open, lane.drained_ms) for lane in found] == [
        ("main>main2|b.example", 3, False, None),
        ("main|d.example", 2, False, None),
    ]
    assert more == 1


async def test_the_mails_of_all_tenants_are_counted(room: Mailroom) -> None:
    await room.scripts.pause("pause", ["*|a.example"])
    for lane, many in (("main|a.example", 1), ("main|a.example/acme", 2), ("main|a.example/b", 3)):
        await parked(room, lane, many)
    await parked(room, "main|a.example/acme", 1, "low")
    [view], _ = await site_views(room.spool)
    assert (view.target, view.parked) == ("main|a.example", {"high": 0, "normal": 6, "low": 1})
    assert [lane.site for lane in await lanes_of(room.spool, "a.example")] == ["a.example"]
    await room.scripts.pause("resume", ["*|a.example"])
    assert len((await room.release()).leases) == 7


async def test_transactions_under_way_are_counted(room: Mailroom) -> None:
    await set_limits(room.spool, "settings", {"*|a.example": limit_text(None, 2)})
    entries = [await room.add() for _ in range(3)]
    await room.read()
    assert await room.admitted(*entries, lane="main|a.example") == ["go", "go", "parked"]
    [view], _ = await site_views(room.spool)
    assert (view.in_use, view.rule.connections, view.many) == (2, 2, 1)
    found = await why(room.spool, entries[2])
    assert (found.waits_for, found.rule.connections) == ("at_once", 2)


async def test_a_site_that_is_slowed_is_listed_though_nothing_is_parked(room: Mailroom) -> None:
    await room.do("HSET", room.keys.limit("main|a.example"), "pace", '{"rate":2,"class":"site_rate"}')
    await room.do("PEXPIRE", room.keys.limit("main|a.example"), 60_000)
    await room.do("ZADD", room.keys.throttled, (room.now + 60_000) * 1000, "main|a.example")
    [view], _ = await site_views(room.spool)
    assert (view.target, view.many, view.next_ms) == ("main|a.example", 0, None)
    assert view.gauge is not None
    assert view.gauge.rate == 2
    await room.do("DEL", room.keys.throttled)


async def test_counted_whole_they_are_as_many(room: Mailroom) -> None:
    """Of one tenant in several priorities, of several, and of none."""
    await room.scripts.pause("pause", ["*|a.example"])
    many = 0
    for priority in room.spool.priorities:
        for lane in ("main|a.example", "main|a.example/acme", "main|a.example/beta", "main|b.example"):
            many += 1
            if lane.endswith("b.example"):
                await room.parked(priority, lane=lane)
            else:
                await parked(room, lane, many, priority)
    each, _, _ = await sites_and_lanes(room.spool)
    whole, roads, _ = await sites_and_lanes(room.spool, whole=True)
    assert [(view.target, view.many) for view in each] == [(view.target, view.many) for view in whole]
    assert [list(view.parked) for view in whole] == [[""]] * 2
    assert sum(view.many for view in whole) == (await room.survey()).depth["parked"] == sum(road.many for road in roads)

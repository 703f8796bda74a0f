"""Routes in the scripts: lanes of several ways, pauses, probes, what stays with its route."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from mailroom import Lease, Mailroom

from streamq.queue.routes import route_views
from streamq.queue.rows import MarkRow

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
TWO = "main>other|example.net"


async def admitted(
    room: Mailroom, lane: str = TWO, priority: str = "normal", routes: str = ""
) -> tuple[str, Lease, str]:
    """A new mail: its status, lease and way."""
    entry = await room.add(priority)
    await room.read()
    found = await room.scripts.admit("w1", [room.row(entry, lane=lane)], routes)
    status, _, way, *_ = found.statuses[0]
    return status, Lease(entry, found.token, "w1"), way


async def down(room: Mailroom, route: str = "main", **known: Any) -> None:
    """It fails with a mail of its own, which is gone then."""
    status, lease, _ = await admitted(room, f"{route}|gone.example")
    assert status == "go"
    await room.settled("park", lease, lane=f"{route}|gone.example", down=True, **{"class": "unreachable"} | known)
    await room.moved("cancel", lease.entry)


async def ways(room: Mailroom, routes: str = "", room_: int = 100) -> list[tuple[str, str]]:
    found = await room.scripts.release("w1", room_, (), routes)
    return [(lease.entry, lease.way) for lease in found.leases]


# -- failover ----------------------------------------------------------------------------------------------------


async def test_the_first_way_that_is_open(room: Mailroom) -> None:
    assert (await admitted(room))[2] == "main"
    await down(room)
    status, _, way = await admitted(room)
    assert (status, way) == ("go", "other")
    assert (await admitted(room, "main|example.net"))[0] == "parked"  # it has no other


async def test_what_is_parked_moves_when_its_way_closes_high_first(room: Mailroom) -> None:
    """Nobody visits the mails: the lane is given slots of its other way; as many as there is room for."""
    leases = {}
    for priority in ("low", "normal", "high"):
        for _ in range(2):
            _, lease, _ = await admitted(room, priority=priority)
            leases[lease.entry] = lease
    entries = list(leases)
    for lease in leases.values():  # all in hand when it fails
        await room.settled("park", lease, lane=TWO, down=True, **{"class": "unreachable"})
    assert (await room.survey()).lanes == dict.fromkeys(entries, TWO)
    order = [*entries[4:], *entries[2:4], *entries[:2]]
    assert await ways(room, room_=4) == [(entry, "other") for entry in order[:4]]
    assert await ways(room) == [(entry, "other") for entry in order[4:]]


async def test_all_ways_closed_waits_for_the_first_that_opens(room: Mailroom) -> None:
    await down(room)
    room.tick(500)
    await down(room, "other")
    status, lease, _ = await admitted(room)
    assert status == "parked"
    assert await ways(room) == []
    room.tick(500)  # main's probe
    assert await ways(room) == [(lease.entry, "main")]
    assert (await admitted(room))[0] == "parked"  # one probe
    room.tick(500)
    assert [way for _, way in await ways(room)] == ["other"]


async def test_limits_are_those_of_the_way_it_goes(room: Mailroom) -> None:
    await room.do("HSET", room.keys.limits, "main|example.net", "1:1000000", "other|example.net", "2:1000000")
    assert [(await admitted(room))[0] for _ in range(2)] == ["go", "parked"]  # a rate is no reason to go elsewhere
    await down(room)
    got = await ways(room)
    assert [way for _, way in got] == ["other"]
    room.tick(600)
    assert (await admitted(room))[2] == "other"


async def test_lanes_that_share_a_limit_take_turns(room: Mailroom) -> None:
    await room.do("HSET", room.keys.limits, "main|example.net", "10:1000000")
    lanes = ["main>a|example.net", "main>b|example.net", "main|example.net"]
    made: dict[str, list[str]] = {lane: [] for lane in lanes}
    for _ in range(30):
        for lane in lanes:
            _, lease, _ = await admitted(room, lane)
            made[lane].append(lease.entry)
    went: dict[str, int] = dict.fromkeys(lanes, 0)
    for _ in range(60):
        room.tick(107.031)
        for entry, _ in await ways(room):
            went[next(lane for lane, entries in made.items() if entry in entries)] += 1
    assert sum(went.values()) > 50
    assert min(went.values()) >= 10


# -- what may have been sent one way -------------------------------------------------------------------------------


async def test_an_ambiguous_mail_keeps_its_way(room: Mailroom) -> None:
    _, lease, way = await admitted(room)
    assert way == "main"
    await room.settled("defer", lease, lane=TWO, kind="email.ambiguous", wait=0, ambiguous=True)
    assert (await room.notes(lease.entry))["stays"] == "main"
    await down(room)
    assert await ways(room) == [(lease.entry, "")]
    assert await room.admitted(lease.entry, lane=TWO) == ["parked"]
    assert (await room.survey()).lanes == {lease.entry: "main|example.net"}
    assert await ways(room) == []
    room.tick(1000)
    assert await ways(room) == [(lease.entry, "main")]


async def test_it_keeps_the_way_that_it_went_though_another_is_first(room: Mailroom) -> None:
    _, lease, _ = await admitted(room, "other|example.net")
    await room.settled("defer", lease, lane="other|example.net", kind="email.ambiguous", wait=0, ambiguous=True)
    await room.released()
    found = await room.scripts.admit("w1", [room.row(lease.entry, lane=TWO)], "main,other")
    assert found.statuses[0][2] == "other"


async def test_it_keeps_the_way_that_it_went_also_when_it_was_held_for_it(room: Mailroom) -> None:
    _, lease, _ = await admitted(room, "other|example.net")
    await room.settled(
        "hold", lease, lane="other|example.net", kind="email.held", reason="no reply", ambiguous=True, **{"class": "x"}
    )
    assert await room.moved("unhold", lease.entry) == ["scheduled"]
    await room.released()
    found = await room.scripts.admit("w1", [room.row(lease.entry, lane=TWO)], "main,other")
    assert found.statuses[0][2] == "other"


async def test_a_way_that_is_in_nobodys_settings_keeps_nothing(room: Mailroom) -> None:
    _, lease, _ = await admitted(room, "old|example.net")
    await room.settled("defer", lease, lane="old|example.net", kind="email.ambiguous", wait=0, ambiguous=True)
    await room.released()
    found = await room.scripts.admit("w1", [room.row(lease.entry, lane=TWO)], "main,other")
    assert found.statuses[0][2] == "main"


async def test_a_mail_whose_worker_died_past_the_dot_keeps_its_way(room: Mailroom) -> None:
    await down(room)
    _, lease, way = await admitted(room)
    assert way == "other"
    assert await room.scripts.mark("w1", [MarkRow("other.3", lease.entry, lease.token)]) == ["ok"]
    await room.silent(lease.entry, "w1")
    [(_, notes, ambiguous)] = (await room.reclaim("w2")).leases
    assert (ambiguous, orjson.loads(notes)["stays"]) == (True, "other")
    room.tick(1000)  # main may be tried again: not with this one
    found = await room.scripts.admit("w2", [room.row(lease.entry, lane=TWO)], "main,other")
    assert found.statuses[0][2] == "other"


async def test_a_dot_of_an_older_version_names_no_route(room: Mailroom) -> None:
    """Then it is the first, and no other."""
    _, lease, _ = await admitted(room)
    await room.do("HSET", room.keys.dots, "w1/1003", lease.entry)
    await room.silent(lease.entry, "w1")
    [(_, notes, ambiguous)] = (await room.reclaim("w2")).leases
    assert (ambiguous, "stays" in orjson.loads(notes)) == (True, False)
    await down(room)
    assert await room.admitted(lease.entry, lane=TWO, consumer="w2") == ["parked"]
    assert (await room.survey()).lanes == {lease.entry: "main|example.net"}


# -- failures ------------------------------------------------------------------------------------------------------


async def test_good_news_of_before_a_failure_is_none(room: Mailroom) -> None:
    """A mail that was under way when the account was locked comes through: that opens nothing."""
    _, first, _ = await admitted(room)
    _, second, _ = await admitted(room)
    await room.settled("park", first, lane=TWO, down=True, **{"class": "authentication", "reply": "535 no"})
    await room.settled("sent", second, lane=TWO)
    assert await room.kinds() == ["route.paused", "email.relayed"]
    assert (await room.events())[0].data["reason"] == "535 no"
    room.tick(1000)
    assert await ways(room) == [(first.entry, "main")]
    [token] = [token for _, token in (await room.survey()).leases.values()]
    await room.settled("sent", Lease(first.entry, token, "w1"), lane=TWO)
    assert (await room.kinds())[2:] == ["route.resumed", "email.relayed"]
    assert await room.do("EXISTS", room.keys.pauses) == 0


async def test_a_hint_is_honoured_and_capped(room: Mailroom) -> None:
    for hint, capped in ((30_000, 30_000), (9 * 3_600_000, 4 * 3_600_000)):
        await down(room, hint=hint, **{"class": "quota"})
        status, lease, _ = await admitted(room, "main|example.net")
        assert status == "parked"
        room.tick(capped - 1)
        assert await ways(room) == []
        room.tick(1)
        [view] = await route_views(room.spool)
        assert (view.name, view.closed[0].why) == ("main", "quota")
        for _ in range(2):  # its lane is looked at once a minute
            await room.scripts.pause("resume", ["main"])
        assert await ways(room) == [(lease.entry, "main")]
        await room.moved("cancel", lease.entry)


async def test_a_worker_whose_own_connections_fail_is_alone(room: Mailroom) -> None:
    _, theirs, _ = await admitted(room)
    entry = await room.add()
    await room.read("w2")
    found = await room.admit(entry, consumer="w2", lane=TWO)
    mine = Lease(entry, found.token, "w2")
    await room.settled("sent", theirs, lane=TWO)
    lonely: dict[str, Any] = {"down": True, "lonely": True, "class": "unreachable"}
    room.tick(9_000)
    assert await room.settled("park", mine, lane=TWO, **lonely) == "alone"
    assert await room.kinds() == ["email.relayed"]
    assert await ways(room, "main") == [(entry, "main")]  # at once, to who can
    [token] = [token for _, token in (await room.survey()).leases.values()]
    room.tick(2_000)  # nobody was judged of late: then it is the route
    assert await room.settled("park", Lease(entry, token, "w1"), lane=TWO, **lonely) == "ok"
    assert await room.kinds() == ["email.relayed", "route.paused"]


async def test_its_own_good_outcomes_are_no_others(room: Mailroom) -> None:
    for _ in range(2):
        _, lease, _ = await admitted(room)
        await room.settled("sent", lease, lane=TWO)
    _, lease, _ = await admitted(room)
    lonely: dict[str, Any] = {"down": True, "lonely": True, "class": "unreachable"}
    assert await room.settled("park", lease, lane=TWO, **lonely) == "ok"
    assert "route.paused" in await room.kinds()


async def test_an_account_in_trouble_is_nobodys_own(room: Mailroom) -> None:
    _, theirs, _ = await admitted(room)
    await room.settle("sent", theirs, lane=TWO)
    entry = await room.add()
    await room.read("w2")
    found = await room.admit(entry, consumer="w2", lane=TWO)
    said: dict[str, Any] = {"down": True, "class": "quota", "reply": "550 5.4.5 Daily quota"}
    assert await room.settled("park", Lease(entry, found.token, "w2"), lane=TWO, **said) == "ok"
    assert "route.paused" in await room.kinds()


# -- what a worker does not use now --------------------------------------------------------------------------------


async def test_what_a_worker_does_not_use_is_left_to_others(room: Mailroom) -> None:
    status, lease, _ = await admitted(room, routes="-main,other")
    assert status == "parked"  # main is open: it does not go elsewhere
    assert await room.do("XLEN", room.keys.bell) == 1
    reading = await room.spool.wait("w2", 10, 1)
    found = await room.scripts.release("w2", 9, reading.bell, "-main,other")
    assert (found.leases, found.left) == ([], False)
    assert found.next_us == (room.now + 1000) * 1000
    assert await room.do("XLEN", room.keys.bell) == 0  # woken for nothing, it does not ring for itself
    found = await room.scripts.release("w2", 9, (), "-main,other")
    assert await room.do("XLEN", room.keys.bell) == 1
    assert await ways(room, "main,other") == [(lease.entry, "main")]


async def test_lanes_of_others_hide_none_of_ours(room: Mailroom) -> None:
    for number in range(130):
        await admitted(room, f"main|{number}.example", routes="-main,other")
    await room.do("HSET", room.keys.limits, "other|example.net", "1:1000000")
    await admitted(room, "other|example.net")
    _, lease, _ = await admitted(room, "other|example.net")
    room.tick(2000)
    assert await ways(room, "-main,other") == [(lease.entry, "other")]


async def test_a_lane_of_a_route_that_nobody_has_is_admitted_anew(room: Mailroom) -> None:
    lease = await room.parked(lane="old|example.net")
    room.tick(60_000)
    assert await ways(room, "main,other") == [(lease, "old")]


async def test_nothing_is_read_while_all_are_closed(room: Mailroom) -> None:
    async def closed_ms(routes: str) -> int:
        entry = await room.add()
        await room.read()
        found = await room.scripts.admit("w1", [room.row(entry, lane="main|example.net")], routes)
        return found.closed_us and found.closed_us // 1000 - room.now

    await down(room)
    assert await closed_ms("main") == 1000
    assert await closed_ms("main,other") == 0
    assert await closed_ms("main,-other") == 1000
    await down(room, "other")
    assert await closed_ms("main,other") == 1000
    await room.scripts.pause("pause", ["main", "other"])
    assert await closed_ms("main,other") == 60_000


# -- operators -----------------------------------------------------------------------------------------------------


async def test_a_pause_outlives_all_and_resume_drains_at_once(room: Mailroom) -> None:
    assert await room.scripts.pause("pause", ["main"], reason="moving house") == ["paused"]
    parked = [(await admitted(room, "main|example.net"))[1].entry for _ in range(3)]
    room.tick(30 * 86_400_000)
    assert await ways(room) == []
    assert await room.do("PTTL", room.keys.pauses) == -1
    assert await room.scripts.pause("resume", ["main"]) == ["resumed"]
    assert await ways(room) == [(entry, "main") for entry in parked]
    assert await room.scripts.pause("resume", ["main"]) == ["open"]
    assert [(each.kind, each.data.get("class"), each.data.get("reason")) for each in await room.events()] == [
        ("route.paused", "operator", "moving house"),
        ("route.resumed", "operator", "by an operator"),
    ]
    assert await room.do("EXISTS", room.keys.pauses) == 0


async def test_mails_of_a_paused_route_go_another_way_unless_it_holds_them(room: Mailroom) -> None:
    await room.scripts.pause("pause", ["main"], hold=True)
    status, lease, _ = await admitted(room)
    assert status == "parked"
    await room.scripts.pause("pause", ["main"])
    assert await ways(room) == [(lease.entry, "other")]
    assert (await admitted(room))[2] == "other"


async def test_a_pause_with_an_end(room: Mailroom) -> None:
    await room.scripts.pause("pause", ["main"], till_us=(room.now + 5000) * 1000)
    _, lease, _ = await admitted(room, "main|example.net")
    room.tick(4999)
    assert await ways(room) == []
    room.tick(1)
    assert await ways(room) == [(lease.entry, "main")]


async def test_an_operators_pause_stays_through_a_failure_and_its_end(room: Mailroom) -> None:
    _, first, _ = await admitted(room, "main|example.net")
    _, second, _ = await admitted(room, "main|example.net")
    await room.scripts.pause("pause", ["main"])
    await room.settled("park", first, lane="main|example.net", down=True, **{"class": "unreachable"})
    [view] = await route_views(room.spool)
    assert [each.why for each in view.closed] == ["operator", "unreachable"]
    await room.settled("sent", second, lane="main|example.net")
    room.tick(120_000)
    assert await ways(room) == []
    await room.scripts.pause("resume", ["main"])
    assert await ways(room) == [(first.entry, "main")]


async def test_views_count_what_is_parked_by_its_first_way(room: Mailroom) -> None:
    await room.scripts.pause("pause", ["main", "main2"])
    for lane in ("main|a.example", "main>main2|b.example", "main2|a.example", "main2>main|c.example"):
        await admitted(room, lane)
    assert {view.name: view.parked for view in await route_views(room.spool, ["other"])} == {
        "other": 0,
        "main": 2,
        "main2": 2,
    }

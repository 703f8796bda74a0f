"""Sites that an operator closes: their mails park, age, and come back at once; nobody else's notice."""

from __future__ import annotations

import pytest
from mailroom import DAY, Lease, Mailroom
from sifting import sift

from streamq.queue.rows import GrantRow

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
ALL = "*|example.net"


async def admitted(room: Mailroom, lane: str, priority: str = "normal", routes: str = "") -> tuple[str, Lease, str]:
    """A new mail: its status, lease and way."""
    entry = await room.add(priority)
    await room.read()
    found = await room.scripts.admit("w1", [room.row(entry, lane=lane)], routes)
    status, _, way, *_ = found.statuses[0]
    return status, Lease(entry, found.token, "w1"), way


async def ways(room: Mailroom) -> list[tuple[str, str]]:
    return [(lease.entry, lease.way) for lease in (await room.release()).leases]


async def granted(room: Mailroom) -> None:
    """What every worker asks once a second."""
    await room.scripts.grant("w1", 4000, [GrantRow("main", 20, 100, 3, 0)])


async def test_its_mails_park_without_an_attempt_and_others_go(room: Mailroom) -> None:
    assert await room.scripts.pause("pause", [ALL], reason="they asked") == ["paused"]
    status, lease, _ = await admitted(room, "main|example.net")
    assert status == "parked"
    assert await room.notes(lease.entry) == {}
    assert (await admitted(room, "main|example.org"))[0] == "go"
    assert (await admitted(room, "main|an.example.net"))[0] == "go"
    room.tick(30 * DAY)
    assert await ways(room) == []
    assert await room.do("PTTL", room.keys.pauses) == -1


async def test_resume_drains_at_once_whatever_else_is_parked(room: Mailroom) -> None:
    """More lanes than a route's resume would wake in one go, all of them due sooner."""
    await room.scripts.pause("pause", ["closed"])
    others = [await room.add() for _ in range(1100)]
    await room.read(many=2000)
    for start in range(0, 1100, 100):
        rows = [room.row(others[at], lane=f"closed|{at}.example") for at in range(start, start + 100)]
        assert set(await room.admitted(*rows)) == {"parked"}
    room.tick(10)
    await room.scripts.pause("pause", [ALL])
    lanes = ["main|example.net", "main>other|example.net", "other|example.net"]
    parked = [(await admitted(room, lane))[1].entry for lane in lanes]
    room.tick(10)
    assert await ways(room) == []
    await room.scripts.pause("resume", [ALL])
    assert sorted(await ways(room)) == list(zip(parked, ("main", "main", "other"), strict=True))
    assert await room.scripts.pause("resume", [ALL]) == ["open"]
    assert await room.do("HKEYS", room.keys.pauses) == [b"closed"]


async def test_a_pause_ends_at_its_time_and_says_so(room: Mailroom) -> None:
    await room.scripts.pause("pause", [ALL], till_us=(room.now + 150_000) * 1000, reason="they asked")
    _, lease, _ = await admitted(room, "main|example.net")
    for _ in range(3):  # a look once a minute
        found = await room.release()
        assert found.leases == []
        room.to(found.next_us // 1000)
    assert room.now == lease_ms(lease) + 150_000
    assert await ways(room) == [(lease.entry, "main")]
    await granted(room)
    assert [(each.kind, each.id, each.data.get("reason"), each.data["route"]) for each in await room.events()] == [
        ("site.paused", "example.net", "they asked", "*"),
        ("site.resumed", "example.net", "its time is over", "*"),
    ]
    assert (await room.events())[0].data["until"] == lease_ms(lease) + 150_000
    assert await room.do("EXISTS", room.keys.pauses, room.keys.ends) == 0


def lease_ms(lease: Lease) -> int:
    return int(lease.entry[1:].partition("-")[0])


async def test_an_end_that_was_taken_back_is_none(room: Mailroom) -> None:
    await room.scripts.pause("pause", [ALL], till_us=(room.now + 5000) * 1000)
    await room.scripts.pause("pause", [ALL])
    room.tick(6000)
    await granted(room)
    assert (await admitted(room, "main|example.net"))[0] == "parked"
    await room.scripts.pause("pause", [ALL], till_us=(room.now + 5000) * 1000)
    await room.scripts.pause("resume", [ALL])
    room.tick(6000)
    await granted(room)
    assert await room.kinds() == ["site.paused"] * 3 + ["site.resumed"]


async def test_a_site_that_is_closed_on_one_route_goes_another_way(room: Mailroom) -> None:
    await room.scripts.pause("pause", ["main|example.net"])
    assert (await admitted(room, "main>other|example.net"))[2] == "other"
    status, lease, _ = await admitted(room, "main|example.net")
    assert status == "parked"
    await room.scripts.pause("pause", [ALL])
    assert (await admitted(room, "main>other|example.net"))[0] == "parked"
    await room.scripts.pause("resume", [ALL])
    assert [way for _, way in await ways(room)] == ["other"]
    await room.scripts.pause("resume", ["main|example.net"])
    assert await ways(room) == [(lease.entry, "main")]


async def test_what_is_parked_goes_another_way_when_its_site_is_closed_on_the_first(room: Mailroom) -> None:
    await room.do("HSET", room.keys.limits, "main|example.net", "1:3600000000")
    await admitted(room, "main>other|example.net")
    status, lease, _ = await admitted(room, "main>other|example.net")
    assert status == "parked"
    await room.scripts.pause("pause", ["main|example.net"])
    assert await ways(room) == [(lease.entry, "other")]


async def test_a_probe_of_a_route_is_no_mail_of_a_closed_site(room: Mailroom) -> None:
    _, first, _ = await admitted(room, "main|example.org")
    await room.settled("park", first, lane="main|example.org", down=True, **{"class": "unreachable"})
    await room.scripts.pause("pause", [ALL])
    room.tick(1000)
    assert (await admitted(room, "main|example.net"))[0] == "parked"
    assert await ways(room) == [(first.entry, "main")]


async def test_a_closed_site_stops_no_reading(room: Mailroom) -> None:
    """Also of a worker that did not say which routes it has."""
    await room.scripts.pause("pause", [ALL])
    for routes in ("", "main"):
        entry = await room.add()
        await room.read()
        found = await room.scripts.admit("w1", [room.row(entry, lane="main|example.net")], routes)
        assert (found.statuses[0][0], found.closed_us) == ("parked", 0)


async def test_unread_mails_of_a_closed_site_park_without_being_read(room: Mailroom) -> None:
    await room.scripts.pause("pause", [ALL])
    for _ in range(5):
        await room.add(to="bob@example.net", text="Hi")
    await room.add(to="bob@example.org", text="Hi")
    found = await sift(room)
    assert (found.visited, found.parked, len(found.taken)) == (6, 5, 1)


async def test_age_counts_meanwhile(room: Mailroom) -> None:
    await room.scripts.pause("pause", [ALL])
    _, lease, _ = await admitted(room, "main|example.net")
    room.tick(5 * DAY)
    ended, _, _ = await room.scripts.expire([5 * DAY - 1] * 3)
    assert ended == 1
    assert await room.state(lease.entry) == ""


async def test_a_route_s_pause_and_its_site_s_stand_beside_each_other(room: Mailroom) -> None:
    await room.scripts.pause("pause", ["main", "main|example.net"])
    _, lease, _ = await admitted(room, "main|example.net")
    await room.scripts.pause("resume", ["main"])
    assert (await admitted(room, "main|example.org"))[0] == "go"
    assert await ways(room) == []
    await room.scripts.pause("resume", ["main|example.net"])
    assert await ways(room) == [(lease.entry, "main")]


async def test_beyond_a_hundred_pauses_each_site_s_is_asked_for(room: Mailroom) -> None:
    await room.scripts.pause("pause", [f"*|{number}.example" for number in range(200)])
    assert (await admitted(room, "main|7.example"))[0] == "parked"
    assert (await admitted(room, "main|example.net"))[0] == "go"
    await room.scripts.pause("pause", ["main"])
    assert (await admitted(room, "main|example.net"))[0] == "parked"


async def test_what_a_pause_costs_a_batch(room: Mailroom) -> None:
    """Nothing of the kind is asked for mail by mail."""

    async def commands(name: str) -> int:
        stats = (await room.do("INFO", "commandstats")).decode()
        lines = dict(line.partition(":")[::2] for line in stats.splitlines())
        return int(lines.get(f"cmdstat_{name}", "calls=0,").partition("calls=")[2].partition(",")[0])

    for many in (0, 1, 200):
        await room.scripts.pause("pause", [f"*|{number}.example" for number in range(many)])
        entries = [await room.add() for _ in range(60)]
        await room.read()
        rows = [room.row(entry, lane=f"main|{at % 3}.org") for at, entry in enumerate(entries)]
        await room.do("CONFIG", "RESETSTAT")
        await room.admit(*rows)
        asked = [await commands(name) for name in ("hget", "hgetall", "hmget")]
        each = 1 + 3  # the route, and each site
        assert asked == {0: [1, 0, 1], 1: [1, 1, 1], 200: [1, 0, 1 + each]}[many]

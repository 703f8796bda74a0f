"""expire.lua and resettle.lua: ends that no attempt brings."""

from __future__ import annotations

import pytest
from family import FIELDS, expand, parent, tail_of
from mailroom import DAY, Lease, Mailroom, ident

from streamq.queue.rows import ResettleRow
from streamq.queue.scripts import why

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
AGES = [5 * DAY, 5 * DAY, 5 * DAY]
STATES = ["waiting", "leased", "parked", "scheduled", "held"]


@pytest.mark.parametrize("state", ["waiting", "parked", "held"])
async def test_max_age_in_every_state_that_may_last(room: Mailroom, state: str) -> None:
    """Scheduled ones come back at their deadline, leased ones end their attempt."""
    old = await room.in_state(state, "low", id="a1", to="bob@example.net")
    room.tick(1)
    young = await room.in_state(state, "low")
    room.to(room.now - 1 + 5 * DAY)
    known = len(await room.kinds())
    assert await room.scripts.expire(AGES) == (1, "", [])
    assert await room.states() == {young: state}
    [event] = (await room.events())[known:]
    assert (event.kind, event.id, event.data["entry"]) == ("email.expired", "a1", old)
    [(_, letter)] = await room.letters()
    assert (letter["dead_class"], letter["to"]) == ("expired", "bob@example.net")
    assert await room.count("total:expired") == 1
    assert await room.scripts.expire(AGES) == (0, "", [])


async def test_the_age_is_each_priority_s_own(room: Mailroom) -> None:
    high, low = await room.held("high"), await room.held("low")
    room.tick(DAY)
    assert await room.scripts.expire([DAY, DAY, 2 * DAY]) == (1, "", [])
    assert await room.states() == {low: "held"}
    assert high != low


@pytest.mark.parametrize("state", STATES)
async def test_own_deadlines_in_every_state(room: Mailroom, state: str) -> None:
    entry = await room.add(id="a1")
    if state != "waiting":
        await room.read()
    over = room.now + 5000
    if state == "held":
        await room.do("HSET", room.keys.holds, f"intent:{entry}", "hold")
    if state != "waiting":
        due = room.now + 9000 if state == "scheduled" else 0
        found = await room.admit(entry, seen=ident("a1"), due=due, deadline=over, expires=over)
    if state == "parked":
        await room.settled("park", Lease(entry, found.token, "w1"), wait=60_000)
    assert await room.state(entry) == state
    room.tick(4999)
    assert await room.scripts.expire(AGES) == (0, "", [])
    room.tick(1)
    if state in {"waiting", "leased"}:  # on read; at the attempt's end
        assert await room.scripts.expire(AGES) == (0, "", [])
        assert await room.state(entry) == state
        return
    assert await room.scripts.expire(AGES) == (1, "", [])
    assert await room.states() == {}
    assert (await room.kinds())[-1] == "email.expired"
    assert await room.do("EXISTS", room.keys.expiry) == 0
    assert await room.scripts.find([(None, "a1")]) == [""]


async def test_an_own_deadline_that_passed_while_leased_is_found_in_the_lane(room: Mailroom) -> None:
    entry = await room.add()
    await room.read()
    found = await room.admit(entry, deadline=room.now + 1000, expires=room.now + 1000)
    room.tick(1000)
    assert await room.scripts.expire(AGES) == (0, "", [])
    await room.settled("park", Lease(entry, found.token, "w1"), wait=60_000)
    room.tick(10_000)
    assert await room.scripts.expire(AGES) == (1, "", [])


async def test_an_own_deadline_outranks_max_age(room: Mailroom) -> None:
    """`send_at` in a month: its age counts from there."""
    entry = await room.add(send_at="1702592000")
    unread = await room.add(send_at="1702592000")
    await room.read(many=1)
    await room.admit(entry, due=room.now + 30 * DAY, deadline=room.now + 35 * DAY, expires=room.now + 35 * DAY)
    await room.moved("hold", entry)
    room.tick(6 * DAY)
    assert await room.scripts.expire(AGES) == (0, "", [])
    assert await room.states() == {entry: "held", unread: "waiting"}


async def test_every_lane_is_visited(room: Mailroom) -> None:
    await room.say_pii("full")
    for n in range(60):
        await room.parked(lane=f"main|d{n}.example")
    room.tick(5 * DAY)
    ended, lane_from, _ = await room.scripts.expire(AGES)
    assert (ended, bool(lane_from)) == (50, True)
    total, turns = ended, 0
    while total < 60 and turns < 10:
        ended, lane_from, _ = await room.scripts.expire(AGES, lane_from)
        total += ended
        turns += 1
    assert (total, lane_from) == (60, "")
    assert await room.states() == {}


async def test_of_large_mails_a_call_ends_fewer(room: Mailroom) -> None:
    for _ in range(5):
        await room.held(text="x" * 1_500_000)
    room.tick(5 * DAY)
    assert [(await room.scripts.expire(AGES))[0] for _ in range(3)] == [2, 2, 1]


async def test_what_children_share_counts_for_each_of_them(room: Mailroom) -> None:
    """Each letter has a copy of it, though the child itself is a few octets."""
    lease = await parent(room)
    await room.spool.bodies.upload("up", FIELDS | {b"x_%d" % number: b"x" * 60_000 for number in range(40)}, False)
    children = (await expand(room, lease)).children
    await room.read()
    for child in children:
        await room.admit(child, tail=await tail_of(room, child), due=room.now + DAY)
    await room.moved("hold", *children)
    for child in children:
        await room.do("ZADD", room.keys.expiry, room.now, child)
    assert [(await room.scripts.expire(AGES))[0] for _ in range(3)] == [2, 2, 1]


async def test_the_head_of_a_stream_that_is_read_again_is_left_alone(room: Mailroom) -> None:
    held = await room.held()
    room.tick(6 * DAY)
    await room.do("XGROUP", "DESTROY", room.keys.stream("normal"), "streamq")
    await room.spool.open()
    await room.do("ZADD", room.keys.expiry, room.now + DAY, held)
    assert await room.scripts.expire(AGES) == (0, "", [])
    assert await room.state(held) == "held"


async def test_deleted_entries_are_counted_as_vanished(room: Mailroom) -> None:
    held = await room.held()
    await room.do("XDEL", room.keys.stream("normal"), held[1:])
    room.tick(5 * DAY)
    assert await room.scripts.expire(AGES) == (1, "", [])
    assert (await room.count("vanished"), await room.letters()) == (1, [])
    assert await room.states() == {}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("sent", [True, False])
async def test_resettle_ends_again_what_had_ended(room: Mailroom, state: str, sent: bool) -> None:
    entry = await room.in_state(state, "high", to="bob@example.net")
    known = len(await room.kinds())
    said = b"" if sent else why(reason="550 no", reply="550 no", **{"class": "bad_address"})
    kind = "email.relayed" if sent else "email.bounced"
    missing = ResettleRow(f"0{room.now}-99", "x", kind, b"", said, "x.1")
    rows = [ResettleRow(entry, "a1", kind, b'"x":1', said, "old.77"), missing]
    assert await room.scripts.resettle(rows) == 1
    assert await room.states() == {}
    [event] = (await room.events())[known:]
    assert (event.kind, event.id, event.data["event_id"]) == (kind, "a1", "old.77")
    assert [letter["last_reply"] for _, letter in await room.letters()] == ([] if sent else ["550 no"])
    assert await room.count("resettled") == 1
    assert (await room.survey()).visits == {}


@pytest.mark.parametrize("state", ["parked", "held"])
async def test_what_was_sent_is_not_expired(room: Mailroom, state: str) -> None:
    entry = await room.in_state(state)
    await room.do("HSET", room.keys.notes, entry, '{"sent":""}')
    room.tick(5 * DAY)
    assert await room.scripts.expire(AGES) == (1, "", [])
    assert (await room.kinds())[-1] == "email.relayed"
    assert (await room.states(), await room.letters()) == ({}, [])


async def test_own_deadlines_in_front_of_a_lane_do_not_shield_what_is_behind(room: Mailroom) -> None:
    first = await room.parked()
    await room.parked()
    await room.do("ZADD", room.keys.expiry, room.now + 30 * DAY, first)
    room.tick(5 * DAY)
    assert await room.scripts.expire(AGES) == (1, "", [])
    assert await room.states() == {first: "parked"}

"""lib/shares.lua: what a lane's lower priorities get of its slots, while a backlog above them never ends."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from conftest import MakeSpool
from mailroom import Mailroom

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]


async def limit(room: Mailroom, rule: str) -> None:
    await room.do("HSET", room.keys.limits, "*|*", rule)


async def backlog(room: Mailroom, *priorities: str, many: int = 60) -> None:
    """So many of each are parked; the window's slots of now are gone."""
    for name in reversed(priorities):
        made = [await room.add(name) for _ in range(many)]
        await room.read("w1", many)
        for at in range(0, many, 100):
            await room.admit(*made[at : at + 100])


async def order(room: Mailroom, many: int, *, each: int = 1) -> list[int]:
    """The priorities that so many slots are given to, `each` at a time."""
    got: list[int] = []
    for _ in range(many // each):
        room.tick(1000)
        got += [int(entry[0]) for entry in await room.released(room=each)]
    return got


async def test_a_tenth_each_and_never_two_in_a_row(room: Mailroom) -> None:
    await limit(room, "10:1000000")
    await backlog(room, "high", "normal", "low")
    got = await order(room, 60)
    assert Counter(got) == {0: 48, 1: 6, 2: 6}
    assert not any(first and second for first, second in pairwise(got))
    assert got[:7] == [0] * 7, "few of them go in their order"


async def test_shares_are_of_slots_however_many_go_at_once(room: Mailroom) -> None:
    await limit(room, "200:1000000")
    await backlog(room, "high", "low")
    assert Counter(await order(room, 40, each=4)) == {0: 36, 2: 4}


async def test_of_many_priorities_the_best_gets_half(make_spool: MakeSpool) -> None:
    room = Mailroom(await make_spool(priorities=[f"p{digit}" for digit in range(10)]))
    await limit(room, "10:1000000")
    await backlog(room, *room.spool.priorities, many=20)
    got = await order(room, 36)
    assert Counter(got) == {0: 18} | dict.fromkeys(range(1, 10), 2)
    assert not any(first and second for first, second in pairwise(got))


async def test_what_does_not_wait_has_no_share(room: Mailroom) -> None:
    await limit(room, "10:1000000")
    await backlog(room, "high")
    assert await order(room, 20) == [0] * 20
    assert await room.do("HEXISTS", room.keys.limit("main|example.net"), "turn") == 0
    await backlog(room, "low", many=1)
    got = await order(room, 10)
    assert got.count(2) == 1
    assert await order(room, 5) == [0] * 5


async def test_an_urgent_one_waits_one_slot_at_most(room: Mailroom) -> None:
    """It comes one at a time, over a backlog that is not urgent, at every point of a round."""
    await limit(room, "10:1000000")
    await backlog(room, "normal", "low")
    for _ in range(25):
        entry = await room.add("high")
        await room.read()
        found = await room.admit(entry)
        slots = 0
        while found.statuses[0].status != "go" and await room.state(entry) == "parked":
            room.tick(1000)
            slots += len(await room.released(room=1))
        assert slots <= 2, "another's, and its own"


async def test_newcomers_leave_a_share_to_those_that_are_parked(room: Mailroom) -> None:
    """A stream of urgent mail finds a slot each time it comes, and takes nine of ten."""
    await limit(room, "10:1000000")
    await backlog(room, "low")
    got: list[int] = []
    for _ in range(40):
        room.tick(1000)
        entry = await room.add("high")
        await room.read()
        status = (await room.admit(entry)).statuses[0].status
        got += [0] if status == "go" else [int(each[0]) for each in await room.released(room=2)]
    assert got.count(2) in {4, 5}
    assert got.count(0) == 40 - (await room.survey()).counts.get("parked:0", 0)


async def test_the_turn_goes_with_the_limit_s_state(room: Mailroom) -> None:
    await limit(room, ";c5")
    await backlog(room, "high", "low", many=10)
    for lease, _ in await room.taken():
        await room.settled("sent", lease)
    room.tick(5000)
    await room.released(room=3)
    key = room.keys.limit("main|example.net")
    assert int(await room.do("HGET", key, "turn")) >= 3
    assert 0 < await room.do("PTTL", key) <= 60_000

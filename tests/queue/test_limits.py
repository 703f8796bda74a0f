"""Limits of the queue and of routes, and the slack between a slot and its MAIL: lib/limit.lua through the scripts."""

from __future__ import annotations

import random

import pytest
from mailroom import LANE, START, Lease, Mailroom
from sifting import sift

from streamq.queue.rows import Admitted, Turn, TurnRow

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]

SECOND = 1_000_000  # µs


async def limit(room: Mailroom, **rules: str) -> None:
    """`queue`, a route's name, or `site` for each site."""
    names = {"queue": "*", "site": "*|*"}
    for name, rule in rules.items():
        await room.do("HSET", room.keys.limits, names.get(name, name), rule)


async def admit(
    room: Mailroom, many: int, *, lane: str = LANE, routes: str = "main", priority: str = "normal"
) -> Admitted:
    entries = [await room.add(priority) for _ in range(many)]
    assert set(entries) <= set(await room.read())
    return await room.scripts.admit("w1", [room.row(entry, lane=lane) for entry in entries], routes)


def statuses(found: Admitted) -> list[str]:
    return [each.status for each in found.statuses]


async def turn(room: Mailroom, found: Admitted, *ats: int, lane: str = LANE, routes: str = "main") -> list[str]:
    """Those mails ask for a slot again; what they are told."""
    rows = [
        TurnRow(entry, found.token, lane, found.statuses[at].slot)
        for at, entry in enumerate((await room.survey()).of("leased"))
        if at in ats
    ]
    _, turns = await room.scripts.turn("w1", rows, routes)
    return [each.status for each in turns]


@pytest.mark.parametrize("scope", ["queue", "main"])
async def test_what_waits_for_queue_or_only_route_stays_leased(room: Mailroom, scope: str) -> None:
    await limit(room, **{scope: "2:1000000"})
    found = await admit(room, 4)
    assert statuses(found) == ["go", "wait", "wait", "wait"]
    assert [each.way for each in found.statuses] == ["main", "", "", ""]
    seen = await room.survey()
    assert not seen.of("parked")
    # The next slot: T = (W + τ + σ) / 2, less τ.
    assert found.bound == (room.now * 1000, room.now * 1000 + 493_056, 520_833, 1)
    assert (await room.scripts.admit("w2", [], "main")).bound == found.bound
    room.tick(494)
    assert await turn(room, found, 1, 2) == ["go", "wait"]
    assert not (await room.survey()).of("parked")


async def test_of_several_routes_one_that_is_full_parks(room: Mailroom) -> None:
    await limit(room, main="1:1000000")
    found = await admit(room, 2, routes="main,other")
    assert statuses(found) == ["go", "parked"]
    assert found.bound[2] == 0  # nothing bounds reading: the other route takes mail
    assert statuses(await admit(room, 1, lane="other|example.net", routes="main,other")) == ["go"]


async def test_a_full_route_holds_up_no_other_routes_lanes(room: Mailroom) -> None:
    """Its lanes stay due and are passed over; the release is told when it has a slot."""
    await limit(room, main="1:1000000")
    for n in range(3):
        await admit(room, 2, lane=f"main|a{n}.example", routes="main,other")
    await limit(room, **{"other|b.example": "1:1000000"})
    await admit(room, 2, lane="other|b.example", routes="main,other")
    room.tick(1016.667)
    released = await room.scripts.release("w1", 10, (), "main,other")
    assert sorted(lease.way for lease in released.leases) == ["main", "other"]
    # The third slot since the start: T = W + τ + σ, less τ, and what rounding loses.
    assert abs(released.next_us - (START * 1000 + 2 * (SECOND + 41_665) - 27_777)) <= 3
    assert await room.do("XLEN", room.keys.bell) == 0  # nobody else could take it either


@pytest.mark.parametrize("scope", ["queue", "main"])
async def test_release_takes_no_more_than_there_are_slots(room: Mailroom, scope: str) -> None:
    """From the schedule, whose mails ask for their slot afterwards, and from lanes."""
    for _ in range(5):
        await room.scheduled(after=1000)
    await room.do("HSET", room.keys.limits, "*|slow.example", "1:1000000")
    await admit(room, 3, lane="main|slow.example")
    await limit(room, **{scope: "60:1000000"})
    room.tick(2000)
    released = await room.scripts.release("w1", 100, (), "main")
    assert len(released.leases) == 2  # τ / T = 33.3 / 17.5, and one
    assert not released.left
    assert room.now * 1000 < released.next_us <= room.now * 1000 + 2 * 17_500
    assert await room.do("XLEN", room.keys.bell) == 0
    rows = [TurnRow(lease.entry, released.token, LANE) for lease in released.leases if not lease.way]
    _, turns = await room.scripts.turn("w1", rows, "main")
    assert {each.status for each in turns} <= {"go"}
    assert (await room.scripts.release("w1", 100, (), "main")).leases == []


async def test_a_lane_that_is_due_waits_for_the_queue_and_stays_due(room: Mailroom) -> None:
    await limit(room, site="1:1000000", queue="1:2000000")
    await admit(room, 1)
    entry = await room.parked(lane=LANE)
    room.tick(1500)
    released = await room.scripts.release("w1", 10, (), "main")
    assert (released.leases, released.left) == ([], False)
    assert released.next_us == (room.now - 1500) * 1000 + 2 * SECOND + 27_777
    room.tick(534)
    assert [each.entry for each in (await room.scripts.release("w1", 10, (), "main")).leases] == [entry]


async def test_sift_leaves_what_waits_for_the_queue_to_the_reader(room: Mailroom) -> None:
    await limit(room, queue="1:1000000", **{"*|slow.example": "1:60000000"})
    first = await room.add(to="a@slow.example")
    await room.read()
    assert await room.admitted(first, lane="main|slow.example") == ["go"]
    slow, fast = await room.add(to="b@slow.example"), await room.add(to="b@fast.example")
    found = await sift(room)
    assert [entry for entry, _ in found.taken] == [fast]
    assert (await room.survey()).lanes == {slow: "main|slow.example"}


@pytest.mark.parametrize("rule", ["1:1000000", "7:100000", "50:1000000,60:10000000"])
@pytest.mark.parametrize("scope", ["queue", "main", "site"])
async def test_never_more_than_n_where_mail_goes_out_within_its_slack(room: Mailroom, scope: str, rule: str) -> None:
    """MAILs are as late as they may be, by chance: at the receiver no window holds more than N, and 95 % of
    them are used."""
    chance = random.Random(rule)
    windows = [tuple(map(int, part.split(":"))) for part in rule.split(",")]
    await limit(room, **{scope: rule})
    went: list[float] = []  # µs
    span = 3 * max(w for _, w in windows)
    now = begun = room.now * 1000
    [entry] = [await room.add()]
    await room.read()
    found = await room.admit(entry, consumer="w1")
    token, slot = found.token, found.statuses[0].slot
    while now < begun + span:
        if slot:
            went.append(now + chance.choice([0, 1, 1]) * int(slot.split(" ")[0]))
        _, [said] = await room.scripts.turn("w1", [TurnRow(entry, token, LANE)], "main")
        slot = said.slot
        if said.status != "go":
            lane = await room.do("HGETALL", room.keys.limit({"queue": "*", "main": "main", "site": LANE}[scope]))
            opens = [
                int(state.split(b":")[0]) - min(int(w) // 36, 2 * SECOND)
                for w, state in zip(lane[::2], lane[1::2], strict=True)
                if w != b"kept"
            ]
            now = max(opens)
            room.scripts.now = str(now)
    went.sort()
    for n, w in windows:
        for first, after in zip(went, went[n:], strict=False):
            assert after - first >= w, f"{n + 1} in {after - first} µs"
    n, w = min(windows, key=lambda each: each[0] / each[1])
    assert len(went) >= 0.95 * n * span / w - 1


async def test_a_slot_is_given_back_where_nobody_was_admitted_since(room: Mailroom) -> None:
    await limit(room, site="1:60000000")
    found = await admit(room, 1)
    room.tick(10_000)
    for _ in range(3):
        _, [said] = await room.scripts.turn(
            "w1", [TurnRow((await room.survey()).of("leased")[0], found.token, LANE, found.statuses[0].slot)], "main"
        )
        assert said.status == "go"  # its own slot, again: a minute is not over
        found.statuses[0] = found.statuses[0]._replace(slot=said.slot)
        room.tick(3000)


async def test_slots_of_a_batch_are_given_back_together(room: Mailroom) -> None:
    await limit(room, site="100:1000000")
    found = await admit(room, 3)
    assert statuses(found) == ["go", "go", "go"]
    before = await room.do("HGET", room.keys.limit(LANE), "1000000")
    assert await turn(room, found, 0, 1, 2) == ["go", "go", "go"]
    after = await room.do("HGET", room.keys.limit(LANE), "1000000")
    assert abs(int(after.split(b":")[0]) - int(before.split(b":")[0])) <= 3


async def test_a_slot_is_lost_where_somebody_was_admitted_since(room: Mailroom) -> None:
    await limit(room, site="100:1000000")
    found = await admit(room, 1)
    [entry] = (await room.survey()).of("leased")
    room.tick(20)  # its TAT was over: without the first one the second's would be the same
    await admit(room, 1)
    state = await room.do("HGET", room.keys.limit(LANE), "1000000")
    _, [said] = await room.scripts.turn("w1", [TurnRow(entry, found.token, LANE, found.statuses[0].slot)], "main")
    assert said.status == "go"
    later = await room.do("HGET", room.keys.limit(LANE), "1000000")
    assert int(later.split(b":")[0]) - int(state.split(b":")[0]) == 10_417  # T: one more


async def test_of_a_full_window_a_slot_is_given_back_whoever_came_since(room: Mailroom) -> None:
    await limit(room, site="100:1000000")
    found = await admit(room, 3)
    [entry, *_] = (await room.survey()).of("leased")
    room.tick(5)
    await admit(room, 1)
    state = await room.do("HGET", room.keys.limit(LANE), "1000000")
    _, [said] = await room.scripts.turn("w1", [TurnRow(entry, found.token, LANE, found.statuses[0].slot)], "main")
    assert said.status == "go"
    later = await room.do("HGET", room.keys.limit(LANE), "1000000")
    assert abs(int(later.split(b":")[0]) - int(state.split(b":")[0])) <= 3


@pytest.mark.parametrize("rule", ["100:1000000", "7:100000", "30:1000000,500:60000000"])
async def test_slots_that_run_out_by_chance_let_no_more_through(room: Mailroom, rule: str) -> None:
    """Eight mails by turns: some go, some are too late, and ask again; used slots alone are counted, never too many."""
    chance = random.Random(rule)
    windows = [tuple(map(int, part.split(":"))) for part in rule.split(",")]
    await limit(room, site=rule)
    entries = [await room.add() for _ in range(8)]
    await room.read()
    assert set(await room.admitted(*entries, due=room.now + 1)) == {"scheduled"}
    room.tick(1)
    token = (await room.release()).token  # leased, without a slot
    slots = dict.fromkeys(entries, "")
    now = begun = room.now * 1000
    went: list[int] = []
    for _ in range(1500):
        now += chance.choice([0, 100, 2000, 9000])
        room.scripts.now = str(now)
        entry = chance.choice(entries)
        slack, _, rest = slots[entry].partition(" ")
        if slack and now - int(rest.partition(" ")[0]) <= int(slack) and chance.random() < 0.7:
            went.append(now)
            slots[entry] = ""
            continue
        _, [said] = await room.scripts.turn("w1", [TurnRow(entry, token, LANE, slots[entry])], "main")
        slots[entry] = said.slot
    for n, w in windows:
        for first, after in zip(went, went[n:], strict=False):
            assert after - first >= w, f"{n + 1} in {after - first} µs"
    n, w = min(windows, key=lambda each: each[0] / each[1])
    # And many are used, since what ran out was given back; of 100 ms the slack is less than a step.
    assert len(went) >= (0.4 if w >= SECOND else 0.05) * n * (now - begun) / w


async def test_a_turn_is_fenced(room: Mailroom) -> None:
    await limit(room, site="1:1000000")
    found = await admit(room, 1)
    [entry] = (await room.survey()).of("leased")
    for consumer, token in (("w2", found.token), ("w1", found.token - 1)):
        _, [said] = await room.scripts.turn(consumer, [TurnRow(entry, token, LANE)], "main")
        assert said == Turn("lost", "", "")


async def test_an_operators_word_ends_the_wait(room: Mailroom) -> None:
    await limit(room, queue="1:1000000")
    found = await admit(room, 2)
    entry = (await room.survey()).of("leased")[1]
    assert statuses(found) == ["go", "wait"]
    assert await room.moved("hold", entry) == ["intended"]
    room.tick(5000)
    _, [said] = await room.scripts.turn("w1", [TurnRow(entry, found.token, LANE)], "main")
    assert said.status == "park"


async def test_no_limit_costs_no_command(room: Mailroom) -> None:
    found = await admit(room, 2)
    assert [(each.status, each.slot) for each in found.statuses] == [("go", ""), ("go", "")]
    assert found.bound == (room.now * 1000, 0, 0, 0)
    assert await room.do("EXISTS", room.keys.limit("*"), room.keys.limit("main"), room.keys.limit(LANE)) == 0


async def test_a_window_is_kept_as_long_as_it_binds_and_a_clock_may_stand_still(room: Mailroom) -> None:
    """Ten minutes longer, and one more, so that most mails need not ask for how long."""
    await limit(room, main="100:60000000")
    key, binds = room.keys.limit("main"), 60_000
    await admit(room, 1)
    assert binds + 660_000 < await room.do("PTTL", key) < binds + 665_000
    room.tick(1_000)
    await room.do("PEXPIRE", key, binds + 659_000)  # as it is then
    await admit(room, 1)
    assert await room.do("PTTL", key) <= binds + 659_000
    room.tick(65_000)
    await room.do("PEXPIRE", key, binds + 594_000)
    await admit(room, 1)
    assert await room.do("PTTL", key) > binds + 660_000


async def test_a_route_keeps_record_and_limit_in_one_hash(room: Mailroom) -> None:
    """Neither shortens the other's life."""
    await limit(room, main="1:86400000000")
    found = await admit(room, 1)
    [entry] = (await room.survey()).of("leased")
    before = await room.do("PTTL", room.keys.limit("main"))
    assert before > 86_000_000
    assert await room.settled("sent", Lease(entry, found.token, "w1")) == "ok"
    assert await room.do("PTTL", room.keys.limit("main")) > 86_000_000

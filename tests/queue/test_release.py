"""release.lua: the schedule, then lanes with a free slot, high to low, oldest first; strict windows; the bell."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from conftest import MakeSpool
from mailroom import LANE, Mailroom

from streamq.queue.limits import set_limits, settings_layer

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]


async def limit(room: Mailroom, rule: str, lane: str = "*|*") -> None:
    await room.do("HSET", room.keys.limits, lane, rule)


async def test_the_due_of_the_schedule_by_time(room: Mailroom) -> None:
    late, early, ahead = [await room.scheduled(after=after) for after in (2000, 1000, 9000)]
    assert await room.released() == []
    room.tick(2000)
    found = await room.release("w2")
    assert [(each.entry, each.way) for each in found.leases] == [(early, ""), (late, "")]
    assert (found.left, found.next_us) == (False, (room.now + 7000) * 1000)
    seen = await room.survey()
    assert seen.leases == {early: ("w2", found.token), late: ("w2", found.token)}
    assert (seen.due, seen.counts["scheduled:1"]) == ({ahead: room.now + 7000}, 1)
    assert await room.kinds() == []


async def test_lanes_go_by_priority_then_age(room: Mailroom) -> None:
    await limit(room, "1:1000000")
    made = {name: [await room.add(name) for _ in range(2)] for name in ("low", "normal", "high")}
    await room.read()
    await room.admit(await _slot_taken(room))
    order = [*made["low"], *made["normal"], *made["high"]]
    assert set(await room.admitted(*order)) == {"parked"}
    got = []
    for _ in range(6):
        room.tick(1100)
        [(lease, leased)] = await room.taken()
        assert leased.way == "main"
        got.append(lease.entry)
    assert got == [*made["high"], *made["normal"], *made["low"]]
    assert (await room.survey()).visits == {}


async def _slot_taken(room: Mailroom) -> str:
    entry = await room.add("low")
    await room.read()
    return entry


async def test_notes_come_along(room: Mailroom) -> None:
    lease = await room.lease()
    await room.settled("defer", lease, wait=1)
    room.tick(1)
    [(_, leased)] = await room.taken()
    assert b'"attempts":1' in leased.notes


async def test_no_more_than_there_is_room_for_and_the_bell_rings_once(room: Mailroom) -> None:
    entries = [await room.scheduled(after=1) for _ in range(3)]
    room.tick(1)
    found = await room.release("w1", 1)
    assert [each.entry for each in found.leases] == entries[:1]
    assert found.left
    assert (await room.release("w1", 0)).left
    assert await room.do("XLEN", room.keys.bell) == 1
    # One idle worker wakes; what it calls next acks and deletes the bell's entry.
    reading = await room.spool.wait("w2", 10, 1)
    assert (len(reading.bell), reading.entries) == (1, [])
    found = await room.release("w2", 10, reading.bell)
    assert [each.entry for each in found.leases] == entries[1:]
    assert not found.left
    assert await room.do("XLEN", room.keys.bell) == 0
    assert (await room.do("XPENDING", room.keys.bell, "streamq"))[0] == 0


async def test_a_lane_without_room_rings_too(room: Mailroom) -> None:
    first, second = await room.parked(), await room.parked()
    room.tick(60_000)
    found = await room.release("w1", 1)
    assert ([each.entry for each in found.leases], found.left) == ([first], True)
    assert found.next_us == room.now * 1000
    assert await room.do("XLEN", room.keys.bell) == 1
    assert await room.released("w2", 1) == [second]


async def test_next_is_the_soonest_of_schedule_and_lanes(room: Mailroom) -> None:
    await limit(room, "1:5000000")
    first, second = await room.add(), await room.add()
    await room.read()
    await room.admit(first, second)
    assert (await room.release()).next_us == (room.now + 5000) * 1000 + 69_444  # W + σ
    await room.scheduled(after=3000)
    assert (await room.release()).next_us == (room.now + 3000) * 1000
    assert (await room.release()).token == 0  # nothing was leased


async def test_one_lane_does_not_stop_another(room: Mailroom) -> None:
    await limit(room, "1:1000000", "*|slow.example")
    slow = [await room.add() for _ in range(3)]
    await room.read()
    await room.admit(*slow, lane="main|slow.example")
    quick = await room.parked()
    room.tick(60_000)
    assert set(await room.released()) == {quick, slow[1]}


@pytest.mark.stories
@pytest.mark.parametrize("rule", ["50:1000000", "7:100000", "1:1000000", "50:1000000,60:10000000"])
async def test_never_more_than_n_in_any_window(room: Mailroom, rule: str) -> None:
    """Through admission and release, from two workers, under a backlog that never ends."""
    windows = [tuple(map(int, part.split(":"))) for part in rule.split(",")]
    await limit(room, rule)
    span = max(w for _, w in windows) // 1000  # ms
    backlog = 3 * min(span * 1000 // w * n for n, w in windows) + 10
    for _ in range(backlog):
        await room.add()
    went: list[int] = []  # µs
    begun = room.now
    entries = await room.read("w1", backlog // 2) + await room.read("w2", backlog)
    half = backlog // 2
    for consumer, part in (("w1", entries[:half]), ("w2", entries[half:])):
        for at in range(0, len(part), 90):
            statuses = await room.admitted(*part[at : at + 90], consumer=consumer)
            went += [room.now * 1000] * statuses.count("go")
    step = max(1, windows[0][1] // 1000 // 37)  # ms: odd against every window
    turn = 0
    while room.now < begun + 2 * span + span // 2:
        room.tick(step)
        turn += 1
        got = await room.released(f"w{turn % 2 + 1}", 200)
        went += [room.now * 1000] * len(got)
    assert (await room.survey()).of("parked")  # the backlog did not end
    for n, w in windows:
        for first, after in zip(went, went[n:], strict=False):
            assert after - first >= w, f"{n + 1} in {after - first} µs"
    n, w = min(windows, key=lambda each: each[0] / each[1])
    lasted = room.now * 1000 - begun * 1000
    assert len(went) >= 0.95 * n * lasted / w - 1


async def test_use_is_95_percent_where_releases_come_on_time(room: Mailroom) -> None:
    """The worker's timer comes when the script says."""
    await limit(room, "20:1000000")
    for _ in range(90):
        await room.add()
    entries = await room.read()
    went = [room.now * 1000] * (await room.admitted(*entries)).count("go")
    us = room.now * 1000
    while us < (room.now + 3000) * 1000:
        found = await room.release()
        went += [us] * len(found.leases)
        assert us < found.next_us <= us + 60_000
        us = found.next_us
        room.scripts.now = str(us)
    assert all(b - a >= 1_000_000 for a, b in zip(went, went[20:], strict=False))
    assert sum(1 for at in went if at < (room.now + 3000) * 1000) >= 0.95 * 60
    assert all(b >= a for a, b in pairwise(went))


async def test_a_changed_limit_scales_what_is_owed(room: Mailroom) -> None:
    await limit(room, "1:10000000")
    first, second = await room.add(), await room.add()
    await room.read()
    assert await room.admitted(first, second) == ["go", "parked"]
    await limit(room, "10:10000000")
    room.tick(1000)
    await room.do("ZADD", room.keys.due("normal"), 0, LANE)  # as whoever changes a limit does it
    # T was 10.42 s, of which 9.42 are left; it is 1.04 s now, so 0.94 are left, less τ, 0.28 s.
    found = await room.release()
    assert (found.leases, found.next_us) == ([], (room.now + 663) * 1000 + 890)
    room.tick(664)
    assert await room.released() == [second]


async def test_ids_of_any_length_are_parked(room: Mailroom) -> None:
    """A producer may give ids itself; none stops a worker."""
    await limit(room, "1:1000000")
    ids = ["7-0", "1700000000000-18446744073709551615", "99999999999999-3", "9999999999999999999-1"]
    for id_ in ids:
        await room.do("XADD", room.keys.stream("normal"), id_, "to", "bob@example.net")
    entries = await room.read()
    assert await room.admitted(*entries, deadline=10**20) == ["go", "parked", "parked", "parked"]
    got = []
    for _ in range(3):
        room.tick(1100)
        got += await room.released()
    assert sorted(got) == sorted(entries[1:])


async def test_limits_most_specific_first(make_spool: MakeSpool) -> None:
    room = Mailroom(await make_spool(sites={"*": {"rate": "2/s"}, "example.net": {"rate": "3/s"}}))
    await set_limits(room.spool, "settings", settings_layer(room.spool.settings) or {}, whole=True)
    await limit(room, "1:1000000", "slow|example.net")
    await limit(room, "", "free|*")
    waits = {}
    for lane in ("main|example.net", "main|example.org", "slow|example.net", "free|example.org"):
        entries = [await room.add() for _ in range(2)]
        await room.read()
        found = await room.admit(*entries, lane=lane)
        waits[lane] = found.next_us and found.next_us // 1000 - room.now
    assert waits == {
        "main|example.net": 319,  # (W + τ + σ) / N − τ
        "main|example.org": 493,
        "slow|example.net": 1013,
        "free|example.org": 0,
    }


async def test_limits_that_nobody_uses_die(room: Mailroom) -> None:
    await limit(room, "1:1000000")
    await room.lease(lane="main|junk.example")
    left = await room.do("PTTL", room.keys.limit("main|junk.example"))
    assert 600_000 < left < 700_000  # as long as a clock may stand still, and a little


async def test_nothing_is_taken_back_while_the_stream_is_read_again(room: Mailroom) -> None:
    parked, scheduled = await room.parked(), await room.scheduled()
    other = await room.scheduled("high")
    room.tick(60_000)
    await room.do("XGROUP", "DESTROY", room.keys.stream("normal"), "streamq")
    await room.spool.open()
    found = await room.release()
    assert [each.entry for each in found.leases] == [other]
    assert found.next_us == (room.now + 100) * 1000  # due already: nobody asks again and again meanwhile
    assert await room.read("w1", 1) == [parked]
    assert await room.released() == []
    assert await room.read("w1", 1) == [scheduled]  # the last: the mark is passed
    assert await room.admitted(parked, scheduled) == ["elsewhere", "elsewhere"]
    assert set(await room.released()) == {parked, scheduled}
    assert await room.do("HEXISTS", room.keys.meta, "reread:1") == 0


async def test_what_was_read_again_is_not_leased_twice(room: Mailroom) -> None:
    entry = await room.scheduled()
    room.tick(60_000)
    await room.do("XGROUP", "DESTROY", room.keys.stream("normal"), "streamq")
    await room.spool.open()
    assert await room.read("w1") == [entry]
    assert await room.released("w2") == [entry]
    assert await room.admitted(entry, consumer="w1") == ["lost"]
    assert await room.admitted(entry, consumer="w2") == ["go"]


async def test_deleted_entries_leave_no_lease(room: Mailroom) -> None:
    parked, scheduled = await room.parked(), await room.scheduled()
    await room.do("XDEL", room.keys.stream("normal"), parked[1:], scheduled[1:])
    room.tick(60_000)
    for lease, _ in await room.taken():  # Redis 6.2 leases what is no more
        await room.settled("gone", lease)
    assert await room.count("vanished") == 2
    seen = await room.survey()
    assert (seen.states, seen.leases) == ({}, {})


async def test_a_lane_whose_parts_disagree_leases_nothing_twice(room: Mailroom) -> None:
    entry = await room.parked()
    for bucket in await room.do("KEYS", room.keys.prefix + "lane:*"):
        await room.do("HDEL", bucket, entry)
    room.tick(60_000)
    found = await room.release()
    assert found.leases == []
    assert found.next_us == (room.now + 1000) * 1000
    await room.do("ZREM", room.keys.parked, *await room.do("ZRANGE", room.keys.parked, 0, -1))
    await room.do("HSET", room.keys.counts, "parked:1", 0)
    await room.do("ZADD", room.keys.schedule, room.now, entry)
    await room.do("HSET", room.keys.counts, "scheduled:1", 1)
    await room.do("DEL", room.keys.due("normal"))
    assert await room.released() == [entry]


async def test_a_slower_clock_turns_no_time_back(room: Mailroom) -> None:
    """A failover to it gives no slots twice; one that was minutes ahead is believed to have been wrong."""
    await limit(room, "1:1000000")
    first = await room.parked()
    room.tick(60_000)
    assert await room.released() == [first]
    ahead = room.now * 1000
    second = await room.add()
    await room.read()
    room.tick(-59_000)
    found = await room.admit(second)
    assert (found.statuses[0][0], found.now_us, found.next_us) == ("parked", ahead, ahead + 1_013_888)
    assert (await room.release()).now_us == ahead, "nor does the second call"
    room.tick(-600_000)
    assert (await room.release()).now_us == room.now * 1000
    assert 0 < await room.do("PTTL", room.keys.clock) <= 60_000


async def test_a_mass_of_retries_holds_up_no_lane_and_no_lane_a_retry(room: Mailroom) -> None:
    for _ in range(30):
        await room.scheduled()
    for _ in range(30):
        await room.parked()
    room.tick(60_000)
    found = await room.release("w1", 10)
    assert Counter(lease.way for lease in found.leases) == {"": 5, "main": 5}
    assert found.left


async def test_a_release_takes_a_hundred_at_most(room: Mailroom) -> None:
    entries = [await room.add() for _ in range(130)]
    await room.read("w1", 130)
    for start in (0, 65):
        await room.admit(*entries[start : start + 65], due=room.now + 5)
    room.tick(5)
    found = await room.release("w1", 5000)
    assert (len(found.leases), found.left) == (100, True)


# -- the watch -----------------------------------------------------------------------------------

BEHIND, LATE = 200, 20  # ms, release.lua


async def next_of(room: Mailroom, consumer: str, many: int = 100) -> int:
    """ms from now until this worker is to come again."""
    return (await room.release(consumer, many)).next_us // 1000 - int(room.now)


async def test_one_worker_comes_for_what_is_due_next_and_the_others_behind_it(room: Mailroom) -> None:
    await room.scheduled(after=1000)
    assert [await next_of(room, consumer) for consumer in ("w1", "w2", "w3", "w1")] == [1000, 1200, 1200, 1000]
    await room.scheduled(after=500)  # its worker knows, and comes for it: but for what is behind it w1 comes already
    assert await next_of(room, "w2") == 500
    assert await next_of(room, "w1") == 500 + BEHIND
    room.tick(500)
    assert len((await room.release("w2")).leases) == 1
    assert await next_of(room, "w1") == 500 + BEHIND


async def test_who_is_late_is_relieved(room: Mailroom) -> None:
    await room.scheduled(after=1000)
    await room.scheduled(after=3000)
    assert await next_of(room, "w1") == 1000
    room.tick(1000 + LATE)
    assert len((await room.release("w2")).leases) == 1
    assert await next_of(room, "w2") == 2000 - LATE + BEHIND  # w1 may be on its way still
    room.tick(1)
    assert await next_of(room, "w2") == 2000 - LATE - 1
    assert await next_of(room, "w1") == 2000 - LATE - 1 + BEHIND
    await room.scheduled(after=1)
    room.tick(3000)
    assert len((await room.release("w3")).leases) == 2


async def test_who_has_no_room_keeps_no_watch(room: Mailroom) -> None:
    await room.scheduled(after=1000)
    assert await next_of(room, "w1") == 1000
    room.tick(1000)
    assert (await room.release("w1", 0)).left
    assert not await room.do("EXISTS", room.keys.watch)
    await room.scheduled(after=1000)
    found = await room.release("w2")
    assert (len(found.leases), found.next_us // 1000 - room.now) == (1, 1000)


async def test_the_watch_of_a_worker_that_is_gone_ends(room: Mailroom) -> None:
    await room.scheduled(after=1000)
    assert await next_of(room, "w1") == 1000
    assert 0 < await room.do("PTTL", room.keys.watch) <= 1000 + LATE

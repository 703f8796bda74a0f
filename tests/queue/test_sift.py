"""sift.lua: mails of closed lanes are parked while reading, the others become the reader's."""

from __future__ import annotations

from typing import Any

import pytest
from mailroom import DAY, START, Mailroom
from sifting import SLOW, sift, slow

from streamq.worker.sifter import row

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]


async def test_closed_lanes_park_and_the_rest_is_the_readers(room: Mailroom) -> None:
    await slow(room)
    first = await room.add(to="a@slow.example", subject="1")
    healthy = await room.add(to="b@fast.example", subject="2")
    second = await room.add(envelope_to="c@Slow.Example", raw="3")
    found = await sift(room)
    assert (found.visited, found.parked, found.said.closed_us) == (3, 2, 0)
    assert found.taken == [(healthy, [b"to", b"b@fast.example", b"subject", b"2"])]
    assert found.said.next_us == (START + 60_000) * 1000
    seen = await room.survey()
    assert seen.states == {first: "parked", healthy: "leased", second: "parked"}
    assert seen.leases == {healthy: ("w1", 1)}  # as a read leaves it
    assert await room.count("parked:1") == 2
    assert await room.kinds() == []
    assert await room.admitted(healthy, lane="main|fast.example") == ["go"]
    assert await room.read("w2") == []


async def test_lane_comes_out_in_order_and_within_its_limit(room: Mailroom) -> None:
    await slow(room)
    entries = [await room.add(to=f"{n}@slow.example") for n in range(3)]
    await sift(room)
    room.tick(59_999)
    assert await room.released() == []
    room.tick(1)
    assert await room.released() == entries[:1]
    room.tick(63_000)
    assert await room.released() == entries[1:2]


async def test_an_open_lane_is_left_to_admission_and_costs_no_slot(room: Mailroom) -> None:
    await room.do("HSET", room.keys.limits, "*|slow.example", "1:60000000")
    first, second = [await room.add(to=f"{n}@slow.example") for n in range(2)]
    found = await sift(room)
    assert [entry for entry, _ in found.taken] == [first, second]
    assert await room.admitted(first, second, lane=SLOW) == ["go", "parked"]


async def test_a_newcomer_does_not_overtake_its_lane_and_a_better_priority_may(room: Mailroom) -> None:
    await room.do("HSET", room.keys.limits, "*|slow.example", "1:60000000")
    waits = await room.parked(lane=SLOW)  # put back by hand: its lane has a free slot
    low, high = await room.add("low", to="a@slow.example"), await room.add("high", to="b@slow.example")
    room.tick(120_000)
    assert (await sift(room, 2)).parked == 1
    assert [entry for entry, _ in (await sift(room, 0)).taken] == [high]
    assert await room.states() == {waits: "parked", low: "parked", high: "leased"}
    assert await room.released() == [waits]


async def test_a_newcomer_brings_the_next_visit_of_its_lane_not_forward(room: Mailroom) -> None:
    await room.parked(lane=SLOW)  # for a minute, though its lane has a free slot
    await room.add(to="a@slow.example")
    found = await sift(room)
    assert (found.parked, found.said.next_us) == (1, (START + 60_000) * 1000)
    assert await room.released() == []


async def test_the_soonest_visit_of_all_lanes_is_told(room: Mailroom) -> None:
    for n in (5, 1, 4, 2, 6, 3):
        await room.do("HSET", room.keys.limits, f"*|s{n}.example", "1:60000000")
        tat = (START + n * 10_000) * 1000
        await room.do("HSET", room.keys.limit(f"main|s{n}.example"), "60000000", f"{tat}:62499999")
        await room.add(to=f"bob@s{n}.example")
    found = await sift(room)
    assert (found.parked, found.said.next_us) == (6, START * 1000 + 8_333_334)  # the first TAT, less τ


async def test_room_and_most_bound_a_call(room: Mailroom) -> None:
    await slow(room)
    for n in range(30):
        await room.add(to=f"{n}@{'fast' if n % 10 == 9 else 'slow'}.example")
    found = await sift(room, most=4)
    assert (found.visited, found.parked) == (4, 4)
    found = await sift(room, room_for=0)
    assert (found.visited, found.parked) == (5, 5)
    found = await sift(room, room_for=0)
    assert (found.visited, found.parked) == (0, 0)
    found = await sift(room, room_for=1)  # who has no room parks all the same
    assert (found.parked, len(found.taken), found.visited) == (9, 1, 10)
    for n in range(101):
        await room.add(to=f"{n}@slow.example")
    found = await sift(room, room_for=2, most=1000)
    assert (found.visited, len(found.taken)) == (112, 2)


async def test_a_large_one_with_an_id_is_hashed_before_it_parks(room: Mailroom) -> None:
    """A hundred mails under the id of one of 25 MB, each compared with it, would hold up the server for seconds."""
    await slow(room)
    small, large = [await room.add(envelope_to="bob@slow.example", raw="x" * n, id=f"a{n}") for n in (60_000, 70_000)]
    found = await sift(room)
    assert [entry for entry, _ in found.taken] == [large]
    assert await room.states() == {small: "parked", large: "leased"}


async def test_a_look_that_another_reader_has_overtaken_passes_nothing(room: Mailroom) -> None:
    await slow(room)
    entries = [await room.add(to=f"{n}@slow.example") for n in range(3)]
    known: dict[str, Any] = {"route": "main", "room": 10, "max_age_ms": 5 * DAY}
    behind = await room.spool.passed("normal")
    rows = [row(id_.decode(), flat, 1000) for id_, flat in await room.spool.peek("normal", behind, 10)]
    assert await room.read("w2", many=1) == entries[:1]
    said = await room.scripts.sift("w1", 1, rows, behind=behind, **known)
    assert (said.behind, said.letters) == (entries[0][1:], "")
    assert await room.states() == {entries[0]: "leased", entries[1]: "waiting", entries[2]: "waiting"}
    assert (await room.scripts.sift("w1", 1, rows[1:], behind=said.behind, **known)).letters == "pp"


async def test_what_somebody_deleted_behind_a_look_is_missed_when_its_turn_comes(room: Mailroom) -> None:
    """As what is deleted while it is parked."""
    await slow(room)
    entries = [await room.add(to=f"{n}@{site}.example") for n, site in enumerate(("slow", "fast", "slow"))]
    known: dict[str, Any] = {"route": "main", "room": 10, "max_age_ms": 5 * DAY}
    behind = await room.spool.passed("normal")
    rows = [row(id_.decode(), flat, 1000) for id_, flat in await room.spool.peek("normal", behind, 10)]
    for entry in entries[:2]:
        await room.do("XDEL", room.keys.stream("normal"), entry[1:])
    assert (await room.scripts.sift("w1", 1, rows, behind=behind, **known)).letters == "ptp"
    assert await room.admitted(entries[1], lane="main|fast.example") in (["lost"], ["gone"])  # by server
    room.tick(63_000)
    assert await room.released() == []
    room.tick(63_000)
    assert await room.released() == entries[2:]
    assert await room.states() == {entries[2]: "leased"}
    assert await room.count("vanished") >= 1


async def test_what_is_too_old_is_left_to_admission(room: Mailroom) -> None:
    await slow(room)
    old = await room.add(to="bob@slow.example")
    room.tick(1000)
    young = await room.add(to="eve@slow.example")
    found = await sift(room, max_age_ms=1000)
    assert [entry for entry, _ in found.taken] == [old]
    assert await room.state(young) == "parked"


@pytest.mark.parametrize("rule", ["rule:all", "rule:priority:normal", "rule:domain:slow.example", "id:a1", "intent"])
async def test_an_operators_word_is_left_to_admission(room: Mailroom, rule: str) -> None:
    await slow(room)
    entry = await room.add(to="bob@slow.example", id="a1")
    await room.do("HSET", room.keys.holds, f"intent:{entry}" if rule == "intent" else rule, "hold")
    assert [name for name, _ in (await sift(room)).taken] == [entry]


async def test_a_closed_route_reads_nothing(room: Mailroom) -> None:
    await slow(room)
    lease = await room.lease("high")
    await room.settle("park", lease, down=True)
    entry = await room.add(to="bob@slow.example")
    found = await sift(room)
    assert (found.visited, found.said.closed_us) == (0, room.now * 1000 + 1_000_000)
    assert await room.state(entry) == "waiting"


async def test_a_stream_that_is_read_again_is_not_sifted(room: Mailroom) -> None:
    await slow(room)
    entry = await room.add(to="bob@slow.example")
    await sift(room)
    await room.do("XGROUP", "DESTROY", room.keys.stream("normal"), "streamq")
    assert (await sift(room)).visited == 0
    await room.spool.open()
    assert (await sift(room)).visited == 0
    assert await room.read() == [entry]
    assert await room.admitted(entry, lane=SLOW) == ["elsewhere"]
    assert await room.state(entry) == "parked"


async def test_no_stream_no_mail(room: Mailroom) -> None:
    await room.do("DEL", room.keys.stream("normal"))
    assert (await sift(room)).visited == 0
    await room.spool.open()


async def test_the_groups_lag_is_right_or_unknown(room: Mailroom) -> None:
    """Scalers look at it (Redis 7); mails that were cancelled while they waited are in nobody's count."""
    await slow(room)
    await room.add(to="first@slow.example")
    await room.read()
    entries = [await room.add(to=f"{n}@slow.example") for n in range(6)]
    await room.move("cancel", *entries[1:3])
    for visits, waiting in ((2, 2), (2, 0)):
        await sift(room, most=visits)
        [group] = await room.do("XINFO", "GROUPS", room.keys.stream("normal"))
        known = dict(zip(group[::2], group[1::2], strict=True))
        if b"lag" not in known:
            pytest.skip("this server does not count what a group has read (before Redis 7)")
        assert known[b"lag"] in {None, waiting}
    await room.add(to="last@fast.example")
    await room.read()
    [group] = await room.do("XINFO", "GROUPS", room.keys.stream("normal"))
    assert dict(zip(group[::2], group[1::2], strict=True))[b"lag"] == 0


async def test_admission_looks_into_the_lanes_for_what_was_parked_here(room: Mailroom) -> None:
    """A group that is made again reads it once more: it must not go, nor take a second place."""
    await slow(room)
    entries = [await room.add(to=f"{n}@slow.example") for n in range(2)]
    await sift(room)
    await room.do("XGROUP", "SETID", room.keys.stream("normal"), "streamq", 0)
    assert await room.read() == entries
    assert await room.admitted(*entries, lane="main|fast.example") == ["elsewhere", "elsewhere"]


async def test_a_raised_limit_counts_at_once(room: Mailroom) -> None:
    await slow(room)
    await room.do("HSET", room.keys.limits, "*|slow.example", "60000:60000000")
    room.tick(20)  # what was left of a minute is a sixty-thousandth of that now
    entry = await room.add(to="bob@slow.example")
    assert [taken for taken, _ in (await sift(room)).taken] == [entry]


async def test_the_greatest_id_there_is_ends_nothing(room: Mailroom) -> None:
    await slow(room)
    stream, greatest = room.keys.stream("normal"), f"{2**64 - 1}-{2**64 - 1}"
    await room.do("XADD", stream, greatest, "to", "bob@slow.example")
    for _ in range(2):
        await sift(room)
    await room.scripts.expire([DAY])
    assert (await room.scripts.search(1, greatest, 10, id_="a1")) == ("", 0, [])
    assert await room.length() == 1

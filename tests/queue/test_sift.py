"""sift.lua: mails of closed lanes are parked while reading, the others become the reader's."""

from __future__ import annotations

from typing import Any

import pytest
from mailroom import DAY, LANE, START, Lease, Mailroom, ident

from streamq.mail.glance import MOST, PLAIN
from streamq.queue.script import load
from streamq.queue.scripts import Sifted

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]

SLOW = "main|slow.example"


async def slow(room: Mailroom) -> None:
    """slow.example takes one mail a minute, and the next one in a minute."""
    await room.do("HSET", room.keys.limits, "*|slow.example", "1:60000000")
    await room.do("HSET", room.keys.limit(SLOW), "60000000", f"{(START + 62_000) * 1000}:62000000")


async def sift(room: Mailroom, p: int = 1, *, consumer: str = "w1", room_for: int = 100, **known: Any) -> Sifted:
    made: dict[str, Any] = {"max_age_ms": 5 * DAY, "max_bytes": 25_000_000}
    return await room.scripts.sift(consumer, p, route="main", room=room_for, **(made | known))


async def test_closed_lanes_park_and_the_rest_is_the_readers(room: Mailroom) -> None:
    await slow(room)
    first = await room.add(to="a@slow.example", subject="1")
    healthy = await room.add(to="b@fast.example", subject="2")
    second = await room.add(envelope_to="c@Slow.Example", raw="3")
    found = await sift(room)
    assert (found.visited, found.parked, found.closed_us) == (3, 2, 0)
    assert found.taken == [(healthy, [b"to", b"b@fast.example", b"subject", b"2"])]
    assert found.next_us == (START + 60_000) * 1000
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
    room.tick(62_000)
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


async def test_room_and_most_bound_a_call(room: Mailroom) -> None:
    await slow(room)
    for n in range(30):
        await room.add(to=f"{n}@{'fast' if n % 10 == 9 else 'slow'}.example")
    found = await sift(room, room_for=2)
    assert (found.parked, len(found.taken), found.visited) == (18, 2, 20)
    found = await sift(room, most=4)
    assert (found.visited, found.parked) == (4, 4)
    found = await sift(room, room_for=0)
    assert (found.visited, found.parked) == (0, 0)


async def test_large_mails_end_a_call_early(room: Mailroom) -> None:
    await slow(room)
    for n in range(40):
        await room.add(envelope_to=f"{n}@slow.example", raw="x" * 100_000)
    found = await sift(room)
    assert found.visited == found.parked == 24  # pages of 8 and 16: a million bytes are passed in the second


@pytest.mark.parametrize(
    "fields",
    [
        {"to": "bob@slow.example, eve@slow.example"},
        {"to": "bob@slow.example", "cc": "eve@slow.example"},
        {"to": "bob@slow.example", "send_at": "2030-01-01T00:00:00Z"},
        {"to": "bob@slow.example", "route": "main"},
        {"to": "bob@slow.example", "tenant": "t"},
        {"to": "bob@slow.example", "colour": "red"},
        {"to": "bob@slow.example", "id": "two words"},
        {"to": "bob@slow.example", "id": "x" * 257},
        {"to": "Bob <bob@slow.example>"},
        {"to": '"b b"@slow.example'},
        {"to": "b..b@slow.example"},
        {"to": ".b@slow.example"},
        {"to": "b.@slow.example"},
        {"to": "b@slow.example@slow.example"},
        {"to": "bob@slow..example"},
        {"to": "bob@-slow.example"},
        {"to": "bob@slow-.example"},
        {"to": "bob@slow"},
        {"to": "bob@[192.0.2.1]"},
        {"to": "bób@slow.example"},
        {"to": f"{'b' * 120}@slow.example"},
        {"raw": "no recipient", "to": "bob@slow.example"},
        {"subject": "no recipient"},
        {"envelope_to": "bob@slow.example", "raw": "x" * 1000},
    ],
    ids=lambda fields: ",".join(f"{name}={value[:20]}" for name, value in fields.items()),
)
async def test_what_only_intake_can_judge_is_not_parked(room: Mailroom, fields: dict[str, str]) -> None:
    """All lanes are closed: what parks here was glanced at."""
    await room.do("HSET", room.keys.limits, "*|*", "1:60000000")
    for site in ("slow.example", "slow..example", "-slow.example", "slow-.example", "slow", "[192.0.2.1]"):
        await room.do("HSET", room.keys.limit(f"main|{site}"), "60000000", f"{(START + 90_000) * 1000}:62000000")
    entry = await room.add(**fields)
    found = await sift(room, max_bytes=1000)
    assert [name for name, _ in found.taken] == [entry]
    assert await room.state(entry) == "leased"


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
    assert (found.visited, found.closed_us) == (0, room.now * 1000 + 1_000_000)
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


async def test_the_group_counts_what_it_has_read(room: Mailroom) -> None:
    """Where the server counts (Redis 7), so that the group's lag stays known: scalers look at it."""
    await slow(room)
    await room.add(to="first@slow.example")
    await room.read()  # a new group counts from its first read on
    for n in range(4):
        await room.add(to=f"{n}@{'fast' if n == 2 else 'slow'}.example")
    await sift(room, most=3)
    [group] = await room.do("XINFO", "GROUPS", room.keys.stream("normal"))
    known = dict(zip(group[::2], group[1::2], strict=True))
    if b"entries-read" not in known:
        pytest.skip("this server does not count what a group has read (before Redis 7)")
    assert (known[b"entries-read"], known[b"lag"]) == (4, 1)


async def test_admission_looks_into_the_lanes_for_what_was_parked_here(room: Mailroom) -> None:
    """A group that is made again reads it once more: it must not go, nor take a second place."""
    await slow(room)
    entries = [await room.add(to=f"{n}@slow.example") for n in range(2)]
    await sift(room)
    await room.do("XGROUP", "SETID", room.keys.stream("normal"), "streamq", 0)
    assert await room.read() == entries
    assert await room.admitted(*entries, lane="main|fast.example") == ["elsewhere", "elsewhere"]


# -- one id, one mail: looked up when its turn comes ---------------------------------------------------


async def turn(room: Mailroom) -> tuple[Lease, bool]:
    """The lane's next mail, and whether its id is unseen."""
    room.tick(62_000)
    [(lease, leased)] = await room.taken()
    assert leased.way == "main"
    return lease, leased.unseen


async def test_an_id_is_looked_up_at_the_mails_turn(room: Mailroom) -> None:
    await slow(room)
    fields = {"to": "bob@slow.example", "subject": "Hi"}
    first, second = [await room.add(**fields, id="a1") for _ in range(2)]
    assert (await sift(room)).parked == 2
    assert await room.scripts.find([("", "a1")]) == [""]
    lease, unseen = await turn(room)
    assert (lease.entry, unseen) == (first, True)
    known: dict[str, Any] = {"kind": "slot", "lane": SLOW, "id": "a1", "seen": ident("a1", **fields)}
    assert await room.admitted(first, **known) == ["go"]
    assert await room.scripts.find([("", "a1")]) == [first]
    lease, unseen = await turn(room)
    assert (lease.entry, unseen) == (second, True)
    assert await room.admitted(second, **known) == ["duplicate"]
    assert await room.states() == {first: "leased"}


async def test_a_slot_is_had_once(room: Mailroom) -> None:
    """A mail that has its slot waits for none, though its lane has none now."""
    await slow(room)
    entry = await room.add(to="bob@slow.example", id="a1")
    await sift(room)
    lease, _ = await turn(room)
    assert await room.admitted(entry, lane=SLOW) == ["parked"]
    lease, unseen = await turn(room)
    assert not unseen  # admission has seen it
    assert await room.admitted(entry, kind="slot", lane=SLOW) == ["go"]
    assert (await room.survey()).leases[entry][1] > lease.token


async def test_without_an_id_there_is_nothing_to_look_up(room: Mailroom) -> None:
    await slow(room)
    await room.add(to="bob@slow.example")
    await sift(room)
    assert (await turn(room))[1] is False


async def test_an_id_that_came_the_other_way_meanwhile_wins(room: Mailroom) -> None:
    await slow(room)
    await room.add(to="bob@slow.example", id="a1")
    await sift(room)
    other = await room.add("high", to="bob@fast.example", id="a1")
    await room.read()
    assert await room.admitted(other, lane="main|fast.example", seen=ident("a1", to="bob@fast.example")) == ["go"]
    lease, _ = await turn(room)
    here = ident("a1", to="bob@slow.example")
    assert await room.admitted(lease.entry, kind="slot", lane=SLOW, seen=here) == ["dead"]


async def test_a_rule_for_its_id_waits_for_its_turn(room: Mailroom) -> None:
    await slow(room)
    entry = await room.add(to="bob@slow.example", id="a1")
    await sift(room)
    await room.do("HSET", room.keys.holds, "id:a1", "cancel")
    lease, _ = await turn(room)
    assert await room.admitted(lease.entry, kind="slot", lane=SLOW, id="a1", seen=ident("a1")) == ["cancelled"]
    assert await room.state(entry) == ""


@pytest.mark.parametrize("verb", ["hold", "cancel", "bounce", "retry", "expire"])
async def test_verbs_reach_it_in_its_lane(room: Mailroom, verb: str) -> None:
    await slow(room)
    entry = await room.add(to="bob@slow.example", id="a1")
    await sift(room)
    room.tick(6 * DAY)
    await room.move(verb, entry)
    assert await room.state(entry) == {"hold": "held", "retry": "parked"}.get(verb, "")
    assert await room.count("parked:1") == (verb == "retry")


async def test_check_and_repair_keep_that_its_id_is_unseen(room: Mailroom) -> None:
    await slow(room)
    entry = await room.add(to="bob@slow.example", id="a1")
    await sift(room)
    await room.do("ZREM", room.keys.due("normal"), SLOW)
    assert await room.scripts.repair([(entry, "lane")]) == 1
    lease, unseen = await turn(room)
    assert (lease.entry, unseen) == (entry, True)


# -- one rule in two languages -------------------------------------------------------------------------


def test_sift_and_glance_know_the_same_plain_fields() -> None:
    source = load("sift").source
    table = source[source.index("local PLAIN") : source.index("}", source.index("local PLAIN"))]
    named = {word.split("=")[0].strip() for word in table.split("{")[1].replace("\n", " ").split(",") if "=" in word}
    assert named == {name.decode() for name in PLAIN}
    assert f"#envelope_to > {MOST}" in source
    assert LANE.startswith("main|")

"""sift.lua: mails of closed lanes are parked while reading, the others become the reader's."""

from __future__ import annotations

from typing import Any

import pytest
from mailroom import DAY, LANE, START, Lease, Mailroom, ident

from streamq.mail.glance import MOST, PLAIN
from streamq.queue.script import load
from streamq.queue.scripts import ResettleRow, Sifted

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]

SLOW = "main|slow.example"


async def slow(room: Mailroom) -> None:
    """slow.example takes one mail a minute, and the next one in a minute."""
    await room.do("HSET", room.keys.limits, "*|slow.example", "1:60000000")
    await room.do("HSET", room.keys.limit(SLOW), "60000000", f"{(START + 62_000) * 1000}:63000000")


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
    assert (found.parked, found.next_us) == (1, (START + 60_000) * 1000)
    assert await room.released() == []


async def test_the_soonest_visit_of_all_lanes_is_told(room: Mailroom) -> None:
    for n in (5, 1, 4, 2, 6, 3):
        await room.do("HSET", room.keys.limits, f"*|s{n}.example", "1:60000000")
        tat = (START + n * 10_000) * 1000
        await room.do("HSET", room.keys.limit(f"main|s{n}.example"), "60000000", f"{tat}:63000000")
        await room.add(to=f"bob@s{n}.example")
    found = await sift(room)
    assert (found.parked, found.next_us) == (6, (START + 8_000) * 1000)


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
    for n in range(101):
        await room.add(to=f"{n}@slow.example")
    assert (await sift(room, most=1000)).visited == 100


async def test_one_large_mail_ends_a_call(room: Mailroom) -> None:
    await slow(room)
    for size in (10, 65_000, 70_000, 10):
        await room.add(envelope_to="bob@slow.example", raw="x" * size)
    found = await sift(room)
    assert (found.visited, found.parked, found.large) == (3, 3, True)
    found = await sift(room)
    assert (found.visited, found.parked, found.large) == (1, 1, False)


async def test_a_large_one_with_an_id_is_hashed_before_it_parks(room: Mailroom) -> None:
    """A hundred mails under the id of one of 25 MB, each compared with it, would hold up the server for seconds."""
    await slow(room)
    small, large = [await room.add(envelope_to="bob@slow.example", raw="x" * n, id=f"a{n}") for n in (60_000, 70_000)]
    found = await sift(room)
    assert [entry for entry, _ in found.taken] == [large]
    assert await room.states() == {small: "parked", large: "leased"}
    assert found.large


async def test_a_million_bytes_end_a_call(room: Mailroom) -> None:
    await slow(room)
    for n in range(40):
        await room.add(envelope_to=f"{n}@slow.example", raw="x" * 60_000)
    assert (await sift(room)).visited == 17


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
        await room.do("HSET", room.keys.limit(f"main|{site}"), "60000000", f"{(START + 90_000) * 1000}:63000000")
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


# -- one id, one mail ----------------------------------------------------------------------------------


async def test_an_id_is_known_from_then_on(room: Mailroom) -> None:
    await slow(room)
    fields = {"to": "bob@slow.example", "subject": "Hi"}
    first, second = [await room.add(**fields, id="a1") for _ in range(2)]
    found = await sift(room)
    assert [entry for entry, _ in found.taken] == [second]
    assert await room.scripts.find([("", "a1")]) == [first]
    assert await room.admitted(second, lane=SLOW, seen=ident("a1", **fields)) == ["duplicate"]
    assert await room.states() == {first: "parked"}


async def test_the_same_id_with_other_content_is_a_conflict(room: Mailroom) -> None:
    await slow(room)
    first = await room.add(to="bob@slow.example", subject="Hi", id="a1")
    for other in ({"subject": "Ho"}, {"subject": "Hi", "text": "more"}, {}):
        fields = {"to": "bob@slow.example"} | other
        entry = await room.add(**fields, id="a1")
        await sift(room)
        assert await room.admitted(entry, lane=SLOW, seen=ident("a1", **fields)) == ["dead"], other
    assert await room.states() == {first: "parked"}


async def test_traceparent_and_empty_fields_make_no_other_content(room: Mailroom) -> None:
    await slow(room)
    await room.add(to="bob@slow.example", id="a1", traceparent="00-1", html="")
    await sift(room)
    entry = await room.add(to="bob@slow.example", id="a1", text="", traceparent="00-2")
    await room.read()
    assert await room.admitted(entry, lane=SLOW, seen=ident("a1", to="bob@slow.example")) == ["duplicate"]


async def turn(room: Mailroom) -> Lease:
    """The lane's next mail, with its slot."""
    room.tick(63_000)
    [(lease, leased)] = await room.taken()
    assert leased.way == "main"
    return lease


async def again(room: Mailroom, **fields: str) -> str:
    """The producer re-sends it; to another site, so that nothing waits. What admission says."""
    entry = await room.add(**fields, id="a1")
    await room.read()
    return (await room.admitted(entry, lane="main|fast.example", id="a1", seen=ident("a1", **fields)))[0]


async def test_a_mail_that_was_looked_at_when_it_went_is_told_from_another(room: Mailroom) -> None:
    await slow(room)
    fields = {"to": "bob@slow.example", "subject": "Hi"}
    await room.add(**fields, id="a1")
    await sift(room)
    lease = await turn(room)
    code = int.from_bytes(ident("a1", **fields)[10:])
    row = room.end("sent", lease, hash=code)._replace(id="a1")
    assert (await room.scripts.settle("w1", [row])).statuses == ["ok"]
    assert await again(room, **fields) == "duplicate"
    assert await again(room, to="bob@slow.example", subject="Ho") == "dead"


async def test_a_window_that_has_passed_makes_no_difference(room: Mailroom) -> None:
    """An id is known for one to two windows, and in the second one stands where it was noted in the first."""
    await slow(room)
    fields = {"to": "bob@slow.example", "subject": "Hi"}
    sent, cancelled = [await room.add(**fields, id=name) for name in ("a1", "a2")]
    await sift(room)
    room.tick(DAY)
    lease = await turn(room)
    assert lease.entry == sent
    row = room.end("sent", lease, hash=int.from_bytes(ident("a1", **fields)[10:]))._replace(id="a1")
    await room.scripts.settle("w1", [row])
    assert await again(room, **fields) == "duplicate"
    assert await again(room, to="bob@slow.example", subject="Ho") == "dead"
    assert await room.scripts.find([(None, "a2")]) == [cancelled]
    await room.move("cancel", cancelled)
    assert await room.scripts.find([(None, "a2")]) == [""]


async def test_ids_are_forgotten_by_themselves(room: Mailroom) -> None:
    await slow(room)
    await room.add(to="bob@slow.example", id="a1")
    await sift(room)
    [key] = await room.do("KEYS", f"{room.keys.prefix}seen:*")
    assert 2 * DAY - 60_000 < await room.do("PTTL", key) <= 2 * DAY


async def test_an_id_that_has_another_owner_by_now_stays_the_others(room: Mailroom) -> None:
    """The first one waited for longer than its id was known."""
    await slow(room)
    fields = {"to": "bob@slow.example", "subject": "Hi"}
    first = await room.add(**fields, id="a1")
    await sift(room)
    room.tick(2 * DAY)
    assert await again(room, **fields) == "go"
    [second] = set(await room.states()) - {first}
    lease = await turn(room)
    row = room.end("sent", lease, hash=int.from_bytes(ident("a1", **fields)[10:]))._replace(id="a1")
    assert (await room.scripts.settle("w1", [row])).statuses == ["ok"]
    assert await room.scripts.find([(None, "a1")]) == [second]


async def test_a_mail_that_was_compared_is_told_from_another_from_then_on(room: Mailroom) -> None:
    await slow(room)
    fields = {"to": "bob@slow.example", "subject": "Hi"}
    await room.add(**fields, id="a1")
    await sift(room)
    assert await again(room, **fields) == "duplicate"
    await room.settled("sent", await turn(room))  # by a worker that says nothing of its content
    assert await again(room, to="bob@slow.example", subject="Ho") == "dead"


async def test_so_is_one_whose_250_came_after_its_lease_was_lost(room: Mailroom) -> None:
    """Its next owner's admission ends it before it looks at its id."""
    await slow(room)
    fields = {"to": "bob@slow.example", "subject": "Hi"}
    entry = await room.add(**fields, id="a1")
    await sift(room)
    late = await turn(room)
    await room.silent(entry, "w1")
    assert [name for name, _, _ in (await room.reclaim("w2")).leases] == [entry]
    row = room.end("sent", late, hash=int.from_bytes(ident("a1", **fields)[10:]))._replace(id="a1")
    assert (await room.scripts.settle("w1", [row])).statuses == ["fenced"]
    assert await room.admitted(entry, consumer="w2", lane=SLOW, id="a1", seen=ident("a1", **fields)) == ["done"]
    assert await again(room, **fields) == "duplicate"
    assert await again(room, to="bob@slow.example", subject="Ho") == "dead"


async def test_where_nobody_looked_the_same_is_assumed(room: Mailroom) -> None:
    """Nothing is sent twice."""
    await slow(room)
    await room.add(to="bob@slow.example", subject="Hi", id="a1")
    await sift(room)
    await room.settled("sent", await turn(room))
    assert await again(room, to="bob@slow.example", subject="Ho") == "duplicate"


async def test_a_retry_notes_the_hash(room: Mailroom) -> None:
    await slow(room)
    fields = {"to": "bob@slow.example", "subject": "Hi"}
    entry = await room.add(**fields, id="a1")
    await sift(room)
    await room.settled("defer", await turn(room), wait=1000)
    room.tick(1000)
    assert await room.released() == [entry]
    found = await room.admit(entry, lane="main|fast.example", seen=ident("a1", **fields))
    assert found.statuses[0][0] == "go"
    await room.settled("sent", Lease(entry, found.token, "w1"))
    assert await again(room, to="bob@slow.example", subject="Ho") == "dead"


async def test_a_cancelled_id_is_free_again(room: Mailroom) -> None:
    await slow(room)
    fields = {"to": "bob@slow.example"}
    entry = await room.add(**fields, id="a1")
    await sift(room)
    assert await room.moved("cancel", entry) == ["cancelled"]
    assert await again(room, **fields) == "go"


@pytest.mark.parametrize("verb", ["hold", "cancel", "bounce", "retry", "expire"])
async def test_verbs_reach_it_in_its_lane(room: Mailroom, verb: str) -> None:
    await slow(room)
    entry = await room.add(to="bob@slow.example", id="a1")
    await sift(room)
    room.tick(6 * DAY)
    await room.move(verb, entry)
    assert await room.state(entry) == {"hold": "held", "retry": "parked"}.get(verb, "")
    assert await room.count("parked:1") == (verb == "retry")


async def test_a_sent_mail_that_comes_back_with_its_copy_is_sent_no_second_time(room: Mailroom) -> None:
    """A server that lost its last second has both again, and knows of neither id."""
    fields = {"to": "bob@slow.example"}
    first, copy = [await room.add(**fields, id="a1") for _ in range(2)]
    await room.scripts.resettle([ResettleRow(first, "a1", "email.relayed", b"", b"", f"{first}.16")])
    await room.read()
    assert await room.admitted(copy, seen=ident("a1", **fields)) == ["duplicate"]


# -- limits that change, ids that are given ------------------------------------------------------------


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
    assert (await room.scripts.seek(1, greatest, 10, None, "a1")) == ("", "")
    assert await room.length() == 1


ODD = (
    *("1-1", "10-0", "999999999999-18446744073709551615", "1700000000000-0", "1700000000000-9", "1700000000000-10"),
    *("1700000000000-255", "1700000000000-256", "1700000000000-258", "1700000000000-65535", "1700000000000-65536"),
    *("1700000000000-99999", "1700000000000-999999999999999", "1700000000000-1000000000000000"),
    *("1700000000000-9007199254740993", "1700000000000-18446744073709551615", "1700000000001-0"),
    *("9999999999999-10", "10000000000000-1", "99999999999999-3"),
    *("281474976710655-9", "9007199254740993-1", "9007199254740994-1", "18446744073709551615-1"),
)


async def test_ids_that_somebody_gave_keep_every_digit(room: Mailroom) -> None:
    """Beyond what a Lua number holds, or six bytes; in seen, in the lane, and back."""
    await slow(room)
    for id_ in ODD:
        await room.do("XADD", room.keys.stream("normal"), id_, "to", "bob@slow.example", "id", id_)
    entries = [f"1{id_}" for id_ in ODD]
    for id_ in ODD:
        assert (await sift(room, max_age_ms=2 * START, most=1)).parked == 1, id_
    assert set(await room.states()) == set(entries)
    assert await room.scripts.find([(None, id_) for id_ in ODD]) == entries
    released = []
    for _ in ODD:
        room.tick(63_000)
        released += await room.released()
    assert set(released) == set(entries)
    known = {"lane": SLOW, "deadline": 10**18}
    rows = [room.row(f"1{id_}", id=id_, seen=ident(id_, to="bob@slow.example"), **known) for id_ in ODD]
    assert set(await room.admitted(*rows)) == {"parked"}
    assert set(await room.moved("cancel", *entries)) == {"cancelled"}
    assert await room.scripts.find([(None, id_) for id_ in ODD]) == [""] * len(ODD)


# -- one rule in two languages -------------------------------------------------------------------------


def test_sift_and_glance_know_the_same_plain_fields() -> None:
    source = load("sift").source
    table = source[source.index("local PLAIN") : source.index("}", source.index("local PLAIN"))]
    named = {word.split("=")[0].strip() for word in table.split("{")[1].replace("\n", " ").split(",") if "=" in word}
    assert named == {name.decode() for name in PLAIN}
    assert f"#envelope_to > {MOST}" in source
    assert LANE.startswith("main|")

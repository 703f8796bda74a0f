"""sift.lua and the producer's ids: one id, one mail, whoever looks at it when."""

from __future__ import annotations

import pytest
from mailroom import DAY, START, Lease, Mailroom, ident
from sifting import SLOW, sift, slow

from streamq.mail.identity import digest
from streamq.queue.rows import ResettleRow

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]


async def test_an_id_is_known_from_then_on(room: Mailroom) -> None:
    await slow(room)
    fields = {"to": "bob@slow.example", "subject": "Hi"}
    first, second = [await room.add(**fields, id="a1") for _ in range(2)]
    found = await sift(room)
    assert [entry for entry, _ in found.taken] == [second]
    assert await room.scripts.find([("", "a1")]) == [first]
    assert await room.admitted(second, lane=SLOW, seen=ident("a1", **fields)) == ["duplicate"]
    assert await room.states() == {first: "parked"}


async def test_ids_of_open_lanes_take_no_place_among_those_that_park(room: Mailroom) -> None:
    await slow(room)
    fast = [await room.add(to=f"{n}@fast.example", id=f"f{n}") for n in range(3)]
    parked = [await room.add(to=f"{n}@slow.example", id=f"s{n}") for n in range(3)]
    assert [entry for entry, _ in (await sift(room)).taken] == fast
    assert await room.scripts.find([("", f"s{n}") for n in range(3)]) == parked
    assert await room.scripts.find([("", f"f{n}") for n in range(3)]) == [""] * 3


async def test_of_those_behind_other_mails_the_known_one_is_passed(room: Mailroom) -> None:
    await slow(room)
    await room.add(to="bob@slow.example", id="a1")
    await sift(room)
    fast = await room.add(to="bob@fast.example", id="f1")
    known = await room.add(to="bob@slow.example", id="a1")
    nameless, new = [await room.add(to="bob@slow.example", **fields) for fields in ({}, {"id": "a2"})]
    found = await sift(room)
    assert [entry for entry, _ in found.taken] == [fast, known]
    assert found.parked == 2
    assert await room.scripts.find([("", "a2")]) == [new]
    assert (await room.states())[nameless] == "parked"


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


async def test_a_window_later_copies_are_known_and_new_ids_noted(room: Mailroom) -> None:
    """Some buckets of the page are there, of this generation or of the last one, others are not."""
    await slow(room)
    for name in ("a1", "a2"):
        await room.add(to="bob@slow.example", id=name)
        await sift(room)
        room.tick(DAY if name == "a1" else 1)
    entries = [await room.add(to="bob@slow.example", id=name) for name in ("a1", "a2", "a3", "a3")]
    found = await sift(room)
    assert [entry for entry, _ in found.taken] == [entries[0], entries[1], entries[3]]
    assert await room.state(entries[2]) == "parked"
    for key in await room.do("KEYS", f"{room.keys.prefix}seen:*"):
        assert 0 < await room.do("PTTL", key) <= 2 * DAY


async def test_copies_take_no_more_room_than_there_is(room: Mailroom) -> None:
    await slow(room)
    names = ["a0", "a0", "a1", "a2", "a3", "a0", "a4", "a0", "a5"]
    entries = [await room.add(to="bob@slow.example", id=name) for name in names]
    found = await sift(room, room_for=2)
    assert [entry for entry, _ in found.taken] == [entries[1], entries[5]]
    assert (found.visited, found.parked) == (7, 5)
    assert [entry for entry, _ in (await sift(room)).taken] == [entries[7]]


async def test_ids_are_forgotten_by_themselves(room: Mailroom) -> None:
    await slow(room)
    await room.add(to="bob@slow.example", id="a1")
    await sift(room)
    [key] = await room.do("KEYS", f"{room.keys.prefix}seen:*")
    assert 2 * DAY - 60_000 < await room.do("PTTL", key) <= 2 * DAY


def bucket(name: str) -> int:
    """As lib/seen.lua has it."""
    return int.from_bytes(digest("", name)[:2], "big") % 8192


async def test_a_bucket_that_is_new_among_many_old_ones_expires_like_them(room: Mailroom) -> None:
    """Which of a batch's buckets are there is asked by halves, where most are: 290 ids of 40 buckets, and five more."""
    await slow(room)
    ids = [f"a{n}5" for n in range(60_000)]  # each by itself in its bucket
    known = [name for name in ids if bucket(name) < 40][:290]
    new = [next(name for name in ids if bucket(name) == 100 + n) for n in range(5)]
    first, batch = known[:195], known[195:]
    for at, name in zip((3, 4, 40, 90, 95), new, strict=True):
        batch.insert(at, name)
    for names in (first, batch):
        for name in names:
            await room.add(to="bob@slow.example", id=name)
        assert (await sift(room, most=200)).parked == len(names)
    keys = await room.do("KEYS", f"{room.keys.prefix}seen:*")
    assert {int(key.rpartition(b":")[2]) for key in keys} == {bucket(name) for name in known + new}
    assert all([await room.do("PTTL", key) > 0 for key in keys])
    assert sum([await room.do("HLEN", key) for key in keys]) == len(known + new)


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
    await room.say_pii("full")
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

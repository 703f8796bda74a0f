"""expand.lua: one mail becomes several, whose body is kept while one of them lives."""

from __future__ import annotations

import pytest
from conftest import MakeSpool
from family import FIELDS, TO, end, expand, expanded, parent, tail_of
from mailroom import Lease, Mailroom, ident
from redis.exceptions import ResponseError

from streamq.queue.check import check
from streamq.queue.rows import ChildRow, Expanded, ResettleRow
from streamq.worker.link import is_full

pytestmark = [pytest.mark.usefixtures("any_server_url")]


async def test_children_are_mails_of_their_own_and_share_the_rest(room: Mailroom) -> None:
    lease = await parent(room)
    assert await expand(room, lease) == Expanded("upload", 0, [])
    await room.spool.bodies.upload("up", FIELDS, False)
    found = await expand(room, lease)
    assert (found.status, found.made, len(found.children)) == ("done", 5, 5)
    assert await room.states() == dict.fromkeys(found.children, "waiting")
    fetched = await room.spool.fetch(found.children)
    for nth, (entry, to) in enumerate(zip(fetched, TO, strict=True), 1):
        assert entry is not None
        assert (entry.parent, entry.stamp) == (lease.entry, lease.entry)
        assert entry.fields == {**FIELDS, b"envelope_to": to.encode(), b"id": b"a1#%d" % nth}
    event = (await room.events())[-1]
    assert (event.kind, event.id, event.data["children"], event.data["tag"]) == ("email.expanded", "a1", 5, 1)
    assert await room.count("total:expanded") == 1
    for child in found.children:
        assert await end(room, "sent", child) == "ok"
    assert await room.states() == {}
    assert await room.do("EXISTS", room.keys.body(lease.entry), room.keys.bodies) == 0


async def test_it_goes_on_where_it_ended(room: Mailroom) -> None:
    lease = await parent(room)
    first = await expanded(room, lease, 2)
    assert await expand(room, lease) == Expanded("resume", 2, [])
    assert (await room.survey()).depth == {"leased": 1, "waiting": 2}
    second = await expand(room, lease, start=2)
    assert (second.status, second.made, len(second.children)) == ("done", 5, 3)
    for child in (*first, *second.children):
        assert await end(room, "sent", child) == "ok"


async def test_another_worker_goes_on(room: Mailroom) -> None:
    lease = await parent(room)
    first = await expanded(room, lease, 2)
    await room.silent(lease.entry, "w1")
    found = await room.reclaim("w2")
    [(entry, _, _)] = found.leases
    other = Lease(entry, found.token, "w2")
    assert (await expand(room, lease, start=2)).status == "fenced"
    await room.spool.bodies.upload("late", {b"text": b"other"}, False)  # of the one that stood still: nobody's
    second = await expand(room, other, start=2)
    assert (second.status, len(second.children)) == ("done", 3)
    for child in (*first, *second.children):
        assert await end(room, "sent", child) == "ok"
    assert (await expand(room, other, start=5)).status == "gone"
    await room.do("DEL", room.keys.body("late"))


@pytest.mark.parametrize("to", [[*TO, "eve@example.net"], TO[:4], TO[:2]])
async def test_a_worker_that_finds_others_counts_anew(room: Mailroom, to: list[str]) -> None:
    """Of another version. Three are made, and one of them has ended; no child may miss its body, and it goes."""
    lease = await parent(room)
    first = await expanded(room, lease, 3)
    assert await end(room, "sent", first[0]) == "ok"
    found = await expand(room, lease, to, start=3)
    assert (found.status, found.made) == ("done", max(3, len(to)))
    assert (await check(room.spool)).clean
    for child in (*first[1:], *found.children):
        assert await end(room, "sent", child) == "ok"
    assert await room.do("EXISTS", room.keys.body(lease.entry), room.keys.bodies) == 0


async def test_children_may_end_before_the_last_is_made(room: Mailroom) -> None:
    lease = await parent(room)
    first = await expanded(room, lease, 2)
    for child in first:
        assert await end(room, "sent", child) == "ok"
    assert await room.do("HGET", room.keys.body(lease.entry), "left") == b"3"
    for child in (await expand(room, lease, start=2)).children:
        assert await end(room, "sent", child) == "ok"


@pytest.mark.parametrize("way", ["more", "later"])
@pytest.mark.parametrize("verb", ["cancel", "bounce"])
@pytest.mark.parametrize("made", [0, 2])
async def test_an_end_of_the_parent_reaches_those_that_are_not_made(
    room: Mailroom, verb: str, made: int, way: str
) -> None:
    lease = await parent(room)
    children = await expanded(room, lease, made) if made else []
    assert await room.moved(verb, lease.entry) == ["intended"]
    found = await expand(room, lease, start=made, verb=way)
    assert (found.status, found.children) == ({"cancel": "cancelled", "bounce": "bounced"}[verb], [])
    assert await room.states() == dict.fromkeys(children, "waiting")
    assert (await room.kinds())[-1] == f"email.{found.status}"
    assert await room.scripts.find([("acme", "a1")]) == [""]  # its id is free
    for child in children:
        assert await end(room, "sent", child) == "ok"
    assert await room.do("EXISTS", room.keys.body(lease.entry)) == 0


@pytest.mark.parametrize("named", [True, False])
async def test_a_child_that_was_sent_is_a_duplicate_when_a_failover_has_it_made_again(
    room: Mailroom, named: bool
) -> None:
    """The server lost its last second: the parent is there as before, its children and their ids never were."""
    lost = f"1{room.now - 900}-1"
    tail, seen = b'"parent":"1%d-1"' % room.now, ident("a1#1", "acme")[: 10 + 4 * named]
    assert await room.scripts.resettle([ResettleRow(lost, "", "email.relayed", tail, b"", "", seen[:10])]) == 0
    lease = await parent(room)
    first, *others = await expanded(room, lease)
    await room.read()
    assert await room.admitted(first, seen=seen, tail=await tail_of(room, first)) == ["duplicate"]
    assert (await room.events())[-1].data["of"] == lost
    for child in others:
        assert await end(room, "sent", child) == "ok"
    assert await room.do("EXISTS", room.keys.body(lease.entry), room.keys.bodies) == 0


async def test_a_child_without_an_id_is_looked_up_and_not_noted(room: Mailroom) -> None:
    """A million of them would be 30 MB."""
    lease = await parent(room)
    children = await expanded(room, lease)
    await room.read()
    tail = await tail_of(room, children[0])
    found = await room.admit(*(room.row(each, seen=b"0123456789", tail=tail) for each in children))
    assert [status for status, *_ in found.statuses] == ["go"] * 5
    assert await room.scripts.find([("acme", "a1")]) == [lease.entry]
    [bucket] = await room.do("KEYS", f"{room.keys.prefix}seen:*")
    assert await room.do("HLEN", bucket) == 1
    for child in children:
        row = room.end("sent", Lease(child, found.token, "w1"), tail=tail)
        assert (await room.scripts.settle("w1", [row])).statuses == ["ok"]


@pytest.mark.parametrize("verb", ["cancel", "bounce", "expire"])
async def test_a_parent_may_end_while_it_is_scheduled(room: Mailroom, verb: str) -> None:
    lease = await parent(room)
    children = await expanded(room, lease, 2)
    assert (await expand(room, lease, start=2, verb="back")).status == "ok"
    assert (await room.survey()).depth == {"scheduled": 1, "waiting": 2}
    await room.moved(verb, lease.entry)
    for child in children:
        assert await end(room, "sent", child) == "ok"
    assert await room.states() == {}


async def test_hold_keeps_what_is_not_made(room: Mailroom) -> None:
    lease = await parent(room)
    await expanded(room, lease, 2)
    assert await room.moved("hold", lease.entry) == ["intended"]
    assert (await expand(room, lease, start=2)).status == "held"
    assert (await room.survey()).depth == {"held": 1, "waiting": 2}
    assert await room.moved("unhold", lease.entry) == ["scheduled"]
    [(again, leased)] = await room.taken()
    assert (leased.entry, leased.way) == (lease.entry, "")
    found = await expand(room, again, start=2)
    assert (found.status, found.made) == ("done", 5)
    for child in await room.states():
        assert await end(room, "sent", child) == "ok"


async def test_a_child_weighs_what_it_shares(room: Mailroom) -> None:
    """Else a worker reads a hundred at a time: in their stream they are small."""
    lease = await parent(room)
    await room.spool.bodies.upload("up", {**FIELDS, b"html": b"x" * 500_000}, False)
    children = (await expand(room, lease)).children
    assert await room.spool.mean_bytes() > 500_000
    for child in children:
        assert await end(room, "sent", child) == "ok"
    assert await room.spool.mean_bytes() < 10_000


async def test_a_stream_that_takes_no_more_entries_holds_it(room: Mailroom) -> None:
    """Somebody gave the greatest id that there is: no worker may fall over that."""
    lease = await parent(room)
    children = await expanded(room, lease, 2)
    last = await room.do("XADD", room.keys.stream("normal"), f"{2**64 - 1}-{2**64 - 1}", "x_mine", "1")
    assert await expand(room, lease, start=2) == Expanded("held", 2, [])
    assert (await room.events())[-1].data["class"] == "stream"
    await room.do("XDEL", room.keys.stream("normal"), last)
    await room.moved("cancel", lease.entry)
    for child in children:
        assert await end(room, "sent", child) == "ok"
    assert await room.do("EXISTS", room.keys.body(lease.entry)) == 0


async def test_what_is_sensitive_for_all_is_for_each(room: Mailroom) -> None:
    lease = await parent(room)
    await room.spool.bodies.upload("up", {**FIELDS, b"sensitive": b"1"}, False)
    for child in (await expand(room, lease)).children:
        assert await end(room, "dead", child) == "ok"
    for _, fields in await room.letters():
        assert "text" not in fields
        assert fields["sensitive"] == "1"


async def test_what_is_said_of_both_becomes_one(room: Mailroom) -> None:
    lease = await parent(room)
    await room.spool.bodies.upload("up", {**FIELDS, b"vars": b'{"a":1, "b":2}', b"metadata": b"{}"}, True)
    rows = [
        ChildRow("to", b"x@example.net", b'{"b":3}', b'{"c":"d"}', b"own"),
        ChildRow("to", b"y@example.net", b"{}"),
        ChildRow("to", b"z@example.net"),
    ]
    found = await room.scripts.expand("w1", lease.entry, lease.token, "a1", b"", rows, upload="up", all_=3)
    fetched = await room.spool.fetch(found.children)
    merged = [dict(entry.fields) for entry in fetched if entry is not None]
    assert [entry.stamp for entry in fetched if entry is not None] == [f"{lease.entry}#{n}" for n in (1, 2, 3)]
    assert [each[b"vars"] for each in merged] == [b'{"a":1, "b":2,"b":3}', b'{"a":1, "b":2}', b'{"a":1, "b":2}']
    assert [each[b"metadata"] for each in merged] == [b'{"c":"d"}', b"{}", b"{}"]
    assert [each[b"id"] for each in merged] == [b"own", b"a1#2", b"a1#3"]
    for child in found.children:
        assert await end(room, "dead", child) == "ok"
    letters = [fields for _, fields in await room.letters()]
    assert [
        {name.encode(): value.encode() for name, value in each.items() if name.encode() in merged[0]}
        for each in letters
    ] == merged


@pytest.mark.parametrize(("large", "dropped"), [("html", "dropped"), ("to", "dropped"), ("x_mine", None)])
async def test_a_large_shared_field_stays_out_of_dead_letters(room: Mailroom, large: str, dropped: str | None) -> None:
    lease = await parent(room)
    await room.spool.bodies.upload("up", {**FIELDS, large.encode(): b"x" * 65_537}, False)
    for child in (await expand(room, lease)).children:
        assert await end(room, "dead", child) == "ok"
    for _, fields in await room.letters():
        assert large not in fields
        assert (fields["text"], fields.get("dead_body")) == ("Hello", dropped)


async def test_full_memory_stops_it_before_it_changes_anything(make_spool: MakeSpool) -> None:
    room = Mailroom(await make_spool())
    lease = await parent(room)
    await room.spool.bodies.upload("up", FIELDS, False)
    before = await room.do("CONFIG", "GET", "maxmemory")
    await room.do("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(ResponseError, match="maxmemory") as raised:
            await expand(room, lease)
        assert is_full(raised.value)
        assert await room.states() == {lease.entry: "leased"}
        assert (await expand(room, lease, verb="later")).status == "ok"  # out of its worker's hand
    finally:
        await room.do("CONFIG", "SET", "maxmemory", before[1])
    assert await room.states() == {lease.entry: "scheduled"}
    assert float(await room.do("ZSCORE", room.keys.schedule, lease.entry)) == room.now + 30_000
    room.tick(30_000)
    released = await room.scripts.release("w1", 10)
    assert [each.entry for each in released.leases] == [lease.entry]
    for child in (await expand(room, Lease(lease.entry, released.token, "w1"))).children:
        assert await end(room, "sent", child) == "ok"

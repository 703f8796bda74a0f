"""What children share stays while one of them lives: every end of a child lets go of it, and check mends its count."""

from __future__ import annotations

import pytest
from family import FIELDS, TO, end, expand, expanded, parent, tail_of
from mailroom import Lease, Mailroom, ident

from streamq.queue.check import Wrong, check

pytestmark = [pytest.mark.usefixtures("any_server_url")]


@pytest.mark.parametrize("op", ["sent", "dead"])
async def test_every_end_of_a_child_lets_go_of_the_body(room: Mailroom, op: str) -> None:
    lease = await parent(room)
    for child in await expanded(room, lease):
        assert await end(room, op, child) == "ok"
    assert await room.do("EXISTS", room.keys.body(lease.entry), room.keys.bodies) == 0


@pytest.mark.parametrize("verb", ["cancel", "bounce", "expire"])
@pytest.mark.parametrize("state", ["waiting", "scheduled", "parked", "held", "leased"])
async def test_an_operator_s_end_of_a_child_lets_go_of_the_body(room: Mailroom, verb: str, state: str) -> None:
    lease = await parent(room)
    [child, *others] = await expanded(room, lease)
    if state != "waiting":
        await room.read()
    tail = await tail_of(room, child)
    held = Lease(child, 0, "w1")
    match state:
        case "scheduled":
            assert await room.admitted(child, due=room.now + 60_000, tail=tail) == ["scheduled"]
        case "held":
            assert await room.admitted(child, kind="hold", why=b'{"reason":"r","class":"c"}', tail=tail) == ["held"]
        case "parked" | "leased":
            held = Lease(child, (await room.admit(child, tail=tail)).token, "w1")
    if state == "parked":
        await room.settled("park", held, wait=60_000)
    await room.moved(verb, child)
    if state == "leased" and verb != "expire":
        row = room.end("defer", held, tail=tail)
        assert (await room.scripts.settle("w1", [row])).statuses[0] in {"cancelled", "bounced"}
    for other in (*others, *((child,) if await room.state(child) else ())):
        if other == child:
            assert (await room.scripts.settle("w1", [room.end("sent", held, tail=tail)])).statuses == ["ok"]
        else:
            assert await end(room, "sent", other) == "ok"
    assert await room.do("EXISTS", room.keys.body(lease.entry), room.keys.bodies) == 0


async def test_a_dead_letter_of_a_child_stands_by_itself(room: Mailroom) -> None:
    lease = await parent(room)
    children = await expanded(room, lease)
    for child in children:
        assert await end(room, "dead", child) == "ok"
    (letter, fields), *_ = await room.letters()
    assert fields["dead_entry"] == children[0]
    kept = {name: fields[name] for name in ("from", "subject", "text", "id", "tenant", "envelope_to")}
    assert kept == {
        "from": "shop@example.com",
        "subject": "Hi",
        "text": "Hello",
        "id": "a1#1",
        "tenant": "acme",
        "envelope_to": TO[0],
    }
    [again] = await room.scripts.requeue([letter])
    [fetched] = await room.spool.fetch([again])
    assert fetched is not None
    assert fetched.fields == {**FIELDS, b"id": b"a1#1", b"envelope_to": TO[0].encode()}
    assert await end_plain(room, again) == "ok"


async def end_plain(room: Mailroom, entry: str) -> str:
    await room.read()
    found = await room.admit(entry)
    return await room.settled("sent", Lease(entry, found.token, "w1"))


async def test_a_child_that_is_a_duplicate_lets_go_of_the_body(room: Mailroom) -> None:
    lease = await parent(room)
    children = await expanded(room, lease)
    await room.read()
    tails = [await tail_of(room, child) for child in children]
    rows = [room.row(child, seen=ident("same"), tail=tail) for child, tail in zip(children, tails, strict=True)]
    found = await room.admit(*rows)
    assert [status for status, *_ in found.statuses] == ["go", *["duplicate"] * 4]
    row = room.end("sent", Lease(children[0], found.token, "w1"), tail=tails[0])
    assert (await room.scripts.settle("w1", [row])).statuses == ["ok"]
    assert await room.do("EXISTS", room.keys.body(lease.entry), room.keys.bodies) == 0


async def test_check_finds_a_wrong_count_of_children_and_mends_it(room: Mailroom) -> None:
    lease = await parent(room)
    first = await expanded(room, lease, 2)
    assert (await check(room.spool)).clean
    body = room.keys.body(lease.entry)
    await room.do("HSET", body, "left", "9")
    found = await check(room.spool)
    assert found.wrong == [Wrong(lease.entry, "body:9:5")]
    assert (await check(room.spool, repair=True)).repaired == 1
    assert await room.do("HGET", body, "left") == b"5"
    rest = (await expand(room, lease, start=2)).children
    await room.do("XDEL", room.keys.stream("normal"), rest[0][1:])  # behind our back: nobody counts it
    assert (await check(room.spool)).wrong == [Wrong(lease.entry, "body:5:4")]
    assert (await check(room.spool, repair=True)).repaired == 1
    for child in (*first, *rest[1:]):
        assert await end(room, "sent", child) == "ok"


async def test_check_lets_go_of_a_body_that_nobody_shares(room: Mailroom) -> None:
    lease = await parent(room)
    for child in await expanded(room, lease):
        await room.do("XDEL", room.keys.stream("normal"), child[1:])
    assert (await check(room.spool, repair=True)).wrong == [Wrong(lease.entry, "body:5:0")]
    assert (await check(room.spool)).clean
    assert await room.do("EXISTS", room.keys.body(lease.entry), room.keys.bodies) == 0


async def test_nothing_is_mended_that_has_changed_since(room: Mailroom) -> None:
    lease = await parent(room)
    children = await expanded(room, lease)
    assert await room.scripts.repair([(lease.entry, "body:9:1")]) == 0
    for child in children:
        assert await end(room, "sent", child) == "ok"

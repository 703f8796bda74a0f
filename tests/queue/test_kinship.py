"""lib/child.lua: which entries are children, and what only says that it is one."""

from __future__ import annotations

import pytest
from family import FIELDS, end, expand, expanded, parent
from mailroom import DAY, START, Lease, Mailroom, ident, texts

from streamq.queue.check import check
from streamq.queue.rows import ResettleRow

pytestmark = [pytest.mark.usefixtures("any_server_url")]
KEY = "0123456789abcdef0123"


async def added(room: Mailroom, **fields: str) -> str:
    """As a producer does it today: behind the children, whose ids are of the server's time."""
    flat = [part for pair in fields.items() for part in pair]
    return f"1{(await room.do('XADD', room.keys.stream('normal'), '*', *flat)).decode()}"


FORGED = ["sent", "dead", "duplicate", "cancel", "bounce", "expire", "expiring", "superseded", "poison", "resettle"]


@pytest.mark.parametrize("end_", FORGED)
async def test_what_only_says_that_it_is_a_child_counts_nothing_down(room: Mailroom, end_: str) -> None:
    lease = await parent(room)
    children = await expanded(room, lease)
    said = {"@of": lease.entry, "@n": "1", "to": "bob@example.net", "text": "mine"}
    forged = await added(room, **said)
    [entry] = await room.spool.fetch([forged])
    assert entry is not None
    assert (entry.parent, texts(entry.fields)) == ("", said)
    room.tick(6 * DAY if end_ == "expire" else 0)
    await room.read()
    if end_ in {"cancel", "bounce", "expire"}:
        assert await room.admitted(forged, kind="hold", why=b'{"reason":"r","class":"c"}') == ["held"]
        await room.moved(end_, forged)
    elif end_ == "dead":  # what intake makes of it
        why = b'{"reason":"@of: no","class":"malformed"}'
        assert await room.admitted(forged, kind="dead", why=why) == ["dead"]
    elif end_ == "expiring":
        assert await room.admitted(forged, deadline=room.now) == ["expired"]
    elif end_ == "duplicate":
        other = await room.lease("high")
        row = room.row(other.entry, seen=ident("x"))
        assert await room.admitted(row, room.row(forged, seen=ident("x"))) == ["go", "duplicate"]
        token = (await room.survey()).leases[other.entry][1]
        assert await room.settled("sent", Lease(other.entry, token, "w1")) == "ok"
    elif end_ == "superseded":
        assert await room.admitted(forged, collapse=f"{KEY}{room.now + 9}") == ["scheduled"]
        newer = await added(room, to="bob@example.net")
        await room.read()
        assert await room.admitted(newer, collapse=f"{KEY}{room.now + 9}") == ["scheduled"]
        assert await room.state(forged) == ""
        await room.moved("cancel", newer)
    elif end_ == "poison":
        await room.admitted(forged)
        await room.silent(forged, "w1")
        assert (await room.reclaim("w2", most=0)).leases == []
    elif end_ == "resettle":
        await room.admitted(forged)
        assert await room.scripts.resettle([ResettleRow(forged, forged, "email.relayed", b"", b"", "e")]) == 1
    else:
        lease_ = Lease(forged, (await room.admit(forged)).token, "w1")
        assert await room.settled("sent", lease_) == "ok"
    assert await room.state(forged) == ""
    assert await room.do("HGET", room.keys.body(lease.entry), "left") == b"5"
    assert (await check(room.spool)).clean
    for _, fields in await room.letters():
        assert fields["text"] == "mine"  # and nothing of what others share
        assert fields["@of"] == lease.entry
    room.to(START)
    for child in children:
        assert await end(room, "sent", child) == "ok"


@pytest.mark.parametrize("nth", ["", "0", "x", "5", "6", "501", "9" * 30, "-1"])
async def test_whatever_number_it_gives(room: Mailroom, nth: str) -> None:
    lease = await parent(room)
    children = await expanded(room, lease)
    forged = await added(room, **{"@of": lease.entry, "@n": nth, "to": "bob@example.net"})
    [entry] = await room.spool.fetch([forged])
    assert entry is not None
    assert entry.parent == ""
    assert (await check(room.spool)).clean
    await room.moved("cancel", forged)
    for child in children:
        assert await end(room, "sent", child) == "ok"


async def test_an_id_of_another_stream_is_none_of_its_own(room: Mailroom) -> None:
    """A stream takes no id below its last one; another stream takes it."""
    lease = await parent(room)
    children = await expanded(room, lease)
    flat = ["@of", lease.entry, "@n", "3", "to", "bob@example.net"]
    await room.do("XADD", room.keys.stream("high"), children[2][1:], *flat)
    forged = "0" + children[2][1:]
    [entry] = await room.spool.fetch([forged])
    assert entry is not None
    assert entry.parent == ""
    assert (await check(room.spool)).clean
    await room.moved("cancel", forged)
    assert await room.do("HGET", room.keys.body(lease.entry), "left") == b"5"
    for child in children:
        assert await end(room, "sent", child) == "ok"


async def test_children_of_many_chunks_are_known(room: Mailroom) -> None:
    """By those who fetched the body before they were made, too; and what was added in between is none of them."""
    await room.say_pii("full")
    to = [f"r{n}@example.net" for n in range(1, 1102)]
    entry = await room.add(id="a1", tenant="acme", to=",".join(to), text="Hello")
    await room.read()
    lease = Lease(entry, (await room.admit(entry, kind="expand", lane="")).token, "w1")
    await room.spool.bodies.upload("up", FIELDS, False)
    made: list[str] = []
    others = []
    for many in (499, 2, 500, 100):
        made += (await expand(room, lease, to, len(made), many)).children
        others.append(await added(room, **{"@of": entry, "@n": str(len(made)), "to": "bob@example.net"}))
        [known, other] = await room.spool.fetch([made[-1], others[-1]])
        assert known is not None
        assert other is not None
        assert (known.parent, other.parent) == (entry, "")
    assert (await check(room.spool)).clean
    found = await room.spool.fetch([*made, *others])
    assert [each.parent for each in found if each is not None] == [entry] * len(made) + [""] * len(others)
    assert await room.do("HLEN", room.keys.body(entry)) == len(FIELDS) + len(("bytes", "left", "all", "made")) + 3
    await room.survey()
    for at in range(0, len(made), 100):
        await room.moved("cancel", *made[at : at + 100])
    assert await room.do("EXISTS", room.keys.body(entry)) == 0
    await room.moved("cancel", *others)


async def test_what_was_known_of_a_lost_server_proves_nothing(room: Mailroom) -> None:
    lease = await parent(room)
    children = await expanded(room, lease)
    await room.spool.fetch(children)
    await room.do("HSET", room.keys.body(lease.entry), "ids:0", "1-1 1-1")
    room.spool.bodies.forget()
    [entry] = await room.spool.fetch(children[:1])
    assert entry is not None
    assert entry.parent == ""
    first, last = children[0][1:], children[-1][1:]
    await room.do("HSET", room.keys.body(lease.entry), "ids:0", f"{first} {last}")
    for child in children:
        assert await end(room, "sent", child) == "ok"


# -- children that somebody deleted


async def left(room: Mailroom, parent_: str) -> int:
    return int(await room.do("HGET", room.keys.body(parent_), "left") or 0)


NOTICED = ["scheduled", "parked", "heartbeat", "reclaim", "gone", "superseded", "expire"]


@pytest.mark.parametrize("how", NOTICED)
async def test_where_a_deleted_child_is_noticed_it_is_counted_down(room: Mailroom, how: str) -> None:
    lease = await parent(room)
    child, *others = await expanded(room, lease)
    await room.read()
    tail = b'"parent":"%b"' % lease.entry.encode()
    found = await room.admit(
        child,
        tail=tail,
        due=room.now + 1000 if how == "scheduled" else 0,
        expires=room.now + 1000 if how == "expire" else 0,
        collapse=f"{KEY}{room.now + 9}" if how == "superseded" else "",
    )
    held = Lease(child, found.token, "w1")
    if how in {"parked", "expire"}:
        assert await room.settled("park", held, wait=500) == "ok"
    if how == "reclaim":
        await room.silent(child, "w1")
    await room.do("XDEL", room.keys.stream("normal"), child[1:])
    assert await left(room, lease.entry) == 5
    room.tick(0 if how == "superseded" else 1000)
    match how:
        case "scheduled" | "parked":
            assert await room.released() == []
        case "heartbeat":
            if not await room.scripts.heartbeat("w1", [(child, held.token)]):  # 6.2 renews what is gone
                assert await room.settled("gone", held) == "ok"
        case "reclaim":
            again = await room.reclaim("w2")
            if again.leases:
                assert await room.settled("gone", Lease(child, again.token, "w2")) == "ok"
        case "gone":
            assert await room.settled("gone", held) == "ok"
        case "superseded":
            assert await room.admitted(others[0], tail=tail, collapse=f"{KEY}{room.now + 9}") == ["scheduled"]
        case "expire":
            await room.scripts.expire([9 * DAY])
    assert await left(room, lease.entry) == 4
    assert await room.count("vanished") == 1
    assert (await check(room.spool)).clean
    for at, other in enumerate(others):
        if how == "superseded" and at == 0:
            await room.moved("cancel", other)
        else:
            assert await end(room, "sent", other) == "ok"
    assert await room.do("EXISTS", room.keys.body(lease.entry), room.keys.bodies) == 0


async def test_a_deleted_parent_lets_go_of_those_that_it_never_made(room: Mailroom) -> None:
    lease = await parent(room)
    children = await expanded(room, lease, 2)
    assert (await expand(room, lease, start=2, verb="back")).status == "ok"
    await room.do("XDEL", room.keys.stream("normal"), lease.entry[1:])
    assert await room.released() == []
    assert await left(room, lease.entry) == 2
    for child in children:
        assert await end(room, "sent", child) == "ok"
    assert await room.do("EXISTS", room.keys.body(lease.entry), room.keys.bodies) == 0


async def test_the_parent_of_a_deleted_child_is_looked_for_in_bounds(room: Mailroom) -> None:
    """Where a thousand other bodies are nearer its time `check --repair` counts it."""
    lease = await parent(room)
    child, *others = await expanded(room, lease)
    await room.read()
    assert await room.admitted(child, due=room.now + 1000, tail=b"") == ["scheduled"]
    nearer = [part for n in range(1000) for part in (room.now + 1 + n, f"1{n}-1")]
    await room.do("ZADD", room.keys.bodies, *nearer)
    await room.do("XDEL", room.keys.stream("normal"), child[1:])
    room.tick(1000)
    assert await room.released() == []
    await room.do("ZREM", room.keys.bodies, *nearer[1::2])
    assert await left(room, lease.entry) == 5
    assert (await check(room.spool, repair=True)).repaired == 1
    for other in others:
        assert await end(room, "sent", other) == "ok"

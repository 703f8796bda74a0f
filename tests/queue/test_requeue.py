"""requeue.lua, find.lua and what stands behind it: the generations of known ids."""

from __future__ import annotations

import pytest
from conftest import MakeSpool
from mailroom import Mailroom, ident

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
HOUR = 3_600_000


async def test_a_dead_letter_becomes_a_waiting_mail(room: Mailroom) -> None:
    lease = await room.lease("low", id="a1", to="bob@example.net", text="Hello")
    await room.settled("dead", lease, **{"class": "policy"})
    [(letter, _)] = await room.letters()
    [entry] = await room.scripts.requeue([letter])
    assert await room.states() == {entry: "waiting"}
    assert entry[0] == "2"
    [fetched] = await room.spool.fetch([entry])
    assert fetched is not None
    assert fetched.fields == {b"id": b"a1", b"to": b"bob@example.net", b"text": b"Hello"}
    assert await room.letters() == []
    event = (await room.events())[-1]
    assert (event.kind, event.id, event.data["of"]) == ("email.requeued", "a1", lease.entry)
    assert await room.count("total:requeued") == 1
    assert await room.scripts.requeue([letter]) == ["missing"]


async def test_its_id_is_no_duplicate_of_itself(room: Mailroom) -> None:
    entry = await room.add(id="a1")
    await room.read()
    assert await room.admitted(entry, seen=ident("a1"), deadline=room.now) == ["expired"]
    [(letter, _)] = await room.letters()
    [again] = await room.scripts.requeue([letter])
    await room.read()
    assert await room.admitted(again, seen=ident("a1")) == ["go"]


async def test_what_can_not_come_back(room: Mailroom) -> None:
    packed = await room.lease(**{f"x_{n}": "1" for n in range(1001)})
    sensitive = await room.lease(to="bob@example.net", text="secret", sensitive="1")
    for lease in (packed, sensitive):
        await room.settled("dead", lease)
    letters = [letter for letter, _ in await room.letters()]
    assert await room.scripts.requeue([*letters, "1-1"]) == ["packed", "sensitive", "missing"]
    assert len(await room.letters()) == 2


async def test_an_id_is_known_for_one_to_two_windows(make_spool: MakeSpool) -> None:
    room = Mailroom(await make_spool(id_window="1h"))
    room.to((room.now // HOUR + 1) * HOUR - 1)  # the last ms of a generation
    first = await room.add(id="a1")
    await room.read()
    assert await room.admitted(first, seen=ident("a1"), id="a1") == ["go"]
    assert await room.scripts.find([(None, "a1"), (None, "a2"), ("acme", "a1")]) == [first, "", ""]
    room.tick(HOUR)  # the last ms of the next one
    assert await room.scripts.find([(None, "a1")]) == [first]
    again = await room.add(id="a1")
    await room.read()
    assert await room.admitted(again, seen=ident("a1"), id="a1") == ["duplicate"]
    room.tick(1)
    assert await room.scripts.find([(None, "a1")]) == [""]
    later = await room.add(id="a1")
    await room.read()
    assert await room.admitted(later, seen=ident("a1"), id="a1") == ["go"]
    assert await room.scripts.find([(None, "a1")]) == [later]
    for key in await room.do("KEYS", room.keys.prefix + "seen:*"):
        assert HOUR < await room.do("PTTL", key) <= 2 * HOUR


async def test_ids_are_per_tenant(room: Mailroom) -> None:
    one, two = await room.add(id="a1", tenant="x"), await room.add(id="a1", tenant="y")
    await room.read()
    rows = [room.row(one, seen=ident("a1", "x")), room.row(two, seen=ident("a1", "y"))]
    assert await room.admitted(*rows) == ["go", "go"]
    assert await room.scripts.find([("x", "a1"), ("y", "a1")]) == [one, two]


async def test_large_and_odd_entries_are_kept_whole(room: Mailroom) -> None:
    for id_ in ("9999999999999-0", "9999999999999-4294967296"):
        await room.do("XADD", room.keys.stream("low"), id_, "to", "bob@example.net")
    read = await room.read()
    rows = [room.row(entry, seen=ident(entry), lane="main|d.example") for entry in read]
    assert await room.admitted(*rows) == ["go", "go"]
    assert await room.scripts.find([(None, entry) for entry in read]) == read

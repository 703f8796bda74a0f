"""An entry that has a field twice: nobody can tell which was meant, so no script goes by either."""

from __future__ import annotations

import pytest
from mailroom import Mailroom
from sifting import sift, slow

from streamq.queue.letters import requeue_dead
from streamq.queue.scripts import why
from streamq.queue.spool import Entry

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
PLAIN = ("from", "shop@example.com", "to", "bob@slow.example", "text", "Hi")


async def add(room: Mailroom, *flat: str) -> str:
    id_ = await room.do("XADD", room.keys.stream("normal"), "*", *flat)
    return f"1{id_.decode()}"


@pytest.mark.parametrize(
    "more",
    [
        ("to", "eve@slow.example"),
        ("to", "bob@slow.example"),
        ("to", ""),
        ("text", "Ho"),
        ("id", "1", "id", "2"),
        ("raw", "a", "raw", "a"),
        ("envelope_to", "bob@slow.example", "envelope_to", "eve@slow.example"),
        ("sensitive", "1", "sensitive", "0"),
    ],
)
async def test_it_is_not_parked_unread(room: Mailroom, more: tuple[str, ...]) -> None:
    await slow(room)
    entries = [await add(room, *PLAIN), await add(room, *PLAIN, *more), await add(room, *PLAIN, "id", "3")]
    found = await sift(room)
    assert [name for name, _ in found.taken] == [entries[1]]
    assert found.parked == 2
    assert Entry.of(*found.taken[0]).twice == (more[0].encode(),)


async def test_what_a_read_and_a_fetch_bring_says_so(room: Mailroom) -> None:
    entry = await add(room, *PLAIN, "to", "eve@slow.example", "colour", "red", "colour", "blue")
    [read] = (await room.spool.read("w1", [("normal", 1)])).entries
    [fetched] = await room.spool.fetch([entry])
    assert read.twice == (b"to", b"colour")
    assert fetched == read
    assert read.fields[b"to"] == b"eve@slow.example"


@pytest.mark.parametrize("said", [("1", "0"), ("0", "1"), ("", "yes"), ("1", "")])
async def test_a_body_is_hidden_where_one_of_them_says_so(room: Mailroom, said: tuple[str, str]) -> None:
    entry = await add(room, *PLAIN, "sensitive", said[0], "sensitive", said[1])
    await room.read()
    reason = why(reason="sensitive: given more than once", **{"class": "malformed"})
    assert await room.admitted(entry, kind="dead", why=reason) == ["dead"]
    [(name, letter)] = await room.letters()
    assert "text" not in letter
    assert letter["dead_body"] == "dropped"
    assert await room.scripts.requeue([name]) in (["sensitive"], ["bodiless"])


async def test_a_requeue_says_it_once(room: Mailroom) -> None:
    entry = await add(room, *PLAIN, "to", "eve@slow.example", "cc", "a@x.de", "cc", "b@x.de")
    await room.read()
    assert await room.admitted(entry, kind="dead", why=why(reason="x", **{"class": "malformed"})) == ["dead"]
    [(name, _)] = await room.letters()
    [again] = await requeue_dead(room.spool, [(name, 1)], {"to": "bob@x.de", "cc": ""})
    [fetched] = await room.spool.fetch([again])
    assert fetched is not None
    assert fetched.twice == ()
    assert fetched.fields == {b"from": b"shop@example.com", b"to": b"bob@x.de", b"text": b"Hi"}


async def test_a_body_stays_where_none_of_them_says_so(room: Mailroom) -> None:
    entry = await add(room, *PLAIN, "sensitive", "", "sensitive", "0")
    await room.read()
    assert await room.admitted(entry, kind="dead", why=why(reason="x", **{"class": "malformed"})) == ["dead"]
    [(_, letter)] = await room.letters()
    assert letter["text"] == "Hi"

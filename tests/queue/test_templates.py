"""template.lua and what stands before it: versions that never change, chosen by a mail's time."""

from __future__ import annotations

import pytest
from mailroom import Mailroom

from streamq.mail.template import Template
from streamq.queue import templates

pytestmark = [pytest.mark.usefixtures("any_server_url")]


def text(source: str) -> Template:
    return Template({"text": source})


async def found(room: Mailroom, asked: str, at_ms: int) -> str | None:
    await room.spool.templates.know([{b"template": asked.encode()}])
    template = room.spool.templates.find(asked.encode(), at_ms)
    return None if template is None else template.parts["text"]


async def test_a_mail_gets_the_version_of_its_time(room: Mailroom) -> None:
    start = room.now
    room.tick(1000)
    assert await room.spool.templates.put("welcome", text("one")) == 1
    room.tick(1000)
    assert await room.spool.templates.put("welcome", text("two")) == 2
    assert await found(room, "welcome", start) == "one"  # there was none yet: the first
    assert await found(room, "welcome", start + 1999) == "one"
    assert await found(room, "welcome", start + 2000) == "two"
    assert await found(room, "welcome@1", start + 9000) == "one"
    assert await found(room, "welcome@3", start + 9000) is None
    assert await found(room, "other", start) is None
    assert await room.spool.templates.names() == {"welcome": 2}


async def test_a_version_that_somebody_puts_is_known_at_the_next_look(room: Mailroom) -> None:
    await room.spool.templates.put("welcome", text("one"))
    assert await found(room, "welcome", room.now) == "one"
    room.tick(1)
    await room.scripts.template("put", "welcome", b'{"text":"two"}')
    assert await found(room, "welcome", room.now) == "two"


async def test_nothing_is_asked_where_no_mail_has_one(room: Mailroom) -> None:
    before = await room.do("INFO", "commandstats")
    await room.spool.templates.know([{b"to": b"bob@example.net"}, {b"template": b""}])
    assert (await room.do("INFO", "commandstats")).count(b"cmdstat_hmget") == before.count(b"cmdstat_hmget")


async def test_the_same_again_is_no_new_version(room: Mailroom) -> None:
    assert [await room.spool.templates.put("a", text("one")) for _ in range(2)] == [1, 1]
    assert [await room.spool.templates.put("a", text(word)) for word in ("two", "one")] == [2, 3]


async def test_one_that_is_put_again_after_its_removal_goes_on_counting(room: Mailroom) -> None:
    await room.spool.templates.put("a", text("one"))
    await room.spool.templates.put("a", text("two"))
    assert await room.spool.templates.remove("a") == 2
    assert await room.spool.templates.names() == {}
    assert await found(room, "a", room.now) is None
    assert await room.spool.templates.remove("a") == 0
    assert await room.spool.templates.put("a", text("two")) == 3
    assert await found(room, "a", room.now) == "two"
    assert await found(room, "a@2", room.now) is None


async def test_a_hundred_versions_are_kept(room: Mailroom) -> None:
    for number in range(105):
        await room.spool.templates.put("a", text(str(number)))
    kept = await room.spool.templates.versions("a")
    assert [each.version for each in kept] == list(range(6, 106))


@pytest.mark.parametrize(("kept", "value"), [("KEPT_BYTES", 2_500), ("KEPT_NAMES", 2)])
async def test_what_is_kept_is_bounded(room: Mailroom, monkeypatch: pytest.MonkeyPatch, kept: str, value: int) -> None:
    """The least used go, and are fetched again; what a batch needs stays until it is built, however large."""
    monkeypatch.setattr(templates, kept, value)
    names = [f"t{number}" for number in range(4)]
    for name in names:
        await room.spool.templates.put(name, text(name * 500))
    one = room.spool.templates
    for name in ("t0", "t1", "t0", "t2"):
        assert await found(room, name, room.now) == name * 500
    assert one.find(b"t1", room.now) is None
    assert [one.find(name.encode(), room.now) is not None for name in ("t0", "t2")] == [True, True]
    await one.know([{b"template": name.encode()} for name in names])
    assert all(one.find(name.encode(), room.now) is not None for name in names)
    assert await found(room, "t3", room.now) == "t3" * 500
    assert len(one._versions) == len(one._newest) == len(one._bytes) == 2
    await one.know([{b"template": b"gone"}])
    assert len(one._versions) == 2

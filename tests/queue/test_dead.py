"""Dead letters in the scripts: what a body is kept for, what they weigh, which go, what a requeue changes."""

from __future__ import annotations

from typing import Any

import pytest
from mailroom import DAY, Mailroom
from mailroom import texts as texts_of

from streamq.queue.letters import dead_letters, remove_dead, requeue_dead, trim_dead
from streamq.queue.script import LUA
from streamq.smtp.replies import default_replies

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
RAW = "From: shop@example.com\r\nSubject: Hi\r\n there\r\n\r\nsecret: body\r\n"
HEAD = "From: shop@example.com\nSubject: Hi\n there\n"
BODILESS = ["bad_address", "loop", "too_large"]


async def bury(room: Mailroom, klass: str = "policy", **fields: Any) -> str:
    """A mail that died; its letter."""
    room.tick(1)
    lease = await room.lease("low", lane=f"main|{room.now}.example", **{"to": "bob@example.net", **fields})
    assert await room.settled("dead", lease, **{"class": klass}) == "ok"
    return (await room.letters())[-1][0]


async def letter(room: Mailroom, name: str) -> dict[str, str]:
    return dict(await room.letters())[name]


async def weight(room: Mailroom) -> int:
    """By hand."""
    rows = await room.do("XRANGE", room.keys.dead, "-", "+")
    return sum(len(part) for _, flat in rows for part in flat)


# -- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "klass", ["policy", "spam", "mailbox_full", "malformed", "expired", "operator", "one_of_your_own"]
)
async def test_a_body_is_kept_where_a_requeue_makes_sense(room: Mailroom, klass: str) -> None:
    found = await letter(room, await bury(room, klass, text="a", html="b", attachments="[]"))
    assert (found["text"], found["html"], found["attachments"]) == ("a", "b", "[]")
    assert not found.keys() & {"dead_body", "dead_head"}


@pytest.mark.parametrize("klass", BODILESS)
async def test_what_nobody_could_send_keeps_its_fields_and_no_body(room: Mailroom, klass: str) -> None:
    body = {"text": "a", "html": "b", "attachments": "[]", "vars": "{}", "recipients": "[]"}
    found = await letter(room, await bury(room, klass, **body, subject="Hi", id="a1"))
    assert not found.keys() & body.keys()
    assert (found["subject"], found["id"], found["dead_body"]) == ("Hi", "a1", "dropped")
    assert "dead_head" not in found


@pytest.mark.parametrize(
    ("raw", "head"),
    [
        (RAW, HEAD),
        (RAW.replace("\r\n", "\n"), HEAD),
        (RAW.replace("\r\n", "\r"), HEAD),
        ("Subject: Hi\r\nno field\r\nTo: a\r\n", "Subject: Hi\n"),
        ("secret and no head", ""),
        ("Subject: no line end", ""),
        ("", None),
        ("A: b\r\n" * 4000 + "\r\nsecret", "A: b\n" * (16384 // 6)),
    ],
)
async def test_of_a_raw_mail_its_head_stays(room: Mailroom, raw: str, head: str | None) -> None:
    found = await letter(room, await bury(room, "bad_address", raw=raw))
    assert "raw" not in found
    assert found.get("dead_head") == head
    assert found.get("dead_body") == (None if head is None else "dropped")


async def test_a_sensitive_mail_keeps_nothing(room: Mailroom) -> None:
    for klass, flag in (("policy", "1"), ("bad_address", "1"), ("bad_field", "yes")):  # no flag, and meant all the same
        found = await letter(room, await bury(room, klass, raw=RAW, text="secret", sensitive=flag))
        assert "secret" not in str(found)
        assert not found.keys() & {"raw", "text", "dead_head"}


def test_the_classes_without_a_body_are_some_that_there_are() -> None:
    """The table stands in lib/dead.lua."""
    line = next(line for line in (LUA / "lib" / "dead.lua").read_text("utf-8").splitlines() if "local BODILESS" in line)
    assert [name for name in BODILESS if f"{name} = true" in line] == BODILESS
    assert line.count("= true") == len(BODILESS)
    assert set(BODILESS) <= {entry.klass for entry in default_replies().entries}


# -- bytes and age ----------------------------------------------------------------------------------------------------


async def test_every_byte_is_counted_where_it_comes_and_goes(room: Mailroom) -> None:
    names = [await bury(room, text="x" * size, id=f"a{size}") for size in (10, 1000, 50_000)]
    dropped = await bury(room, "bad_address", text="y" * 9000)
    packed = await room.lease(**{f"x_{n}": "1" for n in range(1001)})
    assert await room.settled("dead", packed) == "ok"
    assert await room.count("dead_bytes") == await weight(room) > 51_000
    await requeue_dead(room.spool, [(names[1], 1)])
    assert await room.count("dead_bytes") == await weight(room)
    assert await remove_dead(room.spool, [names[2], dropped, names[2], "1-1"]) == 2
    assert await room.count("dead_bytes") == await weight(room) < 51_000
    await room.scripts.trim(0, 0)
    assert (await room.count("dead_bytes"), await weight(room)) == (0, 0)


async def test_those_that_are_too_old_go(room: Mailroom) -> None:
    """A letter's age is its own id's, by the server's clock."""
    await room.do("XADD", room.keys.dead, f"{room.now - DAY}-0", "to", "old")
    await room.do("XADD", room.keys.dead, f"{room.now - DAY + 1}-0", "to", "just young enough")
    young = await bury(room)
    assert await room.scripts.trim(DAY, 10**9) == (1, False)
    assert [fields.get("to") for _, fields in await room.letters()] == ["just young enough", "bob@example.net"]
    room.tick(1)
    assert await room.scripts.trim(DAY, 10**9) == (1, False)
    assert [name for name, _ in await room.letters()] == [young]


async def test_the_oldest_go_until_the_rest_is_small_enough(room: Mailroom) -> None:
    names = [await bury(room, text="x" * 1000) for _ in range(6)]
    all_of_them = await room.count("dead_bytes")
    assert await room.scripts.trim(10**12, all_of_them) == (0, False)
    assert await room.scripts.trim(10**12, all_of_them - 1) == (1, False)
    assert [name for name, _ in await room.letters()] == names[1:]
    assert await room.scripts.trim(10**12, 2500) == (3, False)
    assert await room.count("dead_bytes") == await weight(room) <= 2500


async def test_in_bounded_steps(room: Mailroom) -> None:
    for number in range(250):
        await room.do("XADD", room.keys.dead, "*", "to", number)
    room.to(await _now_ms(room) + 1000)
    assert await room.scripts.trim(0, 10**9) == (100, True)
    assert await trim_dead(room.spool, 0, 10**9, 1) == (100, True)
    assert await trim_dead(room.spool, 0, 10**9, 5) == (50, False)
    for _ in range(3):
        await room.do("XADD", room.keys.dead, "*", "text", "x" * 3_000_000)
    room.to(await _now_ms(room) + 1000)
    assert await room.scripts.trim(0, 10**9) == (2, True)


async def _now_ms(room: Mailroom) -> int:
    seconds, _ = await room.do("TIME")
    return (int(seconds) + 1) * 1000


async def test_what_somebody_deleted_past_us_is_forgotten_with_the_last_letter(room: Mailroom) -> None:
    await bury(room, text="x" * 1000)
    await room.do("XTRIM", room.keys.dead, "MAXLEN", 0)
    assert await room.count("dead_bytes") > 1000
    assert await room.scripts.trim(10**12, 10**9) == (0, False)
    assert await room.do("HEXISTS", room.keys.counts, "dead_bytes") == 0


async def test_discarding_reads_so_many_bytes_a_call(room: Mailroom) -> None:
    names = [await bury(room, text="x" * 1000) for _ in range(5)]
    assert await room.scripts.discard([*names, "1-1"], 1500) == (2, 2)
    assert await remove_dead(room.spool, names) == 3


# -- requeue ----------------------------------------------------------------------------------------------------------


async def requeued(room: Mailroom, name: str, **changes: str) -> dict[str, str]:
    """The new mail's fields."""
    (entry,) = await requeue_dead(room.spool, [(name, 1)], changes)
    (found,) = await room.spool.fetch([entry])
    assert found is not None
    return texts_of(found.fields)


async def test_with_changed_fields(room: Mailroom) -> None:
    name = await bury(room, id="a1", subject="Hi", text="Hello", ttl="60")
    old = (await letter(room, name))["dead_entry"]
    fields = await requeued(room, name, to="bob@example.org", ttl="", reply_to="shop@example.com")
    assert fields == {
        "to": "bob@example.org",
        "id": "a1",
        "subject": "Hi",
        "text": "Hello",
        "reply_to": "shop@example.com",
    }
    event = (await room.events())[-1]
    assert (event.kind, event.id, event.data["of"]) == ("email.requeued", "a1", old)
    assert event.data["changed"] == ["to", "ttl", "reply_to"]
    assert await room.letters() == []


async def test_under_another_id(room: Mailroom) -> None:
    name = await bury(room, "id_conflict", id="a1", text="Hello")
    assert (await requeued(room, name, id="a2"))["id"] == "a2"
    assert (await room.events())[-1].id == "a2"


async def test_without_its_id_it_goes_by_its_entry(room: Mailroom) -> None:
    name = await bury(room, id="a1", text="Hello")
    assert "id" not in await requeued(room, name, id="")
    event = (await room.events())[-1]
    assert event.id == event.data["entry"]


@pytest.mark.parametrize(("fields", "status"), [({}, "bodiless"), ({"sensitive": "1"}, "sensitive")])
async def test_one_whose_body_is_gone_says_so_unless_it_gets_another(
    room: Mailroom, fields: dict[str, str], status: str
) -> None:
    name = await bury(room, "bad_address", raw=RAW, **fields)
    assert await requeue_dead(room.spool, [(name, 1)]) == [status]
    assert await requeue_dead(room.spool, [(name, 1)], {"to": "bob@example.org"}) == [status]
    assert await requeue_dead(room.spool, [(name, 1)], {"text": ""}) == [status]
    assert [each.letter async for each in dead_letters(room.spool)] == [name]
    assert await requeued(room, name, text="once more", to="bob@example.org") == {
        "to": "bob@example.org",
        "text": "once more",
        **fields,
    }


async def test_one_that_is_no_letter_of_ours(room: Mailroom) -> None:
    name = (await room.do("XADD", room.keys.dead, "*", "to", "bob@example.net")).decode()
    assert await requeue_dead(room.spool, [(name, 1)]) == ["packed"]
    assert await letter(room, name) == {"to": "bob@example.net"}

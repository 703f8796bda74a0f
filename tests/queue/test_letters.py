"""Dead letters: read in pages, requeued within bytes, discarded."""

from __future__ import annotations

from typing import Any

import pytest
from mailroom import Mailroom

from streamq.queue import letters as letters_file
from streamq.queue.letters import DeadLetter, dead_letter, dead_letters, remove_dead, requeue_dead

pytestmark = pytest.mark.leaves_mail


async def bury(room: Mailroom, many: int, **fields: str | bytes) -> list[str]:
    """So many mails die; their letters."""
    known: dict[str, Any] = dict(fields) or {"to": "bob@example.net", "text": "Hello"}
    klass = known.pop("klass", "policy")
    for number in range(many):
        lease = await room.lease(lane=f"main|{number}.example", id=f"d{number}", **known)
        assert await room.settled("dead", lease, **{"class": klass}) == "ok"
    return [letter for letter, _ in await room.letters()]


async def read(room: Mailroom) -> list[DeadLetter]:
    return [letter async for letter in dead_letters(room.spool)]


@pytest.mark.parametrize("many", [0, 1, 10, 11, 130])
async def test_every_letter_comes_once_oldest_first(room: Mailroom, many: int) -> None:
    names = await bury(room, many)
    seen = await read(room)
    assert [letter.letter for letter in seen] == names
    assert [letter.text("id") for letter in seen] == [f"d{number}" for number in range(many)]
    assert all(letter.text("dead_class") == "policy" for letter in seen)


async def test_one_letter_by_its_id(room: Mailroom) -> None:
    names = await bury(room, 2)
    found = await dead_letter(room.spool, names[1])
    assert found is not None
    assert (found.letter, found.text("id"), found.text("none")) == (names[1], "d1", "")
    assert found.size == sum(len(value) for value in found.fields.values())


@pytest.mark.parametrize("name", ["", "d0", "1-0", "-", "+", "99999999999999999999999-0", f"1-{2**64}", "\x1b[2J"])
async def test_no_letter(room: Mailroom, name: str) -> None:
    await bury(room, 1)
    assert await dead_letter(room.spool, name) is None


async def test_letters_become_mails_again(room: Mailroom) -> None:
    names = await bury(room, 105)
    done = await requeue_dead(room.spool, [(name, 100) for name in names] + [("1-0", 5)])
    assert done[-1] == "missing"
    assert len({*done[:-1]}) == 105
    assert await room.states() == dict.fromkeys(done[:-1], "waiting")
    assert await read(room) == []
    assert [event.id for event in await room.events() if event.kind == "email.requeued"][:2] == ["d0", "d1"]


async def test_bodies_go_back_in_bounded_calls(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters_file, "REQUEUED_BYTES", 1000)
    await bury(room, 6, text="x" * 300)
    before = room.spool.caller.calls.get("requeue", 0)
    done = await requeue_dead(room.spool, [(letter.letter, letter.size) for letter in await read(room)])
    assert len(done) == 6
    assert room.spool.caller.calls["requeue"] - before == 3
    assert await requeue_dead(room.spool, []) == []


async def test_one_letter_beyond_the_bound_goes_alone(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters_file, "REQUEUED_BYTES", 10)
    names = await bury(room, 2)
    assert len(await requeue_dead(room.spool, [(name, 10**9) for name in names])) == 2


async def test_letters_that_cannot_come_back_say_why(room: Mailroom) -> None:
    names = await bury(room, 1, sensitive="1", text="secret")
    many: list[str] = [part for number in range(1100) for part in (f"x_{number}", "1")]
    entry = f"1{room.now}-900"
    await room.do("XADD", room.keys.stream("normal"), entry[1:], *many)
    await room.read()
    assert await room.admitted(entry, kind="dead", why=b'{"reason":"fields","class":"malformed"}') == ["dead"]
    packed = (await room.letters())[-1][0]
    assert await requeue_dead(room.spool, [(names[0], 1), (packed, 1)]) == ["sensitive", "packed"]
    assert len(await read(room)) == 2


async def test_letters_are_discarded(room: Mailroom) -> None:
    names = await bury(room, 130)
    assert await remove_dead(room.spool, [*names[:120], "1-0"]) == 120
    assert [letter.letter for letter in await read(room)] == names[120:]
    assert await remove_dead(room.spool, []) == 0


async def test_a_letter_of_any_bytes(room: Mailroom) -> None:
    await room.do("XADD", room.keys.dead, "*", b"\xff\x1b", b"\xfe", "dead_reason", "\x1b[2J")
    (letter,) = await read(room)
    assert letter.fields[b"\xff\x1b"] == b"\xfe"
    assert letter.text("id") == ""

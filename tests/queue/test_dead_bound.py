"""Dead letters stay within the bytes that workers have said, in the very script that writes one."""

from __future__ import annotations

from typing import Any

import pytest
from mailroom import Mailroom

from streamq.queue.letters import requeue_dead
from streamq.queue.rows import AdmitRow
from streamq.queue.scripts import why

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
KILO = "x" * 1000


async def bound(room: Mailroom, most: int) -> None:
    room.spool.settings = room.spool.settings.model_copy(update={"dead_bytes": most})
    await room.spool.publish_ends()


async def bury(room: Mailroom, klass: str = "policy", **fields: Any) -> dict[str, str]:
    """A mail that died; its letter's fields."""
    room.tick(1)
    lease = await room.lease("low", lane=f"main|{room.now}.example", **{"to": "bob@example.net", **fields})
    assert await room.settled("dead", lease, **{"class": klass}) == "ok"
    return (await room.letters())[-1][1]


async def bury_all(room: Mailroom, *texts: str) -> None:
    """Of one call, whose counts are gathered."""
    entries = [await room.add("low", to="bob@example.net", text=text, id=f"b{n}") for n, text in enumerate(texts)]
    assert set(entries) <= set(await room.read())
    said = why(reason="no", **{"class": "malformed"})
    rows: list[AdmitRow] = [room.row(entry, kind="dead", why=said) for entry in entries]
    assert {status for status, *_ in (await room.admit(*rows)).statuses} == {"dead"}


async def weight(room: Mailroom) -> int:
    """By hand; and the count of it is right."""
    rows = await room.do("XRANGE", room.keys.dead, "-", "+")
    bytes_ = sum(len(part) for _, flat in rows for part in flat)
    assert await room.count("dead_bytes") == bytes_
    return bytes_


async def ids(room: Mailroom) -> list[str]:
    return [fields.get("id", "") for _, fields in await room.letters()]


# -- the oldest go ----------------------------------------------------------------------------------------------------


async def test_the_oldest_make_room_for_the_newest(room: Mailroom) -> None:
    await bound(room, 5000)
    for number in range(12):
        found = await bury(room, text=KILO, id=f"a{number}")
        assert found["text"] == KILO
        assert await weight(room) <= 5000
    assert await ids(room) == ["a8", "a9", "a10", "a11"]
    assert await room.count("dead") == 12, "who died; what is kept of it is another thing"


async def test_up_to_the_last_byte(room: Mailroom) -> None:
    for name in ("a1", "a2"):
        await bury(room, text=KILO, id=name)
    await bound(room, await weight(room) * 3 // 2)
    await bury(room, text=KILO, id="a3")
    assert await ids(room) == ["a1", "a2", "a3"]
    await bound(room, await weight(room) * 4 // 3 - 1)
    await bury(room, text=KILO, id="a4")
    assert await ids(room) == ["a2", "a3", "a4"]


async def test_those_of_one_call_count_one_by_one(room: Mailroom) -> None:
    await bound(room, 5000)
    await bury_all(room, *[KILO] * 40)
    assert await ids(room) == ["b36", "b37", "b38", "b39"]
    assert await weight(room) <= 5000


async def test_where_no_worker_has_said_how_many_all_stay(room: Mailroom) -> None:
    await bury_all(room, *["x" * 100_000] * 40)
    assert len(await room.letters()) == 40
    assert {len(fields["text"]) for _, fields in await room.letters()} == {100_000}
    assert await weight(room) > 4_000_000


# -- what one call cannot do ------------------------------------------------------------------------------------------


async def small_ones(room: Mailroom, many: int) -> None:
    """Letters of before, counted."""
    for number in range(many):
        await room.do("XADD", room.keys.dead, "*", "to", f"{number:04}")
    await room.do("HINCRBY", room.keys.counts, "dead_bytes", 6 * many)


async def test_so_many_go_in_a_call_and_then_a_letter_has_no_body(room: Mailroom) -> None:
    await small_ones(room, 1000)
    await bound(room, 6000)
    found = await bury(room, raw="Subject: Hi\r\n\r\n" + KILO, text=KILO, html=KILO, id="a1")
    assert not found.keys() & {"raw", "text", "html"}
    assert (found["id"], found["dead_body"], found["dead_head"]) == ("a1", "dropped", "Subject: Hi\n")
    assert (found["dead_class"], found["last_reply"]) == ("policy", "550 no")
    assert await weight(room) <= 6000
    assert 850 < len(await room.letters()) <= 901, "100 of a call and some for the letter"


async def test_so_many_bytes_go_in_a_call_and_what_is_written(room: Mailroom) -> None:
    """Each letter pays for its own room: who buries large ones all the time drops as many bytes, and no body."""
    for number in range(5):
        await bury(room, text="x" * 3_000_000, id=f"a{number}")
    await bound(room, 15_003_000)
    await bury(room, text="x" * 9_000_000, id="a5")
    assert await ids(room) == ["a3", "a4", "a5"]
    assert not any("dead_body" in fields for _, fields in await room.letters())
    await bound(room, 6_000_000)  # somebody turned it down
    found = await bury(room, text=KILO, id="a6")
    assert await ids(room) == ["a5", "a6"]
    assert found["dead_body"] == "dropped"


async def test_a_burst_of_small_letters_beside_large_ones_ends_at_the_bound(room: Mailroom) -> None:
    await small_ones(room, 500)
    await bound(room, 20_000)
    for _ in range(5):
        await bury_all(room, *["x" * 5000] * 20)
        assert await weight(room) <= 20_000
    assert (await room.letters())[-1][1]["text"] == "x" * 5000, "the small ones are gone, and there is room"


async def test_one_that_is_too_much_alone_drops_nobody_in_vain(room: Mailroom) -> None:
    await bury(room, text=KILO, id="a1")
    await bound(room, 3000)
    found = await bury(room, text=KILO * 9, id="a2")
    assert "text" not in found
    assert await ids(room) == ["a1", "a2"]
    [_, (name, _)] = await room.letters()
    assert await requeue_dead(room.spool, [(name, 1)]) == ["bodiless"]
    [entry] = await requeue_dead(room.spool, [(name, 1)], {"text": "again"})
    assert await room.state(entry) == "waiting"


async def test_one_of_too_many_fields_is_kept_without_them(room: Mailroom) -> None:
    await bound(room, 1024)
    found = await bury(room, **{f"x_{n}": "1" for n in range(1001)})
    assert found["packed"] == ""
    assert await weight(room) <= 1024


async def test_one_that_does_not_fit_without_its_body_is_written_all_the_same(room: Mailroom) -> None:
    """Nobody ends without a letter; the next one, or trim, takes it away."""
    await bound(room, 1024)
    await bury(room, subject=KILO * 2, text=KILO, id="a1")
    assert await ids(room) == ["a1"]
    await bury(room, text="x", id="a2")
    assert await ids(room) == ["a2"]
    assert await weight(room) <= 1024


# -- counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [True, False])
async def test_what_somebody_deleted_past_us_is_forgotten(room: Mailroom, together: bool) -> None:
    for _ in range(4):
        await bury(room, text=KILO)
    await bound(room, await weight(room))
    await room.do("XTRIM", room.keys.dead, "MAXLEN", 0)
    if together:
        await bury_all(room, KILO, KILO)
    else:
        await bury(room, text=KILO)
        await bury(room, text=KILO)
    assert [fields["text"] for _, fields in await room.letters()] == [KILO, KILO]
    assert await weight(room) > 2000


async def test_and_so_is_what_the_same_call_had_dropped_until_then(room: Mailroom) -> None:
    for _ in range(4):
        await bury(room, text=KILO)
    await bound(room, await weight(room) * 3 // 4)
    await room.do("XTRIM", room.keys.dead, "MAXLEN", 1)
    await bury_all(room, KILO, KILO)
    assert [fields["id"] for _, fields in await room.letters()] == ["b0", "b1"]
    assert await weight(room) > 2000


async def test_workers_say_how_many(room: Mailroom) -> None:
    async def said() -> list[bytes]:
        found: list[bytes] = await room.do("HMGET", room.keys.meta, "dead_bytes", "reports")
        return found

    await bound(room, 7000)
    assert await said() == [b"7000", b"1"]
    await bound(room, 9000)
    assert await said() == [b"9000", b"1"]
    await room.do("HSET", room.keys.meta, "reports", "0")
    await room.spool.publish_ends()
    assert await said() == [b"9000", b"1"]

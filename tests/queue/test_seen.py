"""seen.lua: which ids are known, for one to two windows, and what it costs to take many of them at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from mailroom import DAY, Mailroom
from sifting import sift, slow

from streamq.mail.identity import digest

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]

COUNTED = [f"order-{n}-paid" for n in range(100, 140)]


async def come(room: Mailroom, names: Sequence[str]) -> list[str]:
    """Of these ids, in one batch: those that are known already."""
    entries = [await room.add(to="bob@slow.example", id=name) for name in names]
    taken = {entry for entry, _ in (await sift(room)).taken}
    return [name for name, entry in zip(names, entries, strict=True) if entry in taken]


async def calls(room: Mailroom) -> dict[str, int]:
    """How often the server executed which commands on hashes."""
    text = (await room.do("INFO", "commandstats")).decode()
    lines = [line.partition(":") for line in text.splitlines() if line.startswith("cmdstat_h")]
    return {name[8:]: int(said[6:].partition(",")[0]) for name, _, said in lines}


async def noted(room: Mailroom) -> str:
    """Which generations have ids, without the numbers: t(his), l(ast), o(lder), as `meta` says."""
    _, *there = (await room.do("HGET", room.keys.meta, "ids")).decode().split()
    this = room.now // DAY
    return "".join({str(this): "t", str(this - 1): "l"}.get(each, each if each in "-?" else "o") for each in there)


def test_ids_that_count_up_share_their_first_bytes() -> None:
    for name in ("a{}", "order-{}-paid", "7/{}.x", "ä{}ö"):
        assert len({digest("t", name.format(n))[:2] for n in range(120, 130)}) == 1
        assert len({digest("t", name.format(n)) for n in range(120, 130)}) == 10
    firsts = {digest("t", f"a{n}")[:2] for n in range(0, 1000, 10)} | {digest("u", "a5")[:2], digest("t", "a")[:2]}
    assert len(firsts) > 95  # of 102, in 65,536


async def test_lua_makes_the_same_digest(room: Mailroom) -> None:
    await slow(room)
    for name in ("a1", "a12b", "none", "9", "order-19-paid", "x1y22z"):
        entry = await room.add(to="bob@slow.example", id=name)
        await sift(room)
        assert await room.scripts.find([("", name)]) == [entry]


async def test_ids_that_count_up_are_taken_together(room: Mailroom) -> None:
    await slow(room)
    assert await come(room, COUNTED) == []
    before = await calls(room)
    assert await come(room, [name.replace("1", "2", 1) for name in COUNTED]) == []
    after = await calls(room)
    spent = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert spent["hmget"] <= 4 + 2  # four tens; and what every script reads
    assert "hsetnx" not in spent
    assert spent["hset"] <= 4 + 40 // 16 + 2 + 40  # lanes: sixteen neighbours in one, where they share a millisecond


async def test_of_one_id_in_a_batch_the_first_is_new(room: Mailroom) -> None:
    await slow(room)
    assert await come(room, ["a1", "a2", "a1", "b1", "a3", "b1", "a2"]) == ["a1", "b1", "a2"]


async def test_they_are_known_in_the_next_window_and_not_for_ever(room: Mailroom) -> None:
    await slow(room)
    names = ["a1", "a2", "b1"]  # two together, and one alone
    assert await come(room, names) == []
    assert await noted(room) == "t-"
    room.tick(DAY)
    assert await noted(room) == "l-"
    assert await come(room, [*names, "a3", "c1"]) == names
    assert await noted(room) == "tl"
    assert await come(room, [*names, "a3", "c1"]) == [*names, "a3", "c1"]
    room.tick(DAY)
    assert await come(room, [*names, "a3", "c1"]) == ["a3", "c1"]
    room.tick(3 * DAY)
    assert await come(room, [*names, "a3", "c1"]) == []
    assert await noted(room) == "to"


async def test_of_a_queue_that_did_not_note_it_the_last_window_is_asked(room: Mailroom) -> None:
    await slow(room)
    # None, of another window, or ahead of the clock
    for at, wrong in enumerate([None, "5000 1 -", "garbage", f"{DAY} 99999999 -"]):
        names = [f"{kind}{at}{n}" for kind, n in (("a", 1), ("a", 2), ("b", 1))]
        assert await come(room, names) == []
        room.tick(DAY)
        if wrong is None:
            await room.do("HDEL", room.keys.meta, "ids")
        else:
            await room.do("HSET", room.keys.meta, "ids", wrong)
        assert await come(room, names) == names, wrong
        assert await noted(room) == ("o?" if wrong and "9999" in wrong else "t?")  # what is ahead stays
        assert await come(room, names) == names, wrong
        await room.do("HSET", room.keys.meta, "ids", "-")


async def test_what_came_while_the_clock_was_ahead_is_known_when_its_window_is_the_last(room: Mailroom) -> None:
    await slow(room)
    await room.do("HSET", room.keys.limit("main|slow.example"), "60000000", f"{(room.now + 9 * DAY) * 1000}:62499999")
    this, top, many = room.now // DAY, room.now + 3 * DAY, 0

    async def letters(*names: str) -> str:
        """What becomes of mails of these ids, whose entries' ids grow, whatever the clock does."""
        nonlocal many
        for name in names:
            many += 1
            await room.do("XADD", room.keys.stream("normal"), f"{top}-{many}", "to", "b@slow.example", "id", name)
        return (await sift(room)).said.letters

    room.to((this + 1) * DAY + 100)
    assert await letters("a1", "a2") == "pp"
    room.to((this + 1) * DAY - 3_600_000)
    assert await letters("b1") == "p"
    assert await room.do("HGET", room.keys.meta, "ids") == f"{DAY} {this + 1} ?".encode()
    room.to((this + 2) * DAY + 100)
    assert await letters("a1", "a2", "b1") == "ttp"


async def test_a_queue_that_lost_what_it_is_asks_too(room: Mailroom) -> None:
    await slow(room)
    assert await come(room, ["a1", "a2"]) == []
    assert await room.do("EXISTS", room.keys.counts) == 1
    await room.do("HDEL", room.keys.meta, "salt", "ids")
    await room.spool.open()
    assert await room.do("HGET", room.keys.meta, "ids") is None
    assert await room.do("HGET", room.keys.meta, "salt") is not None


async def test_ids_of_what_there_was_no_room_for_are_free(room: Mailroom) -> None:
    await slow(room)
    await come(room, ["a0"])
    entries = [await room.add(to="bob@slow.example", id=name) for name in ("a0", "a1", "a0", "a2", "b1")]
    found = await sift(room, room_for=1)
    assert [entry for entry, _ in found.taken] == entries[:1]
    assert await room.scripts.find([("", name) for name in ("a1", "a2", "b1")]) == [entries[1], "", ""]
    assert [entry for entry, _ in (await sift(room)).taken] == [entries[2]]
    assert await room.scripts.find([("", name) for name in ("a1", "a2", "b1")]) == [entries[1], *entries[3:]]

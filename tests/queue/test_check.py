"""check.py, check.lua, repair.lua: each breach of the law, made by hand, is named, mended, and gone."""

from __future__ import annotations

import pytest
from law import survey
from mailroom import LANE, Mailroom

from streamq.queue.check import Wrong, check

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
STATES = ["waiting", "leased", "parked", "scheduled", "held"]


async def named(room: Mailroom) -> set[str]:
    return {wrong.what for wrong in (await check(room.spool)).wrong}


async def mended(room: Mailroom, *whats: str) -> None:
    """Exactly these are named; one repair leaves a queue that keeps the law."""
    assert await named(room) == set(whats)
    report = await check(room.spool, repair=True)
    assert report.repaired == len(report.wrong)
    assert (await check(room.spool)).clean
    await room.survey()


async def test_every_state_is_counted(room: Mailroom) -> None:
    for state in ("held", "scheduled", "leased", "parked", "waiting"):
        for name in ("high", "low"):
            await room.in_state(state, name)
    seen: list[int] = []
    report = await check(room.spool, progress=seen.append)
    assert report.clean
    for name in ("high", "low"):
        assert report.seen[name] == dict.fromkeys(STATES, 1)
    assert report.seen["normal"] == dict.fromkeys(STATES, 0)
    assert (report.total("held"), sum(seen)) == (2, 10)


async def test_chunks_are_small_where_mails_are_large(room: Mailroom) -> None:
    for _ in range(7):
        await room.add(raw="x" * 1_500_000)
    seen: list[int] = []
    report = await check(room.spool, progress=seen.append)
    assert report.total("waiting") == 7
    assert max(seen) <= 2


async def test_many_mails_go_in_chunks(room: Mailroom) -> None:
    for _ in range(250):
        await room.add()
    entries = await room.read("w1", 210)
    for at in range(0, 210, 100):
        await room.admit(*entries[at : at + 100], due=room.now + 5)
    seen: list[int] = []
    report = await check(room.spool, progress=seen.append)
    assert (report.clean, max(seen)) == (True, 100)
    assert (report.total("scheduled"), report.total("waiting")) == (210, 40)


@pytest.mark.parametrize("state", ["leased", "scheduled", "held"])
async def test_lost(room: Mailroom, state: str) -> None:
    entry = await room.in_state(state)
    await room.do("XACK", room.keys.stream("normal"), "streamq", entry[1:])
    for key, name in ((room.keys.schedule, "scheduled"), (room.keys.held, "held")):
        if await room.do("ZREM", key, entry):
            await room.do("HINCRBY", room.keys.counts, f"{name}:1", -1)
    await mended(room, "lost")
    assert await room.released() == [entry]
    assert await room.admitted(entry) == ["go"]


async def test_twice(room: Mailroom) -> None:
    entries = {state: await room.in_state(state) for state in ("held", "parked", "scheduled")}
    for state in ("held", "parked"):
        await room.do("ZADD", room.keys.schedule, 1, entries[state])
        await room.do("HINCRBY", room.keys.counts, "scheduled:1", 1)
    await mended(room, "twice")
    assert await room.states() == {entry: state for state, entry in entries.items()}


@pytest.mark.parametrize("state", ["parked", "scheduled", "held"])
async def test_both(room: Mailroom, state: str) -> None:
    entry = await room.in_state(state)
    claim = ("XCLAIM", room.keys.stream("normal"), "streamq", "w9", 0, entry[1:], "RETRYCOUNT", 99, "FORCE")
    await room.do(*claim, "JUSTID")
    await mended(room, "both")
    assert await room.state(entry) == state


async def test_an_entry_that_is_being_read_again_is_no_breach(room: Mailroom) -> None:
    entry = await room.held()
    await room.do("XGROUP", "DESTROY", room.keys.stream("normal"), "streamq")
    await room.spool.open()
    assert await room.read() == [entry]
    report = await check(room.spool)
    assert (report.clean, report.total("held")) == (True, 1)


@pytest.mark.parametrize("part", ["member", "visit", "lead"])
async def test_a_lane_whose_parts_disagree(room: Mailroom, part: str) -> None:
    entry = await room.parked()
    if part == "member":
        await room.do("ZREM", room.keys.parked, *await room.do("ZRANGE", room.keys.parked, 0, -1))
        await mended(room, "lane", "counts")
    elif part == "visit":
        await room.do("ZREM", room.keys.due("normal"), LANE)
        await mended(room, "lane")
    else:
        for bucket in await room.do("KEYS", room.keys.prefix + "lane:*"):
            await room.do("HDEL", bucket, entry)
        await mended(room, "lost", "stray")
    assert await room.released() == [entry]


@pytest.mark.parametrize("state", ["leased", "parked", "scheduled", "held"])
async def test_orphan(room: Mailroom, state: str) -> None:
    entry = await room.in_state(state)
    await room.do("HSET", room.keys.notes, entry, '{"attempts":1}')
    await room.do("XDEL", room.keys.stream("normal"), entry[1:])
    await mended(room, "orphan")
    assert await room.count("vanished") == 1


@pytest.mark.parametrize("kind", ["parked", "scheduled", "held"])
async def test_counts(room: Mailroom, kind: str) -> None:
    for state in ("parked", "scheduled", "held"):
        await room.in_state(state)
        await room.in_state(state, "low")
    await room.do("HINCRBY", room.keys.counts, f"{kind}:2", 5)
    await mended(room, "counts")


async def test_counts_that_are_gone(room: Mailroom) -> None:
    for state in ("parked", "scheduled", "held"):
        await room.in_state(state)
    await room.do("DEL", room.keys.counts)
    await mended(room, "counts")


async def test_all_at_once_by_the_hundred(room: Mailroom) -> None:
    for _ in range(130):
        await room.add()
    entries = await room.read("w1", 130)
    await room.admit(*entries[:65], due=room.now + 5)
    await room.admit(*entries[65:], due=room.now + 5)
    await room.do("DEL", room.keys.schedule)
    assert len((await check(room.spool)).wrong) == 131
    await mended(room, "lost", "counts")
    room.tick(5)
    assert sorted([*await room.released("w1", 200), *await room.released("w1", 200)]) == sorted(entries)


async def test_repair_mends_only_what_is_still_so(room: Mailroom) -> None:
    scheduled, held = await room.scheduled(), await room.held()
    rows = [
        (scheduled, "lost"),
        (scheduled, "twice"),
        (held, "both"),
        (held, "lane"),
        (held, "orphan"),
        (f"1{room.now}-99", "lost"),
        ("main|example.net|11700000000000-00000000000000000001", "stray"),
    ]
    assert await room.scripts.repair(rows) == 0
    assert await room.states() == {scheduled: "scheduled", held: "held"}


async def test_what_moves_between_two_looks_is_no_breach(room: Mailroom) -> None:
    """The first look sees a lease that is gone at the second."""
    lease = await room.lease()
    await room.do("XACK", room.keys.stream("normal"), "streamq", lease.entry[1:])

    looks = 0
    look = room.scripts.check

    async def mended_between(what: str, p: int = 0, start: str = "", many: int = 100) -> list[object]:
        nonlocal looks
        found = await look(what, p, start, many)
        if any(row == b"lost" for row in found):
            looks += 1
            await room.do("XDEL", room.keys.stream("normal"), lease.entry[1:])
        return found

    room.scripts.check = mended_between  # type: ignore[method-assign]
    report = await check(room.spool)
    assert (looks, report.clean, report.seen["normal"].total()) == (1, True, 0)


async def test_the_law_of_the_tests_sees_the_same(room: Mailroom) -> None:
    """Two proofs, written apart, of one law."""
    entry = await room.scheduled()
    await room.do("ZREM", room.keys.schedule, entry)
    wrong = (await survey(room.spool.redis)).wrong
    assert wrong == [f"{entry} is nowhere", "counts scheduled:1 says 1, it is 0"]
    assert (await check(room.spool)).wrong == [Wrong("", "counts"), Wrong(entry, "lost")]
    await mended(room, "counts", "lost")

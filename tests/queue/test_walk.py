"""Walks: every live mail of a state, in bounded pages, whatever moves, whatever stands in the indexes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mailroom import START, Mailroom

from streamq.queue import walk as walk_file
from streamq.queue.spool import Spool
from streamq.queue.walk import PAGE, PAGE_BYTES, STATES, MailView, Pages, is_entry, notes_from, walk

pytestmark = pytest.mark.leaves_mail


async def walked(spool: Spool, *states: str, **how: bool) -> list[MailView]:
    return [view async for view in walk(spool, states or STATES, **how)]


async def fill(room: Mailroom, state: str, many: int) -> list[str]:
    """So many in that state, a millisecond apart."""
    entries = []
    for number in range(many):
        room.tick(1)
        entries.append(await room.in_state(state, "normal", to="bob@example.net", id=f"{state}{number}"))
    return entries


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("many", [0, 1, 9, 10, 11, 205])
async def test_every_mail_of_a_state_comes_once(room: Mailroom, state: str, many: int) -> None:
    entries = await fill(room, state, many)
    for how in ({}, {"sweep": True}, {"bodies": False}, {"bodies": False, "sweep": True}):
        views = await walked(room.spool, state, **how)
        assert Counter(view.entry for view in views) == Counter(entries)
        assert {view.state for view in views} <= {state}
        assert {view.priority for view in views} <= {"normal"}
    assert [view.text("id") for view in await walked(room.spool, state)] == [f"{state}{at}" for at in range(many)]


async def test_other_states_are_left_out(room: Mailroom) -> None:
    for state in ("leased", "parked", "scheduled", "held", "waiting"):
        await room.in_state(state)
    for state in STATES:
        assert [view.state for view in await walked(room.spool, state)] == [state]
    assert [view.state for view in await walked(room.spool)] == list(STATES)


async def test_lists_go_by_time_and_lane(room: Mailroom) -> None:
    late = await room.scheduled(after=90_000)
    soon = await room.scheduled(after=30_000)
    views = await walked(room.spool, "scheduled")
    assert [(view.entry, view.due_ms) for view in views] == [(soon, START + 30_000), (late, START + 90_000)]
    low = await room.parked("low", lane="main|a.example")
    high = await room.parked("high", lane="main|a.example")
    other = await room.parked("low", lane="main|b.example")
    views = await walked(room.spool, "parked")
    assert [(view.entry, view.lane) for view in views] == [
        (high, "main|a.example"),
        (low, "main|a.example"),
        (other, "main|b.example"),
    ]


@pytest.mark.parametrize("state", ["parked", "scheduled", "held"])
async def test_a_sweep_misses_none_that_stays(room: Mailroom, state: str) -> None:
    """Pages by rank would: those in front leave while it walks."""
    entries = await fill(room, state, 300)
    leaving, staying = set(entries[:150]), set(entries[150:])
    seen: list[str] = []
    async for view in walk(room.spool, (state,), bodies=False, sweep=True):
        seen.append(view.entry)
        if leaving:
            await room.moved("cancel", leaving.pop())
    assert staying <= set(seen)


async def test_a_mail_that_ends_meanwhile_is_left_out(room: Mailroom) -> None:
    entries = await fill(room, "held", 3)
    await room.do("XDEL", room.keys.stream("normal"), entries[1][1:])
    assert [view.entry for view in await walked(room.spool, "held")] == [entries[0], entries[2]]
    assert await room.spool.scripts.repair([(entries[1], "orphan")]) == 1


async def test_members_that_no_script_writes_are_passed_by(room: Mailroom) -> None:
    entry = await room.held()
    strays = ["", "x", "9-0", "91700000000000-0", "1700000000000", "\x1b[2J", "11700000000000-0-0"]
    for key in (room.keys.schedule, room.keys.held):
        for stray in strays:
            await room.do("ZADD", key, 0, stray)
        await room.do("ZADD", key, 0, b"\xff\xfe")
    for stray in (*strays, "a|b|c", "a|1x-0", "|"):
        await room.do("ZADD", room.keys.parked, 0, stray)
    for how in ({}, {"sweep": True}, {"bodies": False}):
        views = await walked(room.spool, "parked", "scheduled", "held", **how)
        assert {view.entry for view in views} - {"11700000000000-0"} == {entry}
    for key in (room.keys.schedule, room.keys.held, room.keys.parked):
        await room.do("ZREM", key, *strays, b"\xff\xfe", "a|b|c", "a|1x-0", "|")


async def test_notes_come_along(room: Mailroom) -> None:
    entry = await room.held()
    assert (await walked(room.spool, "held"))[0].notes["class"] == "unknown_field"
    await room.do("HSET", room.keys.notes, entry, b"{not json \xff")
    assert (await walked(room.spool, "held"))[0].notes == {}


async def test_without_bodies_none_travel(room: Mailroom) -> None:
    for state in ("waiting", "leased", "parked", "scheduled", "held"):
        await room.in_state(state, to="bob@example.net", text="x" * 1_000_000)
    before = await _sent(room)
    views = await walked(room.spool, bodies=False, sweep=True)
    assert len(views) == 5
    assert not any(view.fields for view in views)
    assert await _sent(room) - before < 100_000


async def _sent(room: Mailroom) -> int:
    text = (await room.do("INFO", "stats")).decode()
    return int(text.split("total_net_output_bytes:")[1].split()[0])


async def test_large_mails_come_in_small_pages(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_file, "PAGE_BYTES", 20_000)
    for _ in range(40):
        await room.add(to="bob@example.net", text="x" * 10_000)
    asked: list[int] = []
    saw = Pages.saw

    def noted(pages: Pages, sizes: Sequence[int]) -> None:
        asked.append(len(sizes))
        saw(pages, sizes)

    monkeypatch.setattr(Pages, "saw", noted)
    assert len(await walked(room.spool, "waiting")) == 40
    assert asked[0] == 10
    assert set(asked[1:]) == {1}


@given(st.lists(st.lists(st.integers(0, 30_000_000), min_size=1, max_size=PAGE), max_size=10))
def test_a_page_is_bounded(history: list[list[int]]) -> None:
    pages = Pages()
    for sizes in history:
        before = pages.many
        pages.saw(sizes)
        assert 1 <= pages.many <= min(PAGE, 2 * before)
        assert pages.many == 1 or pages.many * (sum(sizes) // len(sizes)) <= PAGE_BYTES


@pytest.mark.parametrize("text", ["11732237561234-0", "01-0", f"9{2**64 - 1}-{2**64 - 1}"])
def test_an_entry(text: str) -> None:
    assert is_entry(text)


@pytest.mark.parametrize(
    "text",
    ["", "-", "1-0", "a1-0", "11-", "11--1", "11-0-0", "1١-0", f"9{2**64}-0", f"11-{2**64}", "1" * 10**5],
)
def test_no_entry(text: str) -> None:
    assert not is_entry(text)


@pytest.mark.parametrize("found", [None, b"", b"[]", b"7", b"\xff", b"{"])
def test_no_notes(found: bytes | None) -> None:
    assert notes_from(found) == {}

"""The reader's shares: high first, but no priority starves; and the reader that splits by them."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from conftest import MakeSpool
from crew import crew
from hypothesis import given
from hypothesis import strategies as st

from streamq.queue.look import consumers
from streamq.worker import reader
from streamq.worker.reader import LEAST, Shares

NAMES = ("high", "normal", "low")
Streams = dict[str, int]
rooms = st.integers(1, 10_000)


def read(shares: Shares, room: int, streams: Streams) -> Streams:
    """One read, as far as these streams go; what came."""
    asked = shares.split(room)
    got = {name: min(many, streams.get(name, 0)) for name, many in asked}
    for name, many in got.items():
        streams[name] = streams.get(name, 0) - many
    shares.used(asked, {name: many for name, many in got.items() if many})
    return got


@given(st.lists(st.tuples(rooms, st.dictionaries(st.sampled_from(NAMES), st.integers(0, 10_000))), max_size=30))
def test_a_split_is_all_of_the_room_and_no_more(history: list[tuple[int, Streams]]) -> None:
    shares = Shares(NAMES)
    for room, streams in history:
        asked = shares.split(room)
        assert sum(many for _, many in asked) == room
        assert all(many > 0 for _, many in asked)
        names = [name for name, _ in asked]
        assert names == sorted(set(names), key=NAMES.index)
        read(shares, room, dict(streams))


@given(st.integers(1, 10), rooms)
def test_any_number_of_priorities(many: int, room: int) -> None:
    shares = Shares([str(number) for number in range(many)])
    for _ in range(5):
        assert sum(share for _, share in shares.split(room)) == room


@given(st.lists(rooms, min_size=20, max_size=60))
def test_whatever_waits_above_a_lower_priority_gets_its_part(sizes: list[int]) -> None:
    """Also where a part of each room is less than a mail."""
    shares = Shares(NAMES)
    got: Counter[str] = Counter()
    for room in sizes:
        got.update(read(shares, room, dict.fromkeys(NAMES, 10**9)))
    for name in NAMES[1:]:
        owed = sum(room * LEAST for room in sizes)
        # What can't be given out at once is saved, one mail of it.
        assert got[name] >= owed - sum(max(0.0, room * LEAST - int(room * LEAST)) for room in sizes) - 1
        assert got[name] >= int(len(sizes) / 10) - 1
    assert got["high"] >= sum(sizes) * (1 - 2 * LEAST) - 2 * len(sizes)


def test_rooms_of_one_go_round() -> None:
    shares = Shares(NAMES)
    order = [next(iter(read(shares, 1, dict.fromkeys(NAMES, 100)))) for _ in range(101)]
    assert Counter(order) == {"high": 81, "normal": 10, "low": 10}


@given(rooms)
def test_high_takes_what_it_needs_first(room: int) -> None:
    shares = Shares(NAMES)
    streams = dict.fromkeys(NAMES, 10**6)
    read(shares, room, streams)  # now all are known to hold more
    assert read(shares, room, streams)["high"] >= room - 2 * max(1, int(room * LEAST))


@given(st.integers(3, 10_000), st.sampled_from(NAMES))
def test_what_the_others_do_not_use_goes_to_who_does(room: int, name: str) -> None:
    shares = Shares(NAMES)
    streams = {name: 10**9}
    for _ in range(40):  # until the saved parts of a small room have been had
        read(shares, room, streams)
        if shares._backlog[name]:
            break
    taken = read(shares, room, streams)[name]
    assert taken >= room - 3 * max(1, int(room * LEAST) + 1)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=50))
def test_something_urgent_is_asked_for_in_every_read_with_room(sizes: list[int]) -> None:
    """Newsletters without end: high is asked unless this was a lower one's saved turn."""
    shares = Shares(NAMES)
    skipped = 0
    for room in sizes:
        asked = dict(shares.split(room))
        skipped = skipped + 1 if "high" not in asked else 0
        assert skipped <= 2
        shares.used(list(asked.items()), {"low": asked.get("low", 0)})


async def test_mails_so_large_that_one_at_a_time_is_read_are_read(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room is then one, and the urgent stream is asked first, and empty."""
    monkeypatch.setattr(reader, "READ_BYTES", 30_000)
    async with crew(server_url) as c:
        for number in range(8):
            await c.add("low", id=f"l{number}", text="x" * 60_000)
        await c.worker()
        await c.until("email.relayed", many=8)
        assert len(c.sink.received) == 8


async def test_low_mail_goes_though_high_never_ends(server_url: str) -> None:
    """A hand of one: every read has room for one."""
    async with crew(server_url) as c:
        await c.add("low", to="patient@example.net")
        for number in range(40):
            await c.add("high", id=f"h{number}")
        await c.worker(in_hand=1)
        seen = [data["rcpt"] for data in await c.until("email.relayed", many=41)]
        assert seen.index("patient@example.net") < 30


@pytest.mark.drained
async def test_an_idle_worker_is_to_be_seen(any_server_url: str, make_spool: MakeSpool) -> None:
    """Before Redis 7.2 a blocked read makes no consumer. It is gone with the worker."""
    async with crew(any_server_url) as c:
        worker = await c.worker()
        while worker.consumer not in {one.name for one in await consumers(c.spool)}:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert await consumers(await make_spool()) == []

"""A queue that is full: both clients say which bound it is at, seldom look, and wait as they are told."""

from __future__ import annotations

import asyncio

import pytest
from mailroom import Mailroom

from client.faces import Clock, Opener, calls, error_of, ids, letter
from streamq import QueueFull, Sent

pytestmark = pytest.mark.leaves_mail


async def fill(room: Mailroom, mails: int) -> None:
    await room.scripts.bounds(mails, 1.0, 10**12, 10**12, 10**12)


async def test_the_error_names_the_bound_and_its_values(server_url: str, room: Mailroom, open_client: Opener) -> None:
    clock = Clock()
    for _ in range(3):
        await room.add()
    await fill(room, 2)
    async with open_client(server_url, clock) as client:
        with pytest.raises(QueueFull, match=r"^the queue is full: 3 of 2 \(live mails, STREAMQ_MAX_QUEUE\)$") as full:
            await client.send(letter("a1"))
        assert (full.value.bound, full.value.used, full.value.most) == ("queue", 3, 2)
        await fill(room, 100)
        clock.now += 0.3
        await client.send(letter("a1"))
    assert (await ids_there(room))[-1] == "a1"


async def ids_there(room: Mailroom) -> list[str]:
    found = await room.do("XRANGE", room.keys.stream("normal"), "-", "+")
    return [dict(zip(flat[::2], flat[1::2], strict=True)).get(b"id", b"").decode() for _, flat in found]


async def test_many_are_refused_by_one_look_and_each_says_so(
    server_url: str, room: Mailroom, open_client: Opener
) -> None:
    await room.do("SET", room.keys.full, "memory 950 900")
    before = await calls(room, "get")
    async with open_client(server_url, batch_mails=2) as client:
        results = await client.send_many([letter(f"m{n}", priority="high" if n % 2 else "low") for n in range(6)])
    errors = [error_of(result) for result in results]
    assert all(isinstance(error, QueueFull) for error in errors)
    assert {(error.bound, error.used, error.most) for error in errors} == {("memory", 950, 900)}
    assert str(errors[5]) == f"not tried: {errors[0]}"
    assert await calls(room, "get") - before == 1
    await room.do("DEL", room.keys.full)


async def test_it_is_looked_at_once_a_second(server_url: str, room: Mailroom, open_client: Opener) -> None:
    clock = Clock()
    async with open_client(server_url, clock) as client:
        before = await calls(room, "get")
        for n in range(20):
            await client.send(letter(f"m{n}"))
        assert await calls(room, "get") - before == 2  # the sign, and how many mails there may be
        clock.now += 1
        await client.send(letter("m20"))
        assert await calls(room, "get") - before == 4


async def test_while_no_worker_looks_it_counts_by_itself(server_url: str, room: Mailroom, open_client: Opener) -> None:
    clock = Clock()
    await fill(room, 3)  # the last look of the last worker
    async with open_client(server_url, clock) as client:
        for n, priority in enumerate(("high", "normal", "low")):
            clock.now += 1
            assert isinstance(await client.send(letter(f"m{n}", priority=priority)), Sent)
        assert await room.do("GET", room.keys.full) is None
        clock.now += 1
        with pytest.raises(QueueFull, match=r"^the queue is full: 3 of 3 \(live mails, STREAMQ_MAX_QUEUE\)$") as full:
            await client.send(letter("m3"))
        assert (full.value.bound, full.value.used, full.value.most) == ("queue", 3, 3)
        await room.do("XTRIM", room.keys.stream("low"), "MAXLEN", 0)
        clock.now += 0.3
        assert isinstance(await client.send(letter("m3")), Sent)


@pytest.mark.parametrize("left", ["", "x", "-1", "3 3"])
async def test_a_bound_that_is_no_number_stops_nobody(
    left: str, server_url: str, room: Mailroom, open_client: Opener
) -> None:
    await room.do("SET", room.keys.bounds, left)
    async with open_client(server_url) as client:
        assert isinstance(await client.send(letter("a1")), Sent)


async def test_it_waits_until_there_is_room(server_url: str, room: Mailroom, open_client: Opener) -> None:
    clock = Clock()
    loop = asyncio.get_running_loop()
    await room.do("SET", room.keys.full, "queue 3 2")

    def drained() -> None:
        if len(clock.pauses) == 3:
            asyncio.run_coroutine_threadsafe(room.do("DEL", room.keys.full), loop).result()

    clock.meanwhile = drained
    async with open_client(server_url, clock, wait=10) as client:
        assert isinstance(await client.send(letter("a1")), Sent)
    assert clock.pauses == [0.25, 0.25, 0.25]
    assert await ids(room) == ["a1"]


@pytest.mark.parametrize("said", ["disk", "disk 5", "queue x y", "", "later words of another form"])
async def test_words_of_a_later_version_stop_it_too(
    said: str, server_url: str, room: Mailroom, open_client: Opener
) -> None:
    await room.do("SET", room.keys.full, said)
    async with open_client(server_url) as client:
        with pytest.raises(QueueFull, match=r"^the queue is full: "):
            await client.send(letter("a1"))
    await room.do("DEL", room.keys.full)


async def test_what_is_no_text_stops_nobody(server_url: str, room: Mailroom, open_client: Opener) -> None:
    await room.do("XADD", room.keys.full, "*", "a", "b")
    async with open_client(server_url) as client:
        await client.send(letter("a1"))
    assert await ids(room) == ["a1"]
    await room.do("DEL", room.keys.full)

"""Back-pressure: a stream that is too deep is refused or waited for, and seldom asked."""

from __future__ import annotations

import asyncio

import pytest
from mailroom import Mailroom

from client.faces import Clock, Opener, calls, error_of, ids, letter
from streamq import (
    Sent,
    TooDeep,
)

pytestmark = pytest.mark.leaves_mail


async def test_a_deep_stream_is_refused_and_looked_at_again(
    server_url: str, room: Mailroom, open_client: Opener
) -> None:
    clock = Clock()
    async with open_client(server_url, clock, max_depth=3) as client:
        for n in range(3):
            await client.send(letter(f"m{n}"))
        with pytest.raises(TooDeep, match=r"^3 mails are in normal, max_depth is 3$"):
            await client.send(letter("m3"))
        await client.send(letter("urgent", priority="high"))  # each stream has its own bound
        await room.do("XTRIM", room.keys.stream("normal"), "MAXLEN", 0)
        clock.now += 1
        await client.send(letter("m3"))
    assert await ids(room) == ["m3"]
    assert clock.pauses == []


async def test_the_depth_is_not_asked_for_each_mail(server_url: str, room: Mailroom, open_client: Opener) -> None:
    clock = Clock()
    async with open_client(server_url, clock, max_depth=1000) as client:
        before = await calls(room, "xlen")
        for n in range(50):
            await client.send(letter(f"m{n}"))
        assert await calls(room, "xlen") - before == 1
        clock.now += 1
        await client.send(letter("m50"))
        assert await calls(room, "xlen") - before == 2


async def test_it_waits_for_room(server_url: str, room: Mailroom, open_client: Opener) -> None:
    clock = Clock()
    loop = asyncio.get_running_loop()

    def drain() -> None:
        if len(clock.pauses) == 3:
            work = room.do("XTRIM", room.keys.stream("normal"), "MAXLEN", 0)
            asyncio.run_coroutine_threadsafe(work, loop).result()

    clock.meanwhile = drain
    async with open_client(server_url, clock, max_depth=2, wait=10, batch_mails=2) as client:
        results = await client.send_many([letter(f"m{n}") for n in range(4)])
    assert all(isinstance(result, Sent) for result in results)
    assert clock.pauses == [0.25, 0.25, 0.25]
    assert await ids(room) == ["m2", "m3"]


async def test_it_waits_so_long_and_once(server_url: str, room: Mailroom, open_client: Opener) -> None:
    clock = Clock()
    mails = [letter(f"m{n}") for n in range(6)]
    mails[5] = letter("m5", priority="high")
    async with open_client(server_url, clock, max_depth=2, wait=0.6, batch_mails=2) as client:
        results = await client.send_many(mails)
    assert [isinstance(result, Sent) for result in results] == [True, True, False, False, False, True]
    assert str(error_of(results[2])) == "2 mails are in normal after 0.6 s, max_depth is 2"
    assert str(error_of(results[4])) == f"not tried: {error_of(results[2])}"
    assert sum(clock.pauses) == pytest.approx(0.6)

"""Replies that are lost: what is sent again, how often, and what the caller is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from cli.delivery import delivering
from lossy import Cut, Lossy
from mailroom import Mailroom
from servers import Server

from client.faces import Clock, Opener, error_of, ids, letter, rows
from streamq import (
    AsyncClient,
    NoReply,
    NotSent,
    Refused,
    Sent,
    Unreachable,
)
from streamq.queue.connection import command, connect

pytestmark = pytest.mark.leaves_mail


async def test_a_lost_reply_is_one_mail_all_the_same(server_url: str, room: Mailroom, open_client: Opener) -> None:
    clock = Clock()
    async with Lossy(server_url, [Cut()]) as line, open_client(line.url, clock) as client:
        sent = await client.send(letter())
    (first, fields), (second, again) = await rows(room)
    assert fields == again
    assert sent == Sent("a1", f"1{second}", resent=1)
    assert clock.pauses == [0.05]
    async with delivering(server_url) as sink:
        while len(await rows(room)):
            await room.do("XREAD", "BLOCK", 1000, "COUNT", 1, "STREAMS", room.keys.events, "$")
        assert len(sink.received) == 1
    events = {event.data["entry"]: event for event in await room.events()}
    assert events[f"1{first}"].kind == "email.relayed"
    assert (events[f"1{second}"].kind, events[f"1{second}"].data["of"]) == ("email.duplicate", f"1{first}")


async def test_what_was_answered_is_not_sent_again(server_url: str, room: Mailroom, open_client: Opener) -> None:
    mails = [letter(f"m{n}") for n in range(10)]
    async with Lossy(server_url, [Cut(let=4, of=10)]) as line, open_client(line.url) as client:
        results = await client.send_many(mails)
        assert line.xadds == 16
    assert await ids(room) == [mail.id for mail in mails] + [mail.id for mail in mails[4:]]
    assert [result.resent for result in results if isinstance(result, Sent)] == [0] * 4 + [1] * 6


async def test_it_gives_up_and_says_that_it_may_be_queued(server_url: str, room: Mailroom, open_client: Opener) -> None:
    mails = [letter(f"m{n}") for n in range(4)]
    async with (
        Lossy(server_url, [Cut(of=2), Cut(of=2)]) as line,
        open_client(line.url, tries=2, batch_mails=2) as client,
    ):
        results = await client.send_many(mails)
        assert line.xadds == 4
        later = await client.send(mails[0])  # the line is good again
        assert later.resent == 0
    assert [isinstance(error_of(result), NoReply) for result in results] == [True, True, False, False]
    assert [result.may_be_queued for result in results if isinstance(result, NotSent)] == [True, True, False, False]
    assert str(error_of(results[0])).startswith("id 'm0': no reply to 2 XADDs of it (")
    assert isinstance(error_of(results[2]), Unreachable)
    assert str(error_of(results[2])).startswith("not tried: id 'm0': no reply")
    assert await ids(room) == ["m0", "m1", "m0", "m1", "m0"]


async def test_lost_and_then_refused_may_be_queued(server_url: str, room: Mailroom, open_client: Opener) -> None:
    """The OOM is the answer to the second XADD; the first stands."""
    clock = Clock()
    loop = asyncio.get_running_loop()

    def fill() -> None:
        asyncio.run_coroutine_threadsafe(room.do("CONFIG", "SET", "maxmemory", 1), loop).result()

    clock.meanwhile = fill
    async with Lossy(server_url, [Cut()]) as line, open_client(line.url, clock) as client:
        with pytest.raises(NoReply, match=r"no reply to its XADD .*; then: id 'a1': Redis is out of memory"):
            await client.send(letter())
    assert await ids(room) == ["a1"]


async def test_where_nobody_listens_nothing_is_queued(server_url: str, room: Mailroom, open_client: Opener) -> None:
    clock = Clock()
    async with Lossy(server_url) as line, open_client(line.url, clock) as client:
        line.closed_door = True
        with pytest.raises(Unreachable, match=r"^no connection to Redis: "):
            await client.send(letter())
        assert (len(clock.pauses), line.xadds) == (2, 0)
        line.closed_door = False
        await client.send(letter())
    assert await ids(room) == ["a1"]


async def test_a_connection_that_was_closed_while_it_idled_loses_nothing(
    server_url: str, room: Mailroom, open_client: Opener
) -> None:
    async with open_client(server_url) as client:
        for n in range(3):
            assert (await client.send(letter(f"m{n}"))).resent == 0
            await room.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert await ids(room) == ["m0", "m1", "m2"]


async def test_a_reply_that_does_not_come_is_lost(server_url: str, room: Mailroom, open_client: Opener) -> None:
    async with Lossy(server_url) as line, open_client(line.url, timeout=2, tries=1) as client:
        await client.send(letter("m0"))
        line.keep_back = True
        with pytest.raises(NoReply, match=r"no reply to its XADD \(Timeout"):
            await client.send(letter("m1"))
        line.keep_back = False
        assert (await client.send(letter("m2"))).resent == 0
    assert await ids(room) == ["m0", "m1", "m2"]


async def test_a_master_that_became_a_replica_is_left(own_server: Callable[..., Server], open_client: Opener) -> None:
    server = own_server()
    redis = connect(server.url)
    try:
        async with Lossy(server.url) as line, open_client(line.url) as client:
            await client.send(letter("m0"))
            await command(redis, "REPLICAOF", "127.0.0.1", 1)
            for name in ("m1", "m2"):
                with pytest.raises(Refused, match="read only replica"):
                    await client.send(letter(name))
            assert line.made == 2  # m1's connection was given up, and m2 had a new one
            await command(redis, "REPLICAOF", "NO", "ONE")
            await client.send(letter("m3"))
        assert await command(redis, "XLEN", "{streamq}:normal") == 2
    finally:
        await redis.aclose()


async def test_a_cancelled_send_leaves_no_reply_for_the_next(server_url: str, room: Mailroom) -> None:
    async with Lossy(server_url) as line, AsyncClient(line.url, connections=1) as client:
        await client.send(letter("m0"))
        line.keep_back = True
        task = asyncio.create_task(client.send(letter("m1")))
        await line.answered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        line.keep_back = False
        sent = await client.send(letter("m2"))
    assert [(f"1{entry}", fields[b"id"]) for entry, fields in await rows(room)][2] == (sent.entry, b"m2")

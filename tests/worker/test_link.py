"""The link: an outage that no call has met is one all the same."""

from __future__ import annotations

import asyncio
import time

import pytest
from conftest import MakeSpool
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streamq.queue.connection import command, connect
from streamq.worker.cancel import cancel_all
from streamq.worker.link import Link


async def test_a_connection_that_is_lost_while_nobody_waits_is_told_of(server_url: str, make_spool: MakeSpool) -> None:
    spool = await make_spool()
    lost: asyncio.Queue[Exception] = asyncio.Queue()
    spool.on_lost(lost.put_nowait)
    await command(spool.redis, "PING")
    await command(spool.reader, "PING")
    other = connect(server_url)
    await command(other, "CLIENT", "KILL", "TYPE", "normal")
    await other.aclose()
    assert [type(await lost.get()) for _ in range(2)] == [RedisConnectionError] * 2
    assert await command(spool.redis, "PING") == b"PONG"
    await spool.close()
    assert lost.empty(), "what we close ourselves is not lost"


async def test_nothing_is_asked_before_it_was_looked_at() -> None:
    """The server may be another one now."""
    looked: list[str] = []

    async def recover() -> None:
        looked.append("looked")
        if len(looked) == 1:  # and lost again, while it is looked at
            link.lost(RedisConnectionError("gone"))

    async def ask() -> list[str]:
        return [*looked, "asked"]

    link = Link(recover)
    link.lost(RedisConnectionError("gone"))
    assert await link.call(ask) == ["looked", "looked", "asked"]
    await link.stop()
    link.lost(RedisConnectionError("gone"))
    assert await link.call(ask) == ["looked", "looked", "asked"]


async def test_an_outage_began_when_the_server_was_heard_last() -> None:
    """One that lost its power is noticed half a minute later: what was settled until then may be lost with it."""
    recovered = asyncio.Event()

    async def recover() -> None:
        recovered.set()

    async def ask() -> None:
        pass

    link = Link(recover)
    await link.call(ask)
    heard = time.monotonic()
    link.lost(RedisTimeoutError("the server was silent for 30 s"))
    assert link.down_since <= heard
    await recovered.wait()
    await link.stop()


@pytest.mark.parametrize(
    ("error", "drops"),
    [
        (RedisConnectionError("gone"), 1),
        (RedisTimeoutError("silent"), 1),
        (ReadOnlyError("a replica by now"), 1),
        (ResponseError("MASTERDOWN Link with MASTER is down"), 1),
        (BusyLoadingError("LOADING"), 0),
        (OutOfMemoryError("command not allowed"), 0),
    ],
)
async def test_only_what_leads_nowhere_is_dropped(error: Exception, drops: int) -> None:
    """A server that is short of memory, or loads, is the one that it was."""
    dropped: list[str] = []

    async def recover() -> None:
        pass

    async def ask() -> int:
        return len(dropped)

    link = Link(recover, lambda: dropped.append("dropped"))
    link.lost(error)
    assert await link.call(ask) == drops
    await link.stop()


async def test_what_a_drop_breaks_is_no_other_outage(make_spool: MakeSpool) -> None:
    """A blocked read ends with it, and says so; the server was looked at once."""
    spool = await make_spool()
    looked: list[str] = []

    async def recover() -> None:
        looked.append((await command(spool.redis, "PING")).decode())

    link = Link(recover, spool.drop)
    reading = asyncio.create_task(link.call(command, spool.reader, "XREAD", "BLOCK", 0, "STREAMS", "none", "$"))
    while b"blocked_clients:1" not in await command(spool.redis, "INFO", "clients"):
        pass
    link.lost(RedisTimeoutError("silent"))
    await link.call(command, spool.redis, "PING")
    await cancel_all([reading])
    assert looked == ["PONG"]
    await link.stop()

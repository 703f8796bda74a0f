"""The link: an outage that no call has met is one all the same."""

from __future__ import annotations

import asyncio

from conftest import MakeSpool
from redis.exceptions import ConnectionError as RedisConnectionError

from streamq.queue.connection import command, connect
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

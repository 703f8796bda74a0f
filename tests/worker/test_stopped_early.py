"""A worker that is told to stop before it has begun, while Redis is away or not."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest
from crew import crew
from servers import Server

from streamq.queue.connection import command
from streamq.queue.look import consumers
from streamq.settings import load_settings
from streamq.worker import Worker


async def test_who_is_stopped_before_redis_is_back_ends(own_server: Callable[..., Server]) -> None:
    """The server ends behind the worker's first look at it; nobody waited for the signal then, for ever."""
    server = own_server()

    class Late(Worker):
        def _build(self) -> None:
            super()._build()
            server.stop(signal.SIGKILL)

    worker = Late(load_settings(relay="smtp://127.0.0.1:9"), server.url)
    running = asyncio.create_task(worker.run())
    while not hasattr(worker, "link") or worker.link.is_up:  # noqa: ASYNC110 (no event says that)
        await asyncio.sleep(0.01)
    assert not running.done()
    worker.stop()
    await running
    assert not worker.ready.is_set()
    await asyncio.to_thread(server.start)


async def test_who_is_stopped_while_it_asks_for_connections_leaves_nothing(server_url: str) -> None:
    """It has joined by then: until a keeper found it dead it was listed among those that read."""
    async with crew(server_url) as c:
        worker = Worker(load_settings(relay=c.sink.url), c.url)
        asked = asyncio.Event()

        async def asking() -> None:
            await worker.spool.touch(worker.consumer)
            asked.set()
            await asyncio.Event().wait()

        build = worker._build

        def built() -> None:
            build()
            worker.allowances.ask = asking  # type: ignore[method-assign]

        worker._build = built  # type: ignore[method-assign]
        running = asyncio.create_task(worker.run())
        await asked.wait()
        assert [one.name for one in await consumers(c.spool)] == [worker.consumer]
        worker.stop()
        await running
        assert await consumers(c.spool) == []


async def test_one_that_starts_on_a_server_that_evicts_says_so(
    server_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with crew(server_url) as c:

        async def said() -> list[str]:
            caplog.clear()
            worker = Worker(load_settings(relay=c.sink.url), c.url)
            worker.stop()
            await worker.run()
            return [words for words in caplog.messages if "maxmemory" in words]

        await command(c.spool.redis, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        assert await said() == []  # it has no maxmemory: it is never full
        await command(c.spool.redis, "CONFIG", "SET", "maxmemory", 10**10)
        warned = await said()
        await command(c.spool.redis, "CONFIG", "SET", "maxmemory-policy", "noeviction")
        assert warned == [
            "redis throws mails away when it is full: `CONFIG SET maxmemory-policy noeviction` (it is allkeys-lru)"
        ]
        assert await said() == []

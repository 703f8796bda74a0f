"""A worker and `streamq up` (queue/whose.py): who comes back from an outage does not work beside one that came."""

from __future__ import annotations

import asyncio

import pytest
from crew import crew
from redis.exceptions import ConnectionError as RedisConnectionError

from streamq.errors import QueueTaken
from streamq.queue.connection import command
from streamq.settings import load_settings
from streamq.worker import Worker

pytestmark = pytest.mark.leaves_mail


async def test_a_worker_that_comes_back_asks_whose_the_queue_is(server_url: str) -> None:
    async with crew(server_url) as c:
        worker = c.new_worker()
        running = asyncio.create_task(worker.run())
        await worker.ready.wait()
        assert await command(c.spool.redis, "HGET", c.spool.keys.whose, "by") == b"workers"
        async with asyncio.timeout(60):
            assert (await c.spool.scripts.whose("take", "up1", ttl_ms=60_000, force=True)).status == "workers"
            await command(
                c.spool.redis, "HSET", c.spool.keys.whose, "by", "up1", "until", 2**52
            )  # it was away too long
            worker.link.lost(RedisConnectionError("gone"))
            with pytest.raises(QueueTaken, match=r"'streamq' is delivered by `streamq up` \(up1\)"):
                await running
        entry = await c.add()
        with pytest.raises(QueueTaken):
            await c.new_worker().run()
        assert (await c.spool.fetch([entry]))[0] is not None
        assert len(c.sink.received) == 0


async def test_one_that_works_for_an_up_ends_with_its_lease(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However that `up` ended: where there is no PR_SET_PDEATHSIG its worker outlives it."""
    monkeypatch.setattr("streamq.worker.worker.RENEW_SECONDS", 0.01)
    async with crew(server_url) as c:
        assert (await c.spool.scripts.whose("take", "up1", ttl_ms=60_000)).status == "mine"
        worker = Worker(load_settings(relay=c.sink.url), c.url, up="up1")
        running = asyncio.create_task(worker.run())
        await worker.ready.wait()
        await c.add(id="a1")
        await c.until("email.relayed", "a1")
        await command(c.spool.redis, "HSET", c.spool.keys.whose, "by", "workers")
        async with asyncio.timeout(60):
            with pytest.raises(QueueTaken, match="'streamq' belongs to workers by now, and not to up1"):
                await running

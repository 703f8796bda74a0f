"""A worker and a sink inside the test's loop, for commands that wait for what becomes of a mail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streamq.settings import load_settings
from streamq.sink import Rules, Sink
from streamq.worker import Worker

__all__ = ["delivering"]


@asynccontextmanager
async def delivering(url: str, rules: Rules | None = None) -> AsyncIterator[Sink]:
    """What is added meanwhile is delivered to the sink that this gives."""
    sink = Sink(rules=rules or Rules())
    await sink.start()
    worker = Worker(load_settings(relay=sink.url, redis_url=url), url)
    runs = asyncio.create_task(worker.run())
    try:
        yield sink
    finally:
        worker.stop()
        await runs
        await sink.close()

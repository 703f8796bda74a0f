"""A worker that is told to stop before it has begun, while Redis is away."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from servers import Server

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

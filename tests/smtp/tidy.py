"""What a test of connecting leaves behind: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator

from scripted_relay import until


def descriptors() -> set[str]:
    """The files and sockets of this process; the listing's own one is among them each time."""
    return set(os.listdir("/dev/fd"))


@contextlib.asynccontextmanager
async def tidy() -> AsyncIterator[None]:
    """No descriptor, no task stays; a transport that nobody closed is a ResourceWarning, which is an error."""
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)  # what a loop opens for itself, it has then
    server.close()
    await server.wait_closed()
    await loop.run_in_executor(None, int)
    before, tasks = descriptors(), asyncio.all_tasks()
    gc.freeze()  # what was there before is not looked at: a tenth of the time
    try:
        yield
        gc.collect()
    finally:
        gc.unfreeze()
    await until(lambda: len(descriptors()) <= len(before))
    await until(lambda: asyncio.all_tasks() <= tasks)

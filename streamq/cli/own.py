"""What a command runs for itself: a server in a directory that goes with it, and programs that end with it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from streamq.server import Server
from streamq.server.lock import close_lock, open_lock, take_lock
from streamq.server.place import open_place
from streamq.settings import Settings

__all__ = ["close_own", "own_program", "own_server"]

END_S = 10.0


def close_own(server: Server | None, folder: Path) -> None:
    """Returns when it has ended: it writes to its folder until then. None: its start was interrupted."""
    if server is not None:
        server.close()
    keeper = open_lock(open_place(folder).keeper)
    take_lock(keeper, fcntl.LOCK_EX, time.monotonic() + END_S)
    close_lock(keeper)


@contextmanager
def own_server(known: Settings, name: str) -> Iterator[Server]:
    """`name` stands in the directory's."""
    from streamq.server import start

    with tempfile.TemporaryDirectory(prefix=f"streamq-{name}-", ignore_cleanup_errors=True) as folder:
        server = None
        try:
            server = start(known, directory=Path(folder))
            yield server
        finally:
            close_own(server, Path(folder))


@asynccontextmanager
async def own_program(
    *words: str, stdout: Any, stderr: Any = None, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """`streamq WORDS` as long as this is open, and no longer than this process lives, however it ends. In a session of
    its own: Ctrl-C reaches us alone, and we tell it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamq", *words, "--parent", str(os.getpid()),
        stdin=asyncio.subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
    await process.communicate() if process.stdout else await process.wait()

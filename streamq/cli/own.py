"""A server of a command's own, in a directory that goes with it."""

from __future__ import annotations

import fcntl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamq.server import Server
from streamq.server.lock import close_lock, open_lock, take_lock
from streamq.server.place import open_place
from streamq.settings import Settings

__all__ = ["close_own", "own_server"]

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

"""Locks that the kernel takes back from the dead: flock(2).

fcntl's record locks lost: they go when any descriptor of the file is closed, and a child can't inherit them.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

__all__ = ["close_lock", "open_lock", "take_lock"]

PAUSE_S = 0.01

_mine: set[int] = set()


def open_lock(path: Path) -> int:
    """A descriptor of the lock file; closed by `close_lock`, by the end of the process, in what it execs or
    forks: a lock must not live on in a child that knows nothing of it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    _mine.add(descriptor)
    return descriptor


def close_lock(descriptor: int) -> None:
    _mine.discard(descriptor)
    os.close(descriptor)


def take_lock(descriptor: int, kind: int, until: float | None = None) -> bool:
    """Take it (`LOCK_SH`, `LOCK_EX`) before `until` (monotonic seconds; None: now or not at all).

    It asks again and again, because flock knows no time limit and an alarm belongs to the main thread.
    """
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if until is None or time.monotonic() >= until:
                return False
            time.sleep(PAUSE_S)
        else:
            return True


def _close_in_child() -> None:
    for descriptor in _mine:
        os.close(descriptor)
    _mine.clear()


os.register_at_fork(after_in_child=_close_in_child)

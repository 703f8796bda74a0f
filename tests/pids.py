"""Processes that are nobody's children here, by their numbers."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from pathlib import Path

GUARD_S = 30.0  # nothing waits for it but a test that fails


def processes_of(folder: Path) -> dict[int, bytes]:
    """Pids and words of those that have the folder in their words or their environment, but for this one."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes()
            if int(process.name) != os.getpid() and os.fsencode(folder) in words + (process / "environ").read_bytes():
                found[int(process.name)] = words
    return found


def gone(pid: int) -> bool:
    """Wait for its end, which was asked for already; the limit is there so that an orphan fails the test."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            return bool(select.select([descriptor], [], [], GUARD_S)[0])
        finally:
            os.close(descriptor)
    return True

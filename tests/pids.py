"""Processes that are nobody's children here, by their numbers."""

from __future__ import annotations

import os
import select
from contextlib import suppress

GUARD_S = 30.0  # nothing waits for it but a test that fails


def gone(pid: int) -> bool:
    """Wait for its end, which was asked for already; the limit is there so that an orphan fails the test."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            return bool(select.select([descriptor], [], [], GUARD_S)[0])
        finally:
            os.close(descriptor)
    return True

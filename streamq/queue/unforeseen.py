"""What nobody foresaw: a mail whose reading raises what it should not, which is a bug here.

It stays with that mail. A worker that ended of it would be followed by the next one that reads the mail, and by the
one after that, until it is poison: three workers' deliveries for nothing, by one XADD.
"""

from __future__ import annotations

import logging
import traceback

__all__ = ["log_unforeseen"]

FRAMES = 30  # the innermost ones: of a recursion that has no end there are a thousand


def log_unforeseen(log: logging.Logger, entry: str, error: Exception) -> None:
    """With the traceback, and without the error's own text: that may repeat a value, of a sensitive mail, too."""
    where = "".join(traceback.format_tb(error.__traceback__, -FRAMES))
    log.error("%s: reading it raised %s, a bug in streamq:\n%s", entry, type(error).__name__, where.rstrip())

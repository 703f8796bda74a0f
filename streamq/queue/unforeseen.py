"""What nobody foresaw: a mail that cannot be read, composed or reported, by an error which is a bug here.

It stays with that mail. A worker that ended of it would be followed by the next one that reads the mail, and by the
one after that, until it is poison: three workers' deliveries for nothing, by one XADD.
"""

from __future__ import annotations

import logging
import traceback

__all__ = ["COMPOSING", "READING", "REPORTING", "log_unforeseen", "reason_of"]

READING, COMPOSING, REPORTING = "reading it", "composing it", "the report of its end"
FRAMES = 30  # the innermost ones: of a recursion that has no end there are a thousand


def reason_of(error: Exception, doing: str = READING) -> str:
    """For events: what it was, and no word of its own."""
    return f"{doing} raised {type(error).__name__}: a bug in streamq, which the worker's log tells of"


def log_unforeseen(log: logging.Logger, entry: str, error: Exception, doing: str = READING) -> None:
    """With the traceback, and without the error's own text: that may repeat a value, of a sensitive mail, too."""
    where = "".join(traceback.format_tb(error.__traceback__, -FRAMES))
    log.error("%s: %s raised %s, a bug in streamq:\n%s", entry, doing, type(error).__name__, where.rstrip())

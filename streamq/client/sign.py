"""The sign that a queue sets for its producers while it is full: asked now and then; and what stands for it while no
worker runs."""

from __future__ import annotations

from typing import Any

from streamq.errors import QueueFull

__all__ = ["Sign"]

FRESH_S = 1.0  # workers look at the queue's bounds once a second
AGAIN_S = 0.25  # at one that is full
UNITS = {
    "queue": "live mails, STREAMQ_MAX_QUEUE",
    "memory": "bytes of Redis' memory, STREAMQ_MAX_MEMORY",
    "ids": "bytes of ids, STREAMQ_IDS_BYTES",
}


class Sign:
    """What `{queue}:full` said last. Threads may share it: who looks twice asks once too often, and no more."""

    __slots__ = ("_at", "full")

    def __init__(self) -> None:
        self._at: float | None = None
        self.full: QueueFull | None = None

    def wants_look(self, now: float) -> bool:
        return self._at is None or now - self._at >= (AGAIN_S if self.full is not None else FRESH_S)

    def looked(self, reply: Any, now: float) -> None:
        """`reply` to GET: `<bound> <used> <most>`, None, or an error: an ACL's, or that it is no text."""
        self._at = now
        self.full = _full(reply.decode("utf-8", "replace")) if isinstance(reply, bytes) else None

    def counted(self, used: int, most: int) -> None:
        """Live mails, and how many there may be: where no worker runs nobody sets the sign."""
        if used >= most:
            self.full = _full(f"queue {used} {most}")


def _full(text: str) -> QueueFull:
    """Of a later version's words no number is known, but that they stand there."""
    bound, used, most = (*text.split(" "), "", "")[:3]
    if not (used.isdecimal() and most.isdecimal()):
        return QueueFull(f"the queue is full: {text[:80]}", bound[:80])
    what = UNITS.get(bound, bound)
    return QueueFull(f"the queue is full: {used} of {most} ({what})", bound, int(used), int(most))

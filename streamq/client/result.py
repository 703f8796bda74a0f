"""What became of handing a mail over."""

from __future__ import annotations

from dataclasses import dataclass

from streamq.errors import NoReply, StreamqError

__all__ = ["NotSent", "Result", "Sent"]


@dataclass(frozen=True, slots=True)
class Sent:
    """It is in the queue. `entry` is its name there (`11732237561234-0`), what events and commands call it.

    `resent` counts the XADDs beyond the first: replies were lost, so the same `id` may stand in the queue more than
    once. It is delivered once; the others end as `email.duplicate`, and which entry was the first nobody knows:
    look for the `id` then, not for the entry.
    """

    id: str
    entry: str
    resent: int = 0


@dataclass(frozen=True, slots=True)
class NotSent:
    """It is not in the queue, as far as is known; `error` says why. Send the same `Mail` again when it makes sense:
    its `id` keeps it from being delivered twice."""

    id: str
    error: StreamqError

    @property
    def may_be_queued(self) -> bool:
        """An XADD went out and no reply to it came back."""
        return isinstance(self.error, NoReply)


Result = Sent | NotSent

"""What came and went between two moments: the one place that makes rates, for `top` as for the page and its charts."""

from __future__ import annotations

from dataclasses import dataclass

from streamq.queue.look import ENDED, SENT, Status

__all__ = ["Flow", "Sample", "flow"]


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment: what rates and charts are made of. Times in ms by the server's clock."""

    at_ms: int
    accepted: int
    totals: dict[str, int]
    depth: dict[str, int]  # priority → live mails
    oldest_ms: dict[str, int]

    @classmethod
    def of(cls, now: Status) -> Sample:
        depth = {name: sum(states.values()) for name, states in now.depth.items()}
        return cls(now.now_ms, now.accepted, dict(now.totals), depth, dict(now.oldest_ms))


@dataclass(frozen=True, slots=True)
class Flow:
    """A second's worth. `came`: new entries (producers', children, reports and requeued ones); `outcomes`: by name."""

    came: float
    outcomes: dict[str, float]

    @property
    def went(self) -> float:
        """Mails that left the queue, however."""
        return sum(self.outcomes.get(name, 0.0) for name in ENDED)

    @property
    def sent(self) -> float:
        return sum(self.outcomes.get(name, 0.0) for name in SENT)


def flow(before: Sample, after: Sample) -> Flow | None:
    """None where no time has passed. A queue that was flushed meanwhile counts anew: nothing is less than none."""
    if after.at_ms <= before.at_ms:
        return None
    seconds = (after.at_ms - before.at_ms) / 1000
    grown = {name: max(0, many - before.totals.get(name, 0)) / seconds for name, many in after.totals.items()}
    return Flow(max(0, after.accepted - before.accepted) / seconds, grown)

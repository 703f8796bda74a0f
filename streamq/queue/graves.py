"""Dead letters by reason and domain, for all who look: what is new is read, and no letter twice.

Letters are read with their bodies, which Redis cannot leave out, so reading costs by what it brings. Each reading is
paid for by a pause: `SHARE_MS` of the server's time a second, whoever looks and however fast letters come. What is gone
(requeued, discarded, trimmed) is known by number alone; then all is read anew, as far as it is shown, and as seldom.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from streamq.queue.letters import GROUPED_MOST, DeadBrief, DeadReason, dead_briefs, grouped
from streamq.queue.look import Status
from streamq.queue.spool import Spool

__all__ = ["Graves", "GravesSeen"]

PAUSE_SECONDS = 2.0  # at the least
SHARE_MS = 0.2  # of Redis' time, a second
LETTER_MS, MEGABYTE_MS = 0.003, 0.6  # that reading takes the server, about; measured with 2,500 letters of 6 KB


@dataclass(frozen=True, slots=True)
class GravesSeen:
    """`looked`: letters, the newest; `version`: another one, another picture."""

    reasons: list[DeadReason] = field(default_factory=list)
    looked: int = 0
    version: int = 0


class Graves:
    """Of one queue; for one caller at a time. At most as many letters, by their heads, as `dead_reasons` reads."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._known: list[DeadBrief] = []  # the newest first
        self._seen = GravesSeen()
        self._counted = (0, 0)  # letters there were, letters that had ever been: when it was looked last
        self._till = 0.0

    async def of(self, now: Status, at: float, *, anew: bool = False) -> GravesSeen:
        """`at`: seconds. `anew`: somebody has just changed something. Raises redis-py's errors."""
        counted = now.dead, now.tallies.get("dead", 0)
        if counted == self._counted or (at < self._till and not anew):
            return self._seen
        gone = (counted[1] - counted[0]) != (self._counted[1] - self._counted[0])
        known = [] if gone or not self._known else self._known
        fresh = await dead_briefs(self._spool, after=known[0].letter if known else "")
        size = sum(each.size for each in fresh)
        cost_ms = LETTER_MS * len(fresh) + MEGABYTE_MS * size / 1_000_000
        self._till = at + max(PAUSE_SECONDS, cost_ms / SHARE_MS)
        self._known, self._counted = [*fresh, *known][:GROUPED_MOST], counted
        self._seen = GravesSeen(grouped(self._known), len(self._known), self._seen.version + 1)
        return self._seen

"""How fast a queue works: rates between two looks at it, by the server's clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamq.queue.events import Event, last_events
from streamq.queue.look import Status, status
from streamq.queue.routes import RouteView, route_views
from streamq.queue.sites import Lane, fullest
from streamq.queue.spool import Spool

__all__ = ["GONE", "Look", "Pulse"]

# The outcomes with which a mail leaves its stream.
GONE = (
    *("relayed", "delivered", "bounced", "expired", "rejected", "cancelled", "superseded", "duplicate", "failed"),
    "expanded",
)
LANES, LANES_LOOKED = 5, 100  # shown, and looked at: of those that are due first
KEPT = 60


@dataclass(slots=True)
class Look:
    """One look. `rates`: outcomes a second since the last one, by name; `came`: new entries a second (producers',
    children, reports and requeued ones); both are None at the first look."""

    status: Status
    routes: list[RouteView]
    lanes: list[Lane]
    more_lanes: int
    events: list[Event]
    rates: dict[str, float] | None = None
    came: float | None = None

    @property
    def went(self) -> float | None:
        """Mails a second that left the queue, however."""
        return None if self.rates is None else sum(self.rates.get(name, 0.0) for name in GONE)


@dataclass(slots=True)
class Pulse:
    """Looks again and again. `relayed`: how many a second, of the last looks. `routes`: those that these settings
    name."""

    spool: Spool
    routes: list[str]
    events: int = 20
    relayed: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    _last: Status | None = None

    async def look(self) -> Look:
        """A handful of round trips, whatever is in the queue."""
        now = await status(self.spool)
        lanes, more = await fullest(self.spool, LANES, of=LANES_LOOKED) if now.sum("parked") else ([], 0)
        found = Look(
            now, await route_views(self.spool, self.routes), lanes, more, await last_events(self.spool, self.events)
        )
        last, self._last = self._last, now
        if last is None or now.now_ms <= last.now_ms:
            return found
        seconds = (now.now_ms - last.now_ms) / 1000
        # A queue that was flushed meanwhile counts anew.
        grown = {name: max(0, many - last.totals.get(name, 0)) for name, many in now.totals.items()}
        found.rates = {name: many / seconds for name, many in grown.items()}
        found.came = max(0, now.live - last.live + _gone(grown)) / seconds
        self.relayed.append(found.rates.get("relayed", 0.0) + found.rates.get("delivered", 0.0))
        return found


def _gone(grown: Mapping[str, int]) -> int:
    return sum(grown.get(name, 0) for name in GONE)

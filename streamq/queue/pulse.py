"""How fast a queue works, look by look: what `streamq top` shows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from streamq.queue.events import Event, last_events
from streamq.queue.flow import Flow, Sample, flow
from streamq.queue.look import Status
from streamq.queue.overview import Overview, Overviews
from streamq.queue.routes import RouteView
from streamq.queue.sites import Lane, full_first
from streamq.queue.spool import Spool

__all__ = ["Look", "Pulse"]

LANES = 5  # that are shown
KEPT = 60


class Look:
    """One look. `flow`: since the last one; None at the first."""

    def __init__(self, seen: Overview, events: list[Event], since: Flow | None = None) -> None:
        self.status: Status = seen.status
        self.routes: list[RouteView] = seen.routes
        self.lanes: list[Lane] = full_first(seen.lanes)[:LANES] if seen.status.sum("parked") else []
        self.more_lanes = seen.sites_left + len(seen.lanes) - len(self.lanes) if self.lanes else 0
        self.events = events
        self.flow = since


class Pulse:
    """Looks again and again: at depth and rates each time, at routes and lanes as often as the page does (overview.py).
    `routes`: those that these settings name; `relayed`: how many a second, of the last looks."""

    def __init__(self, spool: Spool, routes: Sequence[str], events: int = 20) -> None:
        self.relayed: deque[float] = deque(maxlen=KEPT)
        self._overviews = Overviews(spool, routes=routes, fresh_seconds=0.0, page=False)
        self._events = events
        self._last: Sample | None = None

    async def look(self) -> Look:
        """A handful of round trips, whatever is in the queue. Raises redis-py's errors, TimeoutError."""
        seen = await self._overviews.get()
        now, last = Sample.of(seen.status), self._last
        self._last = now
        since = None if last is None else flow(last, now)
        if since is not None:
            self.relayed.append(since.sent)
        return Look(seen, await last_events(self._overviews.spool, self._events), since)

    async def close(self) -> None:
        await self._overviews.close()

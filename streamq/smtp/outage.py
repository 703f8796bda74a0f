"""Why a route is down, and when the next letter may find out whether it still is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from streamq.smtp.letter import Report, RouteState
from streamq.smtp.opening import backoff

__all__ = ["Outage"]


class Outage:
    """Of one courier; `failure` is None while the route is up. Times are the loop's."""

    def __init__(self, rand: Callable[[], float]) -> None:
        self.failure: Report | None = None
        self._failures = 0
        self._probe_at = 0.0
        self._rand = rand

    @property
    def left(self) -> float:
        """Seconds until the next letter may find out; 0: now, or it is up."""
        return max(0.0, self._probe_at - asyncio.get_running_loop().time()) if self.failure is not None else 0.0

    def goes_on(self, failure: Report) -> None:
        """It begins, or a probe failed. The report of that says when the next one is."""
        wait = backoff(self._failures, self._rand())
        self._failures += 1
        self._probe_at = asyncio.get_running_loop().time() + wait
        self.failure = failure
        failure.hint_ms = max(failure.hint_ms, round(wait * 1000))

    def may_be_over(self) -> None:
        self._probe_at = 0.0

    def ends(self) -> bool:
        """False where there was none."""
        was, self.failure = self.failure, None
        self._failures = 0
        return was is not None

    def untried(self) -> Report:
        """Of a letter that comes meanwhile."""
        assert self.failure is not None
        return replace(self.failure, hint_ms=round(self.left * 1000), duration_ms=0, tried=False)

    def state(self, route: str) -> RouteState:
        down = self.failure
        if down is None:
            return RouteState(route, True)
        return RouteState(route, False, down.stage, down.klass, down.code, down.reply, round(self.left * 1000))

"""The link to Redis: what to do while the server is away, and what to do first when it is back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from redis.exceptions import (
    BusyLoadingError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streamq.worker.cancel import cancel_all

__all__ = ["AWAY", "Link", "is_full"]

P = ParamSpec("P")
T = TypeVar("T")
AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    ReadOnlyError,
    MasterDownError,
    TryAgainError,
    OSError,
)
# What a server says that has been demoted, or is short of memory, or cannot write its AOF, for a while.
PASSING = (
    *("LOADING", "READONLY", "MASTERDOWN", "MISCONF", "NOREPLICAS", "CLUSTERDOWN"),
    *("UNBLOCKED", "BUSY", "TRYAGAIN"),
)
DEMOTED = ("READONLY", "MASTERDOWN")
log = logging.getLogger("streamq.link")


def is_full(error: Exception) -> bool:
    """Whether the server had no memory for what was asked. (redis-py takes the code OOM out of the text where it
    knows it; an error of a script on Redis 6.2 has it in the middle.)"""
    return isinstance(error, OutOfMemoryError) or (isinstance(error, ResponseError) and "OOM" in str(error))


def is_away(error: Exception) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, AWAY) or is_full(error):
        return True
    return isinstance(error, ResponseError) and any(word in str(error) for word in PASSING)


def is_elsewhere(error: Exception) -> bool:
    """Whether another connection may lead to a server that answers: this one leads nowhere any more, or to one that was
    demoted and keeps it."""
    if isinstance(error, BusyLoadingError) or is_full(error):
        return False
    if isinstance(error, (RedisConnectionError, RedisTimeoutError, ReadOnlyError, MasterDownError, OSError)):
        return True
    return isinstance(error, ResponseError) and any(word in str(error) for word in DEMOTED)


class Link:
    """Repeats calls until they come through. Every call that goes through here may be repeated: scripts are
    fenced or idempotent, and what a lost reply delivered is found in the PEL by `recover`. `drop` closes all
    connections: those that nobody has heard the end of lead to the same dead server."""

    def __init__(self, recover: Callable[[], Awaitable[None]], drop: Callable[[], None] = lambda: None) -> None:
        self._recover = recover
        self._drop = drop
        self._up = asyncio.Event()
        self._up.set()
        self._mending: asyncio.Task[None] | None = None
        self.stopped = False
        self.heard_at = time.monotonic()  # when a call came through
        self.down_since = 0.0  # time.monotonic(); of the last outage: what came through before it, did
        self._stale = False
        self._failed: BaseException | None = None
        self._again = False

    @property
    def is_up(self) -> bool:
        """Whether the last call that ended came through, as far as anybody knows."""
        return self._up.is_set()

    async def call(self, what: Callable[P, Awaitable[T]], *args: P.args, **named: P.kwargs) -> T:
        while True:
            await self._up.wait()
            if self._failed is not None:
                raise self._failed
            try:
                found = await what(*args, **named)
                self.heard_at = time.monotonic()
                return found
            except (RedisError, OSError) as error:
                if self.stopped or not is_away(error):
                    raise
                self._down(error)

    def lost(self, error: Exception) -> None:
        """A connection was lost while nobody waited: the next call would open another one, perhaps to another server,
        before `recover` has looked at it."""
        if not self.stopped:
            self._down(error)

    def _down(self, error: Exception) -> None:
        self._up.clear()
        self._again = True
        self._stale = self._stale or is_elsewhere(error)
        if self._mending is None or self._mending.done():
            self.down_since = self.heard_at  # not now: a server that lost its power is silent for half a minute
            log.warning("redis is away: %s", error)
            self._mending = asyncio.create_task(self._mend(), name="link")

    async def _mend(self) -> None:
        wait = 0.05
        while True:
            await asyncio.sleep(wait)
            if self._stale:
                self._drop()
                await asyncio.sleep(0)  # who waited on these says so before it counts
            self._again = self._stale = False
            try:
                await self._recover()
            except (RedisError, OSError) as error:
                if not is_away(error):
                    log.error("redis is back, and: %s", error)
                self._stale = is_elsewhere(error)
                wait = min(wait * 2, 2.0)
                continue
            except Exception as error:  # what no waiting mends: whoever calls is told, and the worker ends
                self._failed = error
                self._up.set()
                raise
            if self._again:  # lost once more, while it was looked at
                continue
            log.warning("redis is back")
            self._up.set()
            return

    async def stop(self) -> None:
        """From here on errors are the callers'."""
        self.stopped = True
        self._up.set()
        if self._mending is not None:
            await cancel_all([self._mending])

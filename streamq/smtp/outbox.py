"""Letters that wait in this process for a connection.

By priority (0 first), of one priority those first whose slot runs out, then by order of arrival. The courier's
connections take from here; a connection that has nothing to do enlists a future, and the last one that enlisted is
woken first, so that in quiet times the others grow old and close.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from math import inf

from streamq.smtp.letter import Letter

__all__ = ["Outbox", "OutboxClosed"]


class OutboxClosed(Exception):
    """The outbox takes and gives no more letters; never leaves the worker."""


class Outbox:
    """Where the worker puts letters. Not bounded: whoever puts bounds what it has in hand.

    `put` and `get` raise `OutboxClosed` once `close` was called; what waits then is got with `drain`.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, bool, int, Letter]] = []
        self._arrivals = count()
        self._resting: list[asyncio.Future[None]] = []
        self._short_of_hands: Callable[[], object] | None = None
        self._closed = False
        self._held = False
        self.counted = 0  # letters that are one of so many transactions at once somewhere

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def resting(self) -> int:
        """How many takers wait for a letter."""
        return len(self._resting)

    def put(self, letter: Letter) -> None:
        if self._closed:
            raise OutboxClosed
        self.counted += letter.counted
        heapq.heappush(self._heap, (letter.priority, letter.fresh_until == inf, next(self._arrivals), letter))
        if not self._wake_one() and self._short_of_hands is not None:
            self._short_of_hands()

    @property
    def first(self) -> Letter | None:
        """What `get_nowait` would give."""
        return self._heap[0][3] if self._heap and not self._held else None

    def get_nowait(self) -> Letter | None:
        if not self._heap or self._held:
            return None
        letter = heapq.heappop(self._heap)[3]
        self.counted -= letter.counted
        return letter

    async def get(self) -> Letter:
        while (letter := self.get_nowait()) is None:
            if self._closed:
                raise OutboxClosed
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.enlist(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self.pass_on()
                raise
            finally:
                self.dismiss(waiter)
        return letter

    def drain(self) -> list[Letter]:
        """All that nobody took, the most urgent first."""
        letters = [letter for *_, letter in sorted(self._heap)]
        self._heap.clear()
        self.counted = 0
        return letters

    def waiting(self) -> list[Letter]:
        """All that nobody took, in no order."""
        return [letter for *_, letter in self._heap]

    def hold(self) -> None:
        """Nobody takes anything until `let_go`; `drain` still does."""
        self._held = True

    def let_go(self) -> None:
        if self._held:
            self._held = False
            self.wake_all()
            if self._heap and self._short_of_hands is not None:
                self._short_of_hands()

    def close(self) -> None:
        self._closed = True
        self.wake_all()

    def wake_all(self) -> None:
        """Something else than a letter is to be looked at."""
        while self._wake_one():
            pass

    def enlist(self, waiter: asyncio.Future[None]) -> None:
        """`waiter` gets a result when a letter may be there; `get_nowait` tells, another may be quicker."""
        self._resting.append(waiter)

    def dismiss(self, waiter: asyncio.Future[None]) -> None:
        """Must follow every `enlist`. A taker that was woken and does not take passes the call on."""
        if waiter in self._resting:
            self._resting.remove(waiter)

    def pass_on(self) -> None:
        """Whoever was woken goes away without taking."""
        if self._heap and not self._wake_one() and self._short_of_hands is not None:
            self._short_of_hands()

    def call_when_short_of_hands(self, call: Callable[[], object] | None) -> None:
        """`call` runs inside `put` when no taker rests; None takes it back."""
        self._short_of_hands = call

    def _wake_one(self) -> bool:
        while self._resting:
            waiter = self._resting.pop()
            if not waiter.done():
                waiter.set_result(None)
                return True
        return False

"""gate.py: how much may be read while the queue has a limit. The clock is the loop's, moved by what is heard."""

from __future__ import annotations

import asyncio

from streamq.queue.rows import Bound
from streamq.worker.gate import ANY, Gate

HOUR = 3_600_000_000  # µs
NOW = 1_700_000_000_000_000


async def test_without_a_limit_anything_may_be_read() -> None:
    gate = Gate()
    assert (gate.free(), gate.limited) == (ANY, False)
    gate.hear(Bound(NOW, 0, 0, 0))
    assert (gate.free(), gate.limited) == (ANY, False)


async def test_nothing_before_the_next_slot() -> None:
    gate = Gate()
    gate.hear(Bound(NOW, NOW + HOUR, 1000, 5))
    assert (gate.free(), gate.limited) == (0, True)


async def test_slots_gather_up_to_the_most() -> None:
    gate = Gate()
    gate.hear(Bound(NOW, NOW - 2 * HOUR, HOUR, 5))
    assert gate.free() == 3
    gate.hear(Bound(NOW, NOW - 20 * HOUR, HOUR, 5))
    assert gate.free() == 5


async def test_an_older_word_counts_no_more() -> None:
    gate = Gate()
    gate.hear(Bound(NOW, NOW + HOUR, 1000, 5))
    gate.hear(Bound(NOW - 1, 0, 0, 0))
    assert gate.free() == 0


async def test_it_opens_at_its_time_or_when_told() -> None:
    gate = Gate()
    gate.hear(Bound(NOW, NOW + 1000, HOUR, 1))
    assert await gate.opened(asyncio.Event())
    gate.hear(Bound(NOW, NOW + HOUR, HOUR, 1))
    told = asyncio.Event()
    told.set()
    assert await gate.opened(told)


async def test_a_far_slot_is_looked_for_again() -> None:
    gate = Gate()
    gate.hear(Bound(NOW, NOW + HOUR, HOUR, 1))
    assert not await gate.opened(asyncio.Event())  # after a second: the limit may have been raised

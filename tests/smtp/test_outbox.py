from __future__ import annotations

import asyncio

import pytest
from scripted_relay import letter, on_both_loops, until

from streamq.smtp.outbox import Outbox, OutboxClosed


@on_both_loops
async def test_by_priority_then_by_arrival() -> None:
    outbox = Outbox()
    letters = [letter(priority=priority) for priority in (2, 0, 1, 0)]
    for one in letters:
        outbox.put(one)
    assert len(outbox) == 4
    assert [await outbox.get(), outbox.get_nowait()] == [letters[1], letters[3]]
    assert outbox.drain() == [letters[2], letters[0]]
    assert outbox.get_nowait() is None


@on_both_loops
async def test_get_waits_and_the_last_to_rest_is_woken_first() -> None:
    outbox = Outbox()
    first = asyncio.create_task(outbox.get())
    second = asyncio.create_task(outbox.get())
    await until(lambda: outbox.resting == 2)
    one, two = letter(), letter()
    outbox.put(one)
    assert await second is one
    assert not first.done()
    outbox.put(two)
    assert await first is two


@on_both_loops
async def test_a_taker_that_was_woken_and_goes_away_passes_it_on() -> None:
    outbox = Outbox()
    stays = asyncio.create_task(outbox.get())
    goes = asyncio.create_task(outbox.get())
    await until(lambda: outbox.resting == 2)
    one = letter()
    outbox.put(one)
    goes.cancel()
    assert await stays is one
    with pytest.raises(asyncio.CancelledError):
        await goes


@on_both_loops
async def test_closed_wakes_all_and_takes_no_more() -> None:
    outbox = Outbox()
    waits = [asyncio.create_task(outbox.get()) for _ in range(3)]
    await until(lambda: outbox.resting == 3)
    outbox.close()
    for wait in waits:
        with pytest.raises(OutboxClosed):
            await wait
    with pytest.raises(OutboxClosed):
        outbox.put(letter())


@on_both_loops
async def test_it_calls_when_nobody_rests() -> None:
    outbox = Outbox()
    calls: list[int] = []
    outbox.call_when_short_of_hands(lambda: calls.append(len(outbox)))
    outbox.put(letter())
    outbox.put(letter())
    assert calls == [1, 2]
    outbox.drain()
    taker = asyncio.create_task(outbox.get())
    await until(lambda: outbox.resting == 1)
    outbox.put(letter())
    assert calls == [1, 2]
    await taker

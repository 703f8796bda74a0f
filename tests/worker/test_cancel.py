"""cancel.py: a task that swallows a cancellation ends all the same."""

from __future__ import annotations

import asyncio

from streamq.worker.cancel import cancel_all


async def test_a_swallowed_cancel_is_not_the_last() -> None:
    swallowed = 0

    async def deaf() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await cancel_all([task])
    assert (swallowed, task.cancelled()) == (2, True)


async def test_what_is_over_and_what_fails_is_nobodys_trouble() -> None:
    async def fails() -> None:
        raise LookupError

    over = asyncio.get_running_loop().create_future()
    over.set_result(1)
    broken = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await cancel_all([over, broken])
    assert isinstance(broken.exception(), LookupError)
    await cancel_all([])

"""How long a batch waits for more: in virtual time, so that a wait is a number."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from streamq.simulate.clock import VirtualLoop
from streamq.worker.gathering import CONTENT, FEW, SECONDS, Gathering

MOST = 100


class Line:
    """Requests that come and are taken as a batch; `may_come` more at any time."""

    def __init__(self, may_come: int, most: int = MOST) -> None:
        self.waiting = 0
        self.may_come = may_come
        self.gathering = Gathering(lambda: self.waiting, lambda: self.may_come - self.waiting, most)

    def come(self, many: int = 1) -> None:
        for _ in range(many):
            self.waiting += 1
            self.gathering.came()

    async def batch(self) -> tuple[int, float]:
        """How many went, and how long they were waited for."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await self.gathering.wait()
        came, self.waiting = min(self.waiting, MOST), 0
        return came, loop.time() - begun


def virtually(test: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await test()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())


def test_who_is_alone_waits_for_nobody_and_few_do_not() -> None:
    async def run() -> None:
        for many in (1, FEW - 2):
            line = Line(may_come=20)
            for _ in range(3 * CONTENT):
                line.come(many)
                assert await line.batch() == (many, 0.0)

    virtually(run)


def test_as_many_are_waited_for_as_came_before_and_one_more() -> None:
    async def run() -> None:
        line = Line(may_come=7)
        loop = asyncio.get_running_loop()
        line.come(FEW)
        await line.batch()
        for many in (5, 6, 7, 7, 7):  # the last one of those that may come is not waited for in vain
            line.come()
            for nth in range(1, many):
                loop.call_later(nth * SECONDS / 100, line.come)
            came, waited = await line.batch()
            assert came == many
            assert waited == pytest.approx((many - 1) * SECONDS / 100, abs=1e-9)

    virtually(run)


def test_what_is_awaited_in_vain_is_not_awaited_again_for_a_while() -> None:
    async def run() -> None:
        line = Line(may_come=20)  # one of them never comes
        line.come(19)
        assert await line.batch() == (19, 0.0)
        waits = []
        for _ in range(3 * (CONTENT + 1)):
            line.come(19)
            came, waited = await line.batch()
            assert came == 19
            waits.append(waited)
        assert [waited > 0 for waited in waits].count(True) == 3
        assert max(waits) == pytest.approx(SECONDS)

    virtually(run)


def test_a_stream_that_thins_out_costs_one_wait() -> None:
    async def run() -> None:
        line = Line(may_come=20)
        line.come(20)
        await line.batch()
        waits = []
        for _ in range(CONTENT):
            line.come()
            waits.append((await line.batch())[1])
        assert waits == [pytest.approx(SECONDS), *[0.0] * (CONTENT - 1)]

    virtually(run)


def test_a_batch_that_is_full_goes() -> None:
    async def run() -> None:
        line = Line(may_come=500, most=MOST)
        for _ in range(3):
            line.come(MOST + 50)
            assert await line.batch() == (MOST, 0.0)

    virtually(run)


def test_who_is_stopped_while_he_waits_leaves_nothing_behind() -> None:
    async def run() -> None:
        line = Line(may_come=FEW + 1)
        line.come(FEW)
        await line.batch()
        line.come()
        waiting = asyncio.create_task(line.gathering.wait())
        await asyncio.sleep(SECONDS / 2)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        line.come()  # nobody waits: nothing to wake
        line.come(FEW - 1)
        assert await line.batch() == (FEW + 1, 0.0)

    virtually(run)

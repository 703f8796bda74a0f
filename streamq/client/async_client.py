"""The client for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from streamq.client.batch import async_batches
from streamq.client.common import Common
from streamq.client.dispatch import Limits, Pause, Run, Steps
from streamq.client.mail import Mail
from streamq.client.result import Result, Sent

if TYPE_CHECKING:
    from streamq.queue.producer import AsyncLine
    from streamq.settings import Settings

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient:
    """Hands mails to a queue.

        async with AsyncClient("redis://127.0.0.1:6379") as client:
            await client.send(Mail(from_="shop@example.com", to="bob@example.net", subject="Hi", text="Hello"))

    The tasks of one event loop may share one. It connects when it is first used. `Client` is the same for threads.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        queue: str | None = None,
        settings: Settings | None = None,
        max_depth: int | None = None,
        wait: float = 0.0,
        tries: int = 3,
        timeout: float = 10.0,
        batch_mails: int = 500,
        batch_bytes: int = 1_048_576,
        connections: int = 10,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        """Everything as in `Client`."""
        limits = Limits(
            max_depth=max_depth,
            wait=wait,
            tries=tries,
            timeout=timeout,
            connections=connections,
            mails=batch_mails,
            octets=batch_bytes,
        )
        self._common = Common(url, queue, settings, limits, clock)
        self._limits = limits
        self._sleep = sleep
        self._lock = asyncio.Lock()
        self._line: AsyncLine | None = None

    async def send(self, mail: Mail) -> Sent:
        """As `Client.send`. A task that is cancelled in here may have queued its mail."""
        return await self._drive(self._common.dispatch.send(mail))

    async def send_many(self, mails: Iterable[Mail] | AsyncIterable[Mail]) -> list[Result]:
        """As `Client.send_many`."""
        run = Run(self._common.dispatch)
        async for batch in async_batches(mails, self._limits.mails, self._limits.octets):
            await self._drive(run.batch(batch))
        return run.results

    async def close(self) -> None:
        """Close the connections, and leave the embedded server if it was used. Twice is as good as once."""
        async with self._lock:
            self._common.close()
            if self._line is not None:
                await self._line.close()

    aclose = close  # what redis-py and httpx call it

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _open(self) -> AsyncLine:
        async with self._lock:
            self._common.ensure_open()
            if self._line is None:
                from streamq.queue.producer import AsyncLine

                url = await asyncio.to_thread(self._common.find_url)
                self._line = AsyncLine(url, timeout=self._limits.timeout, connections=self._limits.connections)
            return self._line

    async def _drive(self, steps: Steps[T]) -> T:
        line = await self._open()
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    await self._sleep(step.seconds)
                    step = steps.send(None)
                else:
                    step = steps.send(await line.ask(step.commands))
        except StopIteration as done:
            result: T = done.value
            return result

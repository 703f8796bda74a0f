"""The client for programs with threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from streamq.client.batch import batches
from streamq.client.common import Common
from streamq.client.dispatch import Limits, Pause, Run, Steps
from streamq.client.mail import Mail
from streamq.client.result import Result, Sent

if TYPE_CHECKING:
    from streamq.queue.producer import Line
    from streamq.settings import Settings

__all__ = ["Client"]

T = TypeVar("T")


class Client:
    """Hands mails to a queue.

        with Client("redis://127.0.0.1:6379") as client:
            client.send(Mail(from_="shop@example.com", to="bob@example.net", subject="Hi", text="Hello"))

    Threads may share one; processes may not: make it after the fork. It connects when it is first used. `AsyncClient`
    is the same for asyncio.
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
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`url` is redis://, rediss:// or unix://, else what `STREAMQ_REDIS_URL` (or `REDIS_URL`, or the file) says,
        else this machine's embedded server; `queue`, priorities and the size cap come from the settings, too, which
        may be handed in.

        `max_depth`: with so many mails in the stream of a priority nothing is added to it (`TooDeep`), at once, or
        after `wait` seconds in which it did not get shorter. It is looked at once a second, so a batch and what other
        producers add may pass it. `tries`: to connect, and XADDs of one mail whose replies are lost, at most.
        `timeout`: seconds to connect, for a reply, for one of `connections` to be free. `batch_mails`, `batch_bytes`:
        of one write of `send_many`. Raises `SettingsError`.
        """
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
        self._lock = Lock()
        self._line: Line | None = None

    def send(self, mail: Mail) -> Sent:
        """Queue one mail; returns when Redis has it. Raises `SendError` (its subclasses say whether it may be queued),
        `MailError` where the mail is over the size cap, `SettingsError` where the queue has no such priority."""
        return self._drive(self._common.dispatch.send(mail))

    def send_many(self, mails: Iterable[Mail]) -> list[Result]:
        """Queue any number of mails, in few round trips and in bounded memory but for the results: one for each mail,
        in their order. Nothing is raised for a mail; where the queue itself says no, the rest is not tried, and says
        so."""
        run = Run(self._common.dispatch)
        for batch in batches(mails, self._limits.mails, self._limits.octets):
            self._drive(run.batch(batch))
        return run.results

    def close(self) -> None:
        """Close the connections, and leave the embedded server if it was used. Twice is as good as once."""
        with self._lock:
            self._common.close()
            if self._line is not None:
                self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Line:
        with self._lock:
            self._common.ensure_open()
            if self._line is None:
                from streamq.queue.producer import Line

                self._line = Line(
                    self._common.find_url(), timeout=self._limits.timeout, connections=self._limits.connections
                )
            return self._line

    def _drive(self, steps: Steps[T]) -> T:
        line = self._open()
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    self._sleep(step.seconds)
                    step = steps.send(None)
                else:
                    step = steps.send(line.ask(step.commands))
        except StopIteration as done:
            result: T = done.value
            return result

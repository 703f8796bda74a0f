"""What both clients are made of: settings, limits, and the embedded server where no URL says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from streamq.client.dispatch import Dispatch, Limits
from streamq.errors import SettingsError

if TYPE_CHECKING:
    from streamq.server import Server
    from streamq.settings import Settings

__all__ = ["Common"]


class Common:
    """Reads the settings, as every program of streamq does, and connects to nothing."""

    def __init__(
        self,
        url: str | None,
        queue: str | None,
        settings: Settings | None,
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        from streamq.settings import load_settings
        from streamq.settings.values import redis_url

        if url is not None:
            try:
                redis_url(url)
            except ValueError as wrong:
                raise SettingsError(f"url: {wrong}") from None
        if settings is not None and queue is not None:
            raise SettingsError(f"queue: the settings say it already (got {queue!r})")
        self.settings = settings or load_settings(queue=queue)
        self._url = url or self.settings.redis_url
        self._server: Server | None = None
        self.closed = False
        trace: Callable[[], bytes] | None = None
        if self.settings.otel:
            from streamq.client.trace import tracer_of_producers

            trace = tracer_of_producers()
        self.dispatch = Dispatch(
            self.settings.queue, self.settings.priorities, self.settings.max_mail_bytes, limits, clock, trace
        )

    def find_url(self) -> str:
        """The queue's; starts the embedded server, and blocks for it, where there is none. Raises `NoServer`,
        `ServerFailed`."""
        if self._url is None:
            from streamq.server import start

            self._server = start(self.settings)
            self._url = self._server.url
        return self._url

    def close(self) -> None:
        self.closed = True
        if self._server is not None:
            self._server.close()

    def ensure_open(self) -> None:
        if self.closed:
            raise RuntimeError("this client was closed")

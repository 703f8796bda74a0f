"""The producer's line to Redis: commands go out once, and each reply that comes back is kept.

redis-py's own pipelines would do but for one thing: when a connection breaks in the middle of the replies, they
throw away those that came, so that nobody knows which of five hundred mails are queued. So this speaks on
redis-py's connections: what was answered stays answered, and the caller repeats the rest, under the same ids.
Nothing is retried in here, not even a connect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry

from streamq.errors import SettingsError
from streamq.queue.connection import Part, options

__all__ = ["Answers", "AsyncLine", "Line"]


@dataclass(slots=True)
class Answers:
    """What came of commands: `replies` in their order (a ResponseError is one), fewer than commands where the line
    broke, and then `broken` says why. `written`: the rest went out, or a part of it; else Redis saw nothing."""

    replies: list[Any] = field(default_factory=list)
    broken: str = ""
    written: bool = False


class Line:
    """Connections of a program with threads: each call has one of its own while it lasts."""

    def __init__(self, url: str, *, timeout: float, connections: int) -> None:
        """`timeout` in seconds: to connect, for each reply, to wait for a free connection. Raises `SettingsError`."""
        try:
            self._pool = redis.BlockingConnectionPool.from_url(
                url, retry=Retry(NoBackoff(), 0), **_pool_options(url, timeout, connections)
            )
            self._pool.connection_class(**self._pool.connection_kwargs)  # as `connect`
        except (ValueError, TypeError, RedisError) as wrong:
            raise SettingsError(f"url: {wrong}") from None

    def ask(self, commands: Sequence[Sequence[Part]]) -> Answers:
        """One write, then the replies. Raises nothing that the network or the server can do."""
        answers = Answers()
        try:
            connection = self._pool.get_connection()  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as away:
            answers.broken = _words(away)
            return answers
        try:
            packed = connection.pack_commands(commands)
            answers.written = True
            connection.send_packed_command(packed)
            for _ in commands:
                try:
                    answers.replies.append(connection.read_response())
                except ResponseError as no:
                    answers.replies.append(no)
            if _demoted(answers):
                connection.disconnect()
        except (RedisError, OSError) as lost:
            connection.disconnect()
            answers.broken = _words(lost)
        except BaseException:  # Ctrl-C comes anywhere: replies that nobody read must not be the next caller's
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)  # type: ignore[no-untyped-call]
        return answers

    def close(self) -> None:
        self._pool.disconnect()


class AsyncLine:
    """The same for the tasks of one event loop."""

    def __init__(self, url: str, *, timeout: float, connections: int) -> None:
        """As `Line`."""
        try:
            self._pool = redis.asyncio.BlockingConnectionPool.from_url(
                url, retry=AsyncRetry(NoBackoff(), 0), **_pool_options(url, timeout, connections)
            )
            self._pool.connection_class(**self._pool.connection_kwargs)  # as `connect`
        except (ValueError, TypeError, RedisError) as wrong:
            raise SettingsError(f"url: {wrong}") from None

    async def ask(self, commands: Sequence[Sequence[Part]]) -> Answers:
        """As `Line.ask`; may be cancelled: redis-py gives up a connection whose reply is no longer awaited."""
        answers = Answers()
        try:
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as away:
            answers.broken = _words(away)
            return answers
        try:
            packed = connection.pack_commands(commands)
            answers.written = True
            await connection.send_packed_command(packed)
            for _ in commands:
                try:
                    answers.replies.append(await connection.read_response())
                except ResponseError as no:
                    answers.replies.append(no)
            if _demoted(answers):
                await connection.disconnect()
        except (RedisError, OSError) as lost:
            await connection.disconnect(nowait=True)
            answers.broken = _words(lost)
        finally:
            await self._pool.release(connection)
        return answers

    async def close(self) -> None:
        await self._pool.disconnect()


def _pool_options(url: str, timeout: float, connections: int) -> dict[str, Any]:
    return {"max_connections": connections, "timeout": timeout, **options(url, timeout)}


def _demoted(answers: Answers) -> bool:
    """A master that became a replica keeps its connections: a new one may find who took over."""
    return bool(answers.replies) and isinstance(answers.replies[-1], ReadOnlyError)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__

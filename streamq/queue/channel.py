"""One connection to Redis that many calls share: each is written when it comes, and the replies come in that order.

WHY      redis-py takes a connection out of its pool for each command, arms two timers, asks its observers: three times
         what the command's own packing and parsing cost. A worker that waits for a mark, an end and a batch of mails
         at once has them all under way here, in fewer writes.
OPENING  is redis-py's: address, TLS, login, client's name, database. What it has opened is taken over.
CANCELLED calls have been sent all the same; their replies are dropped in their turn, and nobody else gets them.
BROKEN   All calls that wait fail with redis-py's ConnectionError, or TimeoutError after `seconds` in which not a byte
         came; nobody knows which of them were carried out. The next call opens anew. Where nobody waited `on_lost` is
         told: who comes next may meet another server, and has to know.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection, ConnectionPool, DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

__all__ = ["Channel", "Part"]

Part = str | bytes | int | float


def packed(verb: Part, *parts: Part) -> bytes:
    """In C; redis-py's own packer, in Python, took a tenth of a worker's time: a batch has five hundred arguments."""
    whole: bytes = hiredis.pack_command((*str(verb).split(), *parts))  # type: ignore[arg-type]  # its stub names one part
    return whole


class Channel(asyncio.Protocol):
    """`pool` says how to connect; `seconds`: how long the server may be silent while somebody waits, None: for ever."""

    def __init__(self, pool: ConnectionPool, seconds: float | None) -> None:
        self._pool = pool
        self._seconds = seconds
        self._opening: asyncio.Lock = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._transport: asyncio.Transport | None = None
        self._opener: asyncio.BaseProtocol | None = None  # redis-py's: it waits for the end of its connection
        self._replies = _replies()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self.on_lost: Callable[[RedisError], None] | None = None
        self._heard = 0.0  # loop time
        self._timer: asyncio.TimerHandle | None = None

    async def call(self, *parts: Part) -> Any:
        """The reply. Raises what the server says, as redis-py does."""
        reply = await (await self._send([packed(*parts)]))[0]
        if isinstance(reply, RedisError):
            raise reply
        return reply

    async def together(self, commands: Iterable[Sequence[Part]]) -> list[Any]:
        """The replies of several in one write; errors of the server are replies, too."""
        data = [packed(*parts) for parts in commands]
        if not data:
            return []
        return [await answer for answer in await self._send(data)]

    def close(self) -> None:
        """Calls that wait fail."""
        self._break(RedisConnectionError("closed by this side"))

    # -- what the transport calls ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._heard = asyncio.get_running_loop().time()
        replies, waiting = self._replies, self._waiting
        replies.feed(data)
        try:
            while (reply := replies.gets()) is not False:
                if not waiting:
                    raise InvalidResponse("a reply that nobody asked for")
                answer = waiting.popleft()
                if not answer.done():
                    answer.set_result(reply)
        except InvalidResponse as wrong:  # whose the others are, nobody knows
            self._break(RedisConnectionError(f"protocol: {wrong}"))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._opener is not None:
            self._opener.connection_lost(exc)
        said = f"the server closed the connection: {exc}" if exc else "the server closed the connection"
        error = RedisConnectionError(said)
        unheard = self._transport is not None and not self._waiting
        self._break(error)
        if unheard and self.on_lost is not None:
            self.on_lost(error)

    # -- inside ----------------------------------------------------------------------------------------------

    async def _send(self, data: Sequence[bytes]) -> list[asyncio.Future[Any]]:
        while self._transport is None:
            await self._open()
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._heard = loop.time()
        answers = [loop.create_future() for _ in data]
        self._waiting.extend(answers)
        self._transport.write(data[0] if len(data) == 1 else b"".join(data))
        if self._timer is None and self._seconds is not None:
            self._timer = loop.call_later(self._seconds, self._tick)
        return answers

    async def _open(self) -> None:
        async with self._opening:
            if self._transport is not None:
                return
            connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
                if connection._writer is None:
                    raise RedisConnectionError("the connection ended as it began")
            except BaseException:
                connection._close()  # type: ignore[no-untyped-call]
                raise
            transport = cast("asyncio.Transport", connection._writer.transport)
            self._connection, self._opener = connection, transport.get_protocol()
            self._replies = _replies()
            transport.set_protocol(self)
            self._transport = transport

    def _break(self, error: RedisError) -> None:
        if self._transport is not None and self._connection is not None:
            self._transport.abort()
            self._connection._close()  # type: ignore[no-untyped-call]
            self._transport = self._connection = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, deque()
        for answer in waiting:
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # those whose caller is gone are nobody's

    def _tick(self) -> None:
        self._timer = None
        if not self._waiting or self._seconds is None:
            return
        loop = asyncio.get_running_loop()
        left = self._heard + self._seconds - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._tick)
        else:
            self._break(RedisTimeoutError(f"the server was silent for {self._seconds:g} s"))


def _replies() -> Any:
    return hiredis.Reader(protocolError=InvalidResponse, replyError=DefaultParser.parse_error)

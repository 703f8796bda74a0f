"""Connections to Redis, as each side of the queue needs them.

redis-py's defaults would lose or double mail: a socket timeout of 5 s kills a blocked read, and its automatic
retry turned one XADD whose reply was lost into four entries. So: readers without a time limit, writers with
one, neither with retries. Replies come as the server sends them (bytes, flat lists), the same on RESP2 and 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from streamq.errors import SettingsError

__all__ = ["Part", "command", "connect", "options", "pipelined"]

Part = str | bytes | int | float

WRITE_SECONDS = 30.0  # a server that forks or loads may be silent for seconds
CONNECT_SECONDS = 10.0


def connect(url: str, *, blocking: bool = False, name: str | None = None) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`; `blocking` ones may wait for ever; `name` is
    what CLIENT LIST shows."""
    timeout = None if blocking else WRITE_SECONDS
    try:
        client = Redis.from_url(url, client_name=name, retry=Retry(NoBackoff(), 0), **options(url, timeout))
    except ValueError as wrong:
        raise SettingsError(f"STREAMQ_REDIS_URL: {wrong}") from None
    client.response_callbacks.clear()
    client.connection_pool.connection_class = _packing(client.connection_pool.connection_class)
    return client


def _packed(connection: AbstractConnection, verb: str, *parts: Part) -> list[bytes]:
    return [hiredis.pack_command((*verb.split(), *parts))]  # type: ignore[arg-type]  # its stub names one part


def _packing(base: type[AbstractConnection]) -> type[AbstractConnection]:
    """That class of connection, which packs commands in C. redis-py's own way, in Python, takes a tenth of a worker's
    time: a batch has five hundred arguments."""
    return type(f"Packing{base.__name__}", (base,), {"pack_command": _packed})


def options(url: str, timeout: float | None) -> dict[str, Any]:
    """What every connection of ours has in common, but for `retry`, which is one class for each world."""
    return {
        "protocol": 2,
        "socket_timeout": timeout,
        "socket_connect_timeout": CONNECT_SECONDS if timeout is None else min(CONNECT_SECONDS, timeout),
        "health_check_interval": 0,
        **({} if url.startswith("unix:") else {"socket_keepalive": True}),
    }


async def command(client: Redis, *parts: Part) -> Any:
    """One command; its reply as the server sent it."""
    return await client.execute_command(*parts)  # type: ignore[no-untyped-call]


async def pipelined(
    client: Redis, commands: Iterable[Sequence[Part]], *, atomic: bool = False, raising: bool = True
) -> list[Any]:
    """Several commands in one round trip; `atomic` ones in MULTI. Without `raising`, errors are replies."""
    async with client.pipeline(transaction=atomic) as pipe:
        for parts in commands:
            pipe.execute_command(*parts)
        replies: list[Any] = await pipe.execute(raise_on_error=raising)
        return replies

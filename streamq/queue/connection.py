"""Connections to Redis, as each side of the queue needs them.

redis-py's defaults would lose or double mail: a socket timeout of 5 s kills a blocked read, and its automatic
retry turned one XADD whose reply was lost into four entries. So: readers without a time limit, writers with
one, neither with retries. Replies come as the server sends them (bytes, flat lists), the same on RESP2 and 3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from streamq.errors import NotPermitted, SettingsError
from streamq.queue.channel import Channel, Part

__all__ = ["Client", "Part", "command", "connect", "denied", "options", "pipelined"]

WRITE_SECONDS = 30.0  # a server that forks or loads may be silent for seconds
BLOCK_SECONDS = 5.0  # a blocked read asks for no more: one that is silent for much longer has no server any more
CONNECT_SECONDS = 10.0
# As a script's error has it: of 7 and Valkey, of 6.2
DENIED = re.compile(
    r"NOPERM|ACL failure in script|executing the script can't|can't run this command|no permission", re.I
)


class Client(Redis):
    """redis-py's client, whose commands share one connection; what needs one of its own (MULTI) takes it out of the
    pool."""

    def __init__(self, pool: ConnectionPool, seconds: float | None) -> None:
        super().__init__(connection_pool=pool)
        self.response_callbacks.clear()
        self.channel = Channel(pool, seconds)

    async def execute_command(self, *parts: Any, **_: Any) -> Any:
        return await self.channel.call(*parts)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        self.channel.close()
        await self.connection_pool.aclose()


def connect(url: str, *, blocking: bool = False, name: str | None = None) -> Client:
    """A client for `redis://`, `rediss://` or `unix://`; `blocking` ones may wait for `BLOCK_SECONDS` more; `name` is
    what CLIENT LIST shows."""
    seconds = WRITE_SECONDS + (BLOCK_SECONDS if blocking else 0.0)
    try:
        pool = ConnectionPool.from_url(url, client_name=name, retry=Retry(NoBackoff(), 0), **options(url, seconds))
        pool.connection_class(**pool.connection_kwargs)  # connects to nothing; an unknown option is told here
    except (ValueError, TypeError, RedisError) as wrong:
        raise SettingsError(f"STREAMQ_REDIS_URL: {wrong}") from None
    return Client(pool, seconds)


def options(url: str, timeout: float | None) -> dict[str, Any]:
    """What every connection of ours has in common, but for `retry`, which is one class for each world."""
    return {
        "protocol": 2,
        "socket_timeout": timeout,
        "socket_connect_timeout": CONNECT_SECONDS if timeout is None else min(CONNECT_SECONDS, timeout),
        "health_check_interval": 0,
        **({} if url.startswith("unix:") else {"socket_keepalive": True}),
    }


def denied(error: BaseException) -> NotPermitted | None:
    """What to tell people where an ACL forbade a command, or a key; None for any other error. Redis 7 and Valkey name
    the command, 6.2 does so in its log alone where a script met it."""
    if not isinstance(error, ResponseError):
        return None
    said = str(error)
    if not isinstance(error, NoPermissionError) and not DENIED.search(said):
        return None
    return NotPermitted(
        f"redis: no permission: {said} (`ACL LOG 1` has the command and the key; deploy/acl/streamq.acl what each role "
        "needs)"
    )


async def command(client: Redis, *parts: Part) -> Any:
    """One command; its reply as the server sent it."""
    return await client.execute_command(*parts)  # type: ignore[no-untyped-call]


async def pipelined(
    client: Redis, commands: Iterable[Sequence[Part]], *, atomic: bool = False, raising: bool = True
) -> list[Any]:
    """Several commands in one round trip; `atomic` ones in MULTI. Without `raising`, errors are replies."""
    if isinstance(client, Client) and not atomic:
        replies = await client.channel.together(commands)
        failed = next((reply for reply in replies if isinstance(reply, RedisError)), None)
        if raising and failed is not None:
            raise failed
        return replies
    async with client.pipeline(transaction=atomic) as pipe:
        for parts in commands:
            pipe.execute_command(*parts)
        return list(await pipe.execute(raise_on_error=raising))

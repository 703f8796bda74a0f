"""A queue in virtual time: the same scripts on the same kind of server, and a clock that is handed in.

CLOCK    Scripts are given `now`. A script that takes no `now` decides nothing by time.
EXPIRY   The server lets keys expire in its own time, which passes more slowly or faster than that of the queue: a
         limit's state would outlive its window by hours, or go in the middle of it. So PEXPIRE is kept in a sorted set
         beside the queue (`virtual-expiry`), and each script begins with what is over by its own clock.
WAITING  A read that blocks would stop a clock that nobody moves. Who waits for mail stands in line here (`Doorbell`),
         and is served when the bell has rung or mails were added, first come, first served, as the server does it.
CALLS    A command is done before anything else runs, and its answer is seen `seconds` later. So the order in which
         several workers are served is the same in each run.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from types import TracebackType
from typing import Any, Self, cast

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from streamq.keys import GROUP
from streamq.queue.connection import Part, options
from streamq.queue.script import Arg, Caller, Script, load
from streamq.queue.scripts import Scripts
from streamq.queue.spool import FORMAT, Reading, Spool
from streamq.settings import Settings

__all__ = ["EXPIRY", "Doorbell", "Inline", "VirtualSpool", "remove_queue", "timed"]

WAIT_SECONDS = 30.0
EXPIRY = "virtual-expiry"
SALT = bytes(range(16))  # the same Message-IDs, and the same draws among routes, in each run
REMOVED = 1000  # keys at a time

BEFORE = """\
local redis, rang = redis, 0
do
  local server, now, expiry, bell = redis, ARGV[{at}], KEYS[1] .. '{expiry}', KEYS[1] .. 'bell'
  for _, key in ipairs(server.call('ZRANGEBYSCORE', expiry, '-inf', now)) do
    server.call('UNLINK', key)
    server.call('ZREM', expiry, key)
  end
  local function call(verb, ...)
    local key, ms = ...
    if verb == 'PEXPIRE' then return server.call('ZADD', expiry, string.format('%.0f', now + ms * 1000), key) end
    if verb == 'PTTL' then
      local over = server.call('ZSCORE', expiry, key)
      return over and math.floor((over - now) / 1000) or server.call(verb, key)
    end
    if verb == 'PERSIST' then server.call('ZREM', expiry, key) end
    if verb == 'XADD' and key == bell then rang = 1 end
    return server.call(verb, ...)
  end
  redis = setmetatable({{call = call}}, {{__index = server}})
end
local function script()
"""
BEHIND = """
end
local reply = script()
return {rang, reply}
"""


class Inline:
    """Stands where redis-py's asynchronous client stands, for `command` and `pipelined`."""

    def __init__(self, url: str, seconds: float) -> None:
        self.seconds = seconds
        client = BlockingRedis.from_url(url, retry=Retry(NoBackoff(), 0), **options(url, WAIT_SECONDS))
        self._pool = client.connection_pool
        self._link = self._pool.get_connection()

    def now(self, *parts: Part) -> Any:
        """One command. Raises redis-py's errors."""
        self._link.send_command(*parts)  # type: ignore[no-untyped-call]
        return self._link.read_response()

    def all_now(self, commands: Sequence[Sequence[Part]]) -> list[Any]:
        """Errors are replies."""
        if not commands:
            return []
        packed = self._link.pack_commands(commands)  # type: ignore[no-untyped-call]
        self._link.send_packed_command(packed)  # type: ignore[no-untyped-call]
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(self._link.read_response())
            except ResponseError as error:
                replies.append(error)
        return replies

    async def execute_command(self, *parts: Part) -> Any:
        reply = self.now(*parts)
        await asyncio.sleep(self.seconds)
        return reply

    def pipeline(self, *, transaction: bool) -> _Batch:
        return _Batch(self, atomic=transaction)

    async def aclose(self) -> None:
        """It is shared: whoever made it closes it."""

    def close(self) -> None:
        self._link.disconnect()  # type: ignore[no-untyped-call]
        self._pool.disconnect()


class _Batch:
    def __init__(self, client: Inline, *, atomic: bool) -> None:
        self._client = client
        self._atomic = atomic
        self._commands: list[tuple[Part, ...]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._commands.clear()

    def execute_command(self, *parts: Part) -> None:
        self._commands.append(parts)

    async def execute(self, *, raise_on_error: bool) -> list[Any]:
        if not self._commands:
            return []
        if self._atomic:
            *_, replies = self._client.all_now([("MULTI",), *self._commands, ("EXEC",)])
            if isinstance(replies, Exception):
                raise replies
        else:
            replies = self._client.all_now(self._commands)
        await asyncio.sleep(self._client.seconds)
        if raise_on_error and (wrong := next((each for each in replies if isinstance(each, Exception)), None)):
            raise wrong
        return cast(list[Any], replies)


@dataclass(slots=True, eq=False)
class _Waiting:
    spool: VirtualSpool
    consumer: str
    many: int
    without: Collection[str]
    answer: asyncio.Future[Reading]


class Doorbell:
    """Who waits for mail, over all workers of a queue."""

    def __init__(self) -> None:
        self._line: deque[_Waiting] = deque()

    def ring(self) -> None:
        """Something may have come."""
        for first in list(self._line):
            reading = first.spool.read_now(first.consumer, first.many, first.without)
            if reading.entries or reading.bell:
                self._line.remove(first)
                first.answer.set_result(reading)
            elif not first.without:
                return

    async def wait(
        self, spool: VirtualSpool, consumer: str, many: int, seconds: float, without: Collection[str]
    ) -> Reading:
        waiting = _Waiting(spool, consumer, many, without, asyncio.get_running_loop().create_future())
        self._line.append(waiting)
        timer = asyncio.get_running_loop().call_later(seconds, self._leave, waiting)
        try:
            return await waiting.answer
        finally:
            timer.cancel()
            self._leave(waiting)

    def send_away(self, consumer: str) -> None:
        """Its wait ends with nothing."""
        for waiting in [each for each in self._line if each.consumer == consumer]:
            self._leave(waiting)

    def _leave(self, waiting: _Waiting) -> None:
        if waiting in self._line:
            self._line.remove(waiting)
        if not waiting.answer.done():
            waiting.answer.set_result(Reading())


def timed(script: Script) -> Script:
    """The same, living by the `now` that it is given, and saying whether it rang: {0 or 1, its own reply}."""
    source = BEFORE.format(at=script.head.index("now") + 1, expiry=EXPIRY) + script.source + BEHIND
    sha = sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(script.verb, script.head, script.row, source, sha)


@cache
def _timed(verb: str) -> tuple[Script, int]:
    """A script of that name, and where in its head `now` stands. -1: it takes none, and is as it was."""
    script = load(verb)
    return (timed(script), script.head.index("now")) if "now" in script.head else (script, -1)


class _VirtualCaller(Caller):
    """`clock`: now, in µs."""

    __slots__ = ("_bell", "_clock")

    def __init__(self, redis: Redis, prefix: str, clock: Callable[[], int], bell: Doorbell) -> None:
        super().__init__(redis, prefix)
        self._clock = clock
        self._bell = bell

    def script(self, verb: str) -> Script:
        return _timed(verb)[0]

    async def call(self, verb: str, head: Sequence[Arg] = (), rows: Iterable[Sequence[Arg]] = ()) -> Any:
        return self._heard(verb, await super().call(verb, self._dated(verb, head), rows))

    async def pipeline(self, verb: str, calls: Sequence[tuple[Sequence[Arg], Iterable[Sequence[Arg]]]]) -> list[Any]:
        replies = await super().pipeline(verb, [(self._dated(verb, head), rows) for head, rows in calls])
        return [self._heard(verb, reply) for reply in replies]

    def _heard(self, verb: str, reply: Any) -> Any:
        if _timed(verb)[1] < 0:
            return reply
        rang, said = reply
        if rang:
            self._bell.ring()
        return said

    def _dated(self, verb: str, head: Sequence[Arg]) -> Sequence[Arg]:
        at = _timed(verb)[1]
        return head if at < 0 else (*head[:at], str(self._clock()), *head[at + 1 :])


class VirtualSpool(Spool):
    """A worker's view of the queue. All of a queue share client, clock (µs) and bell."""

    def __init__(self, settings: Settings, client: Inline, clock: Callable[[], int], bell: Doorbell) -> None:
        super().__init__(settings, cast(Redis, client))
        self.client = client
        self.bell = bell
        self.clock = clock
        self.caller = _VirtualCaller(self.redis, self.keys.prefix, clock, bell)
        self.caller.reopen = self._reopen
        self.scripts = Scripts(self.caller, window_ms=settings.id_window)
        self.templates.scripts = self.scripts

    async def open(self) -> None:
        opened = await self.scripts.open(FORMAT, SALT, self.settings.events_kept, self.settings.priorities)
        self._know(opened)

    def now_ms(self) -> int:
        return self.clock() // 1000

    def read_now(self, consumer: str, many: int, without: Collection[str] = ()) -> Reading:
        """What a blocking read would bring at once."""
        streams = [*(self.keys.stream(name) for name in self.priorities if name not in without), self.keys.bell]
        reading = Reading()
        head = ("XREADGROUP", "GROUP", GROUP, consumer, "COUNT", many, "STREAMS")
        self._add(reading, self.client.now(*head, *streams, *[">"] * len(streams)))
        return reading

    async def wait(self, consumer: str, many: int, block_ms: int, without: Collection[str] = ()) -> Reading:
        reading = self.read_now(consumer, many, without)
        if reading.entries or reading.bell:
            await asyncio.sleep(self.client.seconds)
        else:
            reading = await self.bell.wait(self, consumer, many, block_ms / 1000, without)
        return reading

    async def unblock(self, name: str) -> None:
        self.bell.send_away(name)


def remove_queue(client: Inline, prefix: str) -> int:
    """All keys that begin so; how many they were."""
    gone, cursor = 0, b"0"
    pattern = "".join(f"\\{sign}" if sign in "*?[]\\" else sign for sign in prefix) + "*"
    while True:
        cursor, keys = client.now("SCAN", cursor, "MATCH", pattern, "COUNT", REMOVED)
        if keys:
            gone += client.now("UNLINK", *keys)
        if cursor == b"0":
            return gone

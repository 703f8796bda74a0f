"""The room of a fault run: a server that can be killed, a sink that keeps the truth, workers that each have a line of
their own to the sink (and one to the server, where that is asked), a producer that repeats what was not answered.

Everything that may fail is a process of its own, or a connection on a line; the room itself stays and writes down what
was in whose hand when it was killed.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bench.faults.books import Verdict, events, judge, leftovers
from bench.faults.line import Joint, Line
from bench.faults.nursery import Nursery
from bench.faults.stages import PAST_MAIL
from bench.programs import Programs, SinkProcess, WorkerProcess, until
from bench.server import Server
from streamq.keys import GROUP
from streamq.queue.connection import command, connect, pipelined
from streamq.queue.spool import Spool
from streamq.server import find_binary
from streamq.settings import load_settings

__all__ = ["ALWAYS", "EVERYSEC", "Crew", "Kill", "Trial", "trial"]

T = TypeVar("T")
PERSISTENT = ("--appendonly", "yes", "--aof-load-truncated", "yes", "--appendfsync")
ALWAYS, EVERYSEC = (*PERSISTENT, "always"), (*PERSISTENT, "everysec")
BATCH = 50  # mails of one round trip of the producer
AIM_SECONDS = 5.0  # after which a kill comes whatever the stage is: the queue may have run dry
PAUSE_SECONDS = 0.02
HEAD = b"From: Shop <shop@example.com>\r\nSubject: Order\r\n\r\n"
LINE = b"The quick brown fox jumps over the lazy dog, and over it again and again..\r\n"
BODY, LONG = HEAD + LINE * 10, HEAD + LINE * 3000  # a long one takes several packets: it can be caught in its body
LONG_EACH = 50  # mails have one


@dataclass(eq=False, slots=True)
class Crew:
    """A worker, its line to the sink, and that to the server where it has one."""

    worker: WorkerProcess
    line: Line
    wire: Line | None = None

    @property
    def alive(self) -> bool:
        return self.worker.process.returncode is None


@dataclass(frozen=True, slots=True)
class Kill:
    """`stages`: of its open connections when it died, those that were at each; `leases`: mails that it had."""

    aim: str
    stages: Counter[str]
    leases: int

    @property
    def caught(self) -> bool:
        """At least one mail past its MAIL."""
        return any(self.stages[stage] for stage in PAST_MAIL)


@dataclass(slots=True)
class Trial:
    stack: AsyncExitStack
    server: Server
    programs: Programs
    sink: SinkProcess
    nursery: Nursery
    crew: list[Crew] = field(default_factory=list)
    promised: dict[str, float] = field(default_factory=dict)  # id → time.monotonic() of its answer
    kills: list[Kill] = field(default_factory=list)
    server_kills: int = 0
    suspects: set[str] = field(default_factory=set)
    suspected_entries: set[str] = field(default_factory=set)
    allowed: int = 0
    repeated: int = 0  # batches that the producer sent again
    open_to: float = inf  # mails that the producer may send, of all
    defaults: dict[str, Any] = field(default_factory=dict)  # settings of its workers
    route: Mapping[str, Any] = field(default_factory=dict)  # of their route, beside its url
    repeats_may_double: bool = False  # their ids may have gone with a server's last second
    wait_ms: int = 0  # of a WAIT behind each batch; what no replica has is not answered
    redis: Redis = field(init=False)  # ours
    _fed: int = 0  # mails that somebody feeds or has fed
    _hiring: asyncio.Lock = field(default_factory=asyncio.Lock)

    # -- who works there -----------------------------------------------------------------------------

    async def hire(self, *, wired: bool = False, target: str = "", **more: Any) -> Crew:
        """One more worker; ready when it reads. `wired`: by a line to the server, too; `target`: of its line, if not
        the sink; the rest is `Programs.worker`'s."""
        line = await self.stack.enter_async_context(Line(target or f"127.0.0.1:{self.sink.port}"))
        url, wire = self.server.url, None
        if wired:
            wire = await self.stack.enter_async_context(Line(str(self.server.socket)))
            url = f"redis://127.0.0.1:{wire.port}"
        async with self._hiring:
            relay = {"url": f"smtp://127.0.0.1:{line.port}", **self.route}
            routes = orjson.dumps({"relay": relay}).decode()
            settings = {"routes": routes, "redis_url": url, **self.defaults, **more}
            if not more.keys() & {"program", "environment"}:
                settings["starter"] = self.nursery.worker
            worker = await self.programs.worker(**settings)
        one = Crew(worker, line, wire)
        self.crew.append(one)
        return one

    @property
    def alive(self) -> list[Crew]:
        return [one for one in self.crew if one.alive]

    # -- what they work on ---------------------------------------------------------------------------

    async def ask(self, what: Callable[[], Awaitable[T]]) -> T:
        """Until the server answers."""
        while True:
            try:
                return await what()
            except (RedisError, OSError):
                await asyncio.sleep(PAUSE_SECONDS)

    async def told(self, *parts: str | bytes | int) -> Any:
        """A command's reply, whenever the server can give it."""
        return await self.ask(lambda: command(self.redis, *parts))

    async def feed(self, many: int, ahead: int = 1500, rest: float = 0.0) -> None:
        """So many mails, at most `ahead` of what the sink has, with so many seconds between batches. What was not
        answered is sent again under its id."""
        first = self._fed
        self._fed += many
        for start in range(first, first + many, BATCH):
            names = [f"m{number}@example{number % 50}.net" for number in range(start, min(start + BATCH, first + many))]
            while start - self.sink.count() > ahead or start >= self.open_to:  # noqa: ASYNC110
                await asyncio.sleep(PAUSE_SECONDS)
            commands = [
                ("XADD", "{streamq}:normal", "*", "id", name, "envelope_from", "shop@example.com",
                 "envelope_to", name, "raw", BODY if at % LONG_EACH else LONG)
                for at, name in enumerate(names, start)
            ]  # fmt: skip
            while True:
                try:
                    await pipelined(self.redis, commands)
                    if not self.wait_ms or await command(self.redis, "WAIT", 1, self.wait_ms):
                        break
                except (RedisError, OSError):
                    self.repeated += 1
                    await asyncio.sleep(PAUSE_SECONDS)
                if self.repeats_may_double:
                    self.suspects.update(names)
            self.promised.update(dict.fromkeys(names, time.monotonic()))
            if rest:
                await asyncio.sleep(rest)

    async def drained(self, seconds: float = 240.0) -> None:
        """Waits until no priority has a mail."""

        async def empty() -> bool:
            return not any([await self.told("XLEN", f"{{streamq}}:{name}") for name in ("high", "normal", "low")])

        await until(empty, seconds)

    # -- what befalls them ---------------------------------------------------------------------------

    async def reached(self, ones: Sequence[Crew], stage: str, nth: int, then: Callable[[Crew, Joint], None]) -> bool:
        """Calls `then` in the moment in which one of their connections reaches that stage, the nth of all from now on,
        before the bytes that make it go on. False: too long nothing did."""
        found = asyncio.Event()
        left = nth

        def when(one: Crew, joint: Joint) -> None:
            nonlocal left
            left -= joint.smtp.stage == stage
            if left <= 0 and not found.is_set():
                found.set()
                then(one, joint)

        for one in ones:
            one.line.when = partial(when, one)
        try:
            async with asyncio.timeout(AIM_SECONDS):
                await found.wait()
        except TimeoutError:
            pass
        for one in ones:
            one.line.when = None
        return found.is_set()

    async def kill(self, ones: Sequence[Crew], aim: str = "", nth: int = 1, after: float = 0.0) -> Kill:
        """kill -9 of one of them, so many seconds after a connection of it has reached that stage, the nth from now on;
        "": of the first, at once. Whatever it had may come twice; its open connections may have marks that nobody
        needed."""
        loop = asyncio.get_running_loop()
        struck: asyncio.Future[tuple[Crew, list[Joint]]] = loop.create_future()

        def strike(one: Crew) -> None:
            if not struck.done():
                struck.set_result((one, list(one.line.joints)))
                one.worker.signal(signal.SIGKILL)
                for joint in one.line.joints:
                    joint.deaf = True

        def when(one: Crew, _: Joint) -> None:
            if after:
                loop.call_later(after, strike, one)
            else:
                strike(one)

        if not aim or not await self.reached(ones, aim, nth, when):
            strike(ones[0])
        one, joints = await struck
        await one.worker.process.wait()
        for joint in joints:
            await joint.gone.wait()
        entries = await self.leases_of(one.worker.consumer)
        self.suspected_entries |= entries
        for joint in joints:
            self.suspect(joint)
        found = Kill(aim, Counter(joint.smtp.stage for joint in joints), len(entries))
        self.kills.append(found)
        return found

    def suspect(self, joint: Joint) -> None:
        """Its mail, the one before or the one ahead may come twice; and a mark of it may be one that nobody needed."""
        self.suspects.update(joint.smtp.recent)
        self.allowed += 1

    async def leases_of(self, consumer: str) -> set[str]:
        """Entries."""
        found: set[str] = set()
        for p, name in enumerate(("high", "normal", "low")):
            rows = await self.told("XPENDING", f"{{streamq}}:{name}", GROUP, "-", "+", 1000, consumer)
            found |= {f"{p}{row[0].decode()}" for row in rows}
        return found

    async def kill_server(self, down: float = 0.0) -> None:
        """kill -9; it is away for so many seconds, and starts again on what it left. What is leased then may come
        twice: where it was away for longer than a lease others take it before its owner is heard."""
        await asyncio.to_thread(self.server.stop, signal.SIGKILL)
        self.server_kills += 1
        await asyncio.sleep(down)
        await asyncio.to_thread(self.server.start)
        for one in self.alive:
            self.suspected_entries |= await self.leases_of(one.worker.consumer)

    async def turn_to(self, server: Server) -> None:
        """What asks from here on asks that one."""
        old, self.server, self.redis = self.redis, server, connect(server.url)
        await old.aclose()

    # -- the end -------------------------------------------------------------------------------------

    async def finish(self, seconds: float = 240.0) -> Verdict:
        """Everything is delivered, or has ended otherwise; workers stop in order; then the books."""
        await self.drained(seconds)
        for one in self.alive:
            await one.worker.stop()
        return await self.close_books()

    async def close_books(self) -> Verdict:
        async with AsyncExitStack() as stack:
            spool = await Spool.connect(load_settings(), self.server.url)
            stack.push_async_callback(spool.close)
            await spool.scripts.reap(0)
            found = judge(
                self.promised,
                [name for _, name in self.sink.accepted()],
                await events(spool),
                self.suspects,
                self.suspected_entries,
                self.allowed,
            )
            found.wrong, found.left = await leftovers(spool)
        return found


@asynccontextmanager
async def trial(
    folder: Path,
    *,
    options: Sequence[str] = ALWAYS,
    rules: str = "",
    settings: Mapping[str, Any] | None = None,
    route: Mapping[str, Any] | None = None,
) -> AsyncIterator[Trial]:
    """`options`: the server's; `rules`: the sink's; `settings`: the workers', beside those of every trial; `route`: of
    their way to the sink (docs/smtp.md)."""
    defaults = {
        "lease_seconds": 5,
        "retry": "100ms",
        "max_reclaims": 100,
        "events_kept": 1_000_000,
        "events_bytes": 10**10,
    }
    async with AsyncExitStack() as stack:
        server = Server(find_binary(load_settings()), options)
        stack.callback(server.remove)
        await asyncio.to_thread(server.start)
        programs = Programs(stack, folder, server.url)
        sink = await programs.sink(rules)
        nursery = await stack.enter_async_context(Nursery())
        made = Trial(
            stack, server, programs, sink, nursery, defaults={**defaults, **(settings or {})}, route=route or {}
        )
        made.redis = connect(server.url)
        stack.push_async_callback(lambda: made.redis.aclose())
        yield made

"""Whole programs, as a user runs them: a server of its own, a sink as ledger, worker processes."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import orjson

from bench.content import BODY, KINDS
from streamq.queue.connection import command, pipelined
from streamq.queue.spool import Spool
from streamq.server import start
from streamq.settings import load_settings

__all__ = ["BODY", "Process", "Programs", "SinkProcess", "WorkerProcess", "feed", "programs", "rested", "until"]


START_SECONDS = 120.0  # of a worker, on a machine that others use, too


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 300.0) -> None:
    """Waits for something that another process does and that nobody tells us: it is looked at."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class SinkProcess:
    """A sink in a process of its own; its journal has a line per accepted mail, before its 250."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, journal: Path, counters: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"smtp://127.0.0.1:{port}"
        self.journal = journal
        self.counters = counters
        self._seen = (0, 0)  # bytes of the journal that were counted, and the lines in them

    def hold(self) -> None:
        """It stands still: the kernel takes connections for it, and nobody is greeted."""
        self.process.send_signal(signal.SIGSTOP)

    def go(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def counts(self) -> dict[str, Any]:
        """All that it counted so far (`streamq sink --counters`)."""
        self.counters.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)

        async def written() -> bool:
            return self.counters.exists()

        await until(written, 30)
        found: dict[str, Any] = orjson.loads(self.counters.read_bytes())
        return found

    def accepted(self) -> list[tuple[int, str]]:
        """(Unix ns, recipient), in order."""
        lines = self.journal.read_text("utf-8").splitlines() if self.journal.exists() else []
        parts = (line.split(" ") for line in lines)
        return [(int(part[0]), part[1]) for part in parts if len(part) >= 2]

    def count(self) -> int:
        """Of a million it reads only what is new."""
        if self.journal.exists():
            begun, lines = self._seen
            with self.journal.open("rb") as journal:
                journal.seek(begun)
                new = journal.read()
            self._seen = (begun + len(new), lines + new.count(b"\n"))
        return self._seen[1]

    async def until(self, many: int, seconds: float = 300.0) -> None:
        async def enough() -> bool:
            return self.count() >= many

        await until(enough, seconds)

    async def until_recipient(self, recipient: str, seconds: float = 60.0) -> None:
        async def there() -> bool:
            return any(rcpt == recipient for _, rcpt in self.accepted())

        await until(there, seconds)


class Process(Protocol):
    """What a worker needs of asyncio's subprocesses, for those that something else started."""

    pid: int

    @property
    def returncode(self) -> int | None: ...
    def send_signal(self, signal: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    async def wait(self) -> int: ...


class WorkerProcess:
    """`streamq worker`, one process; what it printed is in `log`."""

    def __init__(self, process: Process, log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def consumer(self) -> str:
        found = re.search(r"^worker +(\S+)$", self.log.read_text() if self.log.exists() else "", re.M)
        return found[1] if found else ""

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()


class Programs:
    """A server, at most one sink, and workers; all end with the context."""

    def __init__(self, stack: AsyncExitStack, folder: Path, url: str) -> None:
        self.stack = stack
        self.folder = folder
        self.url = url
        self.workers: list[WorkerProcess] = []
        self.sink_: SinkProcess | None = None

    async def sink(self, rules: str = "", options: Sequence[str] = ()) -> SinkProcess:
        """`rules`: the text of its file; `options`: more of its flags."""
        journal, counters = self.folder / "journal", self.folder / "counters"
        words = [
            "--port",
            "0",
            "--keep",
            "0",
            "--quiet",
            "--journal",
            str(journal),
            "--counters",
            str(counters),
            *options,
        ]
        if rules:
            (self.folder / "rules.toml").write_text(rules)
            words += ["--rules", str(self.folder / "rules.toml")]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "streamq.sink", *words, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        self.sink_ = SinkProcess(process, int(line.rsplit(":", 1)[1]), journal, counters)

        async def end() -> None:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
            await process.communicate()

        self.stack.push_async_callback(end)
        return self.sink_

    async def worker(
        self,
        config: str = "",
        *,
        program: Sequence[str] = ("-m", "streamq"),
        environment: Mapping[str, str] | None = None,
        starter: Callable[[Path, dict[str, str]], Awaitable[Process]] | None = None,
        **settings: Any,
    ) -> WorkerProcess:
        """One more; settings by name, `config` as the text of a streamq.toml. Ready when it has read once.

        Its relay is the sink, where no setting says otherwise (`relay`, or `routes` as JSON). `program`: what Python
        runs, if it is another one; `starter`: who starts it instead, with its log and its environment.
        """
        number = len(self.workers)
        relay = {"relay": self.sink_.url} if self.sink_ is not None and "routes" not in settings else {}
        known = {"redis_url": self.url, **relay, **settings}
        variables = {f"STREAMQ_{name.upper()}": str(value) for name, value in known.items()} | dict(environment or {})
        words = list(program)
        if config:
            file = self.folder / f"streamq{number}.toml"
            file.write_text(config)
            words += ["--config", str(file)]
        log = self.folder / f"worker{number}.log"
        process: Process
        if starter is not None:
            process = await starter(log, variables)
        else:
            with log.open("wb") as output:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, *words, "worker", env={**os.environ, **variables}, stdout=output, stderr=output
                )
        one = WorkerProcess(process, log)
        self.workers.append(one)

        async def end() -> None:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    async with asyncio.timeout(20):
                        await process.wait()
                except TimeoutError:
                    process.kill()
            await process.wait()

        self.stack.push_async_callback(end)

        async def up() -> bool:
            return bool(one.consumer) or process.returncode is not None

        await until(up, START_SECONDS)
        return one

    async def stop_workers(self) -> list[int]:
        return [await worker.stop() for worker in self.workers]

    @staticmethod
    def children_cpu() -> float:
        """CPU seconds of all children that have ended."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def duplicates(self) -> Counter[str]:
        """Recipients that were accepted more than once."""
        assert self.sink_ is not None
        counts = Counter(rcpt for _, rcpt in self.sink_.accepted())
        return Counter({rcpt: many for rcpt, many in counts.items() if many > 1})


@asynccontextmanager
async def programs(folder: Path, url: str | None = None) -> AsyncIterator[Programs]:
    """On the server at `url`, or on one of its own whose data lie in `folder`."""
    async with AsyncExitStack() as stack:
        if url is None:
            server = await asyncio.to_thread(lambda: start(load_settings(), directory=folder / "server"))
            stack.callback(server.close)
            url = server.url
        yield Programs(stack, folder, url)


async def rested(spool: Spool) -> None:
    """Feeding 130 MB makes the server rewrite its AOF in a child: another program on one of two cores, which is no
    part of what is compared."""

    async def idle_again() -> bool:
        text = (await command(spool.redis, "INFO", "persistence")).decode()
        return "aof_rewrite_in_progress:0" in text and "aof_rewrite_scheduled:0" in text

    await until(idle_again)


async def feed(
    spool: Spool,
    many: int,
    *,
    domain: str = "example.net",
    name: str = "m",
    priority: str = "normal",
    kind: str = "4k",
    more: Sequence[str] = (),
) -> None:
    """XADD so many mails of a kind (bench/content.py) with ids, 250 a round trip. A `*` in the domain becomes one of
    200 numbers; `more`: fields of each of them, name, value, …"""
    stream, fields = spool.keys.stream(priority), KINDS[kind]
    for start_ in range(0, many, 250):
        commands = []
        for number in range(start_, min(start_ + 250, many)):
            to = f"{name}{number}@{domain.replace('*', str(number % 200))}"
            commands.append(("XADD", stream, "*", "id", f"{name}{number}", *fields(to), *more))
        await pipelined(spool.redis, commands)

"""Workers and a sink inside one test's loop, and the events that tests wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson

from streamq.queue.connection import command
from streamq.queue.spool import Spool
from streamq.settings import load_settings
from streamq.sink import Rules, Sink, load_rules
from streamq.worker import Worker

__all__ = ["Crew", "crew", "rules_of"]


class Crew:
    """A sink, a spool to add mails and look, and workers on the same queue."""

    def __init__(self, stack: AsyncExitStack, url: str, spool: Spool, sink: Sink) -> None:
        self.stack = stack
        self.url = url
        self.spool = spool
        self.sink = sink
        self._last = "0"

    def new_worker(self, **settings: Any) -> Worker:
        """One that the test runs and stops by itself."""
        known = {"relay": self.sink.url, "retry": "50ms", "jitter": 0, **settings}
        return Worker(load_settings(**known), self.url)

    async def worker(self, **settings: Any) -> Worker:
        """One more, started; it is stopped in order at the end."""
        return await self.started(self.new_worker(**settings))

    async def started(self, worker: Worker) -> Worker:
        """That one, started; it is stopped in order at the end."""
        task = asyncio.create_task(worker.run())
        ready = asyncio.create_task(worker.ready.wait())
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if task.done():
            task.result()

        async def stop() -> None:
            worker.stop()
            await task

        self.stack.push_async_callback(stop)
        return worker

    async def add(self, priority: str = "normal", **fields: str | bytes) -> str:
        """XADD; returns the entry."""
        known = {"from": "shop@example.com", "to": "bob@example.net", "subject": "Hi", "text": "Hello", **fields}
        flat = [part for pair in known.items() if pair[1] != "" for part in pair]
        id_ = await command(self.spool.redis, "XADD", self.spool.keys.stream(priority), "*", *flat)
        return f"{self.spool.digit(priority)}{id_.decode()}"

    async def events(self) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
        """(type, id, data) from where the last call ended, for ever; blocked reads, no polling."""
        while True:
            found = await command(
                self.spool.reader, "XREAD", "COUNT", 1, "BLOCK", 5000, "STREAMS", self.spool.keys.events, self._last
            )
            for _, rows in found or ():
                for id_, flat in rows:
                    self._last = id_.decode()
                    yield flat[1].decode(), flat[3].decode(), orjson.loads(flat[5])

    async def until(self, kind: str, id_: str | None = None, many: int = 1) -> list[dict[str, Any]]:
        """Waits for so many events of a kind (and id); returns their data."""
        found: list[dict[str, Any]] = []
        async for event, name, data in self.events():
            if event == kind and id_ in (None, name):
                found.append(data)
                if len(found) == many:
                    break
        return found

    async def count(self, field: str) -> int:
        return int(await command(self.spool.redis, "HGET", self.spool.keys.counts, field) or 0)

    async def until_state(self, entry: str, state: str) -> None:
        """Waits until `check` says that the entry is there: for states that no event announces."""
        while True:
            _, *rows = await self.spool.scripts.check("stream", int(entry[0]), "", 100)
            if dict(zip(rows[::2], rows[1::2], strict=True)).get(entry.encode()) == state.encode():
                return
            await asyncio.sleep(0)


@asynccontextmanager
async def crew(url: str, *, rules: Rules | None = None, **sink: Any) -> AsyncIterator[Crew]:
    async with AsyncExitStack() as stack:
        server = Sink(rules=rules or Rules(), **sink)
        await server.start()
        stack.push_async_callback(server.close)
        spool = await Spool.connect(load_settings(), url)
        stack.push_async_callback(spool.close)
        yield Crew(stack, url, spool, server)


def rules_of(path: Any, text: str) -> Rules:
    """Rules for a sink, from TOML."""
    file = path / "rules.toml"
    file.write_text(text)
    return load_rules(file)

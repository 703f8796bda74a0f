"""Workers under a limit of transactions at once: a relay counts them, and answers a dot when it is told to."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from crew import crew

SITES = {"example.net": {"connections": 1}}


class Relay:
    """`now` are the transactions between MAIL and the answer to the dot, or the end of the connection; `most`: ever."""

    def __init__(self) -> None:
        self.now = self.most = self.done = 0
        self.changed = asyncio.Condition()
        self.gate = asyncio.Semaphore(0)  # one answer to a dot each

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside = False
        try:
            writer.write(b"220 relay.example\r\n")
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"MAIL":
                    inside = True
                    await self._count(1)
                if verb == b"DATA":
                    writer.write(b"354 go on\r\n")
                    await reader.readuntil(b"\r\n.\r\n")
                    await self._answer(reader)
                    inside = False
                    self.done += 1
                    await self._count(-1)
                writer.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 relay.example\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            if inside:
                await self._count(-1)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        """When the gate lets it; a client that is gone meanwhile is noticed."""
        told, gone = asyncio.ensure_future(self.gate.acquire()), asyncio.ensure_future(reader.read(1))
        done, _ = await asyncio.wait({told, gone}, return_when=asyncio.FIRST_COMPLETED)
        if told not in done:
            told.cancel()
            raise ConnectionError
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)

    async def _count(self, by: int) -> None:
        async with self.changed:
            self.now += by
            self.most = max(self.most, self.now)
            self.changed.notify_all()

    async def until(self, now: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.now == now)

    async def until_done(self, many: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.done == many)


@asynccontextmanager
async def relay() -> AsyncIterator[tuple[Relay, str]]:
    one = Relay()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    try:
        yield one, f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_never_more_and_the_slot_is_used_again(server_url: str) -> None:
    async with relay() as (server, url), crew(server_url) as c:
        await c.worker(relay=url, sites=SITES)
        await c.worker(relay=url, sites=SITES)
        for number in range(20):
            await c.add(to=f"u{number}@example.net")
        for done in range(20):
            await server.until(1)
            server.gate.release()
            await server.until_done(done + 1)
        assert server.most == 1
        await c.until("email.relayed", many=20)


async def test_other_sites_go_meanwhile(server_url: str) -> None:
    async with relay() as (server, url), crew(server_url) as c:
        await c.worker(relay=url, sites=SITES)
        server.gate.release()
        await c.add(to="first@example.net")  # before a relay has answered it is asked over one connection
        await server.until_done(1)
        await c.add(to="u1@example.net")
        await c.add(to="u2@example.net")
        await server.until(1)
        await c.add(to="u1@example.org")
        await server.until(2)
        for _ in range(3):
            server.gate.release()
        await server.until_done(4)
        await c.until("email.relayed", many=4)


async def test_the_slot_of_a_process_that_was_killed_is_used_again(server_url: str, tmp_path: Path) -> None:
    """How soon, in virtual time: test_slots.py."""
    config = tmp_path / "streamq.toml"
    async with relay() as (server, url), crew(server_url) as c:
        config.write_text(f'relay = "{url}"\nlease_seconds = 5\n[sites."example.net"]\nconnections = 1\n')
        for number in range(4):
            await c.add(to=f"u{number}@example.net")
        for turn in range(2):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "streamq", "--config", str(config), "worker"),
                env={**os.environ, "STREAMQ_REDIS_URL": server_url},
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            await server.until(1)
            if turn == 0:
                os.kill(process.pid, signal.SIGKILL)
                await process.wait()
                await server.until(0)
        for _ in range(4):
            server.gate.release()
        await c.until("email.relayed", many=4)
        assert server.most == 1
        process.terminate()
        await process.wait()

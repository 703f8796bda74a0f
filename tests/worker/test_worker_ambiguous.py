"""A dot without its reply, through a whole worker: what becomes of the mail, and what the marks name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from crew import Crew, crew
from sifting import passed

from streamq.keys import GROUP
from streamq.queue.connection import command
from streamq.queue.rows import MarkRow
from streamq.queue.steer import apply


class Relay:
    """Takes mail; the `meets`-th dot, counted over all connections, is not answered: it waits for `go`, and then the
    connection is closed, or answered after all where `answers`."""

    def __init__(self, meets: int, *, answers: bool = False) -> None:
        self.meets = meets
        self.answers = answers
        self.there, self.go = asyncio.Event(), asyncio.Event()
        self.bodies: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        while line := await reader.readline():
            if line.startswith(b"EHLO"):
                writer.write(b"250-relay\r\n250 PIPELINING\r\n")
            elif line.startswith(b"DATA"):
                writer.write(b"354 go\r\n")
                self.bodies.append(await reader.readuntil(b"\r\n.\r\n"))
                if len(self.bodies) == self.meets:
                    self.there.set()
                    await self.go.wait()
                    if not self.answers:
                        return
                writer.write(b"250 2.0.0 ok\r\n")
            elif line.startswith(b"QUIT"):
                writer.write(b"221 bye\r\n")
                return
            else:
                writer.write(b"250 ok\r\n")


@asynccontextmanager
async def relay(meets: int, *, answers: bool = False) -> AsyncIterator[Relay]:
    one = Relay(meets, answers=answers)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield one
    finally:
        one.go.set()
        server.close()
        await server.wait_closed()


def routes(one: Relay, **more: object) -> dict[str, dict[str, object]]:
    return {"main": {"url": one.url, "tls": "none", "connections": 1, **more}}


async def kinds_of(c: Crew, name: str, last: str) -> list[tuple[str, str]]:
    """(type, route) of the events of one mail, up to and including the type `last`."""
    found: list[tuple[str, str]] = []
    async for kind, id_, data in c.events():
        if id_ == name:
            found.append((kind, data.get("route", "")))
            if kind == last:
                break
    return found


@pytest.mark.parametrize(
    ("policy", "last", "events", "times"),
    [
        ("resend", "email.relayed", ["email.ambiguous", "email.relayed"], 2),
        ("hold", "email.held", ["email.ambiguous", "email.held"], 1),
        ("assume_delivered", "email.relayed", ["email.ambiguous", "email.relayed"], 1),
    ],
)
async def test_a_dot_without_a_reply(server_url: str, policy: str, last: str, events: list[str], times: int) -> None:
    """It is said, the policy decides, and another route gets none of it."""
    async with crew(server_url) as c, relay(1) as one:
        ways = {**routes(one), "second": {"url": c.sink.url, "weight": 0}}
        await c.worker(relay=None, routes=ways, on_ambiguous=policy)
        entry = await c.add(id="a1")
        await one.there.wait()
        one.go.set()
        assert await kinds_of(c, "a1", last) == [(kind, "main") for kind in events]
        assert len(c.sink.received) == 0
        assert len(one.bodies) == times
        assert len(set(one.bodies)) == 1  # the same bytes: a receiver can drop the double
        if policy == "hold":
            assert await apply(c.spool, "cancel", [entry]) == {"cancelled": 1}


@pytest.mark.parametrize("pipelining", ["off", "transaction", "overlap"])
async def test_the_marks_name_who_is_past_its_dot(server_url: str, pipelining: str) -> None:
    """While the second mail waits for its reply, the third's commands may be out; it is not named."""
    async with crew(server_url) as c, relay(2, answers=True) as one:
        entries = [await c.add(id=f"a{n}") for n in range(4)]
        await c.worker(relay=None, routes=routes(one, pipelining=pipelining))
        await one.there.wait()
        marks = await command(c.spool.redis, "HGETALL", c.spool.keys.dots)
        (named,) = [value.decode().split(",") for field, value in zip(marks[::2], marks[1::2], strict=True) if field]
        one.go.set()
        await c.until("email.relayed", many=4)
    assert named[-1] == entries[1]
    assert set(named) <= set(entries[:2])
    assert len(one.bodies) == 4


async def test_what_is_assumed_to_be_delivered_is_known_by_its_content(server_url: str) -> None:
    """It was parked unlooked-at, and its worker died past the dot: its id with other content is a conflict."""
    async with crew(server_url) as c:
        await dead_past_the_dot(c, await c.add(id="a1"))
        await c.worker(on_ambiguous="assume_delivered")
        await c.until("email.relayed", "a1")
        await c.add(id="a1")
        await c.until("email.duplicate", "a1")
        await c.add(id="a1", text="Other")
        assert [data["class"] for data in await c.until("email.rejected", "a1")] == ["id_conflict"]
        assert len(c.sink.received) == 0


async def dead_past_the_dot(c: Crew, entry: str) -> None:
    """Its lane was closed, so that it was sifted; then a worker took it from there, marked its dot and died."""
    keys, lane, scripts = c.spool.keys, "relay|example.net", c.spool.scripts
    now = int((await command(c.spool.redis, "TIME"))[0]) * 1_000_000
    await command(c.spool.redis, "HSET", keys.limits, "*|example.net", "1:60000000")
    await command(c.spool.redis, "HSET", keys.limit(lane), "60000000", f"{now + 120_000_000}:62499999")
    found = await passed(c.spool, "dead", int(entry[0]), route="relay", room=1)
    assert found.parked == 1
    await command(c.spool.redis, "DEL", keys.limits, keys.limit(lane))
    await command(c.spool.redis, "ZADD", keys.due("normal"), "XX", 0, lane)
    released = await scripts.release("dead", 1)
    assert [lease.entry for lease in released.leases] == [entry]
    assert await scripts.mark("dead", [MarkRow("relay.1", entry, released.token)]) == ["ok"]
    await command(c.spool.redis, "XCLAIM", c.spool.stream(entry), GROUP, "dead", 0, entry[1:], "IDLE", 10**7, "JUSTID")

"""What Redis may do to a worker: restart, die, come back without its last second, forget, fill up."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from conftest import examine
from crew import Crew, crew
from servers import Server

from bench.faults.line import Line
from streamq.keys import GROUP
from streamq.queue.connection import command, connect
from streamq.queue.plain import Plain
from streamq.queue.spool import Entry
from streamq.settings import load_settings
from streamq.worker import Worker

OwnServer = Callable[..., Server]
GIVEN = ("id", "b", "from", "s@example.com", "to", "b@example.net", "subject", "Hi", "text", "x")
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")


async def _ends(c: Crew) -> Counter[str]:
    rows = await command(c.spool.redis, "XRANGE", c.spool.keys.events, "-", "+")
    return Counter(flat[3].decode() for _, flat in rows if flat[1] == b"email.relayed")


async def _empty(c: Crew) -> None:
    while await command(c.spool.redis, "XLEN", c.spool.keys.stream("normal")):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def _left(server: Server) -> list[str]:
    redis = connect(server.url)
    try:
        wrong: list[str] = await examine(redis)
        return wrong
    finally:
        await redis.aclose()


async def test_a_killed_server_comes_back_and_every_mail_arrives(own_server: OwnServer) -> None:
    server = own_server(*ALWAYS)
    async with crew(server.url) as c:
        worker = await c.worker(lease_seconds=2)
        for number in range(400):
            await c.add(id=f"m{number}")
        await c.sink.wait_for(100)
        await asyncio.to_thread(server.stop, signal.SIGKILL)
        await asyncio.to_thread(server.start)
        await _empty(c)
        ends = await _ends(c)
        assert len(ends) == 400
        assert set(ends.values()) == {1}
        arrived = Counter(mail.message_id for mail in c.sink.received)
        assert len(arrived) == 400
        assert worker.link.down_since > 0
        # A mail whose dot was out while the server was away may be there twice: never more than connections.
        assert sum(arrived.values()) - 400 <= worker.settings.ways["relay"].connections
    assert await _left(server) == []


@asynccontextmanager
async def _forgotten(server: Server) -> AsyncIterator[None]:
    """What happens inside is lost with the server's memory: it starts again with what its disk held before."""
    before = Path(f"{server.directory}-before")
    await asyncio.to_thread(shutil.copytree, server.directory, before, ignore=shutil.ignore_patterns("s"))
    try:
        yield
        await asyncio.to_thread(server.stop, signal.SIGKILL)
        for name in ("appendonlydir", "appendonly.aof"):
            old, new = before / name, server.directory / name
            if old.is_dir():
                await asyncio.to_thread(shutil.rmtree, new)
                await asyncio.to_thread(shutil.copytree, old, new)
            elif old.exists():
                shutil.copy(old, new)
        await asyncio.to_thread(server.start)
    finally:
        shutil.rmtree(before)


async def test_a_server_that_lost_its_last_second_sends_nothing_twice(own_server: OwnServer) -> None:
    server = own_server(*ALWAYS)
    async with crew(server.url) as c:
        for number in range(50):
            await c.add(id=f"m{number}")
        async with _forgotten(server):
            await c.worker()
            await c.until("email.relayed", many=50)
            await _empty(c)
        c._last = "0"
        events = await c.until("email.relayed", many=50)
        await _empty(c)
        assert await c.count("resettled") == 50
        assert len(c.sink.received) == 50, "a mail was sent again"
        assert len({event["event_id"] for event in events}) == 50
        await c.add(id="after")
        await c.until("email.relayed", "after")
    assert await _left(server) == []


async def test_a_server_without_power_says_nothing_and_its_mails_are_not_sent_twice(
    own_server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection ends: they are silent, the reader's, too."""
    monkeypatch.setattr("streamq.queue.connection.WRITE_SECONDS", 2.0)
    server = own_server(*ALWAYS)
    async with Line(str(server.socket)) as line, crew(server.url) as c:
        for number in range(50):
            await c.add(id=f"m{number}")
        worker = Worker(load_settings(relay=c.sink.url), f"redis://127.0.0.1:{line.port}")
        worker.others_seconds = 0
        async with _forgotten(server):
            await c.started(worker)
            await c.until("email.relayed", many=50)
            await _empty(c)
            for joint in list(line.joints):
                joint.stall("there")
                joint.stall("back")
        await c.add(id="after")
        c._last = "0"
        await c.until("email.relayed", "after")
        assert await c.count("resettled") == 50
        assert len(c.sink.received) == 51, "a mail was sent again"
    assert await _left(server) == []


async def test_a_master_that_was_demoted_keeps_nobody(own_server: OwnServer) -> None:
    """It closes no connection, and its name leads to another one by now."""
    old, new = own_server(), own_server()
    async with Line(str(old.socket)) as line, crew(old.url) as c:
        worker = await c.started(Worker(load_settings(relay=c.sink.url), f"redis://127.0.0.1:{line.port}"))
        worker.others_seconds = 0
        await c.add(id="before")
        await c.until("email.relayed", "before")
        line.target = str(new.socket)
        redis, other = connect(old.url), connect(new.url)
        await command(other, "XADD", "{streamq}:normal", "*", *GIVEN)
        await command(redis, "REPLICAOF", "127.0.0.1", 1)
        await c.sink.wait_for(2)
        await command(redis, "REPLICAOF", "NO", "ONE")
        await redis.aclose()
        await other.aclose()
    assert await _left(old) == []


async def test_who_is_back_first_waits_for_the_others(own_server: OwnServer) -> None:
    """What another worker had settled is there again, and that one has not said so yet."""
    server = own_server(*ALWAYS)
    async with Line(str(server.socket)) as line, crew(server.url) as c:
        for number in range(50):
            await c.add(id=f"m{number}")
        later = Worker(load_settings(relay=c.sink.url), f"redis://127.0.0.1:{line.port}")
        first = c.new_worker(grace="100ms")
        first.others_seconds = 3600
        async with _forgotten(server):
            await c.started(later)
            await c.until("email.relayed", many=50)
            await _empty(c)
            await c.started(first)
            before = first._run_id
            line.closed_door = True
            for joint in list(line.joints):
                joint.reset()
        while first._run_id == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        line.closed_door = False
        await _empty(c)
        assert await c.count("resettled") == 50
        assert len(c.sink.received) == 50, "a mail was sent again"
    assert await _left(server) == []


async def test_a_250_whose_end_nobody_has_taken_is_not_sent_again(
    own_server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server lost that the mail was ever read, and the record of its 250 had not reached it."""
    server = own_server(*ALWAYS)
    async with crew(server.url) as c:
        await c.add(id="m")
        worker = c.new_worker(grace="100ms")
        worker.others_seconds = 3600  # what it does before it waits for others is all that it does

        async def never(*_: object) -> None:
            await asyncio.Event().wait()

        async with _forgotten(server):
            monkeypatch.setattr(Plain, "settle", never)
            await c.started(worker)
            await c.sink.wait_for(1)
        await _empty(c)
        assert len(c.sink.received) == 1
        assert await c.count("resettled") == 1


async def test_what_the_sweeper_has_and_does_not_know_is_sent(server_url: str) -> None:
    """A server that lost its last second has as read what a worker admitted in it, under tokens that it does not know.
    Others' entries of that kind are reclaimed; the sweeper's own nobody reclaims."""
    async with crew(server_url) as c:
        worker = c.new_worker(lease_seconds=0.2)
        await c.add(id="m")
        stream = c.spool.keys.stream("normal")
        await command(c.spool.redis, "XREADGROUP", "GROUP", GROUP, worker.consumer, "STREAMS", stream, ">")
        await c.started(worker)
        await c.until("email.relayed", "m")
        assert len(c.sink.received) == 1
        assert await c.count("reclaimed") == 0, "it was its own all the time"


FIFTY = [f"r{number}@x.example" for number in range(50)]
MANY = {
    "named": {"id": "m", "to": ",".join(FIFTY)},
    "nameless": {"to": ",".join(FIFTY)},
    "each": {"to": "", "recipients": orjson.dumps([{"to": each} for each in FIFTY]).decode()},
}


@pytest.mark.parametrize("kind", MANY)
async def test_a_server_that_lost_an_expansion_sends_nothing_twice(own_server: OwnServer, kind: str) -> None:
    """Its children are made again, as other entries."""
    server = own_server(*ALWAYS)
    async with crew(server.url) as c:
        await c.add(**MANY[kind])
        async with _forgotten(server):
            await c.worker()
            await c.until("email.relayed", many=50)
            await _empty(c)
        c._last = "0"
        await c.until("email.duplicate", many=50)
        await _empty(c)
        assert len(c.sink.received) == 50, "a mail was sent again"
    assert await _left(server) == []


async def test_large_mails_are_looked_for_few_at_a_time(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a server came back: a hundred of 25 MB would be one reply."""
    async with crew(server_url) as c:
        worker = await c.worker()
        for number in range(5):
            await c.add(id=f"large{number}", text="x\n" * 900_000)
        await c.until("email.relayed", many=5)
        await worker.settler.flushed()
        asked: list[int] = []
        real = worker.spool.fetch

        async def fetch(entries: Sequence[str]) -> list[Entry | None]:
            asked.append(len(entries))
            return await real(entries)

        monkeypatch.setattr(worker.spool, "fetch", fetch)
        assert await worker.settler.replay() == 0
        assert 0 < max(asked) <= 2


async def test_killed_connections_lose_nothing(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.worker()
        for round_ in range(5):
            for number in range(20):
                await c.add(id=f"m{round_}-{number}")
            await command(c.spool.redis, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await c.sink.wait_for(100)
        await _empty(c)
        ends = await _ends(c)
        assert len(ends) == 100
        assert set(ends.values()) == {1}


async def test_a_full_server_drains_and_goes_on(server_url: str) -> None:
    async with crew(server_url) as c:
        for number in range(200):
            await c.add(id=f"m{number}", text="x" * 4000)
        used = dict(
            line.split(":", 1)
            for line in (await command(c.spool.redis, "INFO", "memory")).decode().splitlines()
            if ":" in line
        )
        await command(c.spool.redis, "CONFIG", "SET", "maxmemory", int(used["used_memory"]) - 1000)
        try:
            await c.worker()
            await c.sink.wait_for(200)
            await _empty(c)
        finally:
            await command(c.spool.redis, "CONFIG", "SET", "maxmemory", 0)
        await c.add(id="after")
        await c.until("email.relayed", "after")
        assert len({mail.message_id for mail in c.sink.received}) == 201


async def test_a_stopped_server_stops_nothing_for_good(own_server: OwnServer) -> None:
    server = own_server(*ALWAYS)
    async with crew(server.url) as c:
        await c.worker()
        await c.add(id="before")
        await c.until("email.relayed", "before")
        os.kill(server.pid, signal.SIGSTOP)
        adding = asyncio.create_task(c.add(id="during"))
        await asyncio.sleep(0)
        os.kill(server.pid, signal.SIGCONT)
        await adding
        await c.until("email.relayed", "during")
    assert await _left(server) == []

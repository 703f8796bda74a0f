"""virtual.py: keys expire by the clock that is handed in, who waits is served in order, and a queue goes altogether."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest
from redis.exceptions import ResponseError

from streamq.queue import virtual
from streamq.queue.connection import command, pipelined
from streamq.queue.script import LUA, VERBS
from streamq.queue.scripts import GrantRow, SettleRow
from streamq.queue.virtual import Doorbell, Inline, VirtualSpool, remove_queue
from streamq.settings import load_settings
from streamq.simulate.clock import VirtualLoop

BEGIN_US = 1_767_225_600_000_000


class Clock:
    def __init__(self) -> None:
        self.us = BEGIN_US

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(server_url: str) -> Iterator[Inline]:
    made = Inline(server_url, 0.0005)
    yield made
    made.now("FLUSHALL")
    made.close()


@pytest.fixture
def bell() -> Doorbell:
    return Doorbell()


def test_no_script_lets_a_key_expire_in_another_way() -> None:
    """`PEXPIRE` is what virtual.py keeps by its own clock. The other two are renewed for as long as anybody lives."""
    others = re.compile(r"\b(H?P?EXPIREAT|H?EXPIRE|HPEXPIRE|P?SETEX|GETEX)\b|'(PX|EX|PXAT|EXAT)'")
    files = [*LUA.iterdir(), *(LUA / "lib").iterdir()]
    found = {
        (file.name, line.strip())
        for file in files
        if file.name.endswith(".lua")
        for line in file.read_text("utf-8").splitlines()
        if others.search(line.split("--")[0])
    }
    assert {name for name, _ in found} == {"base.lua", "leader.lua"}
    assert len(found) == 3


@pytest.mark.parametrize("verb", VERBS)
def test_a_script_that_takes_now_says_whether_it_rang(verb: str) -> None:
    script, at = virtual._timed(verb)
    assert (at >= 0) == ("now" in script.head)
    assert script.source.rstrip().endswith("return {rang, reply}") == (at >= 0)


async def test_keys_expire_in_virtual_time_and_in_no_other(client: Inline, clock: Clock, bell: Doorbell) -> None:
    spool = VirtualSpool(load_settings(), client, clock, bell)
    await spool.open()
    await spool.scripts.grant("w1", 1, [GrantRow("main", 5, 100, 5, 0)])  # kept for 2 ms
    key = spool.keys.grants("main")
    assert client.now("PTTL", key) == -1
    await asyncio.sleep(0.01)
    await spool.scripts.settle("w1", [])
    assert client.now("EXISTS", key) == 1
    clock.us += 1999
    await spool.scripts.settle("w1", [])
    assert client.now("EXISTS", key) == 1
    clock.us += 1
    await spool.scripts.settle("w1", [])
    assert client.now("EXISTS", key) == 0
    assert client.now("ZCARD", spool.keys.prefix + virtual.EXPIRY) == 0


async def test_a_renewed_key_lives_on(client: Inline, clock: Clock, bell: Doorbell) -> None:
    spool = VirtualSpool(load_settings(), client, clock, bell)
    await spool.open()
    for _ in range(3):
        await spool.scripts.grant("w1", 1, [GrantRow("main", 5, 100, 5, 0)])
        clock.us += 1500
    await spool.scripts.settle("w1", [])
    assert client.now("EXISTS", spool.keys.grants("main")) == 1


def test_who_waits_longest_is_served_first_and_alone(client: Inline, bell: Doorbell) -> None:
    async def run() -> list[list[str]]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        spools = [VirtualSpool(load_settings(), client, loop.now_us, bell) for _ in range(3)]
        for spool in spools:
            await spool.open()
        waits = [asyncio.create_task(spool.wait(f"w{at}", 1, 5000)) for at, spool in enumerate(spools)]
        await asyncio.sleep(1)
        for id_ in ("1-1", "1-2"):
            client.now("XADD", spools[0].keys.stream("normal"), id_, "to", "a@b.example")
        bell.ring()
        got = [[entry.entry for entry in (await wait).entries] for wait in waits]
        assert loop.time() == pytest.approx(5, abs=0.01)  # the third had waited long enough
        for at, entries in enumerate(got):
            rows = [SettleRow("gone", entry, 1, "", "", "", b"") for entry in entries]
            client.now("XACK", spools[0].keys.stream("normal"), "streamq", *[row.entry[1:] for row in rows] or ["0-0"])
            assert at == 2 or rows
        remove_queue(client, spools[0].keys.prefix)
        return got

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(run()) == [["11-1"], ["11-2"], []]


def test_a_wait_is_ended_by_its_name(client: Inline, bell: Doorbell) -> None:
    async def run() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        spool = VirtualSpool(load_settings(), client, loop.now_us, bell)
        await spool.open()
        wait = asyncio.create_task(spool.wait("w1", 1, 5000))
        await asyncio.sleep(1)
        await spool.unblock("w2")
        await spool.unblock("w1")
        reading = await wait
        assert not reading.entries
        assert not reading.bell
        return loop.time()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(run()) == pytest.approx(1, abs=0.01)


async def test_errors_are_raised_as_by_redis_py(client: Inline) -> None:
    stand_in = client
    with pytest.raises(ResponseError):
        await command(stand_in, "NONSENSE")  # type: ignore[arg-type]
    with pytest.raises(ResponseError):
        await pipelined(stand_in, [("PING",), ("NONSENSE",)])  # type: ignore[arg-type]
    replies = await pipelined(stand_in, [("PING",), ("NONSENSE",), ("PING",)], raising=False)  # type: ignore[arg-type]
    assert (replies[0], replies[2]) == (b"PONG", b"PONG")
    assert isinstance(replies[1], ResponseError)
    atomic = [("INCR", "one"), ("INCR", "one")]
    assert await pipelined(stand_in, atomic, atomic=True) == [1, 2]  # type: ignore[arg-type]
    assert await pipelined(stand_in, []) == []  # type: ignore[arg-type]


def test_a_queue_goes_and_no_other(client: Inline) -> None:
    for key in ("{sim[1]*}:high", "{sim[1]*}:a:b", "{sim1}:high", "{sim[1]*x}:high", "other"):
        client.now("SET", key, "1")
    assert remove_queue(client, "{sim[1]*}:") == 2
    assert sorted(client.now("KEYS", "*")) == [b"other", b"{sim1}:high", b"{sim[1]*x}:high"]

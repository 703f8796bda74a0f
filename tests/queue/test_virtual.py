"""virtual.py: keys expire by the clock that is handed in, who waits is served in order, and a queue goes altogether."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest
from redis.exceptions import ResponseError

from streamq.queue import virtual
from streamq.queue.connection import command, pipelined
from streamq.queue.script import LUA, VERBS, Script
from streamq.queue.virtual import Doorbell, Inline, VirtualSpool, remove_queue, timed
from streamq.settings import load_settings
from streamq.simulate.clock import VirtualLoop

BEGIN_US = 1_767_225_600_000_000


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
    """`PEXPIRE`, `PTTL`, `PERSIST` go by the clock that is handed in. The others are renewed while anybody lives."""
    others = re.compile(r"\b(H?P?EXPIREAT|H?EXPIRE|HPEXPIRE|P?SETEX|GETEX|TTL|P?EXPIRETIME)\b|'(PX|EX|PXAT|EXAT)'")
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


def asked(client: Inline, now_us: int, body: str) -> object:
    """What a script says that is given that time."""
    script = timed(Script("own", ("now",), (), body, ""))
    _, reply = client.now("EVAL", script.source, 1, "{q}:", now_us)
    return reply


def test_keys_expire_in_virtual_time_and_in_no_other(client: Inline) -> None:
    asked(client, BEGIN_US, "redis.call('SET', KEYS[1] .. 'a', 1) return redis.call('PEXPIRE', KEYS[1] .. 'a', 2)")
    assert client.now("PTTL", "{q}:a") == -1
    exists = "return redis.call('EXISTS', KEYS[1] .. 'a')"
    assert asked(client, BEGIN_US, exists) == 1
    assert asked(client, BEGIN_US + 1999, exists) == 1
    assert asked(client, BEGIN_US + 2000, exists) == 0
    assert client.now("DBSIZE") == 0


def test_a_renewed_key_lives_on(client: Inline) -> None:
    renew = "redis.call('SET', KEYS[1] .. 'a', 1) return redis.call('PEXPIRE', KEYS[1] .. 'a', 2)"
    for at in range(3):
        asked(client, BEGIN_US + 1500 * at, renew)
    assert asked(client, BEGIN_US + 4500, "return redis.call('EXISTS', KEYS[1] .. 'a')") == 1


def test_a_key_may_be_kept_for_good(client: Inline) -> None:
    keep = "redis.call('SET', KEYS[1] .. 'a', 1) redis.call('PEXPIRE', KEYS[1] .. 'a', 2) "
    asked(client, BEGIN_US, keep + "return redis.call('PERSIST', KEYS[1] .. 'a')")
    assert asked(client, BEGIN_US + 9000, "return redis.call('EXISTS', KEYS[1] .. 'a')") == 1


def test_a_key_says_how_long_it_lives(client: Inline) -> None:
    asked(client, BEGIN_US, "redis.call('SET', KEYS[1] .. 'a', 1) return redis.call('PEXPIRE', KEYS[1] .. 'a', 9000)")
    left = "return {redis.call('PTTL', KEYS[1] .. 'a'), redis.call('PTTL', KEYS[1] .. 'none')}"
    assert asked(client, BEGIN_US + 2_000_000, left) == [7000, -2]


def test_a_script_says_whether_it_rang(client: Inline) -> None:
    for key, rang in (("bell", 1), ("other", 0)):
        script = timed(Script("own", ("now",), (), f"return redis.call('XADD', KEYS[1] .. '{key}', '*', 'a', 1)", ""))
        said = client.now("EVAL", script.source, 1, "{q}:", BEGIN_US)
        assert said[0] == rang
        assert said[1].endswith(b"-0")


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

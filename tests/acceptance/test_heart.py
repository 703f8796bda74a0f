"""What was promised of the heart, with whole programs: everything arrives, once, whatever is killed."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import orjson
import pytest

from bench.programs import Programs, feed, programs, until
from streamq.queue.check import check
from streamq.queue.connection import command
from streamq.queue.spool import Spool
from streamq.settings import load_settings

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]


async def _drained(spool: Spool) -> None:
    """Waits until no priority stream holds anything."""

    async def empty() -> bool:
        lengths = [await command(spool.redis, "XLEN", spool.keys.stream(name)) for name in spool.priorities]
        return not sum(lengths)

    await until(empty)


async def _ends(spool: Spool, final: str = "email.relayed") -> Counter[str]:
    """Final events per id."""
    ends: Counter[str] = Counter()
    last = "-"
    while rows := await command(spool.redis, "XRANGE", spool.keys.events, last, "+", "COUNT", 1000):
        for id_, flat in rows:
            last = f"({id_.decode()}"
            if flat[1].decode() == final:
                ends[flat[3].decode()] += 1
    return ends


async def _ambiguous(spool: Spool) -> set[str]:
    return set(await _entries(spool, "email.ambiguous"))


async def _entries(spool: Spool, kind: str) -> list[str]:
    rows = await command(spool.redis, "XRANGE", spool.keys.events, "-", "+")
    return [orjson.loads(flat[5])["entry"] for _, flat in rows if flat[1].decode() == kind]


async def _recipients_of(spool: Spool, entries: set[str]) -> set[str]:
    """By their relayed events."""
    rows = await command(spool.redis, "XRANGE", spool.keys.events, "-", "+")
    data = [orjson.loads(flat[5]) for _, flat in rows if flat[1].decode() == "email.relayed"]
    return {event["rcpt"] for event in data if event["entry"] in entries}


@pytest.mark.drained
async def test_twenty_thousand_mails_two_processes_each_once(server_url: str, tmp_path: Path) -> None:
    many = 20_000
    async with programs(tmp_path, server_url) as p:
        sink = await p.sink()
        spool = await Spool.connect(load_settings(), server_url)
        p.stack.push_async_callback(spool.close)
        await p.worker()
        await p.worker()
        await feed(spool, many, domain="example*.net")
        await sink.until(many)
        await _drained(spool)
        assert await p.stop_workers() == [0, 0]
        assert p.duplicates() == Counter()
        assert len({rcpt for _, rcpt in sink.accepted()}) == many
        ends = await _ends(spool)
        assert len(ends) == many
        assert set(ends.values()) == {1}
        assert (await check(spool)).clean
        assert await command(spool.redis, "XLEN", spool.keys.bell) == 0


async def _marked_doubles_only(p: Programs, spool: Spool) -> None:
    """Every mail that the sink has twice was marked ambiguous."""
    doubles = set(p.duplicates())
    assert doubles <= await _recipients_of(spool, await _ambiguous(spool))


@pytest.mark.drained
async def test_kill_9_in_the_middle(server_url: str, tmp_path: Path) -> None:
    many = 6_000
    async with programs(tmp_path, server_url) as p:
        sink = await p.sink()
        spool = await Spool.connect(load_settings(), server_url)
        p.stack.push_async_callback(spool.close)
        victim = await p.worker(lease_seconds=1, retry="100ms")
        await p.worker(lease_seconds=1, retry="100ms")
        await feed(spool, many, domain="example*.net")
        await sink.until(many // 3)
        victim.signal(signal.SIGKILL)
        await victim.process.wait()
        await _drained(spool)
        assert len({rcpt for _, rcpt in sink.accepted()}) == many
        await _marked_doubles_only(p, spool)
        ends = await _ends(spool)
        assert len(ends) == many
        assert set(ends.values()) == {1}
        await p.stop_workers()
        await spool.scripts.reap(0)


@pytest.mark.drained
async def test_a_worker_stopped_beyond_its_lease_steals_nothing_back(server_url: str, tmp_path: Path) -> None:
    many = 6_000
    async with programs(tmp_path, server_url) as p:
        sink = await p.sink()
        spool = await Spool.connect(load_settings(), server_url)
        p.stack.push_async_callback(spool.close)
        sleeper = await p.worker(lease_seconds=1, retry="100ms")
        other = await p.worker(lease_seconds=1, retry="100ms")
        await feed(spool, many, domain="example*.net")
        await sink.until(many // 3)
        sleeper.signal(signal.SIGSTOP)
        await _drained(spool)  # the other has reclaimed and sent what the sleeper held
        relayed = await _ends(spool)
        other.signal(signal.SIGSTOP)
        sleeper.signal(signal.SIGCONT)
        await feed(spool, 1, name="after")
        await sink.until_recipient("after0@example.net")
        await _drained(spool)
        other.signal(signal.SIGCONT)
        ends = await _ends(spool)
        ends.pop("after0")
        assert ends == relayed, "a late finish wrote a second end"
        assert set(ends.values()) == {1}
        assert len(ends) == many
        await _marked_doubles_only(p, spool)
        assert await p.stop_workers() == [0, 0]

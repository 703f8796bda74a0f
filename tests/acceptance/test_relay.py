"""What was promised of the courier: relays that lock us out, run dry, go away, or close on us, and not a mail lost."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from bench.programs import feed
from streamq.queue.check import check
from streamq.queue.connection import command
from streamq.queue.spool import Spool
from streamq.settings import load_settings
from streamq.sink import Rule, Rules, Sink, User
from streamq.worker import Worker

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240), pytest.mark.drained]


@asynccontextmanager
async def at_work(url: str, port: int, **settings: Any) -> AsyncIterator[Spool]:
    """One worker in this loop."""
    known = load_settings(relay=f"smtp://user:secret@127.0.0.1:{port}", retry="100ms,200ms,400ms", jitter=0, **settings)
    spool = await Spool.connect(known, url)
    worker = Worker(known, url)
    task = asyncio.create_task(worker.run())
    try:
        yield spool
    finally:
        worker.stop()
        await task
        await spool.close()


async def kinds(spool: Spool) -> Counter[str]:
    found: Counter[str] = Counter()
    last = "-"
    while rows := await command(spool.redis, "XRANGE", spool.keys.events, last, "+", "COUNT", 1000):
        found.update(flat[1].decode() for _, flat in rows)
        last = f"({rows[-1][0].decode()}"
    return found


async def until_event(spool: Spool, kind: str, after: str = "0") -> str:
    """Its id in the stream."""
    while True:
        found = await command(spool.reader, "XREAD", "COUNT", 500, "BLOCK", 5000, "STREAMS", spool.keys.events, after)
        for id_, flat in (row for _, rows in found or () for row in rows):
            after = id_.decode()
            if flat[1].decode() == kind:
                return after


async def all_once(spool: Spool, sink: Sink, many: int) -> None:
    await sink.wait_for(many)
    while sum([await command(spool.redis, "XLEN", spool.keys.stream(name)) for name in spool.priorities]):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert len(sink.ledger.recipients) == many
    assert not sink.ledger.repeated()
    found = await kinds(spool)
    assert found["email.relayed"] == many
    assert not {kind for kind in found if kind.startswith("email.")} - {"email.relayed", "email.deferred"}
    assert (await check(spool)).clean


USERS = (User(name="user", password="secret"),)
LOCKED_OUT = [
    Rule(stage="auth", reply="535 5.7.8 Authentication credentials invalid"),
    Rule(stage="mail", reply="535 5.7.8 Authentication credentials invalid"),
]
RAN_DRY = [Rule(stage="rcpt", reply="550 5.4.5 Daily user sending quota exceeded")]


@pytest.mark.parametrize("rules", [LOCKED_OUT, RAN_DRY], ids=["535", "550 5.4.5"])
async def test_an_account_that_fails_in_the_middle_kills_nothing(server_url: str, rules: Sequence[Rule]) -> None:
    many = 5_000
    async with Sink(keep=0, rules=Rules(users=USERS)) as sink, at_work(server_url, sink.port) as spool:
        await feed(spool, many, domain="example*.net")
        await sink.wait_for(many // 2)
        sink.follow(Rules(rules=tuple(rules), users=USERS))
        paused = await until_event(spool, "route.paused")
        sink.follow(Rules(users=USERS))
        await until_event(spool, "route.resumed", paused)
        await all_once(spool, sink, many)
        assert (await kinds(spool))["email.deferred"] == 0


async def test_a_relay_that_is_away_burns_no_attempt_and_is_found_by_one_probe(server_url: str) -> None:
    many = 300
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    async with at_work(server_url, port) as spool:
        await feed(spool, many, domain="example*.net")
        await until_event(spool, "route.paused")

        async def probes() -> int:
            state = await command(spool.redis, "HGET", spool.keys.pauses, "relay")
            return int(orjson.loads(state)["down"]) if state else 0

        while await probes() < 3:  # 1 s and 2 s: more than the three steps of the schedule together  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        before = await probes()
        async with Sink(keep=0, port=port, rules=Rules(users=USERS)) as sink:
            await sink.wait_for(1)
            # Each probe that fails counts; the one that succeeds has been handed out, and no further one.
            assert await probes() in {0, before, before + 1}
            await all_once(spool, sink, many)
            found = await kinds(spool)
            assert (found["email.deferred"], found["route.paused"], found["route.resumed"]) == (0, 1, 1)


async def test_a_server_that_closes_on_unread_commands_doubles_nothing(server_url: str, tmp_path: Path) -> None:
    """After five mails of a connection; the next one's MAIL, RCPT and DATA are answered by a reset."""
    many = 10_000
    rules = Rules(rules=(Rule(stage="mail", from_mail=6, action="unread"),), users=USERS)
    async with Sink(keep=0, rules=rules) as sink, at_work(server_url, sink.port) as spool:
        await feed(spool, many, domain="example*.net")
        await all_once(spool, sink, many)
        assert sink.counters.drops["mail unread"] >= many // 5 - 40
        assert (await kinds(spool))["email.deferred"] == 0

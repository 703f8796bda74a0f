"""Connections of a route over all workers, as whole programs: a worker that holds some is killed."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from pathlib import Path

import pytest

from bench.programs import feed, programs, until
from streamq.queue.connection import command
from streamq.queue.spool import Spool
from streamq.settings import load_settings
from streamq.sink import Sink, load_rules

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240), pytest.mark.leaves_mail]

MOST = 6
SLOW = '[[rule]]\nmatch = "*"\nstage = "dot"\ndelay_ms = 100\nreply = "250 2.0.0 slow"\n'
FULL = f'[[connections]]\nmost = {MOST}\nper = "all"\nreply = "421 4.7.0 Too many connections"\n'


async def test_kill_9_of_workers_that_hold_connections(server_url: str, tmp_path: Path) -> None:
    """Never more than there are, and all of them at work again within five seconds, by the sink's own count."""
    rules = tmp_path / "rules.toml"
    rules.write_text(SLOW + FULL)  # were there one more, it would be refused
    async with programs(tmp_path, server_url) as p, Sink(rules=load_rules(rules), keep=0) as sink:
        spool = await Spool.connect(load_settings(), p.url)
        p.stack.push_async_callback(spool.close)
        await feed(spool, 6000, domain="example*.net")
        # All at once: how many a route has at first is test_grant's matter, and these mails last for seconds.
        config = f'[adapt]\nramp = 0\n[routes.main]\nurl = "{sink.url}"\nconnections = {MOST}\n'
        workers = [await p.worker(config, lease_seconds=5) for _ in range(3)]
        await sink.wait_until(lambda: sink.counters.open == MOST)
        loop = asyncio.get_running_loop()

        async def all_hold_some(alive: int) -> bool:
            rows = await command(spool.redis, "HGETALL", spool.keys.grants("main"))
            stand = [int(row.split()[3]) for name, row in zip(rows[::2], rows[1::2], strict=True) if name != b"*"]
            return len(stand) == alive and min(stand) > 0 and sink.counters.open == MOST

        for alive, victim in ((3, workers[0]), (2, workers[1])):
            await until(partial(all_hold_some, alive), 20)
            before = sink.counters.connections
            victim.signal(signal.SIGKILL)
            await victim.process.wait()
            killed_at = loop.time()
            await sink.wait_until(lambda: sink.counters.open < MOST or sink.counters.connections > before)  # noqa: B023
            await sink.wait_until(lambda: sink.counters.open == MOST)
            assert loop.time() - killed_at < 5
        assert sink.counters.connections_refused == 0
        assert sink.counters.most_open == MOST

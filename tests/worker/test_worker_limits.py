"""Limits of queue and route, as a user sees them. Real sinks, real workers, a real server."""

from __future__ import annotations

import asyncio

import pytest
from crew import crew, rules_of

from streamq.queue.connection import command
from streamq.queue.look import consumers
from streamq.sink import Rules


async def test_with_a_limit_of_the_queue_nothing_parks_and_the_urgent_go_next(server_url: str) -> None:
    async with crew(server_url) as c:
        for number in range(40):
            await c.add("low", to=f"low{number}@example.net")
        await c.worker(limits={"rate": ["5/100ms"]})
        await c.until("email.relayed", many=5)
        before = len(c.sink.received)
        for number in range(5):
            await c.add("high", to=f"high{number}@example.net")
        await c.until("email.relayed", many=40)
        order = [mail.envelope_to[0] for mail in c.sink.received]
        assert len(order) == len(set(order)) == 45
        last = max(order.index(f"high{number}@example.net") for number in range(5))
        # Those that had a slot when the first one came, and the share of the lower.
        assert sum(name.startswith("low") for name in order[before:last]) <= 8
        parked = [f"parked:{p}" for p in range(3)]
        assert await command(c.spool.redis, "HMGET", c.spool.keys.counts, *parked) == [None] * 3  # never, not one


async def test_two_workers_share_the_limit_of_a_route(server_url: str) -> None:
    """All arrive once, and nothing parks."""
    async with crew(server_url) as c:
        ways = {"relay": None, "routes": {"main": {"url": c.sink.url, "rate": ["10/100ms"]}}}
        for _ in range(2):
            await c.worker(**ways)
        for number in range(60):
            await c.add(["high", "normal", "low"][number % 3], to=f"{number}@example.net")
        await c.until("email.relayed", many=60)
        assert len({mail.envelope_to[0] for mail in c.sink.received}) == len(c.sink.received) == 60


async def test_a_slot_that_runs_out_behind_a_slow_relay_is_asked_for_again(server_url: str, tmp_path: object) -> None:
    slow = rules_of(tmp_path, '[[rule]]\nmatch = "*"\nstage = "dot"\ndelay_ms = 30\n')
    async with crew(server_url, rules=slow) as c:
        worker = await c.worker(
            relay=None, routes={"main": {"url": c.sink.url, "connections": 1}}, sites={"*": {"rate": ["200/s"]}}
        )
        for number in range(20):
            await c.add(to=f"{number}@example.net")
        await c.until("email.relayed", many=20)
        assert len({mail.envelope_to[0] for mail in c.sink.received}) == len(c.sink.received) == 20
        assert worker.spool.scripts.caller.calls["turn"] > 0


async def test_a_worker_that_stops_hands_back_what_waits(server_url: str) -> None:
    async with crew(server_url, rules=Rules()) as c:
        worker = await c.worker(limits={"rate": ["1/1h"]})
        first = await c.add()
        await c.until("email.relayed")
        await command(c.spool.redis, "DEL", c.spool.keys.limits)
        rest = [await c.add() for _ in range(3)]
        await c.until("email.relayed", many=3)  # it looks once a second, and sees that there is no limit any more
        assert first not in rest
        assert not worker.turns


async def test_who_waits_for_an_hourly_slot_is_seen_all_the_same(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads nothing meanwhile: after a minute everybody took it for dead."""
    monkeypatch.setattr("streamq.worker.reader.SEEN_SECONDS", 0.01)
    monkeypatch.setattr("streamq.worker.keeper.RENEW_SECONDS", 0.01)
    async with crew(server_url) as c:
        worker = await c.worker(limits={"rate": ["1/1h"]})
        await c.add()
        await c.until("email.relayed")
        waiting = await c.add()
        seen, touch = asyncio.Event(), worker.spool.touch

        async def touched(consumer: str) -> None:
            await touch(consumer)
            seen.set()

        monkeypatch.setattr(worker.spool, "touch", touched)
        for _ in range(3):
            seen.clear()
            await seen.wait()
        [one] = await consumers(c.spool)
        assert one.name == worker.consumer
        assert one.idle_ms < 5000
        assert len(c.sink.received) == 1
        await command(c.spool.redis, "DEL", c.spool.keys.limits)
        await c.until("email.relayed", waiting)

"""`python -m bench heart`: what the heart of the queue is promised to do, measured on this machine.

idle      XADD to acceptance by the sink, one worker, nothing else to do: 100 mails, one at a time
schedule  how late a mail leaves whose `send_at` is a moment
drain     20,000 mails of 4 KB that wait already, two worker processes: mails a second, CPU seconds per 1,000
blocked   3,000 mails to healthy sites alone; then behind 30,000 to a site at 50 a second that are unread in front of
          them; 3,000 that come to waiting workers; and when 30,000 are parked (`--blocked`, `--healthy`, `--rate`)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.programs import Programs, feed, programs, rested, until
from streamq.queue.connection import command
from streamq.queue.look import status
from streamq.queue.spool import Spool
from streamq.settings import load_settings

SENT = ("evalsha", "xreadgroup", "xrange")


@dataclass(frozen=True, slots=True)
class Blocked:
    """So many mails to a site with that limit, and so many behind them to others."""

    blocked: int = 30_000
    healthy: int = 3_000
    rate: str = "50/s"

    @property
    def config(self) -> str:
        return f'[sites."slow.example"]\nrate = ["{self.rate}"]\n'


async def _server_stats(spool: Spool) -> dict[str, int]:
    """Commands that clients sent (XRANGE: those inside scripts, too), and the server's CPU in ms."""
    text = (await command(spool.redis, "INFO", "commandstats")).decode()
    calls = dict(line.split(":", 1) for line in text.splitlines() if line.startswith("cmdstat_"))
    named = {name[8:]: int(value.split(",", 1)[0][6:]) for name, value in calls.items()}
    cpu = dict(
        line.split(":", 1) for line in (await command(spool.redis, "INFO", "cpu")).decode().splitlines() if ":" in line
    )
    used = round(1000 * (float(cpu["used_cpu_sys"]) + float(cpu["used_cpu_user"])))
    sent = {name: named.get(name, 0) for name in SENT}
    return {**sent, "cpu_ms": used}


async def _spool(p: Programs) -> Spool:
    spool = await Spool.connect(load_settings(), p.url)
    p.stack.push_async_callback(spool.close)
    return spool


async def idle(p: Programs) -> dict[str, Any]:
    sink = await p.sink()
    spool = await _spool(p)
    await p.worker()
    took: list[float] = []
    before: dict[str, int] = {}
    for number in range(105):
        if number == 5:
            before = await _server_stats(spool)
        begun = time.time_ns()
        await command(
            spool.redis, "XADD", spool.keys.stream("normal"), "*", "id", f"i{number}", "from", "shop@example.com",
            "to", f"bob{number}@example.net", "subject", "Hi", "text", "Hello",
        )  # fmt: skip
        await sink.until(number + 1)
        took.append((sink.accepted()[-1][0] - begun) / 1e6)
        await asyncio.sleep(0.02)
    after = await _server_stats(spool)
    took = sorted(took[5:])
    late: list[float] = []
    for number in range(100):
        at_ms = time.time_ns() // 1_000_000 + 150
        await command(
            spool.redis, "XADD", spool.keys.stream("normal"), "*", "from", "shop@example.com", "send_at", at_ms,
            "to", f"at{number}@example.net", "subject", "Hi", "text", "Hello",
        )  # fmt: skip
        await sink.until(105 + number + 1)
        late.append(sink.accepted()[-1][0] / 1e6 - at_ms)
    late.sort()
    return {
        "xadd_to_sink_ms": {"median": statistics.median(took), "p99": took[98], "worst": took[-1]},
        "scheduled_late_ms": {"median": statistics.median(late), "p99": late[98], "worst": late[-1]},
        "commands_per_mail": {name: (after[name] - before[name]) / 100 for name in SENT},
    }


async def drain(p: Programs, many: int = 20_000, processes: int = 2) -> dict[str, Any]:
    sink = await p.sink()
    spool = await _spool(p)
    await feed(spool, many, domain="example*.net")
    before = await _server_stats(spool)
    cpu = p.children_cpu()
    begun = time.monotonic()
    for _ in range(processes):
        await p.worker()
    await sink.until(many)
    at = sink.accepted()
    seconds = (at[-1][0] - at[0][0]) / 1e9
    after = await _server_stats(spool)
    await p.stop_workers()
    used = p.children_cpu() - cpu
    trips = {name: (after[name] - before[name]) / many for name in ("evalsha", "xreadgroup")}
    return {
        "mails": many,
        "processes": processes,
        "mails_per_s": many / seconds,
        "seconds_with_start": time.monotonic() - begun,
        "worker_cpu_s_per_1000": used / many * 1000,
        "redis_cpu_s_per_1000": (after["cpu_ms"] - before["cpu_ms"]) / many,
        "commands_per_mail": {**trips, "sum": sum(trips.values())},
        "doubles": sum(many - 1 for many in p.duplicates().values()),
    }


async def _healthy(p: Programs, many: int, already: int) -> tuple[float, float]:
    """Seconds from the first worker's read to the last healthy mail; and the longest healthy wait after that."""
    assert p.sink_ is not None

    async def all_there() -> bool:
        assert p.sink_ is not None
        return sum("@ok" in rcpt for _, rcpt in p.sink_.accepted()) >= many

    await until(all_there)
    at = [ns for ns, rcpt in p.sink_.accepted() if "@ok" in rcpt]
    return (at[-1] - already) / 1e9, (at[-1] - at[0]) / 1e9


async def blocked(folder: Path, how: str, case: Blocked) -> dict[str, Any]:
    """how: alone and unread, where all waits before the workers start; fed and parked, where the healthy mails come to
    workers that are there: by themselves, and when all others are parked."""
    async with programs(folder) as p:
        await p.sink()
        spool = await _spool(p)
        if how in ("fed", "parked"):
            if how == "parked":
                await feed(spool, case.blocked, domain="slow.example", name="slow")
            await p.worker(case.config)
            await p.worker(case.config)

            async def all_parked() -> bool:
                now = await status(spool)
                return now.sum("waiting") == 0 and now.sum("leased") == 0

            await until(all_parked)
            await rested(spool)
            begun = time.time_ns()
            before = await _server_stats(spool)
            await feed(spool, case.healthy, domain="ok*.example", name="ok")
        else:
            if how == "unread":
                await feed(spool, case.blocked, domain="slow.example", name="slow")
            await feed(spool, case.healthy, domain="ok*.example", name="ok")
            await rested(spool)
            before = await _server_stats(spool)
            first, second = await asyncio.gather(p.worker(case.config), p.worker(case.config))
            assert first.consumer
            assert second.consumer
            begun = time.time_ns()
        seconds, span = await _healthy(p, case.healthy, begun)
        after = await _server_stats(spool)
        spent = {name: after[name] - before[name] for name in (*SENT, "cpu_ms")}
        return {"seconds": seconds, "first_to_last": span, **spent}


async def _rounds(folder: Path, rounds: int, case: Blocked) -> dict[str, Any]:
    """Alone, unread, fed, parked, by turns; the medians and what is promised of them."""
    results: dict[str, list[dict[str, Any]]] = {"alone": [], "unread": [], "fed": [], "parked": []}
    for number in range(rounds):
        for how, found in results.items():
            place = folder / f"{how}{number}"
            place.mkdir()
            found.append(await blocked(place, how, case))
    middle = {how: statistics.median(one["seconds"] for one in found) for how, found in results.items()}
    sent = {how: statistics.median(sum(one[name] for name in SENT) for one in found) for how, found in results.items()}
    cpu = {how: statistics.median(one["cpu_ms"] for one in found) for how, found in results.items()}
    return {
        **asdict(case),
        "median_seconds": middle,
        "parked_ratio": middle["parked"] / middle["fed"],
        "unread_us_per_blocked_beyond_1.2": (middle["unread"] - 1.2 * middle["alone"]) * 1e6 / case.blocked,
        "redis_cpu_us_per_blocked": (cpu["unread"] - cpu["alone"]) * 1e3 / case.blocked,
        "commands_per_blocked": (sent["unread"] - sent["alone"]) / case.blocked,
        "rounds": results,
    }


async def heart(only: str = "", rounds: int = 5, case: Blocked = Blocked()) -> dict[str, Any]:
    """`only`: idle, drain or blocked; "" all of them."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="sqb-") as name:
        folder = Path(name)
        for part in ("idle", "drain"):
            if only not in ("", part):
                continue
            (folder / part).mkdir()
            async with programs(folder / part) as p:
                found[part] = await (idle(p) if part == "idle" else drain(p))
        if only in ("", "blocked"):
            found["blocked"] = await _rounds(folder, rounds, case)
    return found


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("heart", parents=[common], help="latency, throughput, and sites that hold up nobody")
    one.add_argument("--only", choices=["idle", "drain", "blocked"], default="", help="one part of it")
    one.add_argument("--rounds", type=int, default=5, help="of what is compared by turns (5)")
    usual = Blocked()
    one.add_argument("--blocked", type=int, default=usual.blocked, help="mails to a limited site (30000)")
    one.add_argument("--healthy", type=int, default=usual.healthy, help="mails to others, behind them (3000)")
    one.add_argument("--rate", default=usual.rate, help="that site's limit (50/s)")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    found = asyncio.run(heart(asked.only, asked.rounds, Blocked(asked.blocked, asked.healthy, asked.rate)))
    return {"results": found}, True, json.dumps(found, indent=2)

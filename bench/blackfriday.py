"""`python -m bench blackfriday`: two million order confirmations at nine o'clock, and one-time codes all the while.

ORDERS    XADDed as fast as a producer can, to 500 domains with shares by rank (bench/orders.py). The ten largest are
          limited to 1.3 times what their share of two million over 8 minutes is, so that limits bind.
CODES     20 a second with priority high, from the first order until the last one is delivered.
WORKERS   Two processes, 20 connections each. The sink counts and keeps no bodies.
PROMISES  Two million in under 10 minutes; codes' 99th percentile under 250 ms, the server's forks included: how long it
          stood still for the last of them is in the table; as many relayed as came, and a clean `check`.
With fewer `--mails` the limits stay, so it takes as much less.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from bench.accounting import peak, used
from bench.content import KINDS
from bench.facts import of_server, of_settings
from bench.figures import percentile
from bench.latency import add_code, waits
from bench.orders import domain, shares
from bench.programs import Programs, SinkProcess, programs, until
from bench.server_books import books
from streamq.queue.check import check
from streamq.queue.connection import command
from streamq.queue.spool import Spool
from streamq.settings import load_settings

__all__ = ["Friday", "add", "blackfriday", "codes_of", "limits", "table"]

MAILS = 2_000_000
OVER_S, LIMITED, SLACK = 480, 10, 1.3
PROCESSES = 2
EVERY_S = 0.05
PROMISED_S, PROMISED_MS = 600.0, 250.0
CODES = "code.example"
LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Friday:
    """`fed_s`: until the producer was done; `seconds`: until all were delivered; `memory`: the server's most, in bytes,
    `computed`: 1.1 times the fields, and 200 and 50 bytes for lane and id; `fork_ms`: its last fork's standstill."""

    mails: int
    codes: int
    fed_s: float
    seconds: float
    cpu: float
    redis_cpu: float
    ms: dict[str, float]
    memory: int
    computed: int
    worker_peak: int
    fork_ms: float
    relayed: int
    wrong: int
    settings: dict[str, Any] = field(default_factory=dict)
    server: dict[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        quick = self.mails < MAILS or self.seconds <= PROMISED_S
        whole = self.relayed == self.mails + self.codes and not self.wrong
        return quick and whole and self.ms["p99"] <= PROMISED_MS and self.memory <= self.computed


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("blackfriday", parents=[common], help="two million orders, and codes that are urgent")
    one.add_argument("--mails", type=int, default=MAILS, help=f"({MAILS})")
    one.add_argument("--kind", choices=tuple(KINDS), default="1k", help="of the orders (1k)")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    found = asyncio.run(blackfriday(asked.mails, asked.kind))
    return {"results": asdict(found)}, found.good, table(found)


def limits() -> str:
    """Lines of streamq.toml for the largest domains."""
    lines = []
    for rank, share in enumerate(shares()[:LIMITED]):
        lines += [f'[sites."{domain(rank)}"]', f'rate = ["{ceil(SLACK * share * MAILS / OVER_S)}/s"]']
    return "\n".join(lines) + "\n"


def codes_of(lines: Iterable[str]) -> list[tuple[int, str]]:
    """Of a journal's lines, (ns, recipient) of the codes: of two million only those are kept that are asked for."""
    parts = (line.split(" ", 2) for line in lines if f"@{CODES} " in line)
    return [(int(part[0]), part[1]) for part in parts]


def _codes(sink: SinkProcess) -> list[tuple[int, str]]:
    with sink.journal.open(encoding="utf-8") as journal:
        return codes_of(journal)


async def _info(spool: Spool, section: str) -> dict[str, str]:
    text = (await command(spool.redis, "INFO", section)).decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


@dataclass(slots=True)
class _Day:
    """What is seen while it goes on."""

    added: dict[str, int] = field(default_factory=dict)
    memory: int = 0
    over: bool = False

    async def send_codes(self, spool: Spool) -> None:
        loop = asyncio.get_running_loop()
        next_ = loop.time()
        while not self.over:
            rcpt = f"c{len(self.added)}@{CODES}"
            self.added[rcpt] = await add_code(spool, "high", rcpt)
            next_ = max(loop.time(), next_ + EVERY_S)
            await asyncio.sleep(next_ - loop.time())

    async def watch(self, spool: Spool, sink: SinkProcess, mails: int) -> None:
        """Until all orders are there."""
        while sink.count() - len(self.added) < mails:
            self.memory = max(self.memory, int((await _info(spool, "memory"))["used_memory"]))
            await asyncio.sleep(LOOK_S)
        self.over = True


async def _produced(p: Programs, mails: int, kind: str) -> float:
    begun = time.monotonic()
    words = ("-m", "bench.orders", p.url, str(mails), kind, "1")
    process = await asyncio.create_subprocess_exec(sys.executable, *words)
    if await process.wait():
        raise RuntimeError("the producer failed")
    return time.monotonic() - begun


async def _rest(spool: Spool) -> bool:
    return not sum([await command(spool.redis, "XLEN", spool.keys.stream(name)) for name in spool.priorities])


async def blackfriday(mails: int, kind: str) -> Friday:
    with tempfile.TemporaryDirectory(prefix="sqb-") as folder:
        async with programs(Path(folder)) as p:
            sink = await p.sink(options=("--ledger-limit", "0"))
            spool = await Spool.connect(load_settings(), p.url)
            watcher = await Spool.connect(load_settings(), p.url)  # its looks stand in no code's way
            p.stack.push_async_callback(spool.close)
            p.stack.push_async_callback(watcher.close)
            config = f'[routes.main]\nurl = "{sink.url}"\nconnections = {20 * PROCESSES}\n{limits()}'
            for _ in range(PROCESSES):
                await p.worker(config, relay="")
            pids = [worker.process.pid for worker in p.workers]
            before, cpu, begun, day = await books(spool.redis), used(*pids), time.monotonic(), _Day()
            async with asyncio.TaskGroup() as group:
                producing = group.create_task(_produced(p, mails, kind))
                group.create_task(day.send_codes(spool))
                group.create_task(day.watch(watcher, sink, mails))
            seconds = time.monotonic() - begun
            await until(partial(_rest, spool), 120)
            spent, after = used(*pids) - cpu, await books(spool.redis)
            largest = max(peak(pid) for pid in pids)
            took = waits(day.added, _codes(sink))
            await p.stop_workers()
            counts = await command(spool.redis, "HGET", spool.keys.counts, "total:relayed")
            fields = sum(len(part) for part in KINDS[kind]("c1000000@shop100.example")) + len("ido1000000")
            return Friday(
                mails, len(took), producing.result(), seconds, spent, after.cpu - before.cpu,
                {"p50": percentile(took, 0.5), "p99": percentile(took, 0.99), "worst": max(took)},
                day.memory, round(mails * (1.1 * fields + 250)) + 20_000_000, largest,
                int((await _info(spool, "stats"))["latest_fork_usec"]) / 1000, int(counts or 0),
                len((await check(spool)).wrong),
                of_settings(load_settings(config=Path(folder) / "streamq0.toml")), await of_server(spool.redis),
            )  # fmt: skip


def table(found: Friday) -> str:
    every, ms = found.mails + found.codes, found.ms
    settings = ", ".join(f"{name} = {value}" for name, value in found.settings.items())
    return "\n".join(
        (
            f"{found.mails:,} orders: added in {found.fed_s:.1f} s, delivered in {found.seconds:.1f} s, "
            f"{found.mails / found.seconds:,.0f} a second",
            f"{found.codes:,} codes meanwhile: half within {ms['p50']:.1f} ms, 99 % within {ms['p99']:.1f}, all within "
            f"{ms['worst']:.1f} (promised: 99 % within {PROMISED_MS:.0f}); for its last fork the server stood still "
            f"for {found.fork_ms:.1f} ms",
            f"CPU for 1,000 mails: workers {found.cpu / every * 1000:.3f} s, "
            f"Redis {found.redis_cpu / every * 1000:.3f} s",
            f"memory: at the most {found.memory / 1e6:,.0f} MB of Redis (computed {found.computed / 1e6:,.0f}), "
            f"{found.worker_peak / 1e6:.0f} MB of a worker",
            f"relayed {found.relayed:,} of {every:,}; wrong {found.wrong}",
            f"promises: {'kept' if found.good else 'broken'}",
            f"settings: {settings}",
            "server: " + ", ".join(f"{name} {value}" for name, value in found.server.items()),
        )
    )

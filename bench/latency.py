"""`python -m bench latency`: from a mail's XADD to its 250, by the sink's own clock; 50th, 99th, 99.9th percentile.

IDLE     One worker with nothing else to do: mails one by one, 20 to 40 ms apart.
URGENT   Two workers drain a low-priority backlog; meanwhile a mail with priority high every 50 ms. Only those count
         that were added while the backlog was being delivered.

Every round has a server and a sink of its own; what is shown are medians of the rounds' percentiles. The time of an
XADD is taken before it is sent, that of the 250 where the sink writes the mail's line into its journal, in front of the
reply; both are this machine's clock.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.facts import of_server, of_settings
from bench.figures import columns, middle, percentile
from bench.programs import Programs, SinkProcess, feed, programs, rested
from streamq.queue.check import check
from streamq.queue.connection import command
from streamq.queue.spool import Spool
from streamq.settings import load_settings

__all__ = ["Waits", "add", "add_code", "latency", "table", "waits"]

IDLE, BACKLOG, ROUNDS = 1000, 200_000, 5
EVERY_S = 0.05
PROMISED_MS = {"idle": 15.0, "urgent": 50.0}  # of the 99th percentile
PARTS = tuple(PROMISED_MS)
SHARES = {"p50_ms": 0.5, "p99_ms": 0.99, "p99.9_ms": 0.999, "worst_ms": 1.0}


@dataclass(frozen=True, slots=True)
class Waits:
    """One round: `ms` by name of the percentile; `backlog_per_s`: mails a second of what drained meanwhile."""

    part: str
    mails: int
    ms: dict[str, float]
    backlog_per_s: float
    clean: bool
    settings: dict[str, Any]
    server: dict[str, str]


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("latency", parents=[common], help="XADD to 250, idle and under a backlog")
    one.add_argument("--mails", type=int, default=IDLE, help=f"of an idle round ({IDLE})")
    one.add_argument("--backlog", type=int, default=BACKLOG, help=f"mails of low priority ({BACKLOG})")
    one.add_argument("--processes", type=int, default=2, help="that drain it (2)")
    one.add_argument("--rounds", type=int, default=ROUNDS, help=f"({ROUNDS})")
    one.add_argument("--part", choices=PARTS, action="append", help="(each)")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    parts = asked.part or PARTS
    found = asyncio.run(latency(parts, asked.rounds, asked.mails, asked.backlog, asked.processes))
    medians = {part: middle(one.ms for one in found if one.part == part) for part in parts}
    good = all(one.clean for one in found) and all(medians[part]["p99_ms"] <= PROMISED_MS[part] for part in parts)
    return {"results": {"medians": medians, "rounds": [asdict(one) for one in found]}}, good, table(found)


def waits(added: Mapping[str, int], accepted: Sequence[tuple[int, str]]) -> list[float]:
    """Milliseconds of each mail that was added (recipient → ns) and accepted ((ns, recipient), in order): its first
    acceptance counts. Raises `ValueError` where one is missing."""
    first: dict[str, int] = {}
    for at, rcpt in accepted:
        first.setdefault(rcpt, at)
    missing = added.keys() - first.keys()
    if missing:
        raise ValueError(f"not accepted: {len(missing)} mails, {min(missing)} among them")
    return [(first[rcpt] - at) / 1e6 for rcpt, at in added.items()]


async def add_code(spool: Spool, priority: str, rcpt: str) -> int:
    """ns, before it went."""
    at = time.time_ns()
    await command(
        spool.redis, "XADD", spool.keys.stream(priority), "*", "id", rcpt, "from", "shop@example.com", "to", rcpt,
        "subject", "Your code", "text", "It is 123456.\n",
    )  # fmt: skip
    return at


async def _idle(p: Programs, spool: Spool, sink: SinkProcess, mails: int) -> tuple[dict[str, int], float]:
    chance = random.Random(1)
    await p.worker(events_kept=mails + 1000, events_bytes=10**11)
    added: dict[str, int] = {}
    for number in range(5):  # connections are open, scripts are known
        await add_code(spool, "normal", f"first{number}@example.net")
        await sink.until(number + 1)
    for number in range(mails):
        rcpt = f"bob{number}@example.net"
        added[rcpt] = await add_code(spool, "normal", rcpt)
        await asyncio.sleep(chance.uniform(0.02, 0.04))
    await sink.until(mails + 5)
    return added, 0.0


async def _urgent(
    p: Programs, spool: Spool, sink: SinkProcess, backlog: int, processes: int
) -> tuple[dict[str, int], float]:
    await feed(spool, backlog, domain="example*.net", priority="low")
    await rested(spool)
    for _ in range(processes):
        await p.worker(events_kept=2 * backlog + 1000, events_bytes=10**11)
    await sink.until(1)
    loop = asyncio.get_running_loop()
    begun = next_ = loop.time()
    added: dict[str, int] = {}
    while sink.count() - len(added) < backlog:
        rcpt = f"code{len(added)}@code.example"
        added[rcpt] = await add_code(spool, "high", rcpt)
        next_ = max(loop.time(), next_ + EVERY_S)
        await asyncio.sleep(next_ - loop.time())
    seconds = loop.time() - begun
    await sink.until(backlog + len(added))
    return added, backlog / seconds


async def _round(part: str, mails: int, backlog: int, processes: int) -> Waits:
    with tempfile.TemporaryDirectory(prefix="sqb-") as folder:
        async with programs(Path(folder)) as p:
            sink = await p.sink(options=("--ledger-limit", "0"))
            spool = await Spool.connect(load_settings(), p.url)
            p.stack.push_async_callback(spool.close)
            if part == "idle":
                added, rate = await _idle(p, spool, sink, mails)
            else:
                added, rate = await _urgent(p, spool, sink, backlog, processes)
            took = waits(added, sink.accepted())
            await p.stop_workers()
            return Waits(
                part,
                len(took),
                {name: percentile(took, share) for name, share in SHARES.items()},
                rate,
                (await check(spool)).clean,
                of_settings(
                    load_settings(
                        relay=sink.url,
                        events_kept=(mails if part == "idle" else 2 * backlog) + 1000,
                        events_bytes=10**11,
                    )
                ),
                await of_server(spool.redis),
            )


async def latency(parts: Sequence[str], rounds: int, mails: int, backlog: int, processes: int) -> list[Waits]:
    found = []
    for number in range(rounds):
        for part in parts:
            one = await _round(part, mails, backlog, processes)
            found.append(one)
            print(f"round {number + 1}: {part}: 99th percentile {one.ms['p99_ms']:.1f} ms", flush=True)
    return found


def table(found: Sequence[Waits]) -> str:
    rows = [
        ["", "rounds", "mails each", *(name.removesuffix("_ms") for name in SHARES), "backlog/s", "check", "promise"]
    ]
    for part in dict.fromkeys(one.part for one in found):
        each = [one for one in found if one.part == part]
        ms = middle(one.ms for one in each)
        rate = middle({"rate": one.backlog_per_s} for one in each)["rate"]
        kept = "kept" if ms["p99_ms"] <= PROMISED_MS[part] else "broken"
        clean = "clean" if all(one.clean for one in each) else "WRONG"
        few = min(one.mails for one in each)
        row = [part, str(len(each)), f"{few:,}", *(f"{ms[name]:.1f} ms" for name in SHARES)]
        rows.append([*row, f"{rate:,.0f}" if rate else "", clean, f"p99 ≤ {PROMISED_MS[part]:.0f} ms: {kept}"])
    lines = [columns(rows), "settings: " + ", ".join(f"{key} = {value}" for key, value in found[0].settings.items())]
    return "\n".join([*lines, "server: " + ", ".join(f"{key} {value}" for key, value in found[0].server.items())])

"""`python -m bench scale`: what does not grow with a backlog, and what distance costs.

FIFO    N small mails wait; two workers drain them: commands, script time and CPU of Redis for each of the first mails.
LANES   N mails are parked (their site is paused), the site is resumed: the same for each of the first that go.
REDIS   A drain where Redis answers a millisecond later: mails a second and CPU, against one without.
SMTP    A drain of 4 KB over 20 connections where the server answers 50 ms later, in each mode.

PROMISES  FIFO: commands at most 1.1 times those of the smallest backlog, and script time, which is a time, 1.25 times;
          lanes: at most 2 times. SMTP: 185 mails a second in `transaction`, 350 in `overlap` and with BDAT.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from bench.accounting import used
from bench.cases import BASE
from bench.facts import of_server
from bench.figures import columns, middle
from bench.gate import delivered, still
from bench.programs import Programs, feed, programs, rested, until
from bench.server_books import books
from streamq.queue.check import check
from streamq.queue.connection import command, connect
from streamq.queue.look import status
from streamq.queue.spool import Spool
from streamq.settings import load_settings

__all__ = ["PARTS", "Far", "add", "kept", "scale", "table"]

BACKLOGS = (1000, 10_000, 100_000, 1_000_000)
WINDOW = 5000  # the first mails, of which each is reckoned
WARM = 1000
MAILS, ROUNDS = 20_000, 3
REDIS_MS, SMTP_MS = 1.0, 50.0
PARTS = ("fifo", "lanes", "redis", "smtp")
SITE = "lane.example"
SECONDS = 900.0
GROWTH = {
    "fifo": {"commands_per_mail": 1.1, "script_us_per_mail": 1.25},
    "lanes": {"commands_per_mail": 2.0, "script_us_per_mail": 2.0},
}
LEAST_PER_S = {"transaction": 185.0, "overlap": 350.0, "bdat": 350.0}


@dataclass(frozen=True, slots=True)
class Far:
    """One run. `name`: the backlog, or the distance and the mode; `figures` by name."""

    part: str
    name: str
    figures: dict[str, float]
    clean: bool
    server: dict[str, str] = field(default_factory=dict)


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("scale", parents=[common], help="cost by backlog, and by distance")
    one.add_argument("--part", choices=PARTS, action="append", help="(each)")
    one.add_argument("--backlog", type=int, action="append", help=f"({', '.join(map(str, BACKLOGS))})")
    one.add_argument("--mails", type=int, default=MAILS, help=f"of a drain over a distance ({MAILS})")
    one.add_argument("--rounds", type=int, default=ROUNDS, help=f"({ROUNDS})")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    backlogs = sorted(asked.backlog or BACKLOGS)
    runs = asyncio.run(scale(asked.part or PARTS, backlogs, asked.mails, asked.rounds))
    return {"results": [asdict(run) for run in runs]}, all(kept(runs).values()), table(runs)


async def _spool(p: Programs) -> Spool:
    spool = await Spool.connect(load_settings(), p.url)
    p.stack.push_async_callback(spool.close)
    return spool


async def _workers(p: Programs, many: int, relay: str, mode: str = "transaction", **settings: Any) -> list[int]:
    config = replace(BASE, processes=many, mode=mode).settings.replace("main]\n", f'main]\nurl = "{relay}"\n', 1)
    made = [await p.worker(config, relay="", **settings) for _ in range(many)]
    return [worker.process.pid for worker in made]


async def _parked(spool: Spool, many: int) -> bool:
    now = await status(spool)
    return now.sum("parked") == many and not now.sum("waiting") and not now.sum("leased")


async def _site(p: Programs, verb: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamq", "--redis-url", p.url, "site", verb, SITE, stdout=asyncio.subprocess.DEVNULL
    )
    if await process.wait():
        raise RuntimeError(f"streamq site {verb} {SITE} ended with {process.returncode}")


async def _backlog(folder: Path, part: str, many: int) -> Far:
    lanes = part == "lanes"
    async with programs(folder) as p:
        sink = await p.sink(options=("--ledger-limit", "0"))
        spool = await _spool(p)
        pids = await _workers(p, 2, sink.url)
        await feed(spool, WARM, domain="example*.net", name="warm", kind="small")
        await delivered(sink, WARM, SECONDS)
        if lanes:
            await _site(p, "pause")
            await feed(spool, many, domain=SITE, kind="small")
            await until(partial(_parked, spool, many), SECONDS)
        else:
            sink.hold()
            await feed(spool, many, domain="example*.net", kind="small")
        await rested(spool)
        await still(pids)
        resuming = asyncio.create_task(_site(p, "resume")) if lanes else None
        if resuming is not None:
            await delivered(sink, WARM + 1, SECONDS)  # the command's own start is no part of it
        before, cpu, begun, there = await books(spool.redis), used(*pids), time.monotonic(), sink.count()
        sink.go()
        await delivered(sink, WARM + min(many, WINDOW), SECONDS)
        after, spent, seconds = await books(spool.redis), used(*pids) - cpu, time.monotonic() - begun
        went = sink.count() - there
        if resuming is not None:
            await resuming
        await p.stop_workers()
        figures = {"mails_per_s": went / seconds, "worker_cpu_s_per_1000": spent / went * 1000}
        clean = many > 200_000 or (await check(spool)).clean  # visiting a million takes minutes
        return Far(part, f"{many:,}", figures | after.since(before, went), clean, await of_server(spool.redis))


@asynccontextmanager
async def _wire(listen: str, target: str, ms: float) -> AsyncIterator[str]:
    """The address of one that is so much longer."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.proxy", listen, target, str(ms), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def _ping_ms(url: str) -> float:
    """The median of a hundred."""
    redis = connect(url)
    took = []
    for _ in range(100):
        begun = time.perf_counter()
        await command(redis, "PING")
        took.append((time.perf_counter() - begun) * 1000)
    await redis.aclose()
    return sorted(took)[50]


async def _drained(p: Programs, spool: Spool, relay: str, mails: int, mode: str, **settings: Any) -> dict[str, float]:
    assert p.sink_ is not None
    sink = p.sink_
    pids = await _workers(p, 1, relay, mode, **settings)
    await feed(spool, WARM, domain="example*.net", name="warm")
    await delivered(sink, WARM, SECONDS)
    sink.hold()
    await feed(spool, mails, domain="example*.net")
    await rested(spool)
    await still(pids)
    before, cpu, begun = await books(spool.redis), used(*pids), time.monotonic()
    sink.go()
    await delivered(sink, WARM + mails, SECONDS)
    seconds, spent = time.monotonic() - begun, used(*pids) - cpu
    figures = {"mails_per_s": mails / seconds, "worker_cpu_s_per_1000": spent / mails * 1000}
    return figures | (await books(spool.redis)).since(before, mails)


async def _far(folder: Path, part: str, mode: str, ms: float, mails: int) -> Far:
    async with programs(folder) as p:
        sink = await p.sink(options=("--ledger-limit", "0"))
        spool = await _spool(p)
        if part == "redis":
            socket = unquote(urlsplit(p.url).path)
            async with _wire(str(folder / "far"), socket, ms) as listens:
                url = f"unix://{listens}?db=0" if ms else p.url
                figures = await _drained(p, spool, sink.url, mails, mode, redis_url=url)
                figures["round_trip_ms"] = await _ping_ms(url)
                await p.stop_workers()
            name = f"{ms:g} ms"
        else:
            async with _wire("127.0.0.1:0", f"127.0.0.1:{sink.port}", ms) as listens:
                figures = await _drained(p, spool, f"smtp://{listens}", mails, mode)
                await p.stop_workers()
            name = f"{ms:g} ms, {mode}"
        return Far(part, name, figures, (await check(spool)).clean, await of_server(spool.redis))


async def scale(parts: Sequence[str], backlogs: Sequence[int], mails: int, rounds: int) -> list[Far]:
    few = max(500, mails // 10)  # 400 a second are a long time for 20,000
    plans = {
        "fifo": [partial(_backlog, part="fifo", many=many) for many in backlogs],
        "lanes": [partial(_backlog, part="lanes", many=many) for many in backlogs],
        "redis": [partial(_far, part="redis", mode="transaction", ms=ms, mails=mails) for ms in (0.0, REDIS_MS)],
        "smtp": [partial(_far, part="smtp", mode=mode, ms=SMTP_MS, mails=few) for mode in LEAST_PER_S],
    }
    runs = []
    for number in range(rounds):
        for part in parts:
            for plan in plans[part]:
                with tempfile.TemporaryDirectory(prefix="sqb-") as folder:
                    runs.append(await plan(Path(folder)))
                print(
                    f"round {number + 1}: {part}, {runs[-1].name}: {runs[-1].figures['mails_per_s']:,.0f} mails/s",
                    flush=True,
                )
    return runs


def _medians(runs: Sequence[Far]) -> dict[tuple[str, str], dict[str, float]]:
    keys = dict.fromkeys((run.part, run.name) for run in runs)
    return {key: middle(run.figures for run in runs if (run.part, run.name) == key) for key in keys}


def kept(runs: Sequence[Far]) -> dict[tuple[str, str], bool]:
    """By part and name, whether its promise holds."""
    medians = _medians(runs)
    found = {}
    for (part, name), known in medians.items():
        good = all(run.clean for run in runs if (run.part, run.name) == (part, name))
        if part in GROWTH:
            first = next(each for (other, _), each in medians.items() if other == part)
            good &= all(known[figure] <= most * first[figure] for figure, most in GROWTH[part].items())
        if part == "smtp":
            good &= known["mails_per_s"] >= LEAST_PER_S[name.rpartition(" ")[2]]
        found[part, name] = good
    return found


def table(runs: Sequence[Far]) -> str:
    shown = {
        "mails_per_s": ("mails/s", ",.0f"),
        "worker_cpu_s_per_1000": ("CPU s/1000", ".3f"),
        "redis_cpu_s_per_1000": ("Redis CPU", ".3f"),
        "round_trips_per_mail": ("trips/mail", ".3f"),
        "commands_per_mail": ("commands", ".2f"),
        "script_us_per_mail": ("script µs", ".1f"),
        "round_trip_ms": ("PING ms", ".2f"),
    }
    rows = [["part", *(head for head, _ in shown.values()), "promise"]]
    held = kept(runs)
    for (part, name), known in _medians(runs).items():
        cells = [format(known[figure], how) if figure in known else "" for figure, (_, how) in shown.items()]
        rows.append([f"{part}, {name}", *cells, "kept" if held[part, name] else "broken"])
    server = ", ".join(f"{key} {value}" for key, value in runs[0].server.items())
    return "\n".join([columns(rows), f"settings: {'; '.join(BASE.settings.splitlines())}", f"server: {server}"])

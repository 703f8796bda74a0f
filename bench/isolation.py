"""`python -m bench isolation`: mails to a domain that answers 450, then healthy ones, against these alone.

Both stand in the queue, the refused ones in front, when the first mail may go; what is measured is the time until the
last healthy one was accepted. All go through one relay (the sink), with 20 connections a process.

CLIENTS  streamq: two workers; Postfix, tuned, releases them from its hold queue; dramatiq, two processes of 16 threads,
         its own retries. By turns, alone and behind the others; ratios within rounds, medians.
PROMISE  streamq: at most 1.2 times as long as alone, and 100 µs for each mail that was refused until then.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.accounting import used
from bench.cases import BASE, CONNECTIONS
from bench.contenders import feed_peer, inject, peer_workers, release
from bench.facts import version
from bench.figures import columns, ratio
from bench.gate import delivered, poised, still
from bench.mta import mta
from bench.package import Missing
from bench.postfix import relaying_to, tuned
from bench.programs import BODY, Programs, SinkProcess, feed, programs, rested
from streamq import __version__
from streamq.queue.check import check
from streamq.queue.spool import Spool
from streamq.settings import load_settings

__all__ = ["CLIENTS", "Behind", "add", "isolation", "promised_s", "table"]

CLIENTS = ("streamq", "postfix", "dramatiq")
REFUSED, HEALTHY, ROUNDS = 20_000, 1000, 5
PROCESSES = 2
REPLY = "450 4.2.0 Try again later"
BAD, GOOD = "slow.example", "ok*.example"
SECONDS = 600.0
MOST_RATIO, MOST_S = 1.2, 100e-6


@dataclass(frozen=True, slots=True)
class Behind:
    """`seconds` until the last healthy mail was accepted, `refused`: replies 450 until then; `waiting`: mails to the
    other domain in front."""

    client: str
    version: str = ""
    waiting: int = 0
    healthy: int = 0
    seconds: float = 0.0
    refused: int = 0
    cpu: float = 0.0
    clean: bool = True
    skipped: str = ""


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("isolation", parents=[common], help="healthy mail behind mail that is refused")
    one.add_argument("--refused", type=int, default=REFUSED, help=f"mails to the domain that refuses ({REFUSED})")
    one.add_argument("--healthy", type=int, default=HEALTHY, help=f"({HEALTHY})")
    one.add_argument("--reply", default=REPLY, help=f"of that domain ({REPLY})")
    one.add_argument("--rounds", type=int, default=ROUNDS, help=f"({ROUNDS})")
    one.add_argument("--client", choices=CLIENTS, action="append", help="(each)")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    clients = asked.client or CLIENTS
    runs = asyncio.run(isolation(clients, asked.rounds, asked.refused, asked.healthy, asked.reply))
    return {"reply": asked.reply, "results": [asdict(run) for run in runs]}, _kept(runs), table(runs)


def promised_s(alone: Sequence[Behind], behind: Sequence[Behind]) -> float:
    """Median of the rounds' own: so long it may take."""
    return statistics.median(
        MOST_RATIO * one.seconds + MOST_S * other.refused for one, other in zip(alone, behind, strict=True)
    )


async def _sink(p: Programs, reply: str) -> SinkProcess:
    return await p.sink(options=("--ledger-limit", "0", "--reply", f"*@{BAD}={reply}"))


async def _refused(sink: SinkProcess) -> int:
    counts = await sink.counts()
    return sum(many for name, many in counts["refused_by"].items() if not name.startswith("greeting"))


async def _by_streamq(folder: Path, waiting: int, healthy: int, reply: str) -> Behind:
    async with programs(folder) as p:
        sink = await _sink(p, reply)
        spool = await Spool.connect(load_settings(), p.url)
        p.stack.push_async_callback(spool.close)
        config = replace(BASE, processes=PROCESSES).settings.replace("main]\n", f'main]\nurl = "{sink.url}"\n', 1)
        for _ in range(PROCESSES):
            await p.worker(config, relay="", events_kept=2 * (waiting + healthy) + 10_000, events_bytes=10**11)
        pids = [worker.process.pid for worker in p.workers]
        await feed(spool, 1000, domain="example*.net", name="warm")
        await delivered(sink, 1000, SECONDS)
        sink.hold()
        await feed(spool, waiting, domain=BAD, name="slow")
        await feed(spool, healthy, domain=GOOD)
        await rested(spool)
        if not await still(pids):
            raise RuntimeError("the workers do not come to rest")
        cpu, begun = used(*pids), asyncio.get_running_loop().time()
        sink.go()
        seconds = await delivered(sink, 1000 + healthy, SECONDS) - begun
        spent, refused = used(*pids) - cpu, await _refused(sink)
        await p.stop_workers()
        clean = (await check(spool)).clean
        return Behind("streamq", __version__, waiting, healthy, seconds, refused, spent, clean)


async def _by_postfix(folder: Path, waiting: int, healthy: int, reply: str) -> Behind:
    async with programs(folder, "unused") as p:
        sink = await _sink(p, reply)
        at_once = CONNECTIONS * PROCESSES
        with mta("postfix", relaying_to(sink.port, at_once, tuned(held=True))) as server:
            if waiting:
                await inject(server, waiting, len(BODY), f"bob@{BAD}")
            await inject(server, healthy, len(BODY), "bob@ok.example")
            await still([server.process.pid])
            cpu, begun = used(server.process.pid), asyncio.get_running_loop().time()
            await asyncio.to_thread(release, server)
            seconds = await delivered(sink, healthy, SECONDS) - begun
            spent = used(server.process.pid) - cpu
            return Behind("postfix", server.version, waiting, healthy, seconds, await _refused(sink), spent)


async def _by_dramatiq(folder: Path, waiting: int, healthy: int, reply: str) -> Behind:
    async with programs(folder) as p:
        sink = await _sink(p, reply)
        known = {**os.environ, "PEER_REDIS": p.url, "PEER_RELAY": f"127.0.0.1:{sink.port}"}
        if waiting:
            await feed_peer("dramatiq", waiting, "4k", known, BAD)
        await feed_peer("dramatiq", healthy, "4k", known, GOOD)
        sink.hold()
        async with peer_workers("dramatiq", PROCESSES, known, folder) as roots:
            if not await poised(sink, roots, PROCESSES):
                raise RuntimeError("dramatiq does not connect")
            cpu, begun = used(*roots), asyncio.get_running_loop().time()
            sink.go()
            seconds = await delivered(sink, healthy, SECONDS) - begun
            spent = used(*roots) - cpu
            return Behind("dramatiq", version("dramatiq"), waiting, healthy, seconds, await _refused(sink), spent)


RUNS = {"streamq": _by_streamq, "postfix": _by_postfix, "dramatiq": _by_dramatiq}


async def isolation(clients: Sequence[str], rounds: int, waiting: int, healthy: int, reply: str) -> list[Behind]:
    """A client that is missing is skipped once; one that takes too long ends its round with that time."""
    runs: list[Behind] = []
    missing: set[str] = set()
    for number in range(rounds):
        for client in clients:
            for many in (0, waiting) if client not in missing else ():
                with tempfile.TemporaryDirectory(prefix="sqb-") as folder:
                    run = Behind(client, waiting=many, healthy=healthy, seconds=SECONDS)
                    try:
                        with suppress(TimeoutError):
                            run = await RUNS[client](Path(folder), many, healthy, reply)
                    except Missing as why:
                        run = Behind(client, skipped=str(why))
                runs.append(run)
                print(f"round {number + 1}: {client}, {many:,} in front: {run.seconds:.2f} s", flush=True)
                if run.skipped:
                    missing.add(client)
                    break
    return runs


def _pairs(runs: Sequence[Behind], client: str) -> tuple[list[Behind], list[Behind]]:
    """Alone, and behind the others; as many of each."""
    own = [run for run in runs if run.client == client and not run.skipped]
    return [run for run in own if not run.waiting], [run for run in own if run.waiting]


def _kept(runs: Sequence[Behind]) -> bool:
    alone, behind = _pairs(runs, "streamq")
    if not behind:
        return True
    return statistics.median(run.seconds for run in behind) <= promised_s(alone, behind) and all(
        run.clean for run in (*alone, *behind)
    )


def table(runs: Sequence[Behind]) -> str:
    rows = [["client", "rounds", "alone s", "behind s", "times", "refused", "µs each", "CPU s", "promise", "version"]]
    for client in dict.fromkeys(run.client for run in runs):
        alone, behind = _pairs(runs, client)
        if not behind:
            continue
        first, then = (statistics.median(run.seconds for run in each) for each in (alone, behind))
        refused = statistics.median(run.refused for run in behind)
        rows.append(
            [client, str(len(behind)), f"{first:.2f}", f"{then:.2f}",
             f"{ratio([run.seconds for run in behind], [run.seconds for run in alone]):.1f}", f"{refused:,.0f}",
             f"{(then - first) / max(1, refused) * 1e6:,.0f}", f"{statistics.median(run.cpu for run in behind):.2f}",
             f"{promised_s(alone, behind):.2f} s: {'kept' if _kept(runs) else 'broken'}" if client == "streamq" else "",
             behind[0].version]
        )  # fmt: skip
    lines = [columns(rows), *(f"{run.client}: skipped: {run.skipped}" for run in runs if run.skipped)]
    return "\n".join(
        [*lines, "settings of streamq: " + "; ".join(replace(BASE, processes=PROCESSES).settings.split("\n"))]
    )

"""`python -m bench limits`: what a limit lets through, and how much of it is used.

First the ways to count, held against each other (limiters.py); then workers in virtual time (use.py); then whole
programs: worker processes, a sink that notes when each MAIL came, and more mail than may go.

most   mails at the sink in any window of W, of any phase, as a share of N
-j     the same in any window that is shorter by what the wire and the sink's own loop may squeeze together (JITTER)
use    mails that came, as a share of N for each W, from WARM seconds on: connections are opened one by one, and what
       stands in front is read and parked
scripts  calls of scripts a mail, of all workers
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import limiters, use
from bench.limiters import most_in_any
from bench.programs import feed, programs, until
from streamq.queue.connection import command, connect
from streamq.queue.spool import Spool
from streamq.server import start
from streamq.settings import load_settings
from streamq.sink import Sink

__all__ = ["Held", "add", "limits", "table"]

JITTER = 0.005  # seconds
WARM = 1.0
RULES = ("20/100ms", "100/s", "300/5s")
WORKERS = (1, 4, 16)
SPAN = 6.0  # seconds of each run, and twelve windows at least


@dataclass(frozen=True, slots=True)
class Held:
    scope: str
    rule: str
    workers: int
    mails: int
    most: float
    most_less_jitter: float
    use: float
    scripts: float

    @property
    def good(self) -> bool:
        return self.most_less_jitter <= 1.0 and self.use >= 0.95


def _config(scope: str, rule: str, url: str) -> str:
    rate = f'rate = ["{rule}"]\n'
    route = f'[routes.main]\nurl = "{url}"\n'
    return {"queue": f"[limits]\n{rate}{route}", "route": route + rate, "site": f'{route}[sites."*"]\n{rate}'}[scope]


async def held(scope: str, rule: str, workers: int) -> Held:
    window = load_settings(limits={"rate": [rule]}).limits.rate[0]
    n, w = window.count, window.window_ms / 1000
    span = max(SPAN, 12 * w)
    times: list[int] = []  # ns, of each MAIL
    with tempfile.TemporaryDirectory() as folder:
        async with programs(Path(folder)) as p, Sink(keep=0, on_mail=lambda mail: times.append(mail.mail_ns)) as sink:
            spool = await Spool.connect(load_settings(), p.url)
            p.stack.push_async_callback(spool.close)
            for _ in range(workers):
                await p.worker(_config(scope, rule, sink.url), in_hand=50)
            await feed(spool, round(n / w * (WARM + span) * 1.1) + 2 * n)
            before = await _calls(spool)

            async def over() -> bool:
                return bool(times) and max(times) - min(times) >= (WARM + span) * 1e9

            await until(over, (WARM + span) * 4)
            calls = await _calls(spool) - before
            came = len(times)
            for worker in p.workers:
                worker.signal(signal.SIGTERM)
            await p.stop_workers()
    times.sort()
    inside = [at for at in times if WARM * 1e9 <= at - times[0] < (WARM + span) * 1e9]
    return Held(
        scope,
        rule,
        workers,
        len(inside),
        most_in_any(times, round(w * 1e9)) / n,
        most_in_any(times, round((w - JITTER) * 1e9)) / n,
        len(inside) / (n / w * span),
        calls / came,
    )


async def _calls(spool: Spool) -> int:
    """Of scripts, so far."""
    text = (await command(spool.redis, "INFO", "commandstats")).decode()
    line = next((each for each in text.splitlines() if each.startswith("cmdstat_evalsha:")), "calls=0,")
    return int(line.partition("calls=")[2].partition(",")[0])


async def limits(scopes: Sequence[str], rules: Sequence[str], workers: Sequence[int]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        server = start(load_settings(), directory=Path(folder))
        redis = connect(server.url)
        try:
            kinds = await limiters.limiters(redis)
        finally:
            await redis.aclose()
            server.close()
    runs = [await held(scope, rule, many) for scope in scopes for rule in rules for many in workers]
    return {
        "kinds": [asdict(row) for row in kinds],
        "held": [asdict(run) for run in runs],
        "good": all(r.good for r in runs),
    }


def virtual(asked: argparse.Namespace) -> list[use.Used]:
    if asked.real:
        return []
    return use.used(asked.scope or use.SCOPES, asked.rule or use.RULES, asked.workers or WORKERS)


def table(found: dict[str, Any]) -> str:
    rows = [Held(**run) for run in found["held"]]
    lines = [f"{'':>6} {'rule':>9} {'workers':>7} {'mails':>6} {'most':>6} {'-j':>6} {'use':>7} {'scripts/mail':>12}"]
    lines += [
        f"{row.scope:>6} {row.rule:>9} {row.workers:7} {row.mails:6,} {row.most:6.3f} {row.most_less_jitter:6.3f}"
        f" {row.use:7.1%} {row.scripts:12.2f}"
        for row in rows
    ]
    kinds = limiters.table([limiters.Row(**row) for row in found["kinds"]])
    virtual_rows = use.table([use.Used(**row) for row in found["virtual"]])
    return "\n".join([kinds, "", virtual_rows, "", "in life", *lines])


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("limits", parents=[common], help="what a limit lets through, and how much of it is used")
    one.add_argument("--scope", choices=use.SCOPES, action="append", help="what has the limit (each)")
    one.add_argument("--rule", action="append", help="the limit (20/100ms, 100/s, 300/5s)")
    one.add_argument("--workers", type=int, action="append", help="processes (1, 4, 16)")
    one.add_argument("--real", action="store_true", help="not in virtual time")
    one.add_argument("--virtual", action="store_true", help="in virtual time only")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    rules = [] if asked.virtual else asked.rule or RULES
    rows = virtual(asked)
    found = asyncio.run(limits(asked.scope or use.SCOPES, rules, asked.workers or WORKERS))
    found |= {"virtual": [asdict(row) for row in rows], "good": found["good"] and all(row.good for row in rows)}
    return {"results": found}, found["good"], table(found)

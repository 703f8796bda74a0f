"""`python -m bench scheduler`: Postfix's experiment (SCHEDULER_README), and the same with a rate and a penalty box.

A server takes 5 connections at once and answers 421 beyond, or takes 50 mails a second and answers 450 beyond; a client
may open 20 connections, and knows nothing of it. Alone, and with a box: who was refused three times within a minute is
blocked for half a minute, and twice as long whenever it knocks meanwhile.

CLIENTS  `known`: streamq with the server's limit in its settings; `streamq`: two workers, `connections = 20`, no other
         limit; `postfix`: Debian's, as it comes but for default_destination_concurrency_limit = 20, all mail by
         relayhost. Each has a fresh server, and its own time: twice what the limit allows, and five seconds.
COUNTED  at the server: connections that were refused at their greeting, as a share of all; replies 4xx to a mail, as
         a share of the mails; mails a second from the first to the last acceptance (where not all came, to the
         end of the time). At the client: mails that it deferred, each once.
PROMISE  At most 2 % of mails and of connections meet a refusal, at 90 % of the goodput of `known` or more.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import smtplib
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.arguments import few
from bench.mta import Mta, mta
from bench.package import Missing
from bench.postfix import relaying_to
from bench.programs import BODY, Programs, SinkProcess, feed, programs
from streamq.queue.connection import command
from streamq.queue.spool import Spool
from streamq.settings import load_settings

__all__ = ["CASES", "CLIENTS", "Run", "add", "results", "scheduler", "table"]

AT_ONCE, SERVED, A_SECOND = 20, 5, 50
REPLY_MS = 15  # of the server to a dot: what makes connections worth having
MAILS, SECONDS = 8_000, 5.0  # of connections; of time, beside twice the least
FEEDERS = 4
MOST_REFUSED, LEAST_GOODPUT = 0.02, 0.9

CONNECTIONS = f"""
[[connections]]
most = {SERVED}
reply = "421 4.7.0 Error: too many connections from 127.0.0.1"
"""
RATE = f"""
[[rate]]
most = {A_SECOND}
seconds = 1
stage = "mail"
reply = "450 4.7.1 Error: too much mail from 127.0.0.1"
"""
BOX = """
[[penalty]]
offences = 3
within_seconds = 60
block_seconds = 30
factor = 2
"""
SLOW = f"""
[[rule]]
match = "*"
stage = "dot"
delay_ms = {REPLY_MS}
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A server, and the line of a route's settings that says its limit. `rate`: mails a second that it can take."""

    rules: str
    known: str
    rate: float
    part: float  # of the mails that the first case has: each case takes as long

    def mails(self, many: int) -> int:
        return max(1, round(many * self.part))

    def most_seconds(self, many: int) -> float:
        return 2 * self.mails(many) / self.rate + SECONDS


FIVE = Case(CONNECTIONS + SLOW, f"connections = {SERVED}", SERVED * 1000 / REPLY_MS, 1.0)
FIFTY = Case(RATE + SLOW, f'connections = {AT_ONCE}\nrate = ["{A_SECOND}/s"]', A_SECOND, A_SECOND / FIVE.rate)
CASES = {
    "connections": FIVE,
    "connections, box": Case(FIVE.rules + BOX, FIVE.known, FIVE.rate, FIVE.part),
    "rate": FIFTY,
    "rate, box": Case(FIFTY.rules + BOX, FIFTY.known, FIFTY.rate, FIFTY.part),
}
CLIENTS = ("known", "streamq", "postfix")


@dataclass(frozen=True, slots=True)
class Run:
    """`ratio`: of the goodput of `known` in the same case. `skipped`: why there is none."""

    case: str
    client: str
    version: str = ""
    mails: int = 0
    accepted: int = 0
    seconds: float = 0.0
    goodput: float = 0.0
    ratio: float = 0.0
    connections: int = 0
    refused_connections: int = 0
    refused_mails: int = 0
    deferred: int = 0
    skipped: str = ""

    @property
    def of_connections(self) -> float:
        return self.refused_connections / max(1, self.connections)

    @property
    def of_mails(self) -> float:
        return max(self.refused_mails, self.deferred) / max(1, self.mails)

    @property
    def good(self) -> bool:
        few = max(self.of_connections, self.of_mails) <= MOST_REFUSED
        return few and self.ratio >= LEAST_GOODPUT


async def _all_came(sink: SinkProcess, many: int, seconds: float) -> None:
    """Or the time is over."""
    with suppress(TimeoutError):
        await sink.until(many, seconds)


async def _found(case: str, client: str, version: str, sink: SinkProcess, many: int, deferred: int) -> Run:
    counts = await sink.counts()
    at = [ns / 1e9 for ns, _ in sink.accepted()]
    last = at[-1] if len(at) >= many else time.time()
    seconds = max(0.001, last - at[0]) if at else CASES[case].most_seconds(MAILS)
    refused = {name: number for name, number in counts["refused_by"].items() if not name.startswith("greeting")}
    return Run(
        case=case,
        client=client,
        version=version,
        mails=many,
        accepted=len(at),
        seconds=round(seconds, 2),
        goodput=round(len(at) / seconds, 1),
        connections=counts["connections"],
        refused_connections=counts["connections_refused"],
        refused_mails=sum(refused.values()),
        deferred=deferred,
    )


async def _deferred(spool: Spool) -> int:
    """Mails of which an attempt said: not now."""
    names: set[bytes] = set()
    last = "-"
    while rows := await command(spool.redis, "XRANGE", spool.keys.events, last, "+", "COUNT", 1000):
        last = f"({rows[-1][0].decode()}"
        names.update(flat[3] for _, flat in rows if flat[1] in (b"email.deferred", b"email.throttled"))
    return len(names)


async def _by_streamq(p: Programs, name: str, client: str, many: int) -> Run:
    case = CASES[name]
    sink = await p.sink(case.rules)
    spool = await Spool.connect(load_settings(), p.url)
    p.stack.push_async_callback(spool.close)
    await feed(spool, case.mails(many), domain="example*.net")
    limit = case.known if client == "known" else f"connections = {AT_ONCE}"
    for _ in range(2):
        await p.worker(f'[routes.main]\nurl = "{sink.url}"\n{limit}\n', relay="")
    await _all_came(sink, case.mails(many), case.most_seconds(many))
    run = await _found(name, client, "", sink, case.mails(many), await _deferred(spool))
    await p.stop_workers()
    return run


def _hand_over(port: int, numbers: Sequence[int]) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        for number in numbers:
            client.sendmail("shop@example.com", [f"m{number}@example{number % 200}.net"], BODY)


def _said_deferred(server: Mta) -> int:
    return len(set(re.findall(r"postfix/(?:smtp|error|qmgr)\[\d+\]: (\w+): to=.*status=deferred", server.said())))


async def _by_postfix(p: Programs, name: str, many: int) -> Run:
    case = CASES[name]
    sink = await p.sink(case.rules)
    mails = case.mails(many)
    try:
        with mta("postfix", relaying_to(sink.port, AT_ONCE)) as server:
            feeding = [
                asyncio.to_thread(_hand_over, server.port, range(start, mails, FEEDERS)) for start in range(FEEDERS)
            ]
            await asyncio.gather(*feeding)
            await _all_came(sink, mails, case.most_seconds(many))
            return await _found(name, "postfix", server.version, sink, mails, _said_deferred(server))
    except Missing as why:
        return Run(name, "postfix", skipped=str(why))


async def scheduler(
    many: int = MAILS, cases: Sequence[str] = tuple(CASES), clients: Sequence[str] = CLIENTS
) -> list[Run]:
    """One after the other. `many`: mails of the first case, of the others as many as take as long."""
    runs: list[Run] = []
    for name in cases:
        known = 0.0
        for client in clients:
            with tempfile.TemporaryDirectory(prefix="sqb-") as folder:
                async with programs(Path(folder)) as p:
                    postfix = client == "postfix"
                    run = await (_by_postfix(p, name, many) if postfix else _by_streamq(p, name, client, many))
            known = run.goodput if client == "known" else known
            runs.append(_rated(run, known))
    return runs


def _rated(run: Run, known: float) -> Run:
    return replace(run, ratio=round(run.goodput / known, 3)) if known else run


def table(runs: Sequence[Run]) -> str:
    columns = (
        "server", "client", "mails", "came", "s", "mails/s", "of known", "connections", "refused", "mails refused",
        "deferred", "promise",
    )  # fmt: skip
    rows = [columns]
    for run in runs:
        if run.skipped:
            continue
        promise = ("kept" if run.good else "broken") if run.client == "streamq" else ""
        mails = max(1, run.mails)
        rows.append(
            (run.case, f"{run.client} {run.version}".strip(), f"{mails:,}", f"{run.accepted:,}", f"{run.seconds:.1f}",
             f"{run.goodput:.1f}", f"{run.ratio:.0%}", f"{run.connections:,}", f"{run.of_connections:.1%}",
             f"{run.refused_mails / mails:.1%}", f"{run.deferred / mails:.1%}", promise)
        )  # fmt: skip
    wide = [max(len(row[at]) for row in rows) for at in range(len(columns))]
    lines = ["  ".join(text.rjust(size) for text, size in zip(row, wide, strict=True)) for row in rows]
    return "\n".join([*lines, *(f"{run.case}, {run.client}: skipped: {run.skipped}" for run in runs if run.skipped)])


def results(runs: Sequence[Run]) -> list[dict[str, Any]]:
    return [{**asdict(run), "good": run.good} for run in runs]


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("scheduler", parents=[common], help="a server that takes few connections, or a rate")
    one.add_argument("--mails", type=few, default=MAILS, help=f"of the first case ({MAILS})")
    one.add_argument("--case", choices=tuple(CASES), action="append", help="the server (each)")
    one.add_argument("--client", choices=CLIENTS, action="append", help="who sends (each)")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    runs = asyncio.run(scheduler(asked.mails, asked.case or tuple(CASES), asked.client or CLIENTS))
    good = all(run.good for run in runs if run.client == "streamq")
    return {"results": results(runs)}, good, table(runs)

"""One run of streamq: a backlog that stands, or mails that come while workers wait; and that nothing was left out."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.accounting import peak, used
from bench.cases import Case, Run
from bench.content import KINDS
from bench.debian_sink import debian_sink
from bench.facts import of_server, of_settings
from bench.gate import Receiver, delivered, still
from bench.package import Missing
from bench.programs import Programs, feed, programs, rested, until
from bench.server_books import books
from streamq import __version__
from streamq.queue.check import check
from streamq.queue.connection import command
from streamq.queue.spool import Spool
from streamq.settings import load_settings

__all__ = ["receiver", "run_streamq"]

SECONDS = 900.0
WARM = 500  # mails of each process
SPARE = 10_000  # events beside those of the mails


async def receiver(p: Programs, stack: AsyncExitStack, case: Case) -> Receiver:
    """Raises `Missing`."""
    if case.sink == "smtp-sink":
        if case.chunking:
            raise Missing("smtp-sink has no BDAT")
        return await stack.enter_async_context(debian_sink(p.folder))
    return await p.sink(options=("--ledger-limit", "0"))


async def _empty(spool: Spool) -> bool:
    left = [await command(spool.redis, "XLEN", spool.keys.stream(name)) for name in spool.priorities]
    return not sum(left)


@dataclass(frozen=True, slots=True)
class _Measured:
    seconds: float
    cpu: float
    sink_cpu: float


async def _measured(
    p: Programs, case: Case, mails: int, sink: Receiver, spool: Spool, config: str
) -> tuple[_Measured, dict[str, float]]:
    """From the moment when the first mail could go (drain) or its XADD (flow) to the last one's acceptance; CPU and
    the server's work until all of them are settled, too. The workers have delivered some mails before: the first
    worker that meets a relay takes all connections, and for most of a second the others wait for theirs."""
    loop = asyncio.get_running_loop()
    for _ in range(case.processes):
        await p.worker(config, relay="", events_kept=mails + SPARE, events_bytes=10**11)
    pids = [worker.process.pid for worker in p.workers]
    warm = WARM * case.processes
    await feed(spool, warm, domain="example*.net", name="warm", kind=case.kind)
    await delivered(sink, warm, SECONDS)
    await until(partial(_empty, spool), 60)
    drains = case.what == "drain"
    if drains:
        sink.hold()
        await feed(spool, mails, domain="example*.net", kind=case.kind)
        await rested(spool)
    if not await still(pids):
        raise RuntimeError(f"{case.name}: the workers do not come to rest")
    sinks = used(sink.process.pid)
    before, cpu, begun = await books(spool.redis), used(*pids), loop.time()
    if drains:
        sink.go()
        ended = await delivered(sink, warm + mails, SECONDS)
    else:
        feeding = asyncio.create_task(feed(spool, mails, domain="example*.net", kind=case.kind))
        ended = await delivered(sink, warm + mails, SECONDS)
        await feeding
    await until(partial(_empty, spool), 60)
    spent = _Measured(ended - begun, used(*pids) - cpu, used(sink.process.pid) - sinks)
    return spent, (await books(spool.redis)).since(before, mails)


async def _checks(case: Case, mails: int, sink: Receiver, spool: Spool) -> dict[str, bool]:
    """As many events as mails, one duplicate refused, the law kept; while the workers still run."""
    warm = WARM * case.processes
    events = int(await command(spool.redis, "XLEN", spool.keys.events))
    again = ("XADD", spool.keys.stream("normal"), "*", "id", "m0", *KINDS[case.kind]("m0@example0.net"))
    await command(spool.redis, *again)
    await until(partial(_empty, spool), 60)
    [(_, last)] = await command(spool.redis, "XREVRANGE", spool.keys.events, "+", "-", "COUNT", 1)
    refused = last[1] == b"email.duplicate" and sink.count() == mails + warm
    return {
        "as many events as mails": events == mails + warm,
        "a duplicate refused": refused,
        "check is clean": (await check(spool)).clean,
    }


async def run_streamq(folder: Path, case: Case, mails: int) -> Run:
    try:
        async with programs(folder) as p, AsyncExitStack() as stack:
            sink = await receiver(p, stack, case)
            config = case.settings.replace("[routes.main]\n", f'[routes.main]\nurl = "{sink.url}"\n')
            spool = await Spool.connect(load_settings(), p.url)
            p.stack.push_async_callback(spool.close)
            await command(spool.redis, "CONFIG SET", "appendfsync", case.fsync)
            measured, work = await _measured(p, case, mails, sink, spool, config)
            checks = await _checks(case, mails, sink, spool)
            largest = max(peak(worker.process.pid) for worker in p.workers)
            await p.stop_workers()
            known = load_settings(config=folder / "streamq0.toml", events_kept=mails + SPARE, events_bytes=10**11)
            return Run(
                case,
                __version__,
                mails,
                {
                    "mails_per_s": mails / measured.seconds,
                    "worker_cpu_s_per_1000": measured.cpu / mails * 1000,
                    **work,
                    "sink_cpu_s_per_1000": measured.sink_cpu / mails * 1000,
                    "worker_peak_mb": largest / 1e6,
                },
                checks,
                of_settings(known),
                await of_server(spool.redis),
            )
    except Missing as why:
        return Run(case, skipped=str(why))

"""`python -m bench memory`: what a mail takes of Redis' memory in each state, and what a worker takes of the machine's.

WAITING    N mails of 4 KB, each with an id, that nobody has read: used_memory without the clients' and the AOF's
           buffers, against the bytes of their fields, names and values.
PARKED     The same after a worker has met a site that takes one mail an hour; what that added to each.
SCHEDULED  The same with a `delay` of a day.
LEASED     Read and admitted by the scripts that a worker calls, and held.
WORKER     Resident memory of one that parked and scheduled so many, and before, at the most, and after a drain.

What the ids' window takes (`seen`) comes with a mail's admission, whatever becomes of it, and stays when the mail is
gone: by MEMORY USAGE of its keys it is shown apart, and no part of what parking and scheduling add. Some hundred KB are
the server's own (scripts): few mails seem to cost more than many.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.accounting import peak, resident
from bench.content import KINDS
from bench.facts import of_server
from bench.figures import columns
from bench.programs import Programs, feed, programs, rested, until
from streamq.queue.check import check
from streamq.queue.connection import command, pipelined
from streamq.queue.look import status
from streamq.queue.rows import AdmitRow
from streamq.queue.spool import Spool
from streamq.settings import load_settings

__all__ = ["Held", "Worked", "add", "families", "held_by", "memory", "payload", "table"]

MAILS = 100_000
MOST_LEASED = 20_000
DAY_S = 86_400
WAITING_MOST, ADDED_MOST, WORKER_MOST = 1.10, 200, 120e6
SLOW = '[sites."slow.example"]\nrate = ["1/1h"]\n'
STATES = ("parked", "scheduled", "leased")


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes a mail. `payload`: of its fields; `waiting`: before anybody read it; `then`: in that state; `keys`: by
    family of keys, as MEMORY USAGE says; `worker`: resident bytes of the worker that brought them there."""

    state: str
    mails: int
    payload: float
    waiting: float
    then: float
    keys: dict[str, float]
    worker: int
    clean: bool

    @property
    def ids(self) -> float:
        return self.keys.get("seen", 0.0)

    @property
    def added(self) -> float:
        return self.then - self.waiting - self.ids

    @property
    def good(self) -> bool:
        small = self.state == "leased" or self.added <= ADDED_MOST
        return small and self.waiting <= WAITING_MOST * self.payload and self.worker <= WORKER_MOST and self.clean


@dataclass(frozen=True, slots=True)
class Worked:
    """Resident bytes of a worker: ready, at the most, and after a drain."""

    mails: int
    ready: int
    most: int
    after: int

    @property
    def good(self) -> bool:
        return self.most <= WORKER_MOST


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("memory", parents=[common], help="bytes of a mail in each state, and of a worker")
    one.add_argument("--mails", type=int, default=MAILS, help=f"at once ({MAILS})")
    one.add_argument("--state", choices=(*STATES, "drain"), action="append", help="(each)")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    held, worked, server = asyncio.run(memory(asked.mails, asked.state or (*STATES, "drain")))
    good = all(one.good for one in held) and all(one.good for one in worked)
    results = {"held": [{**asdict(one), "added": one.added} for one in held], "worker": [asdict(one) for one in worked]}
    return {"server": server, "results": results}, good, table(held, worked, server)


def payload(many: int, more: Sequence[str] = ()) -> int:
    """Bytes of all fields of `feed`'s mails, names and values."""
    known = sum(map(len, ("id", *more)))
    fixed = sum(len(part) for part in KINDS["4k"](""))
    names = sum(len(f"m{number}") + len(f"m{number}@slow.example") for number in range(many))
    return many * (known + fixed) + names


def held_by(info: str) -> int:
    """Bytes of INFO memory that hold data: not the clients' and the AOF's buffers, which come and go."""
    facts = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    return int(facts["used_memory"]) - int(facts["mem_clients_normal"]) - int(facts["mem_aof_buffer"])


async def _held(spool: Spool) -> int:
    await rested(spool)
    return held_by((await command(spool.redis, "INFO", "memory")).decode())


def families(sizes: dict[str, int]) -> dict[str, int]:
    """Bytes by the first word of the keys' names, after the queue's."""
    found: Counter[str] = Counter()
    for key, size in sizes.items():
        found[key.partition("}:")[2].partition(":")[0]] += size
    return dict(found.most_common())


async def _keys(spool: Spool) -> dict[str, int]:
    """Of every key; a stream's by all of its nodes."""
    sizes: dict[str, int] = {}
    cursor = b"0"
    while True:
        cursor, names = await command(spool.redis, "SCAN", cursor, "COUNT", 500)
        asked = [("MEMORY USAGE", name, "SAMPLES", 0) for name in names]
        found = await pipelined(spool.redis, asked) if asked else []
        sizes |= {name.decode(): size or 0 for name, size in zip(names, found, strict=True)}
        if cursor == b"0":
            return sizes


async def _rest(spool: Spool, state: str, many: int) -> bool:
    now = await status(spool)
    return now.sum("waiting") == 0 and now.sum("leased") == 0 and now.sum(state) >= many


async def _warm(p: Programs, spool: Spool) -> None:
    """The server knows all scripts, and has the keys that it will have anyway."""
    assert p.sink_ is not None
    worker = await p.worker(SLOW)
    await feed(spool, 200, domain="example*.net", name="warm")
    await p.sink_.until(200)
    await worker.stop()


async def _lease(spool: Spool, many: int) -> None:
    while many:
        read = (await spool.read("bench", [("normal", min(100, many))])).entries
        now = [
            AdmitRow("send", one.entry, "relay|open.example", deadline=2**53, id=one.fields[b"id"].decode())
            for one in read
        ]
        await spool.scripts.admit("bench", now)
        many -= len(read)


async def _state(folder: Path, state: str, many: int) -> tuple[Held, dict[str, str]]:
    more = ("delay", str(DAY_S)) if state == "scheduled" else ()
    async with programs(folder) as p:
        await p.sink()
        spool = await Spool.connect(load_settings(), p.url)
        p.stack.push_async_callback(spool.close)
        await _warm(p, spool)
        empty = await _held(spool)
        await feed(spool, many, domain="slow.example", more=more)
        waiting = await _held(spool)
        memory_of = 0
        if state == "leased":
            await _lease(spool, many)
        else:
            worker = await p.worker(SLOW)
            await until(partial(_rest, spool, state, many - 10), 1800)  # some go: it takes one an hour
            memory_of = resident(worker.process.pid)
            await worker.stop()
        then = await _held(spool)
        keys = families(await _keys(spool))
        found = Held(
            state,
            many,
            payload(many, more) / many,
            (waiting - empty) / many,
            (then - empty) / many,
            {name: size / many for name, size in keys.items() if size / many >= 0.1},
            memory_of,
            (await check(spool)).clean,
        )
        return found, await of_server(spool.redis)


async def _drain(folder: Path, many: int) -> tuple[Worked, dict[str, str]]:
    async with programs(folder) as p:
        sink = await p.sink(options=("--ledger-limit", "0"))
        spool = await Spool.connect(load_settings(), p.url)
        p.stack.push_async_callback(spool.close)
        worker = await p.worker()
        pid = worker.process.pid
        ready = resident(pid)
        await feed(spool, many, domain="example*.net")
        await sink.until(many, 3600)
        return Worked(many, ready, peak(pid), resident(pid)), await of_server(spool.redis)


async def memory(many: int, states: Sequence[str]) -> tuple[list[Held], list[Worked], dict[str, str]]:
    held, worked = [], []
    server: dict[str, str] = {}
    for state in states:
        with tempfile.TemporaryDirectory(prefix="sqb-") as folder:
            if state == "drain":
                one, server = await _drain(Path(folder), many)
                worked.append(one)
            else:
                found, server = await _state(Path(folder), state, min(many, MOST_LEASED) if state == "leased" else many)
                held.append(found)
    return held, worked, server


def table(held: Sequence[Held], worked: Sequence[Worked], server: dict[str, str]) -> str:
    rows = [
        ["state", "mails", "fields", "waiting", "of fields", "then", "ids", "added", "worker MB", "check", "promise"]
    ]
    for one in held:
        rows.append(  # noqa: PERF401
            [one.state, f"{one.mails:,}", f"{one.payload:,.0f}", f"{one.waiting:,.0f}",
             f"{one.waiting / one.payload:.3f}", f"{one.then:,.0f}", f"{one.ids:,.0f}", f"{one.added:,.0f}",
             f"{one.worker / 1e6:.0f}" if one.worker else "", "clean" if one.clean else "WRONG",
             "kept" if one.good else "broken"]
        )  # fmt: skip
    lines = [columns(rows), "", "bytes a mail, by keys:"]
    lines += [f"  {one.state}: " + ", ".join(f"{name} {size:,.1f}" for name, size in one.keys.items()) for one in held]
    lines += [
        f"worker, {one.mails:,} mails: ready {one.ready / 1e6:.0f} MB, at the most {one.most / 1e6:.0f}, after the "
        f"drain {one.after / 1e6:.0f}: {'kept' if one.good else 'broken'}"
        for one in worked
    ]
    lines.append(
        f"promise: waiting at most {WAITING_MOST} times its fields, parking or scheduling adds at most {ADDED_MOST} "
        f"bytes, a worker at most {WORKER_MOST / 1e6:.0f} MB"
    )
    return "\n".join([*lines, "server: " + ", ".join(f"{name} {value}" for name, value in server.items())])

"""What takes the server's last second: a power cut, and a failover to a replica that lags.

After a power cut the disk has the AOF as far as it was synced; a kill alone loses nothing, the kernel has the rest. So
the file's size is noted all the time, and a killed server's file is cut to a size that it had up to 2 s before.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.faults.books import Verdict
from bench.faults.line import Line
from bench.faults.row import LEASE_SECONDS, Found, Route, Row
from bench.faults.trial import EVERYSEC, Trial, trial
from bench.programs import until
from bench.server import Server
from streamq.queue.connection import command, connect

__all__ = ["ROWS"]

MAILS = 1500
LAST_SECONDS = 2.0
LOOK_SECONDS = 0.02
LAG_SECONDS, UNSENT_SECONDS = 1.0, 0.4
REST_SECONDS = 0.1  # of the producer, between 50 mails: some come in the last second, and not all
WAIT_MS = 200
SEED, CUTS = 1, 3


def _aof(server: Server) -> Path:
    """The file that it appends to: since Redis 7 the last of several."""
    parts = sorted(server.directory.glob("appendonlydir/*.incr.aof"), key=lambda each: int(each.name.split(".")[-3]))
    return parts[-1] if parts else server.directory / "appendonly.aof"


async def _sizes(server: Server, seen: list[tuple[float, int]]) -> None:
    while True:
        seen.append((time.monotonic(), _aof(server).stat().st_size))
        await asyncio.sleep(LOOK_SECONDS)


def _counted(room: Trial, verdict: Verdict, from_: float, died: float) -> dict[str, Any]:
    """What went with the last second: the XADDs that it took are no loss of ours. `older` would be."""
    there = Counter(name for _, name in room.sink.accepted())
    gone = [name for name in room.promised if not there[name]]
    older = [name for name in gone if room.promised[name] < from_]
    if verdict.lost == len(gone):
        verdict.lost = len(older)
    return {
        "answered XADDs that went with it": len(gone),
        "of older ones": len(older),
        "the cut took (s)": round(died - from_, 2),
        "sent, and their end not known": verdict.untold,
    }


async def _half_fed(room: Trial) -> None:
    """So that the producer is at work when the fault comes, however slow a start the workers have."""

    async def fed() -> bool:
        return len(room.promised) >= MAILS // 2

    await until(fed)


async def _some_unsent(room: Trial) -> None:
    """For a moment nothing is sent, so that the last second has XADDs of mails that nobody has."""
    room.sink.hold()
    await asyncio.sleep(UNSENT_SECONDS)


async def _power_cuts(folder: Path, route: Route) -> Found:
    chance = random.Random(SEED)
    found = []
    for number in range(CUTS):
        place = folder / str(number)
        place.mkdir()
        found.append(await _power_cut(place, route, chance.uniform(0, LAST_SECONDS)))
    total = Verdict()
    for name in ("mails", "accepted", "lost", "untold", "doubles", "unmarked", "marks", "unneeded", "allowed"):
        setattr(total, name, sum(getattr(one.verdict, name) for one in found))
    for one in found:
        total.wrong += one.verdict.wrong
        total.left += one.verdict.left
        total.names += one.verdict.names
    figures = {name: [one.figures[name] for one in found] for name in found[0].figures}
    return Found(total, figures, excused=found[0].excused)


async def _power_cut(folder: Path, route: Route, seconds: float) -> Found:
    async with trial(folder, options=EVERYSEC, settings={"lease_seconds": LEASE_SECONDS}, route=route) as room:
        for _ in range(2):
            await room.hire()
        seen: list[tuple[float, int]] = []
        looking = asyncio.create_task(_sizes(room.server, seen))
        feeding = asyncio.create_task(room.feed(MAILS, ahead=MAILS, rest=REST_SECONDS))
        try:
            await _half_fed(room)
            await _some_unsent(room)
            looking.cancel()
            await asyncio.to_thread(room.server.stop, signal.SIGKILL)
            room.sink.go()
            died = time.monotonic()
            back = died - seconds
            at, size = next((at, size) for at, size in reversed(seen) if at <= back or at == seen[0][0])
            with _aof(room.server).open("rb+") as file:
                file.truncate(size)
            await asyncio.to_thread(room.server.start)
            await feeding
        finally:
            looking.cancel()
            feeding.cancel()
        room.allowed = int(1e9)
        verdict = await room.finish()
        again = int(await room.told("HGET", "{streamq}:counts", "resettled") or 0)
        figures = {**_counted(room, verdict, at, died), "settled again": again}
        return Found(verdict, figures, excused=frozenset({"untold"}))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def _in_step(replica: Server) -> None:
    redis = connect(replica.url)

    async def up() -> bool:
        return b"master_link_status:up" in await command(redis, "INFO", "replication")

    async with contextlib.aclosing(redis):
        await until(up)


async def _failover(folder: Path, route: Route, *, wait: bool) -> Found:
    """The replica hears nothing of the last second, then the master dies, and everybody turns to the replica."""
    port = _free_port()
    options = (*EVERYSEC, "--port", str(port), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
    async with trial(folder, options=options, settings={"lease_seconds": LEASE_SECONDS}, route=route) as room:
        link = await room.stack.enter_async_context(Line(f"127.0.0.1:{port}"))
        replica = Server(room.server.binary, (*EVERYSEC, "--replicaof", "127.0.0.1", str(link.port)))
        room.stack.callback(replica.remove)
        await asyncio.to_thread(replica.start)
        await _in_step(replica)
        crew = [await room.hire(wired=True) for _ in range(2)]
        room.wait_ms = WAIT_MS if wait else 0
        room.repeats_may_double = wait
        feeding = asyncio.create_task(room.feed(MAILS, ahead=MAILS, rest=REST_SECONDS))
        try:
            await _half_fed(room)
            lags = time.monotonic()
            for joint in link.joints:
                joint.stall("back")
            await asyncio.sleep(LAG_SECONDS - UNSENT_SECONDS)
            await _some_unsent(room)
            await asyncio.to_thread(room.server.stop, signal.SIGKILL)
            room.sink.go()
            died = time.monotonic()
            await _promote(room, replica, [one.wire for one in crew if one.wire is not None])
            await feeding
        finally:
            feeding.cancel()
        room.allowed = int(1e9)
        verdict = await room.finish()
        again = int(await room.told("HGET", "{streamq}:counts", "resettled") or 0)
        figures = {**_counted(room, verdict, died if wait else lags, died), "settled again": again}
        # A batch that only the old master had is sent, and comes again: the new one never saw its ids.
        excused = {"untold", "unmarked"} if wait else {"untold"}
        return Found(verdict, figures, excused=frozenset(excused))


async def _promote(room: Trial, replica: Server, wires: Sequence[Line]) -> None:
    redis = connect(replica.url)
    async with contextlib.aclosing(redis):
        await command(redis, "REPLICAOF", "NO", "ONE")
    for wire in wires:
        wire.target = str(replica.socket)
    room.wait_ms = 0  # it has no replica
    await room.turn_to(replica)


ROWS: tuple[Row, ...] = (
    Row(
        "power-cut",
        f"{CUTS} times: kill -9, and the AOF (`everysec`) cut to where it was up to {LAST_SECONDS:.0f} s before",
        "XADDs of that time go with it; what was settled in it is settled again from its workers' memory",
        _power_cuts,
    ),
    Row(
        "failover",
        f"a replica that hears nothing for {LAG_SECONDS:.0f} s becomes the master",
        "as a power cut: XADDs of that time go with it",
        lambda folder, route: _failover(folder, route, wait=False),
    ),
    Row(
        "failover-wait",
        f"the same; the producer counts an XADD as answered when WAIT 1 {WAIT_MS} says so, else repeats it",
        "no answered XADD is lost; what was sent already of a batch that is repeated comes twice, unmarked",
        lambda folder, route: _failover(folder, route, wait=True),
    ),
)

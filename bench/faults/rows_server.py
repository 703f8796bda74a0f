"""What befalls the server while it keeps its data: killed, stopped, frozen by forks, emptied of scripts, full."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from bench.faults.row import LEASE_SECONDS, MAILS, Found, Route, Row, row
from bench.faults.rows_worker import suspect_all
from bench.faults.trial import EVERYSEC, Trial, trial
from streamq.queue.connection import command

__all__ = ["ROWS"]

AHEAD = 300  # the producer of the sink, where it shall be hit, too
DISK = 8 * 1024 * 1024
FREEZE_SECONDS, FREEZES = 0.3, 5
TIMES = 20


async def _killed(room: Trial) -> Mapping[str, Any]:
    for _ in range(3):
        await room.kill_server()
        await room.sink.until(room.sink.count() + 50)
    return {"kills": room.server_kills, "batches that the producer repeated": room.repeated}


async def _away(room: Trial) -> Mapping[str, Any]:
    """For longer than a lease: whoever is there first when it is back finds every other one's leases run out."""
    for one in room.alive:
        await suspect_all(room, one)
    await room.kill_server(1.5 * LEASE_SECONDS)
    leases = len(room.suspected_entries)
    await room.drained()
    return {"leases": leases, "reclaimed": await _count(room, "reclaimed")}


async def _stopped(room: Trial) -> Mapping[str, Any]:
    """For longer than a lease: nobody's heartbeat is heard."""
    for one in room.alive:
        await suspect_all(room, one)
    os.kill(room.server.pid, signal.SIGSTOP)
    await asyncio.sleep(1.5 * LEASE_SECONDS)
    os.kill(room.server.pid, signal.SIGCONT)
    leases = len(room.suspected_entries)
    await room.drained()
    return {"leases": leases, "reclaimed": await _count(room, "reclaimed")}


async def _count(room: Trial, name: str) -> int:
    return int(await room.told("HGET", "{streamq}:counts", name) or 0)


async def _flushed(room: Trial) -> Mapping[str, Any]:
    for _ in range(TIMES):
        await room.told("SCRIPT", "FLUSH")
        await room.sink.until(room.sink.count() + 10)
    return {"times": TIMES}


async def _clients_killed(room: Trial) -> Mapping[str, Any]:
    for _ in range(TIMES):
        await room.told("CLIENT", "KILL", "TYPE", "normal")
        await room.sink.until(room.sink.count() + 10)
    return {"times": TIMES, "batches that the producer repeated": room.repeated}


async def _frozen(room: Trial) -> Mapping[str, Any]:
    """What a fork of a large process does: the server stands while its page tables are copied."""
    for _ in range(FREEZES):
        with contextlib.suppress(RedisError):  # one is running already
            await command(room.redis, "BGREWRITEAOF")
        os.kill(room.server.pid, signal.SIGSTOP)
        await asyncio.sleep(FREEZE_SECONDS)
        os.kill(room.server.pid, signal.SIGCONT)
        await room.sink.until(room.sink.count() + 10)
    return {"freezes": FREEZES}


async def _full(folder: Path, route: Route) -> Found:
    """Memory is full before any worker comes; they empty the queue, and then there is room again."""
    async with trial(folder, settings={"lease_seconds": LEASE_SECONDS}, route=route) as room:
        await room.feed(MAILS, ahead=MAILS)
        used = (await room.told("INFO", "memory")).decode().partition("used_memory:")[2].partition("\r")[0]
        await room.told("CONFIG", "SET", "maxmemory", used)
        refused = ""
        try:
            await command(room.redis, "XADD", "{streamq}:normal", "*", "to", "late@example.net")
        except RedisError as error:
            refused = str(error)
        for _ in range(2):
            await room.hire()
        feeding = asyncio.create_task(room.feed(100, ahead=2 * MAILS))  # repeats until it is taken
        try:
            await room.sink.until(MAILS)
            await room.told("CONFIG", "SET", "maxmemory", 0)
            await feeding
        finally:
            feeding.cancel()
        verdict = await room.finish()
        verdict.wrong += [] if "maxmemory" in refused else [f"XADD to a full server: {refused!r}"]
        return Found(verdict, {"XADD answered": refused.partition(" when")[0], "then repeated": room.repeated})


@contextlib.asynccontextmanager
async def _small_disk() -> AsyncIterator[Path]:
    """A file system of its own. Raises `OSError` where we may not mount one."""
    with tempfile.TemporaryDirectory(prefix="sqf-disk-") as name:
        process = await asyncio.create_subprocess_exec(
            "mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", name, stderr=asyncio.subprocess.DEVNULL
        )
        if await process.wait():
            raise OSError("no mount")
        try:
            yield Path(name)
        finally:
            process = await asyncio.create_subprocess_exec("umount", "-l", name)
            await process.wait()


async def _disk_full(folder: Path, route: Route) -> Found:
    """Everything is full but for what is there; `everysec` waits for room, and answers MISCONF until then."""
    try:
        async with _small_disk() as disk:
            options = (*EVERYSEC, "--dir", str(disk))
            async with trial(folder, options=options, settings={"lease_seconds": LEASE_SECONDS}, route=route) as room:
                for _ in range(2):
                    await room.hire()
                feeding = asyncio.create_task(room.feed(MAILS, ahead=MAILS))
                try:
                    await room.sink.until(MAILS // 8)
                    filler = disk / "filler"
                    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                        while True:
                            file.write(bytes(4096))
                    said = await _until_refused(room)
                    before = room.sink.count()
                    filler.unlink()
                    await feeding
                finally:
                    feeding.cancel()
                found = {"XADD answered": said, "sent while it was full": room.sink.count() >= before}
                return Found(await room.finish(), found)
    except FileNotFoundError:
        return Found(skipped="there is no mount here")
    except OSError as error:
        if str(error) != "no mount":
            raise
        return Found(skipped="a file system of its own may not be mounted here")


async def _until_refused(room: Trial) -> str:
    while True:
        try:
            await command(room.redis, "HSET", "{streamq}:meta", "touched", "1")
            await command(room.redis, "HDEL", "{streamq}:meta", "touched")
        except RedisError as error:
            return str(error).partition(":")[0][:60]
        await asyncio.sleep(0.05)


ROWS: tuple[Row, ...] = (
    row(
        "server-killed",
        "kill -9 of the server three times, `appendfsync always`; it comes back without scripts",
        "nothing lost, nothing twice: what was not settled is settled when it is back",
        _killed,
        ahead=AHEAD,
    ),
    row(
        "server-away",
        f"the same once, for {1.5 * LEASE_SECONDS:.0f} s; a lease is {LEASE_SECONDS} s",
        "nothing lost; what is reclaimed before its owner is heard again, and was past its dot, is marked",
        _away,
    ),
    row(
        "server-stopped",
        f"SIGSTOP of the server for {1.5 * LEASE_SECONDS:.0f} s, a lease is {LEASE_SECONDS} s",
        "nothing lost; what is reclaimed before its owner is heard again, and was past its dot, is marked",
        _stopped,
    ),
    row(
        "scripts-flushed",
        f"SCRIPT FLUSH {TIMES} times",
        "nobody sees it: NOSCRIPT loads and repeats",
        _flushed,
        ahead=AHEAD,
    ),
    row(
        "clients-killed",
        f"CLIENT KILL of every connection {TIMES} times",
        "what a lost reply had delivered is found in the PEL; what it had settled is not settled twice",
        _clients_killed,
        ahead=AHEAD,
    ),
    row(
        "server-frozen",
        f"AOF rewrites, and {FREEZES} times {FREEZE_SECONDS} s in which the server stands, as in a long fork",
        "later, and nothing else",
        _frozen,
        ahead=AHEAD,
    ),
    Row(
        "memory-full",
        "`maxmemory` is reached",
        "XADD fails with a clear error, the queue drains, and then XADD is taken again",
        _full,
    ),
    Row(
        "disk-full",
        f"the AOF's disk ({DISK >> 20} MB) is full, `everysec`",
        "writes fail with MISCONF; when there is room all goes on, nothing lost",
        _disk_full,
    ),
)

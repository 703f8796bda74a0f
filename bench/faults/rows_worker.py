"""What befalls workers."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import streamq
from bench.faults.line import Joint
from bench.faults.row import LEASE_SECONDS, MAILS, Found, Route, Row, row
from bench.faults.trial import Crew, Trial, trial

__all__ = ["ROWS", "suspect_all"]

STALLED_SECONDS = 1.5 * LEASE_SECONDS
WRONG_SECONDS = 86_400
POISON, RECLAIMS = "m100@example0.net", 3
RUN = "from streamq.cli import main; main()"
STALLS = f"import signal, time; signal.signal(signal.SIGUSR1, lambda *_: time.sleep({STALLED_SECONDS})); {RUN}"
WRONG = (
    "import time; t, n = time.time, time.time_ns; "
    "time.time, time.time_ns = lambda: t() + {0}, lambda: n() + {0} * 10**9; " + RUN
)
CHANGED = ("start", "finish", "admit", "settle", "mark", "reclaim", "release", "heartbeat")  # scripts of the copy


async def suspect_all(room: Trial, one: Crew) -> None:
    """All that it has, and is sending."""
    for joint in list(one.line.joints):
        room.suspect(joint)
    room.suspected_entries |= await room.leases_of(one.worker.consumer)


async def _killed(room: Trial) -> Mapping[str, Any]:
    found = []
    for stage in ("go", "dot", "told"):
        found.append(await room.kill(room.alive, stage, 5))
        await room.hire()
    return {"killed with a mail past its MAIL": sum(kill.caught for kill in found)}


async def _stopped(room: Trial) -> Mapping[str, Any]:
    one, other = room.alive
    struck = asyncio.Event()

    def stop(_: Crew, __: object) -> None:
        one.worker.signal(signal.SIGSTOP)
        struck.set()

    await room.reached([one], "dot", 3, stop)
    await suspect_all(room, one)
    leases = len(await room.leases_of(one.worker.consumer))
    await room.drained()  # the other has reclaimed and sent what it held
    other.worker.signal(signal.SIGSTOP)
    one.worker.signal(signal.SIGCONT)
    await room.feed(50)
    await room.drained()
    other.worker.signal(signal.SIGCONT)
    return {"leases of the stopped one": leases}


async def _stalled(room: Trial) -> Mapping[str, Any]:
    one = await room.hire(program=("-c", STALLS))
    times = 0
    for _ in range(2):
        await room.feed(200)
        await room.reached([one], "go", 3, lambda one, _: one.worker.signal(signal.SIGUSR1))
        await suspect_all(room, one)
        times += 1
        await room.drained()
    return {"times": times}


async def _wrong_clock(room: Trial) -> Mapping[str, Any]:
    for seconds in (WRONG_SECONDS, -WRONG_SECONDS):
        await room.hire(program=("-c", WRONG.format(seconds)))
    for one in room.alive[:2]:
        await one.worker.stop()
    await room.feed(300)
    return {"workers": "a day ahead and a day behind"}


async def _two_versions(room: Trial) -> Mapping[str, Any]:
    copy = room.programs.folder / "other"
    shutil.copytree(Path(streamq.__file__).parent, copy / "streamq", ignore=shutil.ignore_patterns("__pycache__"))
    for name in CHANGED:
        script = copy / "streamq" / "queue" / "lua" / f"{name}.lua"
        script.write_text(script.read_text() + "\n-- another version of the same\n")
    old = [await room.hire(program=("-c", f"import sys; sys.path.insert(0, {str(copy)!r}); {RUN}")) for _ in range(2)]
    new = room.alive[:2]
    await room.drained()
    feeding = asyncio.create_task(room.feed(2000, ahead=2000))
    killed = [await room.kill(each, "told", 5) for each in (old, new)]  # the others reclaim what they had
    await feeding
    return {"leases of the killed ones": [kill.leases for kill in killed]}


async def _poison(folder: Path, route: Route) -> Found:
    """Whoever comes to the 354 of one mail dies there."""
    settings = {"lease_seconds": LEASE_SECONDS, "max_reclaims": RECLAIMS}
    async with trial(folder, settings=settings, route=route) as room:
        struck: asyncio.Queue[Crew] = asyncio.Queue()

        def when(one: Crew, joint: Joint) -> None:
            if joint.smtp.stage == "go" and joint.smtp.recipient == POISON and one not in dead:
                dead.append(one)
                for each in one.line.joints:
                    room.suspect(each)
                one.worker.signal(signal.SIGKILL)
                struck.put_nowait(one)

        async def mourn() -> None:
            while True:
                one = await struck.get()
                await one.worker.process.wait()
                room.suspected_entries |= await room.leases_of(one.worker.consumer)
                await hire()

        async def hire() -> None:
            one = await room.hire()
            one.line.when = partial(when, one)

        dead: list[Crew] = []
        for _ in range(2):
            await hire()
        mourning = asyncio.create_task(mourn())
        try:
            await room.feed(MAILS, ahead=MAILS)
            await room.drained()
        finally:
            mourning.cancel()
        verdict = await room.finish()
        verdict.wrong += [] if verdict.dead == 1 else [f"{verdict.dead} mails died"]
        return Found(verdict, {"workers that it killed": len(dead), "dead letters": verdict.dead})


ROWS: tuple[Row, ...] = (
    row(
        "worker-killed",
        "kill -9 of three workers, behind a 354, a dot, a 250",
        "nothing lost; what comes twice is marked",
        _killed,
    ),
    row(
        "worker-stopped",
        "SIGSTOP behind a dot until its leases were reclaimed and the queue is empty, then SIGCONT",
        "it steals nothing back and finishes nothing twice; what it had past its dot is marked",
        _stopped,
    ),
    row(
        "loop-stalled",
        f"the event loop stands for {STALLED_SECONDS:.0f} s, a lease is {LEASE_SECONDS} s",
        "as if it was stopped",
        _stalled,
    ),
    row(
        "worker-clock",
        "one worker's clock a day ahead, the other's a day behind",
        "the server's clock decides: nothing is early, late, expired or reclaimed for it",
        _wrong_clock,
    ),
    Row(
        "poison",
        f"a mail of which every worker dies, `max_reclaims` is {RECLAIMS}",
        f"it is dead, class `poison`, when {RECLAIMS + 1} have died of it; its neighbours are delivered",
        _poison,
    ),
    row(
        "two-versions",
        f"workers with other scripts ({len(CHANGED)} of them changed) on one queue, one of each killed",
        "they reclaim each other's mails; scripts are told apart by their hash",
        _two_versions,
    ),
)

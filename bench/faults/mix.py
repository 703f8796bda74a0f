"""A mix of faults over a queue that is at work, by a seed: workers killed at chosen stages, the server killed, lines
that break. What is drawn is which, where and when; what the kernel makes of it is not."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args

from redis.asyncio import Redis

from bench.faults.books import Verdict
from bench.faults.line import Direction, Joint
from bench.faults.stages import STAGES
from bench.faults.trial import Crew, Kill, Trial, trial

__all__ = ["WAYS", "Fault", "Piece", "Plan", "Way", "piece", "plan", "way_of"]

Examine = Callable[[Redis], Awaitable[list[str]]]
Break = Literal["cut", "reset", "half_close", "stall", "delay"]
Way = Literal["transaction", "overlap", "bdat", "overlap-bdat"]
WAYS: Mapping[Way, Mapping[str, Any]] = {
    "transaction": {},
    "overlap": {"pipelining": "overlap"},
    "bdat": {"chunking": True},
    "overlap-bdat": {"pipelining": "overlap", "chunking": True},
}
# Where a mail's commands go out behind the body before it, or all of it is one write, only few mails are seen there
SELDOM: Mapping[Way, frozenset[str]] = {
    "transaction": frozenset({"body"}),
    "overlap": frozenset({"mail", "body"}),
    "bdat": frozenset({"mail", "go", "body"}),
    "overlap-bdat": frozenset({"mail", "body"}),
}
CREW = 2
AT_WORK = 600  # mails that wait while something befalls them
LATEST_SECONDS = 0.004  # a kill behind the stage that it aims at
DOWN_SECONDS = 0.5
STALL_SECONDS, DELAY_SECONDS = 1.0, 0.05


@dataclass(frozen=True, slots=True)
class Fault:
    """When the sink has `at` mails: `what`, at `stage` (a worker, a line)."""

    at: int
    what: Literal["worker", "server", "both", "line"]
    stage: str = ""
    nth: int = 1
    seconds: float = 0.0  # after the stage; that the server is away
    broken: Break = "cut"
    direction: Direction = "there"


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    mails: int
    faults: tuple[Fault, ...]
    way: Way = "transaction"


def way_of(seed: int) -> Way:
    """That of a piece where no other was asked for: each has its turn."""
    return tuple(WAYS)[seed % len(WAYS)]


def plan(seed: int, mails: int, kills: int, server_kills: int, breaks: int, way: Way = "transaction") -> Plan:
    """A tenth of the server's kills take a worker along, while it is away."""
    chance = random.Random(seed)
    whats = ["worker"] * kills + ["server"] * server_kills + ["line"] * breaks
    chance.shuffle(whats)
    step = mails / (len(whats) + 1)
    faults = []
    for number, what in enumerate(whats):
        at = round(step * (number + chance.random()))
        if what == "server":
            kind: Literal["server", "both"] = "both" if chance.random() < 0.1 else "server"
            faults.append(Fault(at, kind, seconds=chance.uniform(0, DOWN_SECONDS)))
            continue
        stage = chance.choice(STAGES[1:])
        nth = chance.randint(1, 3 if stage in SELDOM[way] else 40)
        if what == "worker":
            faults.append(Fault(at, "worker", stage, nth, chance.choice((0.0, chance.uniform(0, LATEST_SECONDS)))))
        else:
            broken: Break = chance.choice(get_args(Break))
            faults.append(Fault(at, "line", stage, nth, 0.0, broken, chance.choice(get_args(Direction))))
    return Plan(seed, mails, tuple(faults), way)


@dataclass(slots=True)
class Piece:
    """One run: `stages` are those of all connections of killed workers; `seen`: what its lines saw (`Stages`)."""

    seed: int
    verdict: Verdict
    kills: list[Kill] = field(default_factory=list)
    server_kills: int = 0
    breaks: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    way: Way = "transaction"
    seen: Counter[str] = field(default_factory=Counter)

    @property
    def caught(self) -> int:
        return sum(kill.caught for kill in self.kills)

    @property
    def stages(self) -> Counter[str]:
        return sum((kill.stages for kill in self.kills), Counter())


async def piece(folder: Path, made: Plan, examine: Examine | None = None) -> Piece:
    """`examine`: what else to find wrong in the server at the end, in words."""
    async with trial(folder, route=WAYS[made.way]) as room:
        for _ in range(CREW):
            await room.hire()
        broken: Counter[str] = Counter()
        async with asyncio.TaskGroup() as group:
            room.open_to = 0
            group.create_task(room.feed(made.mails))
            for number, fault in enumerate(made.faults):
                room.open_to = fault.at + AT_WORK  # no more: what befalls idle workers proves nothing
                await room.sink.until(min(fault.at, made.mails))
                await _befall(room, fault, group, number, broken)
            room.open_to = inf
        verdict = await room.finish()
        if examine is not None:
            verdict.left += await examine(room.redis)
        seen = sum((one.line.seen for one in room.crew), Counter[str]())
        return Piece(made.seed, verdict, room.kills, room.server_kills, broken, room.repeated, made.way, seen)


async def _befall(room: Trial, fault: Fault, group: asyncio.TaskGroup, number: int, broken: Counter[str]) -> None:
    crew = room.alive
    if fault.what == "line":

        def strike(one: Crew, joint: Joint) -> None:
            room.suspect(joint)
            broken[f"{fault.broken} {fault.direction}"] += 1
            _strike(joint, fault, group)
            for other in list(one.wire.joints)[:1] if one.wire is not None else ():  # that to the server, too
                _strike(other, fault, group)

        await room.reached(crew, fault.stage, fault.nth, strike)
        return
    if fault.what == "worker":
        await room.kill(crew, fault.stage, fault.nth, fault.seconds)
    elif fault.what == "server":
        await room.kill_server(fault.seconds)
    else:
        await asyncio.gather(room.kill_server(DOWN_SECONDS), room.kill(crew))
    if len(room.alive) < len(crew):
        await room.hire(wired=number % 3 == 0)


def _strike(joint: Joint, fault: Fault, group: asyncio.TaskGroup) -> None:
    if fault.broken == "stall":
        joint.stall(fault.direction)
        group.create_task(_go_on(joint, fault.direction))
    elif fault.broken == "delay":
        joint.delay(fault.direction, DELAY_SECONDS)
    elif fault.broken == "half_close":
        joint.half_close(fault.direction)
    elif fault.broken == "reset":
        joint.reset()
    else:
        joint.cut()


async def _go_on(joint: Joint, direction: Direction) -> None:
    await asyncio.sleep(STALL_SECONDS)
    joint.flow(direction)

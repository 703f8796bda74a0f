"""A row of the table of faults: what happens, what is promised, what was measured."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from bench.faults.books import Verdict
from bench.faults.trial import ALWAYS, Trial, trial

__all__ = ["MAILS", "Found", "Route", "Row", "Strike", "row"]

MAILS = 800  # of a row
SOON = 150  # the sink has so many when the fault comes
LEASE_SECONDS = 2  # of the workers of a row

Route = Mapping[str, Any]
Strike = Callable[[Trial], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Found:
    """`figures`: what was measured beside the verdict; `skipped`: why nothing was."""

    verdict: Verdict = field(default_factory=Verdict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    skipped: str = ""
    excused: frozenset[str] = frozenset()

    @property
    def good(self) -> bool:
        broken = {
            name
            for name in ("lost", "untold", "twice_told", "unmarked", "unexplained", "wrong", "left")
            if getattr(self.verdict, name)
        }
        if self.verdict.unneeded > self.verdict.allowed:
            broken.add("unneeded")
        return bool(self.skipped) or broken <= self.excused

    @property
    def shown(self) -> str:
        if self.skipped:
            return f"not run: {self.skipped}"
        said = self.verdict
        words = [f"{said.mails} mails", f"lost {said.lost}", f"doubles {said.doubles}"]
        words += [
            f"{name} {getattr(said, name)}" for name in ("unmarked", "unexplained", "untold") if getattr(said, name)
        ]
        words += [f"marks {said.marks}"] if said.marks else []
        words += [f"{name} {value}" for name, value in self.figures.items()]
        words += [f"{name}: {value}" for name in ("wrong", "left") if (value := getattr(said, name))]
        return ", ".join(words) + ("" if self.good else f": BROKEN {said.names}")


@dataclass(frozen=True, slots=True)
class Row:
    """`run` gets a folder of its own, and what its workers' route has beside its url."""

    name: str
    happens: str
    promised: str
    run: Callable[[Path, Route], Awaitable[Found]]


def row(
    name: str,
    happens: str,
    promised: str,
    strike: Strike,
    *,
    options: Sequence[str] = ALWAYS,
    rules: str = "",
    crew: int = 2,
    mails: int = MAILS,
    ahead: int = MAILS,
    foreign: bool = False,
    excused: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> Row:
    """One whose fault comes to a queue at work. `strike` returns what it measured; `ahead`: the producer, of the sink;
    `foreign`: what it breaks is not on a line of ours, so that any mail may be the one; `excused`: what this fault is
    known to break."""

    async def run(folder: Path, route: Route) -> Found:
        known = {"lease_seconds": LEASE_SECONDS, **(settings or {})}
        async with trial(folder, options=options, rules=rules, settings=known, route=route) as room:
            for _ in range(crew):
                await room.hire()
            feeding = asyncio.create_task(room.feed(mails, ahead=ahead))
            try:
                await room.sink.until(SOON)
                figures = await strike(room)
                await feeding
            finally:
                feeding.cancel()
            if foreign:
                room.suspects |= room.promised.keys()
                room.allowed = int(1e9)
            room.open_to = inf
            return Found(await room.finish(), figures, excused=frozenset(excused))

    return Row(name, happens, promised, run)

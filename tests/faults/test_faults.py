"""Nothing lost, nothing twice unmarked: a short mix of faults, and quick rows (`python -m bench faults`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import examine
from redis.asyncio import Redis

from bench.faults.command import ROWS
from bench.faults.mix import piece, plan
from bench.faults.stages import STAGES

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]


async def _drained(redis: Redis) -> list[str]:
    wrong: list[str] = await examine(redis, drained=True)
    return wrong


async def test_a_mix_of_faults(tmp_path: Path) -> None:
    made = plan(seed=1, mails=1200, kills=4, server_kills=1, breaks=2)
    found = await piece(tmp_path, made, _drained)
    assert found.verdict.kept, found.verdict
    assert found.verdict.mails == 1200
    assert len(found.kills) == sum(fault.what in ("worker", "both") for fault in made.faults)
    assert found.server_kills == 1
    assert found.caught, "no kill caught a mail past its MAIL: the run proves nothing"


async def test_a_row(tmp_path: Path) -> None:
    found = await ROWS["server-killed"].run(tmp_path)
    assert not found.skipped
    assert found.good, found.shown
    assert found.figures["kills"] == 3


def test_a_plan_is_its_seed() -> None:
    assert plan(3, 6000, 11, 2, 5) == plan(3, 6000, 11, 2, 5)
    assert plan(3, 6000, 11, 2, 5) != plan(4, 6000, 11, 2, 5)
    faults = [fault for seed in range(20) for fault in plan(seed, 6000, 11, 2, 5).faults]
    assert {fault.stage for fault in faults if fault.what == "worker"} == set(STAGES[1:])
    assert {fault.what for fault in faults} == {"worker", "server", "both", "line"}
    assert all(0 <= fault.at <= 6000 for fault in faults)

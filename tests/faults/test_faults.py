"""Nothing lost, nothing twice unmarked: a short mix of faults, and quick rows (`python -m bench faults`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import examine
from redis.asyncio import Redis

from bench.faults.command import ROWS
from bench.faults.mix import WAYS, Way, piece, plan, way_of
from bench.faults.stages import STAGES

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]


async def _drained(redis: Redis) -> list[str]:
    wrong: list[str] = await examine(redis, drained=True)
    return wrong


@pytest.mark.parametrize(("way", "mails", "kills"), [("transaction", 1200, 4), ("overlap", 600, 2), ("bdat", 600, 2)])
async def test_a_mix_of_faults(way: Way, mails: int, kills: int, tmp_path: Path) -> None:
    made = plan(seed=1, mails=mails, kills=kills, server_kills=1, breaks=kills // 2, way=way)
    found = await piece(tmp_path, made, _drained)
    assert found.verdict.kept, found.verdict
    assert found.verdict.mails == mails
    assert len(found.kills) == sum(fault.what in ("worker", "both") for fault in made.faults)
    assert found.server_kills == 1
    assert (found.seen["ahead"] > 0) is (way == "overlap"), "it took another way"
    assert (found.seen["chunks"] > 0) is (way == "bdat"), "it took another way"
    assert found.caught, "no kill caught a mail past its MAIL: the run proves nothing"


async def test_a_row(tmp_path: Path) -> None:
    found = await ROWS["server-killed"].run(tmp_path, {})
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


def test_pieces_take_turns_in_their_ways() -> None:
    assert {way_of(seed) for seed in range(4)} == set(WAYS)
    assert plan(3, 6000, 11, 2, 5, "overlap").way == "overlap"
    seldom = [fault for seed in range(20) for fault in plan(seed, 6000, 11, 2, 5, "bdat").faults if fault.stage == "go"]
    assert all(fault.nth <= 3 for fault in seldom), "of the few large ones, the fortieth would be waited for"

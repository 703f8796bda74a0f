"""The measurements themselves, with few mails: what they check of a run holds, and they leave out nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.cases import BASE, PEERS, Case
from bench.contenders import run_peer, run_postfix
from bench.drain import run_streamq

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]


@pytest.mark.parametrize(
    "case",
    [replace(BASE, processes=2, mode="overlap+bdat"), replace(BASE, what="flow", fsync="always", kind="composed")],
    ids=lambda case: case.name,
)
async def test_a_run_is_checked(case: Case, tmp_path: Path) -> None:
    found = await run_streamq(tmp_path, case, 1000)
    assert not found.skipped
    assert found.good, found.checks
    assert len(found.checks) == 3
    assert all(value is not None and value > 0 for value in found.figures.values()), found.figures
    assert found.server["appendfsync"] == case.fsync
    assert found.settings["routes"]["main"]["pipelining"] == case.pipelining


@pytest.mark.parametrize("peer", PEERS)
async def test_a_peer_delivers_each_mail(peer: str, tmp_path: Path) -> None:
    run = run_postfix if peer == "postfix" else run_peer
    found = await run(tmp_path, Case(client=peer, processes=2), 200)
    if found.skipped:
        pytest.skip(found.skipped)
    assert found.good, found.checks
    assert found.version
    assert (found.figures["mails_per_s"] or 0) > 0

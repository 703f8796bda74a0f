"""`python -m bench scheduler` with few mails: that it counts what it says. Its figures need a quiet machine."""

from __future__ import annotations

import pytest

from bench.scheduler import CASES, MOST_REFUSED, Run, results, scheduler, table

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]


async def test_who_knows_the_limit_is_refused_nothing_and_who_learns_it_little() -> None:
    known, learns = await scheduler(400, ["connections, box"], ["known", "streamq"])
    assert (known.accepted, learns.accepted) == (400, 400)
    assert (known.refused_connections, known.refused_mails, known.deferred, known.ratio) == (0, 0, 0, 1.0)
    assert 1 <= learns.refused_connections <= 2  # and the box was never met
    assert (learns.refused_mails, learns.deferred) == (0, 0)
    assert learns.ratio == pytest.approx(learns.goodput / known.goodput, abs=0.001)


async def test_postfix_is_measured_beside_it() -> None:
    (run,) = await scheduler(60, ["rate"], ["postfix"])
    if run.skipped:
        pytest.skip(run.skipped)
    assert run.mails == CASES["rate"].mails(60) == 9
    assert run.accepted == 9
    assert run.version.startswith("3.")
    shown = table([run])
    assert f"postfix {run.version}" in shown
    assert "promise" in shown


def test_a_promise_is_broken_by_any_of_its_parts() -> None:
    kept = Run("rate", "streamq", mails=1000, accepted=1000, ratio=0.9, connections=100)
    assert kept.good
    for wrong in ({"ratio": 0.89}, {"refused_connections": 3}, {"refused_mails": 21}, {"deferred": 21}):
        run = Run("rate", "streamq", **{"mails": 1000, "accepted": 1000, "ratio": 0.9, "connections": 100, **wrong})  # type: ignore[arg-type]
        assert not run.good, wrong
    assert results([kept])[0]["good"] is True
    assert MOST_REFUSED == 0.02

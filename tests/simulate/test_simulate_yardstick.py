"""yardstick.py: the numbers by which a policy is judged, on runs whose numbers are known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamq.settings import load_settings
from streamq.simulate.models import Answer
from streamq.simulate.record import Record
from streamq.simulate.relay import Change
from streamq.simulate.result import Result, SiteResult
from streamq.simulate.scenario import Spec
from streamq.simulate.yardstick import CASES, DRAWN, REPORTED, SITE, TUNED, Case, measure, read
from streamq.smtp.replies import default_replies

SLOW = Answer(450, f"4.7.1 {SITE}: too many messages, slow down")
STEADY = Case(Spec(SITE, "rate", 1.0, {"rate": 10.0}), seconds=1000.0)
DOUBLED = replace(
    STEADY, limited=replace(STEADY.limited, changes=(Change(500.0, (("rate", 20.0),)),)), changes_at=500.0
)


def ran(case: Case, taken: list[float], refused: int = 0) -> Result:
    record = Record(default_replies())
    for at, time in enumerate(taken):
        record.takes(SITE, f"u{at}@{SITE}", time)
    for at in range(refused):
        record.refuses(SITE, f"r{at}@{SITE}", 1.0, SLOW)
    site = SiteResult.of(SITE, "rate", len(taken), record.site(SITE))
    return Result(case.scenario(), [site], 0, 0, 10, 1, record)


def evenly(start: float, stop: float, rate: float) -> list[float]:
    return [start + at / rate for at in range(int((stop - start) * rate))]


def test_who_uses_the_limit_and_meets_no_refusal_scores_full() -> None:
    marks = read(STEADY, ran(STEADY, evenly(0, 1000, 10)))
    assert marks.goodput == pytest.approx(1.0, abs=0.01)
    assert (marks.refused, marks.turned_away, marks.regained_s) == (0.0, 0.1, None)
    assert marks.wobble < 0.02


def test_half_the_rate_is_half_the_goodput() -> None:
    assert read(STEADY, ran(STEADY, evenly(0, 1000, 5))).goodput == pytest.approx(0.5, abs=0.01)


def test_refusals_are_a_share_of_all_answers() -> None:
    assert read(STEADY, ran(STEADY, evenly(0, 90, 10), refused=100)).refused == pytest.approx(0.1)


def test_a_rate_that_swings_wobbles() -> None:
    swinging = [
        time
        for start in range(0, 1000, 40)
        for time in (*evenly(start, start + 20, 13), *evenly(start + 20, start + 40, 7))
    ]
    assert read(STEADY, ran(STEADY, swinging)).wobble == pytest.approx(0.3, abs=0.05)


def test_a_doubled_limit_is_regained_when_nine_tenths_are_used() -> None:
    slow = read(DOUBLED, ran(DOUBLED, [*evenly(0, 700, 10), *evenly(700, 1000, 19)]))
    assert slow.regained_s is not None
    assert 200 <= slow.regained_s <= 215
    assert read(DOUBLED, ran(DOUBLED, evenly(0, 1000, 10))).regained_s is None
    at_once = read(DOUBLED, ran(DOUBLED, [*evenly(0, 500, 10), *evenly(500, 1000, 20)])).regained_s
    assert at_once == pytest.approx(10, abs=1)


def test_the_halves_share_no_case_and_the_pictures_are_of_cases() -> None:
    assert not set(TUNED) & set(REPORTED)
    assert set(CASES) == set(TUNED) | set(REPORTED) >= set(DRAWN)
    assert {case.limited.model for case in REPORTED.values()} - {case.limited.model for case in TUNED.values()}


@pytest.mark.parametrize("name", list(CASES))
def test_there_is_more_to_send_than_any_client_could(name: str) -> None:
    case = CASES[name]
    scenario = case.scenario()
    assert case.at_relay == (scenario.relay("relay").model != "open")
    assert 1000 <= scenario.mails <= 100_000


def test_a_client_that_is_told_the_limit_scores_well(server_url: str) -> None:
    """Measured, not computed: the settings say just what the model takes."""
    case = replace(CASES["rate"], seconds=120.0)
    known = load_settings(toml_values={"sites": {"*": {"rate": ["5/s"]}}})
    marks = measure(case, known, server_url)
    assert marks.refused == 0.0
    assert marks.goodput >= 0.9

"""Waits between attempts: the steps, their jitter, a receiver's hint."""

from __future__ import annotations

import random

from ended import arg, delivery, report, row
from hypothesis import given
from hypothesis import strategies as st

from streamq.settings import Settings, load_settings
from streamq.smtp.letter import Action
from streamq.worker.outcome import HINT_MOST_MS, Outcomes

STEPS = st.lists(st.integers(1, 86_400_000), min_size=1, max_size=8)


def _settings(steps: list[int], jitter: float = 0.0) -> Settings:
    return load_settings(retry=[f"{step}ms" for step in steps], jitter=jitter)


@given(STEPS, st.integers(1, 100))
def test_the_last_step_repeats(steps: list[int], attempts: int) -> None:
    wait = Outcomes(_settings(steps), random.Random(0)).wait_ms(attempts)
    assert wait == steps[min(attempts, len(steps)) - 1]


@given(STEPS, st.integers(1, 20), st.floats(0, 0.5), st.integers())
def test_jitter_stays_within_its_part(steps: list[int], attempts: int, jitter: float, seed: int) -> None:
    wait = Outcomes(_settings(steps, jitter), random.Random(seed)).wait_ms(attempts)
    step = steps[min(attempts, len(steps)) - 1]
    assert step * (1 - jitter) - 1 <= wait <= step * (1 + jitter) + 1


def test_jitter_uses_all_of_its_part() -> None:
    one = Outcomes(_settings([1000], 0.5), random.Random(3))
    waits = [one.wait_ms(1) for _ in range(2000)]
    assert min(waits) < 520
    assert max(waits) > 1480


@given(STEPS, st.integers(1, 20), st.integers(0, 10**12))
def test_a_hint_lengthens_a_wait_up_to_its_cap(steps: list[int], attempts: int, hint: int) -> None:
    wait = Outcomes(_settings(steps), random.Random(0)).wait_ms(attempts, hint)
    step = steps[min(attempts, len(steps)) - 1]
    assert wait == max(step, min(hint, HINT_MOST_MS))


def test_the_hint_of_a_report_is_honoured() -> None:
    made = row(delivery(), report(Action.RETRY, hint_ms=90_000), jitter=0)
    assert arg(made)["wait"] == 90_000

"""bench/figures.py: percentiles that were measured, medians of rounds, ratios within rounds, tables."""

from __future__ import annotations

import pytest

from bench.figures import columns, middle, percentile, ratio, spread


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.5, 50), (0.501, 51), (0.99, 99), (0.999, 100), (1.0, 100)]
)
def test_percentiles_of_a_hundred(share: float, expected: float) -> None:
    assert percentile(range(100, 0, -1), share) == expected


def test_percentiles_of_few_are_what_was_measured() -> None:
    assert percentile([7.0], 0.5) == percentile([7.0], 0.999) == 7.0
    assert percentile([1.0, 9.0], 0.5) == 1.0
    assert percentile([1.0, 9.0], 0.99) == 9.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_the_middle_is_by_name_and_of_those_that_have_it() -> None:
    assert middle([{"a": 3.0, "b": None}, {"a": 1.0, "b": 4.0}, {"a": 2.0}]) == {"a": 2.0, "b": 4.0}


def test_ratios_are_taken_within_rounds() -> None:
    # The second round was twice as slow for both: the ratio of medians would say 2.0 or 8.0
    assert ratio([40.0, 20.0, 44.0], [10.0, 5.0, 11.0]) == 4.0
    assert spread([90.0, 100.0, 110.0]) == pytest.approx(0.1)


def test_columns_stand_below_each_other() -> None:
    assert columns([["name", "n"], ["a", "1,000"], ["longer", ""]]) == "name        n\na       1,000\nlonger"

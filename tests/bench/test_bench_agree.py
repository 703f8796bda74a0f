"""`python -m bench agree` promises what it measured, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from bench.agree import Agreed, Spent, table

CHEAP, DEAR = Spent(1.0, 1.0, 10.0), Spent(9.0, 9.0, 10.0)


@pytest.mark.parametrize(
    ("spent", "wrong", "good", "says"),
    [
        ({}, {"page": []}, True, "promise (2 ms a second): not measured"),
        ({}, {"page": ["x"]}, False, "promise (2 ms a second): not measured"),
        ({"idle": CHEAP, "page": CHEAP}, {}, True, "promise (2 ms a second): kept"),
        ({"idle": CHEAP, "page": CHEAP}, {"page": ["x"]}, False, "promise (2 ms a second): kept"),
        ({"idle": CHEAP, "page": DEAR}, {}, False, "promise (2 ms a second): broken"),
        ({"idle": CHEAP, "page": CHEAP, "buried": DEAR, "graves": DEAR}, {}, True, "promise (2 ms a second): kept"),
        ({"idle": CHEAP, "page": CHEAP, "buried": CHEAP, "graves": DEAR}, {}, False, "promise (2 ms a second): broken"),
    ],
)
def test_its_promise(spent: dict[str, Spent], wrong: dict[str, Any], good: bool, says: str) -> None:
    found = Agreed(3000, 2000, 1.0, wrong, spent)
    assert found.good == good
    assert says in table(found, {}).splitlines()

"""How much of a limit is used where there is always mail, by several workers, in virtual time."""

from __future__ import annotations

import pytest

from bench.use import in_virtual_time


@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize("scope", ["queue", "route", "site"])
def test_a_limit_is_used_to_95_percent_and_never_exceeded(server_url: str, scope: str, workers: int) -> None:
    """Of a window of 100 ms: a slot lasts for less than three of them, and a round trip to Redis takes half a one."""
    held = in_virtual_time(server_url, scope, "20/100ms", workers, span=3.0)
    assert held.most <= 1.0
    assert held.use >= 0.95

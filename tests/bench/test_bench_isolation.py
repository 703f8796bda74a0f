"""What `isolation` promises: so many times as long as alone, and so much for each mail that was refused."""

from __future__ import annotations

import pytest

from bench.isolation import Behind, promised_s, table


def test_the_promise_is_reckoned_by_rounds() -> None:
    alone = [Behind("streamq", seconds=one) for one in (1.0, 2.0, 10.0)]
    behind = [Behind("streamq", waiting=9, seconds=3.0, refused=many) for many in (10_000, 20_000, 0)]
    assert promised_s(alone, behind) == pytest.approx(1.2 * 2.0 + 2.0)


def test_the_table_names_the_promise_and_who_is_missing() -> None:
    runs = [
        Behind("streamq", "1", 0, 10, 1.0),
        Behind("streamq", "1", 500, 10, 1.5, 500),
        Behind("postfix", skipped="postfix is not installed"),
    ]
    shown = table(runs)
    assert "1.25 s: broken" in shown
    assert "1,000" in shown  # µs for each
    assert "postfix: skipped: postfix is not installed" in shown

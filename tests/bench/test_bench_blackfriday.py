"""Shares of domains, limits that bind, and the codes among two million lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.blackfriday import LIMITED, MAILS, OVER_S, Friday, codes_of, limits
from bench.orders import DOMAINS, domain, shares
from streamq.settings import load_settings


def test_shares_fall_by_rank_and_are_one_together() -> None:
    found = shares()
    assert len(found) == DOMAINS
    assert sum(found) == pytest.approx(1)
    assert found[0] == pytest.approx(2 * found[1]) == pytest.approx(10 * found[9])


def test_limits_are_settings_and_bind(tmp_path: Path) -> None:
    file = tmp_path / "streamq.toml"
    file.write_text(limits())
    sites = load_settings(config=file).sites or {}
    assert len(sites) == LIMITED
    for rank, share in enumerate(shares()[:LIMITED]):
        [window] = sites[domain(rank)].rate
        assert window.window_ms == 1000
        assert share * MAILS / OVER_S < window.count < 1.31 * share * MAILS / OVER_S + 1


def test_codes_are_found_among_the_orders() -> None:
    lines = ["5 c1@shop1.example <x@shop.example>\n", "7 c1@code.example <y@shop.example>\n", "9 c2@code.example \n"]
    assert codes_of(lines) == [(7, "c1@code.example"), (9, "c2@code.example")]


@pytest.mark.parametrize(
    ("changed", "good"),
    [
        ({}, True),
        ({"seconds": 601.0}, False),
        ({"seconds": 601.0, "mails": 1000, "relayed": 1010}, True),  # the time is that of two million
        ({"relayed": MAILS}, False),
        ({"wrong": 1}, False),
        ({"ms": {"p99": 251.0}}, False),
        ({"memory": 101}, False),
    ],
)
def test_what_is_promised(changed: dict[str, object], good: bool) -> None:
    known: dict[str, object] = {
        "mails": MAILS, "codes": 10, "fed_s": 60.0, "seconds": 599.0, "cpu": 1.0, "redis_cpu": 1.0,
        "ms": {"p99": 249.0}, "memory": 100, "computed": 100, "worker_peak": 1, "fork_ms": 1.0,
        "relayed": MAILS + 10, "wrong": 0,
    }  # fmt: skip
    assert Friday(**(known | changed)).good is good  # type: ignore[arg-type]

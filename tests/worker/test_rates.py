"""What a target took of late: over a second at least, and forgotten soon."""

from __future__ import annotations

from streamq.worker.rates import Rates


def test_a_burst_counts_as_of_a_second() -> None:
    rates = Rates()
    for _ in range(30):
        rates.took("main", 1000)
    assert rates.of("main", 1100) == 30.0


def test_it_is_the_mean_of_the_last_seconds() -> None:
    rates = Rates()
    for ms in range(0, 4000, 100):
        rates.took("main", 100_000 + ms)
    assert rates.of("main", 104_000) == 10.0
    assert rates.of("other", 104_000) == 0.0


def test_who_becomes_quicker_takes_what_the_last_second_took() -> None:
    """10 a second for four seconds, and 50 for two."""
    rates = Rates()
    for nth in range(40):
        rates.took("main", 100_000 + nth * 100)
    for nth in range(100):
        rates.took("main", 104_000 + nth * 20)
    assert 49.0 <= rates.of("main", 106_000) <= 51.0
    assert rates.of("main", 109_000) < 25.0


def test_what_was_long_ago_is_forgotten() -> None:
    rates = Rates()
    for n in range(1000):
        rates.took(f"main|site{n}.example", 100_000)
    rates.took("main", 106_000)
    assert rates.of("main|site1.example", 106_000) > 0
    rates.took("main", 112_000)
    assert rates.of("main|site1.example", 112_000) == 0.0
    assert rates.of("main", 112_000) > 0


def test_a_clock_that_is_set_back_begins_anew() -> None:
    rates = Rates()
    rates.took("main", 100_000)
    rates.took("main", 50_000)
    assert rates.of("main", 50_500) == 1.0


def test_a_burst_that_was_saved_up_is_not_of_a_second() -> None:
    """A bucket of 25 a second that was full: 58 in 1.3 seconds, and 25 a second is what it takes."""
    rates = Rates()
    for nth in range(58):
        rates.took("main", 100_000 + nth * 1300 // 58)
    assert rates.of("main", 101_320) == 43.939
    assert rates.least_of("main", 101_320) == 25.0
    assert rates.least_of("other", 101_320) == 0.0

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamq.mail.times import moment_ms, span_ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2024-11-22T01:06:01Z", 1_732_237_561_000),
        ("2024-11-22t01:06:01z", 1_732_237_561_000),
        ("2024-11-22 02:06:01.2349+01:00", 1_732_237_561_234),
        ("2024-11-21T20:36:01.5-04:30", 1_732_237_561_500),
        ("2016-12-31T23:59:60Z", 1_483_228_799_000),
        ("1732237561", 1_732_237_561_000),
        ("1732237561.25", 1_732_237_561_250),
        ("1732237561234", 1_732_237_561_234),
        ("100000000000", 100_000_000_000_000),  # 1e11 is still seconds
        ("100000000001", 100_000_000_001),
        ("0", 0),
    ],
)
def test_a_moment_has_three_forms(text: str, ms: int) -> None:
    assert moment_ms(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        "2024-11-22T01:06:01",  # no offset
        "2024-11-22",
        "2024-13-22T01:06:01Z",
        "2023-02-29T01:06:01Z",
        "2024-11-22T24:06:01Z",
        "2024-11-22T01:60:01Z",
        "2024-11-22T01:06:61Z",
        "2024-11-22T01:06:01+24:00",
        "2024-11-22T01:06:01+0100",
        "2024-11-22T01:06:01Z\n",
        "tomorrow",
        "-1",
        "+5",
        "1e9",
        "1_000",
        "٣",
        " 17",
        "9" * 21,
        "0000-01-01T00:00:00Z",
    ],
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="no"):
        moment_ms(text)


@settings(max_examples=200, deadline=None)
@given(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),
    st.integers(-23 * 60, 23 * 60),
)
def test_a_moment_is_what_the_standard_library_reads(naive: datetime, offset: int) -> None:
    when = naive.replace(tzinfo=timezone(timedelta(minutes=offset)))
    whole = (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert moment_ms(when.isoformat()) == whole


@pytest.mark.parametrize(("text", "ms"), [("0", 0), ("90", 90_000), ("1.5", 1500), ("0.0009", 0)])
def test_a_span_counts_seconds(text: str, ms: int) -> None:
    assert span_ms(text) == ms


@pytest.mark.parametrize("text", ["5m", "-1", "", "1.", ".5", "1,5", "inf", "nan"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(ValueError, match="number of seconds"):
        span_ms(text)

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamq.mail.stamp import boundary, date, message_id


def test_stamps_follow_salt_and_entry() -> None:
    one = message_id(b"salt", "11-0", "example.com")
    assert one == message_id(b"salt", "11-0", "example.com")
    assert one.startswith("<")
    assert one.endswith("@example.com>")
    assert one != message_id(b"salt", "11-1", "example.com")
    assert one != message_id(b"other", "11-0", "example.com")
    assert boundary(b"salt", "11-0") == boundary(b"salt", "11-0") != boundary(b"salt", "11-1")
    assert boundary(b"salt", "11-0")[2:] not in one


def test_a_long_salt_counts_to_its_end() -> None:
    assert message_id(b"s" * 500, "1", "x") != message_id(b"s" * 499 + b"t", "1", "x")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 253_402_300_799_999))
def test_the_date_is_the_standard_librarys(at_ms: int) -> None:
    assert date(at_ms) == format_datetime(datetime.fromtimestamp(at_ms // 1000, UTC))


@pytest.mark.parametrize("at_ms", [2**64 - 1, 253_402_300_800_000])
def test_an_entry_from_after_the_last_year_has_a_date(at_ms: int) -> None:
    assert date(at_ms) == "Fri, 31 Dec 9999 23:59:59 +0000"

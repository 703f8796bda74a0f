"""Waits that replies ask for: real forms, and every form with every number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.smtp.hints import LONGEST_MS, hint_ms

UNITS = {
    1000: ["s", "sec", "secs", "second", "seconds"],
    60_000: ["m", "min", "mins", "minute", "minutes"],
    3_600_000: ["h", "hr", "hrs", "hour", "hours"],
    86_400_000: ["d", "day", "days"],
}
ASKING = ["try again in", "Greylisted for", "retry after", "please wait", "come back within", "for another", "at least"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        # postgrey, milter-greylist, SQLgrey, relays; each form as it is sent
        ("4.7.1 <bob@example.net>: Recipient address rejected: Greylisted, try again in 300 seconds", 300),
        ("Greylisted for 300 seconds", 300),
        ("4.7.1 Greylisting in action, please come back in 00:04:59", 299),
        ("Recipient address rejected: Greylisted for 5 minutes", 300),
        ("Greylisted, see or wait 300 seconds", 300),
        ("Too many messages. Try again in 92 seconds.", 92),
        ("Please retry after 1 hour", 3600),
        ("retry after 60s", 60),
        ("retry-after: 120", 120),
        ("Retry after: 120", 120),
        ("greylisted; minutes=5", 300),
        ("seconds: 45", 45),
        ("wait 2 minutes and 30 seconds", 150),
        ("try again in 1 hour, 5 mins", 3900),
        ("try again in about 10 minutes", 600),
        ("for at least 15 min.", 900),
        ("try again in 9999999 hours", 86_400),
        ("in 99:59:59", 86_400),
        # none of these is a wait
        ("try again later", 0),
        ("error 300 seconds", 0),
        ("only 5 recipients per 5 minutes allowed", 0),
        ("exceeded the max emails per hour (151/150 (100%)) allowed", 0),
        ("in 5 messages", 0),
        ("in 300 secondsx", 0),
        ("in 2024-11-05:04:59:00", 0),
        ("after 12345678 seconds", 0),
        ("in ٣٠٠ seconds", 0),
        ("", 0),
    ],
)
def test_hints(text: str, seconds: int) -> None:
    assert hint_ms(text) == seconds * 1000


@given(st.sampled_from(ASKING), st.integers(0, 9_999_999), st.sampled_from(sorted(UNITS)), st.data())
def test_every_form_with_every_number(words: str, many: int, unit: int, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(UNITS[unit]))
    blank = data.draw(st.sampled_from(["", " "]))
    text = f"4.7.1 {words} {many}{blank}{name}, sorry"
    assert hint_ms(text) == min(many * unit, LONGEST_MS)
    assert hint_ms(text.upper()) == hint_ms(text)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_a_clock(hours: int, minutes: int, seconds: int) -> None:
    asked = (hours * 3600 + minutes * 60 + seconds) * 1000
    assert hint_ms(f"please come back in {hours:02}:{minutes:02}:{seconds:02}") == min(asked, LONGEST_MS)


@given(st.text(max_size=300) | st.text(alphabet="in after for 0123456789:smh =", max_size=300))
def test_whatever_stands_there_is_between_none_and_a_day(text: str) -> None:
    assert 0 <= hint_ms(text) <= LONGEST_MS

"""W3C Trace Context, 3.2: what a `traceparent` is, and what is none."""

from __future__ import annotations

import pytest

from streamq.mail.trace import read_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-ff", 255),  # bits that nobody knows yet
        (f"cc-{TRACE}-{SPAN}-01", 1),  # a version to come
        (f"cc-{TRACE}-{SPAN}-01-what the future brings", 1),
    ],
)
def test_good_ones(text: str, flags: int) -> None:
    assert read_traceparent(text) == (int(TRACE, 16), int(SPAN, 16), flags)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-٠١",
    ],
)
def test_what_is_none(text: str) -> None:
    assert read_traceparent(text) is None

import pytest

from streamq.errors import SHOWN, MalformedMail
from streamq.mail.values import line, plain, text, wrong


def test_a_wrong_value_is_told_in_short() -> None:
    found = wrong(b"to", b"a" * 10_000_000, "not an address")
    assert (found.field, found.why) == ("to", "not an address")
    assert found.value == "a" * SHOWN + "…"
    assert wrong("to", "ü€𝄞" * 1000, "x").value == ("ü€𝄞" * 27)[:SHOWN] + "…"
    assert wrong(b"to", ("𝄞" * 1000).encode(), "x").value == "𝄞" * SHOWN + "…"


def test_texts_are_utf_8() -> None:
    assert text(b"text", "ü\r\n".encode()) == "ü\r\n"
    for value in (b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xe2\x82"):
        with pytest.raises(MalformedMail, match="text: not UTF-8"):
            text(b"text", value)


def test_lines_and_keys() -> None:
    assert line(b"subject", b"a\tb\x0b") == "a\tb\x0b"
    assert plain(b"id", b"a b", 3) == "a b"
    with pytest.raises(MalformedMail, match="id: longer than 2 bytes"):
        plain(b"id", b"a b", 2)
    with pytest.raises(MalformedMail, match="id: control characters"):
        plain(b"id", b"a\tb", 3)

import base64
import quopri
import re
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamq.mail import wire
from streamq.mail.wire import base64_lines, crlf, size_with_crlf, transfer

ENDS = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b" ", b"\xff"]), max_size=20).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(ENDS)
def test_every_line_end_becomes_crlf(data: bytes) -> None:
    assert crlf(data) == re.sub(rb"\r\n|\r|\n", b"\r\n", data)
    assert len(crlf(data)) == size_with_crlf(data)


def test_what_is_clean_is_not_copied() -> None:
    data = b"a\r\nb\r\n"
    assert crlf(data) is data


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"", "7bit"),
        (b"Hello\r\n", "7bit"),
        (b"a" * 998, "7bit"),
        (b"a\r\n" + b"a" * 998 + b"\r\nb", "7bit"),
        (b"a" * 999, "quoted-printable"),
        (b"a\r\n" + b"a" * 999 + b"\r\nb", "quoted-printable"),
        ("Viele Grüße aus der Stadt Köln am Rhein".encode(), "quoted-printable"),
        ("привет".encode(), "base64"),
        (b"\0", "base64"),
    ],
)
def test_the_encoding_that_fits(data: bytes, encoding: str) -> None:
    assert transfer(data)[0] == encoding


def test_a_line_is_long_wherever_it_stands() -> None:
    short, long = b"a" * 998, b"a" * 999
    assert wire.is_7bit(b"\r\n".join([short] * 9 + [b"", short]))
    for place in range(4):
        lines = [b"b", short, b"", short]
        lines[place] = long
        assert not wire.is_7bit(b"\r\n".join(lines))
        assert not wire.is_7bit(b"\r\n".join([*lines, b""]))


BODY = st.one_of(
    ENDS,
    st.text(max_size=300).map(str.encode),
    st.text("abc =.\t\r\n", max_size=2000).map(str.encode),
    st.text("ab ü=\r\n", max_size=2000).map(str.encode),
    st.tuples(st.integers(900, 1100), st.sampled_from([b"", b" ", b"\r\n", b"\xc3\xbc"])).map(
        lambda drawn: b"a" * drawn[0] + drawn[1]
    ),
)


@settings(max_examples=300, deadline=None)
@given(BODY)
def test_the_body_comes_back_from_short_ascii_lines(data: bytes) -> None:
    data = crlf(data)
    encoding, body = transfer(data)
    if encoding == "7bit":
        assert body is data
    else:
        assert (quopri.decodestring if encoding == "quoted-printable" else base64.b64decode)(body) == data
    assert body.isascii()
    assert b"\0" not in body
    assert crlf(body) == body
    assert max(map(len, body.split(b"\r\n"))) <= (998 if encoding == "7bit" else 76)
    if encoding != "7bit":
        assert not re.search(rb"[ \t]+(\r\n|$)", body)  # blanks at line ends get lost on the way


@pytest.mark.parametrize("size", [0, 1, 57, 58, 57 * 64 - 1, 57 * 64, 57 * 64 + 1, 57 * 128, 57 * 130 + 5])
def test_base64_stands_on_lines_of_76(size: int) -> None:
    flat = base64.b64encode(bytes(range(256)) * 32)[: 4 * -(-size // 3)]
    lines = base64_lines(flat).split(b"\r\n")
    assert b"".join(lines) == flat
    assert all(len(line) == 76 for line in lines[:-1])
    assert 0 < len(lines[-1]) <= 76 or not flat


@settings(max_examples=300, deadline=None)
@given(BODY, st.integers(1, 40))
def test_piece_by_piece_the_same_comes_of_it(data: bytes, size: int) -> None:
    """What is long is looked at in pieces, or one call would keep all threads waiting."""
    whole = crlf(data)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(wire, "PIECE", size)
        assert crlf(data) == whole
        encoding, body = transfer(whole)
    if encoding == "quoted-printable":
        assert body == transfer(whole)[1]
    elif encoding == "base64":
        assert base64.b64decode(body) == whole
    else:
        assert body is whole


def test_many_lines_become_no_list() -> None:
    """Of empty ones each would be twenty times itself."""
    data = b"\r\n" * 1_000_000
    tracemalloc.start()
    try:
        assert crlf(b"\r" * 1_000_000) == data
        assert wire.is_7bit(data)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 5 * len(data)

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamq.sink.content import Content

PIECES = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"..", b"a", b"\x00", b"\xff"]), max_size=30)


def stuffed(content: bytes) -> bytes:
    """Line by line, as RFC 5321 section 4.5.2 words it."""
    lines = content.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)


def take(content: Content, pieces: list[bytes]) -> bytes:
    """Feed the pieces; returns what is left behind the end."""
    rest = b""
    for piece in pieces:
        if content.text is None:
            rest = piece[content.take(piece, 0) :]
        else:
            rest += piece
    return rest


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


@given(PIECES, st.lists(st.integers(0, 10_000), max_size=8))
@example([b".", b"\r\n", b".."], [1, 2, 3, 4, 5, 6, 7, 8])
def test_any_content_cut_anywhere_comes_out_as_it_went_in(parts: list[bytes], cuts: list[int]) -> None:
    body = b"".join(parts)
    body = body + b"\r\n" if body else body
    content = Content(10_000)
    rest = take(content, cut(stuffed(body) + b".\r\nMAIL", cuts))
    assert content.text == b"\r\n" + body
    assert rest == b"MAIL"
    assert not content.too_big


def test_every_byte_on_its_own() -> None:
    content = Content(100)
    wire = b"..\r\n.x\r\n\r\n.\r\n"
    for index in range(len(wire)):
        assert content.text is None
        content.take(wire[index : index + 1], 0)
    assert content.text == b"\r\n.\r\nx\r\n\r\n"


@pytest.mark.parametrize(
    "fake",
    [b"\n.\n", b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r", b"\r\n\x00.\r\n", b"\r\n.\r\r\n"],
)
@pytest.mark.parametrize("one_by_one", [False, True])
def test_what_only_looks_like_the_end_is_content(fake: bytes, one_by_one: bool) -> None:
    wire = b"first" + fake + b"MAIL FROM:<evil@example.com>\r\n.\r\nQUIT"
    content = Content(1000)
    pieces = [wire[index : index + 1] for index in range(len(wire))] if one_by_one else [wire]
    assert take(content, pieces) == b"QUIT"
    # only a dot that begins a line is taken away
    expected = fake.replace(b"\r\n.", b"\r\n")
    assert content.text == b"\r\nfirst" + expected + b"MAIL FROM:<evil@example.com>\r\n"


def test_it_goes_on_where_it_is_told_to() -> None:
    content = Content(100)
    buffer = b"DATA\r\nHello\r\n.\r\nQUIT\r\n"
    assert buffer[content.take(buffer, 6) :] == b"QUIT\r\n"
    assert content.text == b"\r\nHello\r\n"


def test_what_follows_empty_content_is_not_searched_for_the_end() -> None:
    buffer = b".\r\nMAIL\r\nHello\r\n.\r\n"
    content = Content(100)
    assert content.take(buffer, 0) == 3
    assert content.text == b"\r\n"


@pytest.mark.parametrize("first", range(6))
def test_the_end_of_what_is_too_big_may_be_cut_anywhere(first: int) -> None:
    content = Content(10)
    wire = b"x" * 50 + b"\r\n.\r\n"
    assert take(content, [wire[: 50 + first], *(bytes([byte]) for byte in wire[50 + first :]), b"QUIT"]) == b"QUIT"
    assert (content.too_big, content.text) == (True, b"")


@pytest.mark.parametrize("cuts", [[], [3], list(range(400))])
@pytest.mark.parametrize(("line", "size"), [(b"a" * 8, 10), (b"." * 8, 10)])
def test_the_size_is_that_of_the_content_not_of_its_stuffing(line: bytes, size: int, cuts: list[int]) -> None:
    body = (line + b"\r\n") * 20
    for most, too_big in ((20 * size, False), (20 * size - 1, True)):
        content = Content(most)
        assert take(content, cut(stuffed(body) + b".\r\nX", cuts)) == b"X"
        assert content.too_big is too_big
        assert content.text == (b"" if too_big else b"\r\n" + body)


def test_what_is_too_big_is_not_held() -> None:
    content = Content(100_000)
    piece = b"x" * 65_536
    tracemalloc.start()
    try:
        for _ in range(200):
            assert content.take(piece, 0) == len(piece)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert content.take(b"\r\n.\r\nQUIT", 0) == 5
    assert content.too_big

"""Portions: their bounds, and that no more is taken from a source than is needed."""

from __future__ import annotations

from collections.abc import Iterator

from client.faces import letter
from streamq import Mail
from streamq.client.batch import batches


def sizes(mails: list[Mail], most: int, octets: int) -> list[int]:
    return [len(batch) for batch in batches(mails, most, octets)]


def test_bounded_in_mails() -> None:
    assert sizes([letter() for _ in range(7)], 3, 1_000_000) == [3, 3, 1]
    assert sizes([], 3, 1_000_000) == []


def test_bounded_in_octets() -> None:
    small, large = letter(), letter(text="x" * 1000)
    assert sizes([small] * 4, 500, 2 * small.size) == [2, 2]
    assert sizes([small, small, large, small, small], 500, 2 * small.size) == [2, 1, 2]
    assert sizes([large, large], 500, 1) == [1, 1]


def test_a_source_is_read_one_mail_ahead() -> None:
    taken = []

    def source() -> Iterator[Mail]:
        for n in range(100):
            taken.append(n)
            yield letter()

    found = batches(source(), 10, 1_000_000)
    assert len(next(found)) == 10
    assert len(taken) == 11

"""What recipients weigh is what they take in memory: the hand takes no more mails than it has room for."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from streamq.mail import parse
from streamq.mail.mail import Built
from streamq.mail.numbers import packed

BASE = {b"from": b"shop@example.com", b"text": b"Hello"}
READ: dict[str, Any] = {"entry": "11-0", "at_ms": 0, "salt": b"", "max_bytes": 10**7}


@pytest.mark.parametrize(
    "one",
    [
        lambda number: {"to": f"{number}@b.example"},
        lambda number: {"to": f"user{number}@example.com", "metadata": {"user": number}, "id": f"x{number}"},
        lambda number: {"to": f"user{number}@example.com", "metadata": {"user": number + 0.5}},
        lambda number: {"to": f"user{number}@example.com", "metadata": {"about": "x" * 1000}},
    ],
)
def test_recipients_weigh_what_they_take(one: Callable[[int], Any]) -> None:
    many = orjson.dumps([one(number) for number in range(3000)])
    parse(BASE | {b"recipients": many[: many.index(b"},{")] + b"}]"}, **READ)  # what is loaded once
    gc.collect()
    tracemalloc.start()
    try:
        several = parse(BASE | {b"recipients": many}, **READ).several
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert several is not None
    assert len(several.children) == 3000
    assert 0.8 < several.weight / used < 1.25


def test_copies_weigh_so_too() -> None:
    to = ", ".join(f"r{number}@x.example" for number in range(1000)).encode()
    several = parse(BASE | {b"to": to}, **READ).several
    assert several is not None
    assert several.weight > 5 * len(to)


def test_json_to_be_kept_takes_no_more_memory_than_it_has_octets() -> None:
    packed({"a": 0})
    tracemalloc.start()
    try:
        kept = [packed({"a": number}) for number in range(1000)]
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 1000 * 100
    assert orjson.loads(kept[7]) == {"a": 7}


def test_a_message_that_was_built_is_not_kept_in_parts_too() -> None:
    to = ", ".join(f"r{number}@x.example" for number in range(100)).encode()
    mail = parse(BASE | {b"to": to, b"envelope_to": b"r1@x.example", b"html": b"<p>Hi"}, **READ)
    expected = mail.content(), mail.source.eight_bit, mail.source.smtputf8
    assert mail.built() == expected[0]
    assert isinstance(mail.source, Built)
    assert (mail.content(), mail.source.eight_bit, mail.source.smtputf8) == expected
    assert mail.source.size == len(expected[0])
    assert mail.built() == expected[0]

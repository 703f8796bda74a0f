from __future__ import annotations

import tracemalloc
from pathlib import Path

import orjson
import pytest

from streamq.sink import Counters, Ledger
from streamq.sink.ledger import message_id_of


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (b"Message-ID: <a@b>", b"<a@b>"),
        (b"message-id:<a@b>", b"<a@b>"),
        (b"MESSAGE-ID :  <a@b> ", b"<a@b>"),
        (b"Message-ID:\r\n <a@b>", b"<a@b>"),
        (b"Message-Id: <a\r\n\tb>", b"<a b>"),
        (b"Message-ID: not one", b"not one"),
        (b"Message-ID: <a\n2 x@y <b>>", b"<a 2 x@y <b>>"),
        (b"Message-ID:", b""),
        (b"X-Message-ID: <a@b>", b""),
        (b"Message-IDs: <a@b>", b""),
        (b"Message-ID: <" + b"x" * 2000 + b">", b"<" + b"x" * 996),
    ],
)
def test_the_message_id(header: bytes, value: bytes) -> None:
    for before in (b"", b"Subject: x\r\n"):
        for after in (b"\r\nTo: c@d\r\n\r\nbody\r\n", b"\r\n\r\n", b"\r\n"):
            assert message_id_of(b"\r\n" + before + header + after) == value


def test_a_message_id_in_the_body_is_none() -> None:
    assert message_id_of(b"\r\nSubject: x\r\n\r\nMessage-ID: <a@b>\r\n") == b""
    assert message_id_of(b"\r\n\r\nMessage-ID: <a@b>\r\n") == b""
    assert message_id_of(b"\r\n") == b""


def test_only_the_beginning_of_an_endless_header_is_searched() -> None:
    text = b"\r\nX: " + b"\r" * 10_000_000
    tracemalloc.start()
    try:
        assert message_id_of(text + b"\r\nMessage-ID: <a@b>\r\n\r\n") == b""
        assert message_id_of(b"\r\nMessage-ID: " + b"\r\n " * 1_000_000) == b""
        assert tracemalloc.get_traced_memory()[1] < 25_000_000
    finally:
        tracemalloc.stop()


def test_counts_per_recipient_and_per_message_id() -> None:
    ledger = Ledger()
    ledger.add(("a@x", "b@x"), b"<1>")
    ledger.add(("a@x",), b"<1>")
    ledger.add(("a@x",), b"")
    assert ledger.recipients == {"a@x": 3, "b@x": 1}
    assert ledger.message_ids == {b"<1>": 2}
    assert ledger.doubles() == {b"<1>": 2}
    assert ledger.without_id == 1
    assert ledger.complete


def test_a_full_ledger_says_that_it_is_not_complete_and_goes_on_with_what_it_knows() -> None:
    ledger = Ledger(2)
    for name in ("a@x", "b@x"):
        ledger.add((name,), name.encode())
    before = ledger.complete
    ledger.add(("c@x",), b"a@x")
    assert (before, ledger.complete) == (True, False)
    assert ledger.recipients == {"a@x": 1, "b@x": 1}
    assert ledger.message_ids == {b"a@x": 2, b"b@x": 1}


def test_as_a_file(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.add(("jörg@x",), b"<\xff@x>")
    counters = Counters(accepted=1)
    counters.refused_by["rcpt 450"] += 2
    path = tmp_path / "ledger.json"
    path.write_text("old")
    ledger.write(path, counters)
    found = orjson.loads(path.read_bytes())
    assert found["recipients"] == {"jörg@x": 1}
    assert found["message_ids"] == {"<\\xff@x>": 1}
    assert found["counters"]["accepted"] == 1
    assert found["counters"]["refused_by"] == {"rcpt 450": 2}
    assert found["complete"] is True
    assert list(tmp_path.iterdir()) == [path]

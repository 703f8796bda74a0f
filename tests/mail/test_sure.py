"""What is sure of a mail that was not read to its end: as `parse` has it, each field for itself."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.mail import parse, rules
from streamq.mail.event import hashed_address
from streamq.mail.sure import Sure, read_sure

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
GOOD = {
    b"from": b"shop@example.com",
    b"to": b"Bob <bob@Example.NET>",
    b"subject": b"Hi",
    b"text": b"Hello",
    b"id": b"a1",
    b"tenant": b"acme",
    b"tags": b"a,b",
    b"metadata": b'{"order":1.50}',
    b"traceparent": TRACE.encode(),
}
WHOLE = {
    "rcpt": "bob@Example.NET",
    "site": "example.net",
    "tags": ["a", "b"],
    "metadata": {"order": 1.5},
    "tenant": "acme",
    "traceparent": TRACE,
}


def told(sure: Sure) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(b"{%b}" % sure.event)
    return found


def test_a_good_mail_is_told_of_as_by_its_own_events() -> None:
    for pii in ("full", "hash"):
        mail = parse(GOOD, entry="11-1", at_ms=1, salt=bytes(16), max_bytes=10_000, pii=pii, parent="11-1", nth=1)
        sure = read_sure(GOOD, parent="11-1", pii=pii)
        assert (sure.id, sure.tenant) == (mail.id, mail.tenant)
        assert mail.event.startswith(sure.event + b',"message_id":')
    assert told(read_sure(GOOD)) == WHOLE
    assert told(read_sure(GOOD, pii="hash"))["rcpt"] == hashed_address("bob@example.net")


@pytest.mark.parametrize(
    ("field", "value", "lacks"),
    [
        (b"tenant", b"a\nb", {"tenant"}),
        (b"tenant", b"x" * 257, {"tenant"}),
        (b"tags", b"[", {"tags"}),
        (b"tags", b"x" * 101, {"tags"}),
        (b"metadata", b"[1]", {"metadata"}),
        (b"metadata", b'{"a":"%b"}' % (b"x" * 8192), {"metadata"}),
        (b"traceparent", "\u00e9".encode(), {"traceparent"}),
        (b"to", b"nobody", {"rcpt", "site"}),
        (b"to", b"bob@example.net, eve@example.net", {"rcpt", "site"}),
        (b"to", b"(" * 1001, {"rcpt", "site"}),
        (b"envelope_to", b"nobody", {"rcpt", "site"}),
        (b"cc", b"nobody", {"rcpt", "site"}),
        (b"recipients", b"[", {"rcpt", "site"}),
        (b"raw", b"To: eve@example.net\r\n\r\n", {"rcpt", "site"}),
        (b"v", b"2", {"rcpt", "site"}),
        (b"colour", b"red", {"rcpt", "site"}),
        (b"x_colour", b"red", set[str]()),
        (b"subject", b"\xff", set[str]()),
    ],
)
def test_one_that_is_wrong_hides_no_other(field: bytes, value: bytes, lacks: set[str]) -> None:
    sure = read_sure({**GOOD, field: value})
    assert told(sure) == {name: known for name, known in WHOLE.items() if name not in lacks}
    assert sure.id == (None if field == b"tenant" else "a1")


@pytest.mark.parametrize(
    ("field", "lacks"),
    [
        (b"tenant", {"tenant"}),
        (b"tags", {"tags"}),
        (b"id", set[str]()),
        (b"to", {"rcpt", "site"}),
        (b"envelope_to", {"rcpt", "site"}),
    ],
)
def test_nor_does_one_that_is_there_twice(field: bytes, lacks: set[str]) -> None:
    sure = read_sure(GOOD, (field,))
    assert told(sure) == {name: known for name, known in WHOLE.items() if name not in lacks}
    assert (sure.id is None) == (field in (b"id", b"tenant"))


@pytest.mark.parametrize("wrong", [b"\xff", b"a\tb", b"x" * 257])
def test_an_id_that_is_wrong_is_none(wrong: bytes) -> None:
    assert read_sure({**GOOD, b"id": wrong}).id is None


def test_the_tenant_of_a_child_without_its_body_is_not_known() -> None:
    sure = read_sure({b"@of": b"11-1", b"@n": b"1", b"envelope_to": b"bob@example.net", b"id": b"a1"})
    assert sure == Sure(None, None, b"")


@given(st.dictionaries(st.sampled_from([*GOOD, b"envelope_to", b"colour"]), st.binary(max_size=40)))
def test_it_raises_nothing_and_is_an_object(fields: dict[bytes, bytes]) -> None:
    assert told(read_sure(fields)).keys() <= WHOLE.keys()


def test_what_meets_a_bug_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(rules, "metadata", fails)
    assert told(read_sure(GOOD)) == {name: known for name, known in WHOLE.items() if name != "metadata"}
    monkeypatch.setattr(rules, "key", fails)
    assert read_sure(GOOD, parent="11-1").id is None
    monkeypatch.setattr("streamq.mail.sure.event_members", fails)
    assert read_sure(GOOD, parent="11-1") == Sure(None, None, b'"parent":"11-1"')

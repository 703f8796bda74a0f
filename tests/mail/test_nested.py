"""JSON that is nested however deep: it is taken, or refused by the name of its field; nothing else ever comes of it."""

from __future__ import annotations

import orjson
import pytest

from streamq.errors import MalformedMail
from streamq.mail import Mail, parse
from streamq.mail.template import Template
from streamq.mail.values import MOST_LEVELS

BASE = {b"from": b"shop@example.com", b"subject": b"Hi"}
DEPTHS = [2, MOST_LEVELS, MOST_LEVELS + 1, 252, 253, 254, 255, 256, 300, 990, 1023, 1024, 1025, 5000]


def nested(depth: int, inner: bytes = b"") -> bytes:
    return b"[" * depth + inner + b"]" * depth


def read(fields: dict[bytes, bytes]) -> Mail:
    template = Template({"text": "Hi"})
    return parse(
        BASE | fields, entry="11-0", at_ms=0, salt=b"", max_bytes=2_000_000, template=lambda name, at_ms: template
    )


def said(fields: dict[bytes, bytes]) -> str:
    with pytest.raises(MalformedMail) as caught:
        read(fields)
    return str(caught.value)


@pytest.mark.parametrize("inner", [b"", b"1.50", b"null"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_of_each_recipient(depth: int, inner: bytes) -> None:
    deep = nested(depth, inner)
    for one, where in {
        deep: "[1]",
        b'{"to":%b}' % deep: "[1].to",
        b'{"to":"a@b.example","id":%b}' % deep: "[1].id",
        b'{"to":"a@b.example","vars":%b}' % deep: "[1].vars",
        b'{"to":"a@b.example","metadata":%b}' % deep: "[1].metadata",
    }.items():
        reason = said({b"template": b"t", b"recipients": b'[{"to":"c@d.example"},%b]' % one})
        assert reason.startswith("recipients: ")
        assert where in reason or "deep" in reason or "depth limit" in reason


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("name", ["vars", "metadata"])
def test_what_is_nested_in_an_object_is_taken_up_to_a_bound(depth: int, name: str) -> None:
    value = b'{"a":%b}' % nested(depth - 1)
    alone = {b"to": b"a@b.example", b"template": b"t", name.encode(): value}
    several = {b"template": b"t", b"recipients": b'[{"to":"a@b.example","%b":%b}]' % (name.encode(), value)}
    if depth <= MOST_LEVELS:
        assert orjson.loads(b"{%b}" % read(alone).event).get("metadata", orjson.loads(value)) == orjson.loads(value)
        assert (mail := read(several).several) is not None
        assert getattr(mail.children[0], name) == value
    else:
        assert said(alone).startswith(f"{name}: ")
        assert said(several).startswith("recipients: ")


def test_the_bound_stands_in_the_reason() -> None:
    deep = {b"to": b"a@b.example", b"text": b"x", b"metadata": b'{"a":%b}' % nested(MOST_LEVELS)}
    assert said(deep).startswith("metadata: nested too deep (more than 100 levels): '{")
    deep = {b"text": b"x", b"recipients": b'[{"to":"a@b.example","metadata":{"a":%b}}]' % nested(MOST_LEVELS)}
    assert said(deep).startswith("recipients: recipients[0].metadata: nested too deep (more than 100 levels): '{")


def test_brackets_beside_each_other_or_in_texts_are_not_deep() -> None:
    for value in (b'{"a":[%b]}' % b",".join([b"[{}]"] * 200), b'{"a":"%b"}' % (b"[" * 500)):
        mail = read({b"to": b"a@b.example", b"text": b"x", b"metadata": value})
        assert orjson.loads(b"{%b}" % mail.event)["metadata"] == orjson.loads(value)


@pytest.mark.parametrize("depth", DEPTHS)
def test_other_fields(depth: int) -> None:
    deep = nested(depth)
    for name, value in {
        b"headers": b'{"X-A":%b}' % deep,
        b"attachments": b'[{"filename":%b}]' % deep,
        b"tags": deep,
        b"cc": b'["a@b.example",%b]' % deep,
        b"dsn_notify": deep,
    }.items():
        assert said({b"to": b"a@b.example", b"text": b"x", name: value}).startswith(f"{name.decode()}: ")

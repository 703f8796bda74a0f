"""What takes long is known by lengths alone, before anything is read."""

from __future__ import annotations

import pytest

from streamq.mail.labour import LIGHT_US, LONG_US, labour
from streamq.mail.mailboxes import read_mailboxes
from streamq.mail.plain import MAX_HTML, MAX_TAGS


@pytest.mark.parametrize("name", ["to", "cc", "bcc", "envelope_to", "recipients", "headers"])
def test_lists_are_long(name: str) -> None:
    assert labour({name.encode(): b"x" * 8193}) > LONG_US
    assert labour({name.encode(): b"x" * 512, b"text": b"x" * 100_000}) < LIGHT_US
    short = labour({name.encode(): b"x" * 8192, b"text": b"x" * 100_000})
    assert LIGHT_US < short < LONG_US if name not in ("recipients", "headers") else short < LIGHT_US


def test_several_short_ones_are_too() -> None:
    names = (b"to", b"cc", b"bcc", b"reply_to", b"envelope_to")
    assert labour(dict.fromkeys(names, b"x" * 500)) > LIGHT_US
    assert labour(dict.fromkeys(names, b"x" * 100)) < LIGHT_US / 20


def test_a_list_that_was_just_read_is_not() -> None:
    many = b", ".join(b"labour%d@x.example" % number for number in range(1000))
    assert labour({b"to": many}) > LONG_US
    read_mailboxes(b"to", many)
    assert labour({b"to": many}) < LIGHT_US


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_so_is_a_raw_by_its_header(end: bytes) -> None:
    to = b"To: " + b",".join([b"a@x.example"] * 5000)
    assert labour({b"raw": to + end + b"x"}) > LONG_US
    assert labour({b"raw": to}) > LONG_US
    assert LIGHT_US < labour({b"raw": to[:16_000] + end + to}) < LONG_US
    assert labour({b"raw": to[:100] + end + to}) < LIGHT_US
    assert labour({b"raw": b"x" * 16_384}) < LIGHT_US


def test_a_raw_that_says_not_itself_who_gets_it_is_looked_at_all_the_same() -> None:
    lines = b"X: y\n" * 100_000
    assert LIGHT_US < labour({b"raw": lines + b"\nx", b"envelope_to": b"a@x.example"}) <= LONG_US


@pytest.mark.parametrize("field", [b"text", b"html", b"raw"])
@pytest.mark.parametrize("sign", [b"\r", b"\n", b"\r\n"])
def test_line_ends_count(field: bytes, sign: bytes) -> None:
    fields = {b"text": b"x", b"html": b"y"} | {field: b"a\n\n" + sign * 10_000_000}
    assert labour(fields) > LONG_US
    assert labour(fields | {field: b"a\n\n" + b"x" * 250_000}) < LIGHT_US


def test_so_does_what_has_to_be_encoded() -> None:
    assert labour({b"text": b"x" * 900_000}) < LIGHT_US < labour({b"text": b"\xc3\xbc" * 450_000})


def test_an_html_without_a_text_is_to_become_one() -> None:
    html = b"<p>Hello" * 2000
    assert labour({b"html": html}) > LIGHT_US
    assert labour({b"html": html, b"text": b"Hello"}) < LIGHT_US
    assert labour({b"html": html, b"auto_text": b"0"}) < LIGHT_US
    assert labour({b"html": b"<p>" * MAX_TAGS}) <= LONG_US  # it is waited for, whatever it is
    assert labour({b"html": b"<p>" * (MAX_TAGS + 1)}) < LIGHT_US  # it becomes none
    assert labour({b"html": b"x" * (MAX_HTML + 1)}) < LIGHT_US


def test_usual_mails_take_nearly_nothing() -> None:
    fields = {b"from": b"a@x.example", b"to": b"b@x.example", b"subject": b"Hi", b"text": b"Hello\n" * 600}
    assert labour(fields) < 100
    assert labour(fields | {b"attachments": b"x" * 200_000}) < LIGHT_US / 2
    assert labour(fields | {b"template": b"welcome"}) > 1000
    assert labour(fields | {b"template": b"welcome", b"vars": b"x" * 65_537}) > LONG_US

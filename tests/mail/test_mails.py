"""Composed mail by chance, read back: the thousands of which `python -m bench mails` runs a million."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.letters import letter, tame_letter
from bench.mails import SHOWN, Found, build, chunk, mails, table, unlike
from bench.readers import differences, rebuilt, wire_faults

SEED = 11


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_a_reader_finds_what_was_meant(dice: random.Random) -> None:
    one = letter(dice)
    content = build(one.fields)
    assert wire_faults(content) == []
    assert differences(one, content) == []


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_it_means_what_the_standard_library_builds(dice: random.Random) -> None:
    assert unlike(tame_letter(dice)) == []


@pytest.mark.parametrize("start", range(0, 3000, 500))
def test_some_thousands_of_the_million(start: int) -> None:
    found = chunk(SEED, start, start + 500)
    assert found.examples == []
    assert (found.mails, found.differing, found.compared, found.unlike) == (500, 0, 50, 0)
    assert found.good


def test_every_kind_of_mail_is_drawn() -> None:
    drawn = [letter(random.Random(number)) for number in range(300)]
    for has in ("text", "html", "files", "headers", "bcc"):
        assert {bool(getattr(one, has)) for one in drawn} == {True, False}
    assert {file.beside for one in drawn for file in one.files} == {True, False}
    assert {len(one.addresses["To"]) for one in drawn} >= {1, 2, 9}
    assert any(b"Cc:" in build(one.fields) for one in drawn)


def test_the_same_number_is_the_same_mail() -> None:
    assert letter(random.Random(5)).fields == letter(random.Random(5)).fields != letter(random.Random(6)).fields


SPOILT = [
    (b"Subject: ", b"Subject: x"),
    (b"To: ", b"To: eve@x.de, "),
    (b"MIME-Version", b"Bcc: eve@x.de\r\nMIME-Version"),
    (b"MIME-Version", b"Sender: eve@x.de\r\nMIME-Version"),
    (b"application/pdf", b"application/pdx"),
    (b"base64\r\n", b"7bit\r\n"),
    (b"filename", b"filenome"),
    (b"Content-ID: <", b"Content-ID: <x"),
    (b"Content-Type: text/html", b"Content-Type: text/htmx"),
    (b"Rechnung", b"Rechnumg"),
]


@pytest.mark.parametrize(("old", "new"), SPOILT)
def test_what_is_spoilt_is_found(old: bytes, new: bytes) -> None:
    """In whichever mail has it: were the reader blind, nothing above could fail."""
    seen = 0
    for number in range(60):
        one = tame_letter(random.Random(number))
        content = build(one.fields)
        if old in content:
            seen += 1
            assert differences(one, content.replace(old, new, 1)), number
    assert seen


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"A: \xff\r\n\r\n", "8-bit"),
        (b"A: b\n\r\n", "line ends"),
        (b"A: b\r\r\n\r\n", "line ends"),
        (b"A: b\r\n\r\n\0\r\n", "NUL"),
        (b"A: b\r\n\r\n" + b"x" * 999 + b"\r\n", "a line over 998"),
        (b"A: b " + b"x" * 80 + b"\r\n\r\n", "a header's line of 85"),
        (b"A: =?utf-8?q?" + b"x" * 70 + b"?=\r\n\r\n", "an encoded word of 82"),
        (b"Content-Type: multipart/related; boundary=a\r\n\r\n", "no type of a related"),
    ],
)
def test_faults_of_the_wire(content: bytes, fault: str) -> None:
    assert [each for each in wire_faults(content) if each.startswith(fault)]


def test_the_sum_of_two_finds() -> None:
    one = Found(2, 1, 1, 0, ["1: a"])
    one.add(Found(3, 0, 1, 1, ["2: b"] * SHOWN))
    assert (one.mails, one.differing, one.compared, one.unlike) == (5, 1, 2, 1)
    assert len(one.examples) == SHOWN
    assert not one.good
    assert not Found().good
    assert "differing 1" in table(one)


def test_the_other_builder_builds() -> None:
    one = tame_letter(random.Random(3))
    assert differences(one, rebuilt(one)) == []


def test_parts_of_a_run_are_the_run() -> None:
    whole, parts = mails(40, seed=3), [mails(25, seed=3), mails(15, seed=3, first=25)]
    assert [sum(part.mails for part in parts), sum(part.compared for part in parts)] == [whole.mails, whole.compared]
    assert whole.good

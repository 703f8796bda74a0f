"""No mail can end before its end: every sequence that some server has taken for the end of a message (SMTP smuggling,
2023: CVE-2023-51764, -51765, -51766, and what was found after) stands in one, and no server can find it.

A server that takes bare CR or LF for a line end, or passes over NUL, is stood for by the most lenient of them: to it
a lone dot between any two line breaks is the end.
"""

from __future__ import annotations

import re
from base64 import b64encode
from contextlib import suppress

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamq.errors import MalformedMail
from streamq.mail import Mail, parse
from streamq.smtp.content import PIECE, stuffed

HEAD = b"From: a@x.de\r\nTo: b@x.de\r\nDate: Fri, 22 Nov 2024 01:06:01 +0000\r\nMessage-ID: <1@x.de>\r\n"
COMPOSED = {b"from": b"a@x.de", b"to": b"b@x.de"}
SECOND = b"MAIL FROM:<evil@x.de>\r\nRCPT TO:<c@x.de>\r\nDATA\r\nSubject: smuggled\r\n\r\nHi\r\n"
BREAKS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\r",
    b"\n\n",
    b"\r\r\n",
    b"\n\r",
    b"\r\n\n",
    b"\x0b",
    b"\x0c",
    b"\x85",
    b"\xe2\x80\xa8",
]
DOTS = [b".", b"..", b". ", b".\t", b"\x1a"]
LENIENT_END = re.compile(rb"[\r\n]\0*\.\0*[\r\n]")
BDAT_LENIENT = re.compile(rb"(?<!\r)\n|\r(?!\n)|\0")


def read(fields: dict[bytes, bytes]) -> Mail:
    return parse(fields, entry="11732237561234-0", at_ms=1_732_237_561_234, salt=b"salt", max_bytes=10_000_000)


def check(content: bytes) -> None:
    wire = b"\r\n" + stuffed(content) + b".\r\n"
    end = LENIENT_END.search(wire)
    assert end
    assert end.end() == len(wire) - 1  # it takes the CR for the line's end already
    assert not BDAT_LENIENT.search(content)
    assert re.sub(rb"(?m)^\.", b"", wire[2:-3]) == content


@pytest.mark.parametrize("content", [b"a\n.\r\nb\r\n", b"a\r.\rb\r\n", b"a\r\n\0.\r\nb\r\n", b"a\rb\r\n", b"a\0\r\n"])
def test_the_check_can_fail(content: bytes) -> None:
    with pytest.raises(AssertionError):
        check(content)


@pytest.mark.parametrize("dot", DOTS)
@pytest.mark.parametrize("before", BREAKS)
@pytest.mark.parametrize("after", BREAKS)
def test_no_variant_ends_a_mail(before: bytes, dot: bytes, after: bytes) -> None:
    body = b"Hello" + before + dot + after + SECOND
    for raw in (
        HEAD + b"\r\n" + body,
        HEAD + b"Subject: a" + before + dot + after + SECOND + b"\r\n\r\nHi",
        dot + after,
    ):
        check(read({b"raw": raw, b"envelope_from": b"a@x.de", b"envelope_to": b"b@x.de"}).content())
    with suppress(MalformedMail):  # what is not UTF-8 is no text
        check(read({**COMPOSED, b"text": body, b"html": body}).content())
    files = [{"content": b64encode(body).decode(), "content_type": kind} for kind in ("text/plain", "message/rfc822")]
    for file in files:
        with suppress(MalformedMail):  # nor a message, where it is 8-bit
            check(read({**COMPOSED, b"attachments": orjson.dumps([file])}).content())


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from([*BREAKS, *DOTS, b"a", SECOND]), max_size=30).map(b"".join))
def test_nor_any_run_of_them(body: bytes) -> None:
    check(read({b"raw": HEAD + b"\r\n" + body}).content())


@pytest.mark.parametrize("offset", range(-6, 7))
@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
def test_a_dot_at_the_border_of_two_pieces_is_stuffed(offset: int, end: bytes) -> None:
    """What is written at once is cut out of the stuffed content, so no border has a rule of its own."""
    filler = b"x" * (PIECE - len(HEAD) - 2 + offset - len(end))
    check(read({b"raw": HEAD + b"\r\n" + filler + end + b"." + end + SECOND}).content())


@pytest.mark.parametrize("raw", [b"\0", HEAD + b"\r\n\0.\r\n", HEAD + b"\r\n\r\n.\0\r\n", b"Sub\0ject: x\r\n\r\n"])
def test_nul_is_in_no_mail(raw: bytes) -> None:
    with pytest.raises(MalformedMail, match=r"^raw: NUL"):
        read({b"raw": raw, b"envelope_from": b"a@x.de", b"envelope_to": b"b@x.de"})


def test_nul_in_a_text_is_encoded() -> None:
    content = read({**COMPOSED, b"text": b"a\n\0.\0\nb"}).content()
    check(content)
    assert b"base64" in content


NAMES = [b"Bcc", b"BCC", b"bCc", b"Resent-Bcc", b"RESENT-bcc", b"Return-Path", b"return-PATH"]
COLONS = [b":", b" :", b"\t:", b" \t :", b":\t", b":\r\n "]
ENDS = [b"\r\n", b"\n", b"\r"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("colon", COLONS)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("place", ["first", "middle", "last", "only", "behind a line that is none"])
def test_hidden_recipients_stay_hidden(name: bytes, colon: bytes, end: bytes, place: str) -> None:
    hidden = name + colon + b"hidden@x.de,\r\n\thidden@y.de,\r\n hidden@z.de\r\n"
    head = {
        "first": hidden + HEAD,
        "middle": HEAD + hidden + b"Subject: a\r\n",
        "last": HEAD + hidden,
        "only": hidden,
        "behind a line that is none": HEAD + b"Subject: a\r\nb\r\n" + hidden,
    }[place]
    raw = (head + b"\r\nHello\r\n").replace(b"\r\n", end)
    content = read({b"raw": raw, b"envelope_from": b"a@x.de", b"envelope_to": b"b@x.de"}).content()
    assert b"hidden" not in content
    assert name.lower() not in content.lower()
    assert content.endswith(b"\r\n\r\nHello\r\n")
    check(content)


@pytest.mark.parametrize(
    ("raw", "eight_bit"), [(HEAD + b"\r\nHi", False), (HEAD + b"\r\n\x80", True), (HEAD + b"X: \xc3\xbc\r\n\r\n", True)]
)
def test_eight_bit_content_is_told_and_kept(raw: bytes, eight_bit: bool) -> None:
    """A server without 8BITMIME is not given it (tests/smtp); no address in it, so no SMTPUTF8 is asked for."""
    mail = read({b"raw": raw})
    assert (mail.eight_bit, mail.smtputf8) == (eight_bit, False)
    assert mail.content() == raw + (b"" if raw.endswith(b"\n") else b"\r\n")

"""What is read of a mail, however it was made."""

from __future__ import annotations

from email import message_from_bytes
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamq.inbox.letter
from streamq.inbox.head import MOST_HEAD, Mailbox, fields_of, head_of
from streamq.inbox.letter import read_letter
from streamq.inbox.words import decoded, header_text

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def order() -> bytes:
    mail = EmailMessage()
    mail["From"] = "Zoë's Shop <shop@example.com>"
    mail["To"] = "Bob <bob@example.net>, ann@example.org"
    mail["Subject"] = "Your order № 7 — thank you, again and again and again and again and again"
    mail["Message-ID"] = "<7@example.com>"
    mail.set_content("Dear Bob,\n\nsee https://shop.example/7?a=1&b=2.\n")
    mail.add_alternative(
        '<p>Dear <b>Bob</b>, <a href="https://shop.example/7?a=1&amp;b=2">see</a> <img src="cid:logo@x">', "html"
    )
    html = mail.get_payload()[1]  # type: ignore[index]
    html.add_related(PNG, "image", "png", cid="<logo@x>", filename="logo.png", disposition="inline")  # type: ignore[union-attr]
    mail.add_attachment(b"%PDF-1.7", "application", "pdf", filename="Rechnung für Bob.pdf")
    mail.add_attachment(message_from_bytes(b"Subject: inner\r\n\r\nold\r\n"))
    return mail.as_bytes()


def test_an_order() -> None:
    content = order()
    head = head_of(content)
    assert head.subject == "Your order № 7 — thank you, again and again and again and again and again"
    assert head.from_ == (Mailbox("Zoë's Shop", "shop@example.com"),)
    assert head.to == (Mailbox("Bob", "bob@example.net"), Mailbox("", "ann@example.org"))
    assert head.message_id == "<7@example.com>"
    letter = read_letter(content)
    assert letter.text == "Dear Bob,\n\nsee https://shop.example/7?a=1&b=2.\n"
    assert letter.html.startswith("<p>Dear <b>Bob</b>")
    assert letter.links == ("https://shop.example/7?a=1&b=2",)
    shown = [(each.number, each.content_type, each.filename, each.content_id, each.inline) for each in letter.parts]
    assert shown == [
        (0, "image/png", "logo.png", "logo@x", True),
        (1, "application/pdf", "Rechnung für Bob.pdf", "", False),
        (2, "message/rfc822", "", "", False),
    ]
    assert [each.data for each in letter.parts[:2]] == [PNG, b"%PDF-1.7"]
    assert b"Subject: inner" in letter.parts[2].data
    assert ("Subject", head.subject) in letter.headers
    assert letter.note == ""


def test_the_first_text_is_the_text_and_the_next_is_a_part() -> None:
    mail = EmailMessage()
    mail.set_content("one")
    mail.add_attachment("two", disposition="inline")
    mail.add_attachment("three", filename="three.txt")
    letter = read_letter(mail.as_bytes())
    assert letter.text == "one\n"
    assert [(each.filename, each.data, each.inline) for each in letter.parts] == [
        ("", b"two\n", True),
        ("three.txt", b"three\n", False),
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        (b"=?utf-8?b?R3LDvMOfZQ==?= =?utf-8?q?_da?=", "Grüße da"),
        (b"a =?iso-8859-1?q?=FC?= b", "a ü b"),
        ("grün".encode(), "grün"),  # SMTPUTF8
        (b"gr\xfcn", "grün"),  # wrong, and seen every day
        (b"folded\r\n  twice\r\n\tand tabbed", "folded  twice and tabbed"),
        (b"=?no-such?q?x=FC?=", "xü"),
        (b"=?rot13?q?uryyb?=", "uryyb"),
        (b"=?utf-8?b?!!!?=", "=?utf-8?b?!!!?="),
        ("=?utf-8?q?a?= grün".encode(), "a grün"),
        (b"", ""),
    ],
)
def test_headers_are_decoded_whatever_they_are(value: bytes, shown: str) -> None:
    assert header_text(value) == shown


@pytest.mark.parametrize(
    ("data", "charset", "text"),
    [
        (b"gr\xc3\xbcn", None, "grün"),
        (b"gr\xc3\xbcn", "us-ascii", "grün"),
        (b"gr\xfcn", None, "grün"),
        (b"gr\xfcn", "utf-8", "grün"),
        (b"gr\xfcn", "iso-8859-15", "grün"),
        (b"gr\xfcn", "klingon", "grün"),
        (b"uryyb", "rot13", "uryyb"),
        (b"\xff\xfeg\x00", "utf-16", "g"),
        (b"\x00\xd8", "utf-16-le", "\ufffd"),
        (b"+2AA-", "utf-7", "?"),  # half of a pair
    ],
)
def test_bodies_are_decoded_whatever_their_charset(data: bytes, charset: str | None, text: str) -> None:
    assert decoded(data, charset) == text
    decoded(data, charset).encode()  # no surrogate


@pytest.mark.parametrize(
    "filename",
    [
        b'filename="=?utf-8?q?gr=C3=BCn=2Epdf?="',
        b"filename*=utf-8''gr%C3%BCn.pdf",
        b"filename*0*=utf-8''gr%C3%BC; filename*1*=n.pdf",
        'filename="grün.pdf"'.encode(),
    ],
)
def test_names_of_files_in_every_way_that_is_seen(filename: bytes) -> None:
    content = b"Content-Type: application/pdf\r\nContent-Disposition: attachment; " + filename + b"\r\n\r\nx"
    assert [each.filename for each in read_letter(content).parts] == ["grün.pdf"]


def nested(depth: int) -> bytes:
    head = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))
    return b"Subject: deep\r\n" + head + b"Content-Type: text/plain\r\n\r\nat the bottom\r\n"


def test_nesting_that_the_parser_cannot_follow_is_said() -> None:
    assert read_letter(nested(15)).text.strip() == "at the bottom"
    letter = read_letter(nested(2000))
    assert letter.note == "not read: its parts are nested too deeply"
    assert ("Subject", "deep") in letter.headers
    assert letter.text.startswith("--b0\r\nContent-Type: multipart/mixed; boundary=b1\r\n")


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b"Subject: x\r\n" + b"A: b\r\n" * (MOST_HEAD // 6), "its header has more than 1,048,576 bytes"),
        (b"Subject: x\r\n\r\n" + b"\n" * 2_000_001, "it has more than 2,000,000 lines"),
        (b"Subject: x\r\n\r\n" + b"\n--b" * 10_001, "it has more than 10,000 parts"),
        (nested(300) + b"\n" * 100_000, "it has too many multiparts for its length"),
    ],
)
def test_what_would_take_minutes_is_not_parsed(content: bytes, note: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamq.inbox.letter, "PARSER", None)
    letter = read_letter(content)
    assert letter.note == f"not read: {note}"
    assert letter.headers[0][0] == "Subject"


def test_many_parts_are_shown_up_to_a_bound() -> None:
    content = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\nContent-Type: image/png\r\n\r\nx\r\n" * 1500
    )
    letter = read_letter(content + b"--b--\r\n")
    assert (len(letter.parts), letter.parts_left) == (1000, 500)
    assert letter.note == "500 more parts are not shown"


def test_fifty_megabytes_are_read() -> None:
    line = b"QUJD" * 225 + b"\r\n"  # longer than usual: the parser works by the line
    head = b"Content-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    front = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nlarge\r\n--b\r\n"
    content = front + head + line * 56_000 + b"--b--\r\n"
    assert len(content) > 50_000_000
    letter = read_letter(content)
    assert (letter.text, len(letter.parts[0].data), letter.note) == ("large", 56_000 * 675, "")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"\n\n",
        b"no header at all",
        b": empty name\r\n\r\nx",
        b"Content-Type: multipart/mixed\r\n\r\nno boundary",
        b"Content-Type: multipart/mixed; boundary=\r\n\r\n--\r\n\r\nx",
        b"Content-Type: \xff/\xfe; charset*0*=x''y; charset*99999999999999999999=z\r\n\r\nx",
        b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n!!",
        b"Content-Type: message/delivery-status\r\n\r\nA: b\r\n\r\nC: d",
        b"Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 666 x\r\n!!!!\r\nend",
        b"Content-Transfer-Encoding: base64\r\n\r\n%%%",
        b"From: " + b"(" * 9000,
        b"From: " + b'"' * 9000 + b"@\r\nTo: <<<<>>>>,,,;:;",
        b"Content-Disposition: attachment; filename*" + b"9" * 5000 + b"=x\r\n\r\n",
        b"Content-Type: text/plain"
        + b';x="' * 200_000
        + b"\r\nContent-Disposition: a"
        + b';"' * 100_000
        + b"\r\n\r\nx",
        b"Content-Type: text/plain; charset=idna\r\n\r\n" + b"x" * 100_000,
    ],
)
def test_what_is_hardly_a_mail_is_read_all_the_same(content: bytes) -> None:
    letter, head = read_letter(content), head_of(content)
    for text in (letter.text, letter.html, letter.note, *head[:1], *(part.filename for part in letter.parts)):
        text.encode()


@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n", b"From: "]),
)
def test_any_octets_are_read(octets: bytes, front: bytes) -> None:
    letter, head = read_letter(front + octets), head_of(front + octets)
    for text in (letter.text, letter.html, head.subject, *(name for pair in head.from_ for name in pair)):
        text.encode()


def test_a_field_that_is_folded_a_hundred_thousand_times() -> None:
    [(name, value)] = fields_of(b"Subject: a\r\n" + b" b\r\n" * 100_000)
    assert (name, value.count(b"\n")) == ("Subject", 100_000)


def test_half_encoded_words_by_the_hundred_are_shown_as_they_are() -> None:
    """To look for their ends takes the square of their number."""
    bomb = "=?a?q?b=" * 2500
    assert header_text(bomb) == bomb
    assert header_text("=?utf-8?q?f=C3=BCr?= " * 40) == "f\u00fcr" * 40

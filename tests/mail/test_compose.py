import random
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.letters import letter
from streamq.mail import parse
from streamq.mail.address import Address
from streamq.mail.attachments import Attachment
from streamq.mail.compose import Composed
from streamq.mail.custom import Headers
from streamq.mail.mailboxes import Mailboxes

SHOP = Address("My Shop", "shop", "example.com")
BOB = Address("", "bob", "example.net")

TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    st.text("ab =.é\t\r\n", max_size=1500),
    st.integers(990, 1010).map(lambda size: "x" * size),
)
WORDS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=40)
NAMES = WORDS.map(lambda name: name[:12])
LOCALS = st.from_regex(r"[a-z0-9+_-]{1,20}(\.[a-z0-9]{1,20})?", fullmatch=True)
ADDRESSES = st.builds(Address, st.one_of(st.just(""), NAMES), LOCALS, st.sampled_from(["x.de", "xn--mnchen-3ya.de"]))


def composed(
    *,
    author: Address = SHOP,
    sender: Address | None = None,
    reply_to: tuple[Address, ...] = (),
    to: tuple[Address, ...] = (BOB,),
    subject: str = "Hi",
    headers: Headers | None = None,
    text: str = "",
    html: str = "",
    cc: tuple[Address, ...] = (),
    attachments: tuple[Attachment, ...] = (),
) -> Composed:
    return Composed(
        author=author,
        sender=sender,
        reply_to=Mailboxes(reply_to),
        to=Mailboxes(to),
        cc=Mailboxes(cc),
        attachments=attachments,
        subject=subject,
        date="Fri, 22 Nov 2024 01:06:01 +0000",
        message_id="<1@example.com>",
        headers=headers or [],
        text=text.encode(),
        html=html.encode(),
        boundary="=_0123456789",
    )


def read(content: bytes) -> EmailMessage:
    return BytesParser(EmailMessage, policy=policy.default).parsebytes(content)


def part_text(part: EmailMessage) -> str:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


def canonical(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")


def test_a_small_mail_in_full() -> None:
    assert composed(text="Hello\n").content() == (
        b"From: My Shop <shop@example.com>\r\n"
        b"To: bob@example.net\r\n"
        b"Subject: Hi\r\n"
        b"Date: Fri, 22 Nov 2024 01:06:01 +0000\r\n"
        b"Message-ID: <1@example.com>\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"Hello\r\n"
    )


@settings(max_examples=250, deadline=None)
@given(
    ADDRESSES,
    st.none() | ADDRESSES,
    st.lists(ADDRESSES, max_size=3),
    st.lists(ADDRESSES, max_size=4),
    WORDS,
    TEXT,
    TEXT,
)
def test_the_standard_library_reads_what_was_meant(
    author: Address,
    sender: Address | None,
    reply_to: list[Address],
    to: list[Address],
    subject: str,
    text: str,
    html: str,
) -> None:
    mail = composed(
        author=author,
        sender=sender,
        reply_to=tuple(reply_to),
        to=tuple(to),
        subject=subject,
        headers=[("X-Note", subject), ("X-Note", "two")],
        text=text,
        html=html,
    )
    content = mail.content()
    assert content.isascii()
    assert content.endswith(b"\r\n")
    assert content.count(b"\r\n") == content.count(b"\n") == content.count(b"\r")
    assert max(map(len, content.split(b"\r\n"))) <= 998
    found = read(content)
    assert not found.defects
    for name, addresses in (("From", [author]), ("Sender", [sender]), ("Reply-To", reply_to), ("To", to)):
        given_ones = [(each.name, each.spec) for each in addresses if each]
        shown = [(each.display_name, each.addr_spec) for each in found[name].addresses] if name in found else []
        assert shown == given_ones
    assert found["Subject"] == subject
    assert found.get_all("X-Note") == [subject, "two"]
    if text and html:
        assert found.get_content_type() == "multipart/alternative"
        plain, rich = found.iter_parts()
        assert isinstance(plain, EmailMessage)
        assert isinstance(rich, EmailMessage)
        assert (plain.get_content_type(), part_text(plain)) == ("text/plain", canonical(text))
        assert (rich.get_content_type(), part_text(rich)) == ("text/html", canonical(html))
    else:
        assert found.get_content_type() == ("text/html" if html else "text/plain")
        assert part_text(found).removesuffix("\r\n") == canonical(html or text).removesuffix("\r\n")


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_size_of_any_mail_is_about_right(dice: random.Random) -> None:
    fields = letter(dice).fields
    mail = parse(fields, entry="11-0", at_ms=0, salt=b"salt", max_bytes=1_000_000)
    content = mail.content()
    breaks = fields.get(b"text", b"").count(b"\n") + fields.get(b"html", b"").count(b"\n")
    assert mail.size / 2 <= len(content) <= mail.size * 2 + 4 * breaks


NAMED = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=255) | st.text('" %é😀a', max_size=255)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.builds(Attachment, NAMED, st.just(("a/b",)), st.just(""), st.booleans(), st.just(True), st.just(b"")),
        max_size=50,
    )
)
def test_the_size_of_many_files_is_about_right(files: list[Attachment]) -> None:
    mail = composed(attachments=tuple(files))
    assert mail.size / 2 <= len(mail.content()) <= mail.size * 2


@settings(max_examples=100, deadline=None)
@given(TEXT, TEXT, WORDS)
def test_the_size_is_about_right(text: str, html: str, subject: str) -> None:
    mail = composed(text=text, html=html, subject=subject)
    assert mail.size / 2 <= len(mail.content()) <= mail.size * 2 + 2 * (text + html).count("\n")


def test_the_same_fields_are_the_same_bytes() -> None:
    assert composed(text="ü", html="<p>").content() == composed(text="ü", html="<p>").content()


def test_a_local_part_beyond_ascii_needs_smtputf8() -> None:
    assert not composed(text="ü", subject="ü").smtputf8
    for mail in (
        composed(to=(Address("", "jürgen", "x.de"),)),
        composed(author=Address("", "jürgen", "x.de")),
        composed(sender=Address("", "jürgen", "x.de")),
        composed(reply_to=(BOB, Address("", "jürgen", "x.de"))),
        composed(cc=(Address("", "jürgen", "x.de"),)),
    ):
        assert mail.smtputf8
        assert mail.eight_bit
        assert "jürgen@x.de".encode() in mail.content()


def test_head_and_body_are_the_content() -> None:
    """Copies of one mail share the body."""
    mail = composed(
        text="ü", html="<p>", cc=(SHOP, BOB), attachments=(Attachment("a", ("a/b",), "", False, True, b""),)
    )
    assert mail.head() + b"".join(mail.body()) == mail.content()
    assert mail.head().endswith(b"\r\nMIME-Version: 1.0\r\n")
    assert b"\r\nTo: bob@example.net\r\nCc: My Shop <shop@example.com>, bob@example.net\r\n" in mail.head()
    other = composed(text="ü", html="<p>", to=(SHOP,), attachments=mail.attachments)
    assert other.body() == mail.body()


def test_addresses_in_fields_of_a_producers_own_are_bare() -> None:
    """RFC 2047, section 5: no encoded word over an address."""
    many = tuple(Address("Jörg", f"j{n}", "example.net") for n in range(9))
    mail = composed(text="x", headers=[("Resent-To", many), ("Return-Receipt-To", (Address("", "ü", "x.de"),))])
    found = read(mail.content())
    assert [(each.display_name, each.addr_spec) for each in found["Resent-To"].addresses] == [
        ("Jörg", f"j{n}@example.net") for n in range(9)
    ]
    assert b"<j8@example.net>" in mail.content()
    assert "Return-Receipt-To: ü@x.de\r\n".encode() in mail.content()
    assert mail.smtputf8  # RFC 6532: there is no other way to write it
    assert not composed(text="x", headers=[("Resent-To", many)]).smtputf8


BLANKS = (" \n", "\t\n", ".\n", " \r\n", "\n", "\r", "\r\n", "=\n", "\0", "é \n", " \né", "x" * 999 + " \n", "é\n")
PART = st.tuples(st.sampled_from(BLANKS), st.integers(1, 999)).map(lambda drawn: drawn[0] * drawn[1])
PARTS = st.lists(PART, max_size=4)


@settings(max_examples=300, deadline=None)
@given(PARTS.map("".join), PARTS.map("".join))
def test_a_size_is_at_most_twice_and_at_least_half_of_what_is_built(text: str, html: str) -> None:
    """Of hostile texts, too: by it a mail is refused, or its bytes are counted."""
    mail = composed(text=text, html=html)
    assert mail.size / 2 <= len(mail.content()) <= mail.size * 2


@pytest.mark.parametrize("part", BLANKS)
@pytest.mark.parametrize("more", ["", "é", "x" * 999])
def test_whatever_fills_a_mail_its_size_is_right(part: str, more: str) -> None:
    mail = composed(text=(part * 100_000)[:400_000] + more)
    assert mail.size / 2 <= len(mail.content()) <= mail.size * 2


@pytest.mark.parametrize(
    "known",
    [
        {"headers": [("X", "a")] * 5000},
        {"headers": [("X", "é")] * 5000},
        {"headers": [("X", "日本" * 2000), ("Y", "😀" * 2000)]},
        {"headers": [("Resent-To", (Address("N", "a", "b"),) * 5000)]},
        {"to": (Address("", "a", "b"),) * 5000},
        {"to": (Address("N", "a", "b"),) * 5000},
        {"to": (Address("é", "é", "b"),) * 5000},
        {"subject": "é" * 50_000},
        {"subject": "=?" * 50_000},
    ],
    ids=range(9),
)
def test_a_head_is_of_about_its_size(known: dict[str, Any]) -> None:
    mail = composed(text="x", **known)
    assert mail.size / 2 <= len(mail.content()) <= mail.size * 2

import re
from email.header import decode_header, make_header
from email.utils import getaddresses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamq.mail.address import Address
from streamq.mail.headers import address_field, fault, parameter_field, text_field

VALUE = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1, max_size=200),
    st.text('ab =?_\t"<>(),é', min_size=1, max_size=200),
    st.text("aé€𝄞 ", min_size=60, max_size=300),
    st.integers(60, 1100).map(lambda size: "x" * size),
    st.lists(st.text("abc", min_size=1, max_size=100), min_size=1, max_size=12).map(" ".join),
)
HEADER = st.sampled_from(["Subject", "X-A", "X-" + "Long-" * 14 + "Name"])


def decoded(value: str) -> str:
    return str(make_header(decode_header(value)))


def check_lines(field: str) -> None:
    assert not re.search(r"\r(?!\n)|(?<!\r)\n|\0", field)
    lines = field.split("\r\n")
    assert all(line.startswith((" ", "\t")) for line in lines[1:])
    for line in lines:
        assert line.strip()
        assert len(line) <= 998
        if "=?utf-8?" in line:
            assert len(line) <= 76
            for word in re.findall(r"=\?utf-8\?\S*\?=", line):
                assert len(word) <= 75
                decoded(word)  # by itself: no character may be split (RFC 2047, section 5)
        elif len(line) > 78:
            assert not re.search(r"\S[ \t]+\S", line.partition(":")[2].lstrip() if line is lines[0] else line)


@settings(max_examples=400, deadline=None)
@given(HEADER, VALUE)
def test_a_text_is_read_back_from_short_lines(name: str, value: str) -> None:
    field = text_field(name, value)
    assert field.isascii()
    check_lines(field)
    unfolded = field.replace("\r\n", "")
    assert unfolded.startswith(f"{name}: ")
    assert decoded(unfolded[len(name) + 2 :].lstrip() if "=?" in unfolded else unfolded[len(name) + 2 :]) == value


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("Hi", "Subject: Hi"),
        ("a  b", "Subject: a  b"),
        ("Grüße", "Subject: =?utf-8?b?R3LDvMOfZQ==?="),
        ("Ein langer Satz, der nur ein ä hat", "Subject: =?utf-8?q?Ein_langer_Satz=2C_der_nur_ein_=C3=A4_hat?="),
        (" Hi", "Subject: =?utf-8?q?_Hi?="),
        ("=?utf-8?q?x?=", "Subject: =?utf-8?b?PT91dGYtOD9xP3g/PQ==?="),
        ("a" * 40 + " " + "b" * 40, "Subject: " + "a" * 40 + "\r\n " + "b" * 40),
        ("a" * 200, "Subject: " + "a" * 200),
    ],
)
def test_texts(value: str, field: str) -> None:
    assert text_field("Subject", value) == field


def test_a_word_too_long_for_any_line_is_encoded() -> None:
    field = text_field("Subject", "a" * 2000)
    check_lines(field)
    assert decoded(field.replace("\r\n", "")[9:]) == "a" * 2000


@settings(max_examples=300, deadline=None)
@given(VALUE)
def test_a_name_is_read_back(name: str) -> None:
    field = address_field("From", [Address(name, "b", "x.de")])
    check_lines(field)
    phrase = field.replace("\r\n", "").removeprefix("From: ").removesuffix(" <b@x.de>")
    if phrase.startswith('"'):
        assert re.sub(r"\\(.)", r"\1", phrase[1:-1]) == name
    else:
        assert decoded(phrase) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", "From: b@x.de"),
        ("My Shop", "From: My Shop <b@x.de>"),
        ("Shop, Inc.", 'From: "Shop, Inc." <b@x.de>'),
        ('a"b\\', 'From: "a\\"b\\\\" <b@x.de>'),
        ("a <c@y.de>", 'From: "a <c@y.de>" <b@x.de>'),
        ("Jö", "From: =?utf-8?b?SsO2?= <b@x.de>"),
    ],
)
def test_names(name: str, shown: str) -> None:
    assert address_field("From", [Address(name, "b", "x.de")]) == shown


def test_many_addresses_are_folded_between_them() -> None:
    field = address_field("To", [Address("", f"bob{n}", "example.net") for n in range(20)])
    check_lines(field)
    assert max(map(len, field.split("\r\n"))) <= 78
    assert field.count("@example.net") == 20
    assert not field.endswith(",")


def test_references_are_folded_between_them_and_never_encoded() -> None:
    ids = [f"<{number}.=?utf-8?q?{'x' * number}?=@mail.example.net>" for number in range(60)]
    field = text_field("References", " ".join(ids))
    assert max(map(len, field.split("\r\n"))) <= 98  # the longest of them and a blank
    assert field.replace("\r\n", "") == "References: " + " ".join(ids)
    assert [line for line in field.split("\r\n") if len(line) > 78 and len(line.split()) > 1] == []


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("References", "<a@x> <b@x>", ""),
        ("IN-REPLY-TO", "<ä@x>", "not ASCII"),
        ("List-Unsubscribe", "<" + "a" * 898 + ">", ""),
        ("List-Unsubscribe", "<" + "a" * 899 + ">", "a word of more than 900"),
        ("X-Note", "ä" * 2000, ""),
        ("X-Note", "a" * 901, "a word of more than 900"),
        ("X-Note", "b " * 5000 + "a" * 900, ""),
    ],
)
def test_what_cannot_be_encoded_must_be_writable(name: str, value: str, why: str) -> None:
    found = fault(name, value)
    assert found.startswith(why)
    assert bool(found) is bool(why)
    assert max(map(len, text_field(name, value).split("\r\n"))) <= 998


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ((), "A: b"),
        (("c=d", "e=f"), "A: b; c=d; e=f"),
        (("c=" + "d" * 72, "e=f"), "A: b;\r\n c=" + "d" * 72 + ";\r\n e=f"),
    ],
)
def test_parameters_are_folded_between_them(parameters: tuple[str, ...], field: str) -> None:
    assert parameter_field("A", "b", parameters) == field


@pytest.mark.parametrize("name", ["To", "Disposition-Notification-To"])
@pytest.mark.parametrize(
    "shown", ['[{"filename": "a.txt", "content": "YQ=="}]Bob', '"' * 60, "a, " * 19 + "a", "ü" * 30]
)
def test_a_name_that_is_one_word_fits_its_line(name: str, shown: str) -> None:
    """Quoted where that fits behind the field's name, else in encoded words, which can be folded."""
    field = address_field(name, [Address(shown, "bob", "example.net"), Address(shown, "eve", "example.net")])
    lines = field.split("\r\n")
    assert all(len(line) <= (76 if "=?" in line else 78) for line in lines), lines
    read = getaddresses([field.removeprefix(f"{name}:").replace("\r\n", "")])
    assert [(decoded(each), spec) for each, spec in read] == [(shown, "bob@example.net"), (shown, "eve@example.net")]

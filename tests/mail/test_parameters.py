import re
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamq.mail.headers import parameter_field
from streamq.mail.parameters import filename

NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=255),
    st.text('ab."\\%;=?é日😀 ', min_size=1, max_size=120),
    st.integers(1, 255).map(lambda size: "x" * size + ".pdf"),
).filter(lambda name: name == name.strip())


def field(name: str) -> str:
    return parameter_field("Content-Disposition", "attachment", filename(name))


def star(shown: str) -> str:
    """The starred form alone, put together as RFC 2231, section 3 says, not trusting any library."""
    pieces = re.findall(r"filename\*(?:\d+\*)?=(?:UTF-8'')?([^;\r\n]*)", shown)
    assert [int(each) for each in re.findall(r"filename\*(\d+)\*=", shown)] in ([], list(range(len(pieces))))
    return unquote("".join(pieces), errors="strict")


@settings(max_examples=400, deadline=None)
@given(NAMES)
def test_a_name_comes_back(name: str) -> None:
    shown = field(name)
    assert shown.isascii()
    assert max(map(len, shown.split("\r\n"))) <= 78
    assert "=?" not in shown
    read = BytesParser(EmailMessage, policy=policy.default).parsebytes(shown.encode() + b"\r\n\r\n")
    assert read["Content-Disposition"].params["filename"] == name
    starred = re.sub(r'"[^"]*"', '""', shown)  # the plain name may be `filename*`
    if "filename*" in starred:
        assert star(starred) == name


@settings(max_examples=300, deadline=None)
@given(NAMES)
def test_the_plain_name_is_one_for_every_reader(name: str) -> None:
    """Without knowing RFC 2231: a short quoted string without anything that some reader decodes."""
    (plain,) = re.findall(r' filename="([^"]*)"', field(name))
    assert 1 <= len(plain) <= 65
    assert not re.search(r'["\\]|=\?', plain)
    assert "filename*" not in field(name).replace(f'"{plain}"', "") or "%" not in plain


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("a.pdf", ['filename="a.pdf"']),
        ("two words (1).pdf", ['filename="two words (1).pdf"']),
        ("Übersicht.pdf", ["filename*=UTF-8''%C3%9Cbersicht.pdf", 'filename="Ubersicht.pdf"']),
        ("日本.txt", ["filename*=UTF-8''%E6%97%A5%E6%9C%AC.txt", 'filename="__.txt"']),
        ("100%.csv", ["filename*=UTF-8''100%25.csv", 'filename="100_.csv"']),
        ('a"b\\c.txt', ["filename*=UTF-8''a%22b%5Cc.txt", 'filename="a_b_c.txt"']),
        ("=?x.txt", ["filename*=UTF-8''%3D%3Fx.txt", 'filename="_x.txt"']),
    ],
)
def test_names(name: str, parameters: list[str]) -> None:
    assert [*filename(name)] == parameters


def test_a_long_name_is_continued_and_its_short_form_keeps_its_ending() -> None:
    *pieces, plain = filename("é" * 80 + ".pdf")
    assert pieces[0].startswith("filename*0*=UTF-8''%C3%A9")
    assert pieces[1].startswith("filename*1*=%C3%A9")
    assert plain == 'filename="' + "e" * 61 + '.pdf"'
    assert filename("no ending " * 30)[-1] == 'filename="' + ("no ending " * 30)[:65].strip() + '"'
    assert filename("." * 200)[-1] == 'filename="' + "." * 65 + '"'


@pytest.mark.parametrize("name", ["filename*", "filename*1*=", "filename*0*=UTF-8''\u00fc"])
def test_a_name_may_look_like_its_own_parameter(name: str) -> None:
    read = BytesParser(EmailMessage, policy=policy.default).parsebytes(field(name).encode() + b"\r\n\r\n")
    assert read["Content-Disposition"].params["filename"] == name

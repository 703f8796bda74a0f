from contextlib import suppress
from email.headerregistry import HeaderRegistry
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamq.mail.address import FAST, Address, parse_list
from streamq.mail.headers import address_field

LOCAL = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30)
NAME = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"), max_size=30)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bob@example.net", [("", "bob", "example.net")]),
        ("<bob@example.net>", [("", "bob", "example.net")]),
        ("Bob B <bob@Example.net>", [("Bob B", "bob", "Example.net")]),
        ('"B., Bob \\"x\\"" <bob@example.net>', [('B., Bob "x"', "bob", "example.net")]),
        ("Dr. Bob<bob@example.net>", [("Dr. Bob", "bob", "example.net")]),
        ("bob@example.net <bob@example.net>", [("bob@example.net", "bob", "example.net")]),
        ("[Shop] Bob <b@x.de>", [("[Shop] Bob", "b", "x.de")]),
        ("Zoë Müller <z@x.de>", [("Zoë Müller", "z", "x.de")]),
        ("b@x.de (Bob (the) \\) one)", [("", "b", "x.de")]),
        (" (hi)  b@x.de\t", [("", "b", "x.de")]),
        ("a@x.de, B <b@x.de>,, c@x.de,", [("", "a", "x.de"), ("B", "b", "x.de"), ("", "c", "x.de")]),
        ("Team: a@x.de, b@x.de;, c@x.de", [("", "a", "x.de"), ("", "b", "x.de"), ("", "c", "x.de")]),
        ("undisclosed-recipients:;", []),
        ('"john"@x.de', [("", "john", "x.de")]),
        ('"john smith"@x.de', [("", '"john smith"', "x.de")]),
        ('"a\\"b\\\\c"@x.de', [("", '"a\\"b\\\\c"', "x.de")]),
        ('"a@b"@x.de', [("", '"a@b"', "x.de")]),
        ('""@x.de', [("", '""', "x.de")]),
        ("jürgen@münchen.de", [("", "jürgen", "xn--mnchen-3ya.de")]),
        ("b@[192.0.2.1]", [("", "b", "[192.0.2.1]")]),
        ("b@[IPv6:2001:db8::1]", [("", "b", "[IPv6:2001:db8::1]")]),
        ("=?utf-8?q?x?= <b@x.de>", [("=?utf-8?q?x?=", "b", "x.de")]),
        ("b@" + "a" * 63 + ".de", [("", "b", "a" * 63 + ".de")]),
        ("a" * 64 + "@x.de", [("", "a" * 64, "x.de")]),
    ],
)
def test_lists(text: str, found: list[tuple[str, str, str]]) -> None:
    assert parse_list(text) == [Address(*each) for each in found]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ",",
        "bob",
        "@x.de",
        "bob@",
        "<>",
        "Bob <>",
        "a b@x.de",
        "a @x.de",
        "a@ x.de",
        "a@x. de",
        "a@x.de b@x.de",
        "a@b@x.de",
        "a..b@x.de",
        ".a@x.de",
        "a.@x.de",
        "<@r.de:b@x.de>",
        "<b@x.de",
        "b@x.de>",
        "<b@x.de> Bob",
        "<<b@x.de>>",
        "Team: a@x.de",
        ":;",
        "a:b:c@x.de;",
        "b@x.de;",
        '"b@x.de',
        "(b@x.de",
        "b)@x.de",
        "b\\c@x.de",
        "b@x_y.de",
        "b@[1.2.3]",
        "b@x.de\r\nBcc: c@x.de",
        "b\n@x.de",
        '"b\nc"@x.de',
        '"b\0c"@x.de',
        '"b\x01c"@x.de',
        "b\x85c@x.de",
        "b\udc80@x.de",
        "B \udc80 <b@x.de>",
        "\udc80 <b@x.de>, c@x.de",
        '"a\rb" <b@x.de>',
        "a" * 65 + "@x.de",
        "ü" * 33 + "@x.de",
        '"' + "a " * 32 + '"@x.de',
        "a" * 60 + "@" + ".".join(["b" * 60] * 4),
        "b@" + "a" * 64 + ".de",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        parse_list(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 200_000,
        '"' * 200_001,
        "<" * 200_000,
        "a," * 100_000,
        "a@b.de (" * 30_000,
        '"\\' * 100_000,
        "a@b.c," * 40_000,
    ],
)
def test_long_nonsense_costs_no_more_than_its_length(text: str) -> None:
    # Were it quadratic, the test's time limit would end it
    with suppress(ValueError):
        assert parse_list(text)


def test_the_fast_path_takes_what_is_usual() -> None:
    assert FAST.fullmatch("bob@example.net")
    assert FAST.fullmatch("My Shop <bob@example.net>")


@settings(max_examples=300, deadline=None)
@given(NAME, LOCAL)
def test_what_is_written_is_read_back(name: str, local: str) -> None:
    escaped = local.replace("\\", "\\\\").replace('"', '\\"')
    quoted_name = name.replace("\\", "\\\\").replace('"', '\\"')
    (found,) = parse_list(f'"{quoted_name}" <"{escaped}"@example.net>')
    assert found.name == name
    assert parse_list(found.spec) == [Address("", found.local, "example.net")]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        # Short: of a name in two encoded words the standard library (3.11) makes one with a blank inside
        st.builds(
            Address,
            NAME.map(lambda name: name[:18]),
            st.from_regex(r"[a-z0-9+]{1,20}", fullmatch=True),
            st.just("x.de"),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_a_list_is_read_alike_here_and_by_the_standard_library(addresses: list[Address]) -> None:
    plain = [Address(" ".join(each.name.split()), each.local, each.domain) for each in addresses]
    line = address_field("To", plain).replace("\r\n", "").removeprefix("To:")
    assert [each[1:] for each in parse_list(line.strip())] == [each[1:] for each in plain]
    header: Any = HeaderRegistry()("To", line)
    assert [(each.display_name, each.addr_spec) for each in header.addresses] == [
        (each.name, each.spec) for each in plain
    ]

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamq.mail.domain import to_wire


@pytest.mark.parametrize(
    ("domain", "wire"),
    [
        ("example.net", "example.net"),
        ("Example.NET", "Example.NET"),
        ("localhost", "localhost"),
        ("a--b.x1", "a--b.x1"),
        ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
        ("münchen.de", "xn--mnchen-3ya.de"),
        ("MÜNCHEN.DE", "xn--mnchen-3ya.de"),
        ("mu\u0308nchen.de", "xn--mnchen-3ya.de"),  # a letter and its combining mark
        ("straße.de", "xn--strae-oqa.de"),  # IDNA2003 would say strasse.de
        ("βόλος.com", "xn--nxasmm1c.com"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("\uff45xample\uff0ecom", "example.com"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
    ],
)
def test_domains(domain: str, wire: str) -> None:
    assert to_wire(domain) == wire


@pytest.mark.parametrize(
    "domain",
    [
        "",
        ".",
        "a..b",
        ".a",
        "a.",
        "-a.b",
        "a-.b",
        "a_b.c",
        "a b.c",
        "a/b",
        "a" * 64 + ".de",
        ".".join(["a" * 60] * 5),
        "ü" * 60 + ".de",
        "ü" * 5000,
        "-ü.de",
        "ü-.de",
        "ab--ü.de",
        "\u0308a.de",
        "☕.example",
        "a\u200db.de",
        "℀.com",  # NFKC makes a/c of it
        "example\uff20evil.com",  # and an @ of that
        "[192.0.2.256]",
        "[192.0.2.1",
        "[IPv6:fe80::1%eth0]",
        "[IPv6:nonsense]",
        "[x:y]",
        "[]",
        "[\uff1192.0.2.1]",
    ],
)
def test_what_is_no_domain(domain: str) -> None:
    with pytest.raises(ValueError, match=r"domain|literal"):
        to_wire(domain)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(categories=["Ll", "Lo"], max_codepoint=0x2FFF), min_size=1, max_size=12))
def test_an_a_label_is_read_back_and_stays_as_it_is(label: str) -> None:
    try:
        wire = to_wire(f"{label}.example")
    except ValueError:
        return
    assert wire.isascii()
    assert to_wire(wire) == wire
    first = wire.partition(".")[0]
    if first.startswith("xn--"):
        assert to_wire(first[4:].encode().decode("punycode")) == first


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300))
def test_any_text_gives_a_host_name_or_an_error(text: str) -> None:
    try:
        wire = to_wire(text)
    except ValueError:
        return
    assert wire.isascii()
    assert 0 < len(wire) <= 255
    assert not set(wire) & set(' \t\r\n\0<>@,;"\\()|')

import orjson
import pytest

from streamq.errors import MalformedMail
from streamq.mail import rules
from streamq.mail.times import YEAR_MS

NOW = 1_732_237_561_234
AHEAD = (NOW + YEAR_MS) // 1000


def test_what_is_unset() -> None:
    assert rules.key({}, b"id") is None
    assert rules.name({}, b"route") is None
    assert rules.choice({}, b"on_ambiguous", frozenset()) is None
    assert rules.flag({}, b"sensitive", default=False) is False
    assert rules.tags({}) == []
    assert rules.metadata({}) is None
    assert rules.traceparent({}) is None
    assert rules.send_at_ms({}, NOW) is None
    assert rules.expires_at_ms({}, NOW) is None
    assert rules.header_line({}, b"subject") == ""
    assert rules.body({}, b"text") == b""
    assert rules.mailboxes({}, b"to") == ()
    assert rules.mailbox({}, b"from") is None


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        (b"send_at", b"1732237562", 1_732_237_562_000),
        (b"send_at", b"1732237561235", 1_732_237_561_235),
        (b"send_at", b"2024-11-22T02:06:02+01:00", 1_732_237_562_000),
        (b"send_at", b"1732237561234", None),
        (b"send_at", b"0001-01-01T00:00:00Z", None),
        (b"send_at", str(AHEAD).encode(), AHEAD * 1000),
        (b"delay", b"0", None),
        (b"delay", b"0.5", NOW + 500),
        (b"delay", b"60", NOW + 60_000),
    ],
)
def test_not_before(field: bytes, value: bytes, found: int | None) -> None:
    assert rules.send_at_ms({field: value}, NOW) == found


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        (b"expires_at", b"1732237562", 1_732_237_562_000),
        (b"expires_at", b"1", 1000),
        (b"expires_at", b"0001-01-01T00:00:00Z", 0),
        (b"ttl", b"0", NOW),
        (b"ttl", b"60", NOW + 60_000),
    ],
)
def test_not_after(field: bytes, value: bytes, found: int) -> None:
    assert rules.expires_at_ms({field: value}, NOW) == found


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({b"send_at": b"soon"}, "send_at", "not a time"),
        ({b"send_at": b"\xff"}, "send_at", "not UTF-8"),
        ({b"send_at": str(AHEAD + 1).encode()}, "send_at", "more than a year ahead"),
        ({b"send_at": b"9" * 20}, "send_at", "more than a year ahead"),
        ({b"delay": b"5m"}, "delay", "number of seconds"),
        ({b"delay": b"31622401"}, "delay", "more than a year ahead"),
        ({b"delay": b"1", b"send_at": b"1"}, "delay", "send_at says it already"),
        ({b"expires_at": b"soon"}, "expires_at", "not a time"),
        ({b"ttl": b"-1"}, "ttl", "number of seconds"),
        ({b"ttl": b"31622401"}, "ttl", "more than a year ahead"),
        ({b"ttl": b"1", b"expires_at": b"1"}, "ttl", "expires_at says it already"),
    ],
)
def test_wrong_times(fields: dict[bytes, bytes], field: str, why: str) -> None:
    with pytest.raises(MalformedMail, match=why) as found:
        (rules.send_at_ms(fields, NOW), rules.expires_at_ms(fields, NOW))
    assert found.value.field == field


def test_a_key() -> None:
    assert rules.key({b"id": "ü".encode() * 128}, b"id") == "ü" * 128
    for value in ("ü".encode() * 128 + b"x", b"a\nb", b"a\0b", b"\x7f", b"\xc2\x85", b"\xff"):
        with pytest.raises(MalformedMail, match=r"^id: "):
            rules.key({b"id": value}, b"id")


def test_a_name() -> None:
    assert rules.name({b"route": b"main.eu-1"}, b"route") == "main.eu-1"
    for value in (b"-a", b"a|b", b"a b", b"a\n", b"a" * 64, b"\xff", "ü".encode()):
        with pytest.raises(MalformedMail, match=r"^route: "):
            rules.name({b"route": value}, b"route")


def test_choices() -> None:
    assert rules.flag({b"sensitive": b"1"}, b"sensitive", default=False) is True
    assert rules.flag({b"sensitive": b"0"}, b"sensitive", default=False) is False
    with pytest.raises(MalformedMail, match="sensitive: not one of 0, 1: 'yes'"):
        rules.flag({b"sensitive": b"yes"}, b"sensitive", default=False)


def test_tags() -> None:
    assert rules.tags({b"tags": b"a, b ,,c"}) == ["a", "b", "c"]
    assert rules.tags({b"tags": b'["a, b", "", "c"]'}) == ["a, b", "c"]
    assert len(rules.tags({b"tags": orjson.dumps(["ü" * 100] * 50)})) == 50


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (orjson.dumps(["a"] * 51), "more than 50"),
        (b"a" * 101, "longer than 100 characters"),
        (b"a," * 100_000, "longer than 24096 bytes"),
        (b"[1]", "not a JSON array of strings"),
        (b"[", "not a JSON array"),
        (b"[" * 2000, "not a JSON array"),
        (b'["a\\nb"]', "control characters"),
        (b"a\nb", "control characters"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_wrong_tags(value: bytes, why: str) -> None:
    with pytest.raises(MalformedMail, match=f"^tags: .*{why}"):
        rules.tags({b"tags": value})


def test_metadata() -> None:
    assert rules.metadata({b"metadata": b'{"a": {"b": [1, null]}}'}) == {"a": {"b": [1, None]}}
    for value, why in {
        b"[]": "not a JSON object",
        b"{": "not a JSON object",
        b'{"a":"' + b"x" * 8192 + b'"}': "longer than 8192 bytes",
        b'{"a":' * 300 + b"1" + b"}" * 300: "nested too deep",
        b'{"a":' * 1100 + b"1" + b"}" * 1100: "not a JSON object",
        b'{"a":1e999}': "a number of more than 308 digits",
        b'{"a":"\xff"}': "not a JSON object",
    }.items():
        with pytest.raises(MalformedMail, match=f"^metadata: {why}"):
            rules.metadata({b"metadata": value})


def test_traceparent() -> None:
    value = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert rules.traceparent({b"traceparent": value.encode()}) == value
    with pytest.raises(MalformedMail, match="traceparent: not ASCII"):
        rules.traceparent({b"traceparent": "ü".encode()})


def test_texts() -> None:
    assert rules.header_line({b"subject": "Grüße\t!".encode()}, b"subject") == "Grüße\t!"
    assert rules.body({b"text": b"a\r\n\0b"}, b"text") == b"a\r\n\0b"
    for value in (b"a\rb", b"a\nb", b"a\0b", b"\xff", b"a" * (rules.MAX_HEADER + 1)):
        with pytest.raises(MalformedMail, match=r"^subject: "):
            rules.header_line({b"subject": value}, b"subject")
    with pytest.raises(MalformedMail, match="html: not UTF-8"):
        rules.body({b"html": b"\xff"}, b"html")


def test_mailboxes() -> None:
    assert [each.spec for each in rules.mailboxes({b"to": b"a@x.de, b@x.de"}, b"to")] == ["a@x.de", "b@x.de"]
    assert [each.name for each in rules.mailboxes({b"to": rb'["\"A, B\" <a@x.de>", "b@x.de"]'}, b"to")] == ["A, B", ""]
    assert rules.mailboxes({b"to": b"[]"}, b"to") == ()
    assert [each.name for each in rules.mailboxes({b"to": b"[Shop] A <a@x.de>"}, b"to")] == ["[Shop] A"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"bob", "not an address"),
        (b"\xff@x.de", "not UTF-8"),
        (b"<>", "not an address"),
        (b"a@x.de\nBcc: b@x.de", "CR, LF or NUL"),
        (b'["a@x.de\\r\\nBcc: b@x.de"]', "CR, LF or NUL"),
        (b'["a@x.de, b@x.de"]', "not one address for each"),
        (b'["a@x.de", 1]', "not a JSON array of strings"),
        (b"[1]", "not an address"),
        (b'["a@x.de"', "not a JSON array"),
        (b"a@x.de," * 30_000, "longer than"),
    ],
)
def test_wrong_mailboxes(value: bytes, why: str) -> None:
    with pytest.raises(MalformedMail, match=f"^reply_to: .*{why}"):
        rules.mailboxes({b"reply_to": value}, b"reply_to")


GOOD = ", ".join(f'"User, {n}" <user{n}@example.com>' for n in range(300))
ARRAY = [f"user{n}@example.com" for n in range(300)]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (f"{GOOD}, oops, c@d.example", "address 301: not an address (no @): 'oops'"),
        (f"oops,{GOOD}", "address 1: not an address (no @): 'oops'"),
        (f"{GOOD},Ed <e d@x.de>", "address 301: not an address (what precedes the @ is no local part): 'Ed <e d@"),
        (f'{GOOD}, "Ed <e@x.de>', "address 301: not an address list (at '\"'): '\"Ed <e@x.de>'"),
        (f"{GOOD}, e@x.de (Ed", "address 301: a comment without its end: 'e@x.de (Ed'"),
        (f"{GOOD}, Team: {GOOD}, oops;", "address 601: not an address (no @): 'oops'"),
        (f"{GOOD}, Team: {GOOD}", "address 600: a group without its semicolon: '\"User, 299\" <user299@example.com>'"),
        (f"{GOOD}, b@x_y.de, nor this", "address 301: "),
        (f"{GOOD}, {'x' * 5000}", f"address 301: not an address (no @): '{'x' * 80}…'"),
        (orjson.dumps([*ARRAY, "", "oops"]).decode(), "[301]: not an address (no @): 'oops'"),
        (orjson.dumps([*ARRAY, "a@x.de, b@x.de"]).decode(), "[300]: not one address for each element of the array: "),
        (f"{GOOD}, m\udcfcller@x.de", "not UTF-8 (octet "),
    ],
)  # fmt: skip
def test_of_many_the_wrong_one_is_named(value: str, said: str) -> None:
    """A reason shows 80 characters: those of the first address would tell nothing."""
    with pytest.raises(MalformedMail) as found:
        rules.mailboxes({b"to": value.encode("utf-8", "surrogateescape")}, b"to")
    assert str(found.value).startswith(f"to: {said}")
    assert "user0@" not in str(found.value)


@pytest.mark.parametrize("field", [b"from", b"sender", b"envelope_from"])
def test_one_mailbox_is_short(field: bytes) -> None:
    """However its octets are spent, nothing else has to wait for it."""
    room = 1000 - len(" <a@x.de>")
    found = rules.mailbox({field: b"n" * room + b" <a@x.de>"}, field)
    assert found
    assert found.spec == "a@x.de"
    for value in (b"n" * (room + 1) + b" <a@x.de>", b"a@x.de, " * 9999, b"(" * 60_000, b"a." * 60_000 + b"@x.de"):
        with pytest.raises(MalformedMail, match=f"^{field.decode()}: longer than 1000 bytes, and it holds one address"):
            rules.mailbox({field: value}, field)


def test_one_mailbox() -> None:
    found = rules.mailbox({b"from": b"A <a@x.de>"}, b"from")
    assert found is not None
    assert found.spec == "a@x.de"
    with pytest.raises(MalformedMail, match=r"from: more than one address: 'a@x\.de, b@x\.de'"):
        rules.mailbox({b"from": b"a@x.de, b@x.de"}, b"from")

"""What a mail asks of the next hop: dsn_notify, dsn_ret, dsn_envid, require_tls."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamq.errors import MalformedMail
from streamq.mail import BUILT, Mail, glance, parse
from streamq.mail.dsn import Dsn, read_dsn, read_require_tls, xtext

PLAIN = {b"from": b"shop@example.com", b"to": b"bob@example.net", b"text": b"Hi"}


def read(**fields: str) -> Mail:
    given = {**PLAIN, **{name.encode(): value.encode() for name, value in fields.items()}}
    return parse(given, entry="11732237561234-0", at_ms=1_732_237_561_234, salt=bytes(16), max_bytes=10**6)


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({}, None),
        ({"dsn_notify": "", "dsn_ret": "", "dsn_envid": ""}, None),
        ({"dsn_notify": "never"}, Dsn("NEVER", "", "")),
        ({"dsn_orcpt": "rfc822;a+b@example.org"}, Dsn("", "", "", "rfc822;a+b@example.org")),
        ({"dsn_notify": "failure"}, Dsn("FAILURE", "", "")),
        ({"dsn_notify": "delay, success,failure"}, Dsn("SUCCESS,FAILURE,DELAY", "", "")),
        ({"dsn_notify": '["failure", "failure"]'}, Dsn("FAILURE", "", "")),
        ({"dsn_ret": "full"}, Dsn("", "FULL", "")),
        ({"dsn_ret": "hdrs", "dsn_envid": "Q 1+1=2"}, Dsn("", "HDRS", "Q 1+1=2")),
        ({"dsn_envid": "x" * 100}, Dsn("", "", "x" * 100)),
    ],
)
def test_what_reports_a_mail_asks_for(fields: dict[str, str], asked: Dsn | None) -> None:
    assert read(**fields).dsn == asked


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("dsn_notify", "never,failure", "not never, nor a list of success, failure, delay"),
        ("dsn_notify", "FAILURE", "not never, nor"),
        ("dsn_notify", ",", "not never, nor"),
        ("dsn_notify", "failure," * 30, "not never, nor"),
        ("dsn_notify", "[1]", "not a JSON array of strings"),
        ("dsn_notify", "failure\r\nRCPT TO:<eve@example.org>", "not never, nor"),
        ("dsn_ret", "FULL", "not one of full, hdrs"),
        ("dsn_envid", "x" * 101, "longer than 100 characters"),
        ("dsn_envid", "=" * 34, "longer than 100 characters as xtext"),
        ("dsn_orcpt", "bob@example.org", "not a type, a semicolon, an address"),
        ("dsn_orcpt", "rfc822;a b@example.org", "not a type, a semicolon, an address"),
        ("dsn_orcpt", "rfc822;bob\r\n", "not printable ASCII"),
        ("dsn_orcpt", "rfc822;" + "a" * 494, "longer than 500 characters"),
        ("dsn_orcpt", "rfc822;" + "=" * 200, "longer than 500 characters as xtext"),
        ("dsn_envid", "é", "not printable ASCII"),
        ("dsn_envid", "a\r\nb", "not printable ASCII"),
        ("dsn_envid", " a", "a blank at one of its ends"),
        ("dsn_envid", "a ", "a blank at one of its ends"),
        ("dsn_envid", " ", "a blank at one of its ends"),
        ("require_tls", "true", "not one of 0, 1"),
    ],
)
def test_a_wrong_value_is_named(field: str, value: str, why: str) -> None:
    with pytest.raises(MalformedMail) as malformed:
        read(**{field: value})
    assert malformed.value.field == field
    assert malformed.value.why.startswith(why)
    assert value.startswith(malformed.value.value.removesuffix("…"))


ORCPT = "rfc822;bob@example.org"
SEVERAL = {"to": "bob@example.net, eve@example.net"}


@pytest.mark.parametrize(
    "fields",
    [
        SEVERAL,
        {"cc": "eve@example.net"},
        {"envelope_to": "bob@example.net, Bob@example.net"},
        {"to": "", "recipients": '[{"to":"bob@example.net"},{"to":"bob@example.net"}]'},
    ],
)
def test_one_recipients_address_is_not_said_to_several(fields: dict[str, str]) -> None:
    """RFC 3461, 4.2: ORCPT goes with one RCPT."""
    with pytest.raises(MalformedMail) as malformed:
        read(**fields, dsn_orcpt=ORCPT)
    assert (malformed.value.field, malformed.value.value) == ("dsn_orcpt", ORCPT)
    assert malformed.value.why == "names one recipient, and this mail has several"
    assert read(**fields, dsn_envid="a").dsn == Dsn("", "", "a")


@pytest.mark.parametrize(
    "fields",
    [
        {"cc": "bob@Example.NET"},
        {**SEVERAL, "envelope_to": "a@b.de"},
    ],
)
def test_one_recipients_address_is_said_to_one(fields: dict[str, str]) -> None:
    assert read(**fields, dsn_orcpt=ORCPT).dsn == Dsn("", "", "", ORCPT)


@pytest.mark.parametrize(("value", "wanted"), [("", False), ("0", False), ("1", True)])
def test_tls_is_required_where_a_mail_says_so(value: str, wanted: bool) -> None:
    assert read(require_tls=value).require_tls is wanted
    assert read_require_tls({}) is False
    assert read_dsn({}) is None


@pytest.mark.parametrize("field", ["dsn_notify", "dsn_ret", "dsn_envid", "require_tls"])
def test_they_are_content_and_no_plain_mail(field: str) -> None:
    """The same id with another of them is another mail, and no glance passes over them."""
    value = {"dsn_notify": "never", "dsn_ret": "full", "dsn_envid": "a", "require_tls": "1"}[field]
    assert read(id="1", **{field: value}).content_hash != read(id="1").content_hash
    assert glance({**PLAIN, field.encode(): value.encode()}, 10**6) is None


def test_the_wire_protocol_has_every_field() -> None:
    wire = (Path(__file__).parents[2] / "docs" / "wire-protocol.md").read_text("utf-8")
    rows = [line for line in wire.partition("## 2. ")[2].partition("### ")[0].splitlines() if line.startswith("| `")]
    said = {"built": set[str](), "**held**": set[str](), "ignored": set[str]()}
    for row in rows:
        names, state, _ = row.strip("| ").split(" | ", 2)
        said[state].update(re.findall(r"`([^`]+)`", names))
    assert said["built"] == {field.decode() for field in BUILT}
    assert said["**held**"] == set()


def test_xtext() -> None:
    assert xtext("a+b=c d~!\x00\x7f") == "a+2Bb+3Dc+20d~!+00+7F"


@pytest.mark.parametrize(
    "several",
    [
        {"to": "bob@example.net, eve@example.net"},
        {"cc": "eve@example.net"},
    ],
)
def test_an_original_recipient_is_one(several: dict[str, str]) -> None:
    """A report about eve would name bob."""
    with pytest.raises(MalformedMail, match=r"^dsn_orcpt: names one recipient, and this mail has several"):
        read(dsn_orcpt="rfc822;bob@example.org", **several)
    assert read(dsn_envid="a1", **several).several is not None
    assert read(dsn_orcpt="rfc822;bob@example.org", to="bob@example.net, bob@EXAMPLE.net").several is None

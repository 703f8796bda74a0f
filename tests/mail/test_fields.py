from contextlib import suppress
from email import policy
from email.parser import BytesParser
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamq.errors import MailError, MalformedMail, UnknownFields, UnknownTemplate
from streamq.mail import Mail, able, parse
from streamq.mail.fields import BUILT

NOW = 1_732_237_561_234
MAIL = {b"from": b"Shop <shop@example.com>", b"to": b"bob@Example.net", b"subject": b"Hi", b"text": b"Hello"}
RAW = {b"raw": b"From: a@x.de\nTo: b@x.de\n\nHello\n"}


def read(fields: dict[bytes, bytes], **settings: Any) -> Mail:
    settings = {"entry": "11732237561234-0", "at_ms": NOW, "salt": b"salt", "max_bytes": 1 << 20, **settings}
    return parse(fields, **settings)


def test_the_readmes_mail() -> None:
    mail = read({**MAIL, b"id": b"a1"})
    assert mail.id == "a1"
    assert mail.envelope_from == "shop@example.com"
    assert mail.envelope_to == "bob@Example.net"
    assert mail.site == "example.net"
    assert (mail.route, mail.tenant, mail.send_at_ms, mail.expires_at_ms, mail.on_ambiguous) == (None,) * 5
    assert (mail.sensitive, mail.eight_bit, mail.smtputf8) == (False, False, False)
    assert mail.digest is not None
    assert (len(mail.digest), len(mail.content_hash)) == (10, 4)
    found = BytesParser(policy=policy.default).parsebytes(mail.content())
    assert (found["Subject"], found["Date"]) == ("Hi", "Fri, 22 Nov 2024 01:06:01 +0000")
    event = orjson.loads(b"{" + mail.event + b"}")
    assert event == {"rcpt": "bob@Example.net", "site": "example.net", "message_id": found["Message-ID"]}
    assert mail.size / 2 < len(mail.content()) < mail.size * 2


def test_all_that_goes_along() -> None:
    mail = read(
        {
            **MAIL,
            b"route": b"main",
            b"tenant": b"t1",
            b"delay": b"60",
            b"ttl": b"120",
            b"on_ambiguous": b"hold",
            b"sensitive": b"1",
            b"v": b"1",
            b"x_note": b"\xff ignored",
        }
    )
    assert (mail.route, mail.tenant, mail.on_ambiguous, mail.sensitive) == ("main", "t1", "hold", True)
    assert (mail.send_at_ms, mail.expires_at_ms) == (NOW + 60_000, NOW + 120_000)


def test_an_empty_value_is_no_value() -> None:
    empty = dict.fromkeys([*BUILT, b"unknown", b"\xff"], b"")
    assert read({**empty, **MAIL}).event == read(MAIL).event
    mail = read(MAIL)
    assert (mail.id, mail.digest, mail.content_hash) == (None, None, b"")


@pytest.mark.parametrize("field", sorted({*BUILT, b"@of"}))
def test_a_field_that_was_given_twice_is_wrong(field: bytes) -> None:
    """Whether the first or the last of them is read would decide who gets the mail, or what it says."""
    with pytest.raises(MalformedMail) as found:
        read({**MAIL, b"to": b"second@y.de"}, twice=[field])
    assert (found.value.field, found.value.why) == (field.decode(), "given more than once")
    assert field != b"to" or found.value.value == "second@y.de"


def test_an_unknown_field_that_was_given_twice_waits_for_who_knows_it() -> None:
    with pytest.raises(UnknownFields) as held:
        read({**MAIL, b"colour": b"red"}, twice=[b"colour", b"to"])
    assert held.value.fields == ("colour",)
    assert read({**MAIL, b"x_a": b"1"}, twice=[b"x_a"]).id is None


@pytest.mark.parametrize("how", [{"pii": "hash"}, {"more": {b"sensitive": b"1"}}])
def test_what_was_given_twice_is_not_shown_where_it_must_not_be(how: dict[str, Any]) -> None:
    fields = {**MAIL, **how.pop("more", {})}
    with pytest.raises(MalformedMail) as found:
        read(fields, twice=[b"to"], **how)
    assert (found.value.field, found.value.value) == ("to", "")


@pytest.mark.parametrize(("pii", "rcpt"), [("full", "bob@Example.net"), ("hash", "sha256:e7b3b708168e80fd")])
def test_addresses_in_events(pii: str, rcpt: str) -> None:
    event = orjson.loads(b"{" + read(MAIL, pii=pii).event + b"}")
    assert event["rcpt"] == rcpt


def test_a_retry_is_the_same_bytes_and_another_entry_is_not() -> None:
    fields = {**MAIL, b"html": b"<p>Hello", b"text": "ü".encode()}
    assert read(fields).content() == read(fields).content()
    assert read(fields).content() != read(fields, entry="11732237561234-1").content()
    assert read(fields).content() != read(fields, salt=b"other").content()
    mail = read(RAW)
    assert mail.content() == mail.content() == read(RAW).content()


def test_the_same_content_in_any_order_has_the_same_hash() -> None:
    fields = {**MAIL, b"id": b"1"}
    turned = dict(reversed(fields.items()))
    assert read(fields).content_hash == read(turned).content_hash
    assert read(fields).content_hash == read({**fields, b"id": b"2", b"traceparent": b"00"}).content_hash
    assert read(fields).content_hash != read({**fields, b"text": b"Hello!"}).content_hash
    assert read(fields).digest != read({**fields, b"tenant": b"t"}).digest


WRONG = {
    b"id": b"a\nb",
    b"from": b"nobody",
    b"sender": b"a@x.de, b@x.de",
    b"to": b"nobody",
    b"cc": b"nobody",
    b"bcc": b"nobody",
    b"recipients": b"{",
    b"reply_to": b"nobody",
    b"subject": b"a\r\nBcc: b@x.de",
    b"text": b"\xff",
    b"html": b"\xff",
    b"auto_text": b"yes",
    b"headers": b"[]",
    b"attachments": b"{}",
    b"envelope_from": b"nobody",
    b"envelope_to": b"nobody",
    b"route": b"a|b",
    b"tenant": b"a\0b",
    b"v": b"one",
    b"send_at": b"soon",
    b"delay": b"soon",
    b"expires_at": b"soon",
    b"ttl": b"soon",
    b"collapse_key": b"a\nb",
    b"collapse_seconds": b"soon",
    b"template": b"no name",
    b"vars": b"[]",
    b"on_ambiguous": b"guess",
    b"sensitive": b"yes",
    b"tags": b"[",
    b"metadata": b"[]",
    b"traceparent": b"\n",
    b"dsn_notify": b"always",
    b"dsn_ret": b"body",
    b"dsn_envid": b"\xc3\xa9",
    b"dsn_orcpt": b"bob@example.org",
    b"require_tls": b"yes",
    b"raw": b"\0",
}


def test_every_built_field_has_a_rule_that_can_break() -> None:
    assert WRONG.keys() == BUILT


@pytest.mark.parametrize("field", sorted(WRONG))
def test_the_order_of_judgement(field: bytes) -> None:
    fields = {**({} if field == b"raw" else MAIL), field: WRONG[field]}
    with pytest.raises(MalformedMail) as malformed:
        read(fields)
    assert malformed.value.field == field.decode()
    assert malformed.value.why
    with pytest.raises(UnknownFields):
        read({**fields, b"flavour": b"?"})


def test_a_template_that_is_not_there_is_waited_for_where_all_else_is_good() -> None:
    fields = {name: value for name, value in MAIL.items() if name not in (b"subject", b"text", b"html")}
    with pytest.raises(UnknownTemplate):
        read({**fields, b"template": b"t"})
    with pytest.raises(MalformedMail, match=r"^reply_to: "):
        read({**fields, b"template": b"t", b"reply_to": b"nobody"})


def test_unknown_fields_are_named_in_bounds() -> None:
    with pytest.raises(UnknownFields) as found:
        read({**MAIL, b"flavour": b"1", b"\xff": b"2", b"x_a": b"3"})
    assert found.value.fields == ("\\xff", "flavour")
    with pytest.raises(UnknownFields) as found:
        read({**MAIL, **{b"f%d" % n + b"x" * 1000: b"1" for n in range(1000)}})
    assert len(found.value.fields) == 20
    assert max(map(len, found.value.fields)) == 80


def test_a_later_versions_mail_waits_for_it() -> None:
    for extra in ({}, {b"to": b"nobody"}, {b"template": b"?"}):
        with pytest.raises(UnknownFields) as found:
            read({**MAIL, **extra, b"v": b"2"})
        assert found.value.fields == ("v=2",)
    assert not able("v=2")
    for value in (b"0", b"01", b"-2", b"2.0", b"9" * 5000, "²".encode(), b"\xff"):
        with pytest.raises(MalformedMail, match="v: not a version"):
            read({**MAIL, b"v": value})


def test_what_this_version_is_able_to() -> None:
    assert able("metadata")
    assert able("attachments")
    assert able("to")  # what an older version held for several recipients
    assert not able("flavour")
    assert not able("\udcff")


def test_reasons_do_not_tell_what_events_may_not_hold() -> None:
    with pytest.raises(MalformedMail, match="nobody"):
        read({**MAIL, b"to": b"nobody"})
    for fields, pii in (({b"sensitive": b"1"}, "full"), ({b"sensitive": b"yes"}, "full"), ({}, "hash")):
        with pytest.raises(MalformedMail) as found:
            read({**MAIL, **fields, b"to": b"nobody", b"text": b"\xff secret"}, pii=pii)
        assert found.value.value == ""
        assert "nobody" not in str(found.value)
        assert found.value.__suppress_context__


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({**MAIL, b"text": b"a" * 5000}, "text"),
        ({**MAIL, b"text": b"\n" * 3000}, "text"),  # 6,000 on the wire
        ({**MAIL, b"html": "ü".encode() * 2000}, "html"),  # base64
        ({b"raw": RAW[b"raw"] + b"a" * 4100}, "raw"),
        ({b"raw": RAW[b"raw"] + b"\n" * 3000}, "raw"),
    ],
)
def test_the_size_cap_counts_what_goes_out(fields: dict[bytes, bytes], field: str) -> None:
    with pytest.raises(MalformedMail, match="over the size cap of 4096 bytes") as found:
        read(fields, max_bytes=4096)
    assert found.value.field == field
    assert read(fields, max_bytes=8192).envelope_to


@pytest.mark.parametrize(
    ("attachments", "why", "name"),
    [
        ('[{"content":""},{"filename":"a.pdf","content":"%s"}]' % ("QUJD" * 1100), "[1].content: the mail is", "a.pdf"),
        ('[{"filename":"","content":"%s"}]' % ("QUJD" * 990), "[0].content: ", ""),  # over it on the wire only
        ('[{"content":"%s"}]' % ("QUJD" * 3000), "the mail is over", ""),
        ('[5,"%s"]' % ("QUJD" * 1100), "the mail is over", ""),
        ('["%s"' % ("QUJD" * 1100), "the mail is over", ""),
        ("[%s]" % (" " * 4400), "the mail is over", ""),
    ],
)
def test_what_is_too_large_says_which_attachment(attachments: str, why: str, name: str) -> None:
    with pytest.raises(MalformedMail, match="over the size cap of 4096 bytes") as found:
        read({**MAIL, b"attachments": attachments.encode()}, max_bytes=4096)
    assert found.value.field == "attachments"
    assert found.value.why.startswith(why)
    assert found.value.value == name


def test_up_to_the_cap_a_mail_goes() -> None:
    mail = read({**MAIL, b"text": b"a" * 2000})
    size = len(mail.content())
    assert read({**MAIL, b"text": b"a" * 2000}, max_bytes=size).content() == mail.content()
    with pytest.raises(MalformedMail, match="size cap"):
        read({**MAIL, b"text": b"a" * 2000}, max_bytes=size - 1)


def test_addresses_beyond_ascii() -> None:
    mail = read({**MAIL, b"to": "Jürgen <jürgen@Müller.de>".encode()})
    assert (mail.envelope_to, mail.site) == ("jürgen@xn--mller-kva.de", "xn--mller-kva.de")
    assert (mail.smtputf8, mail.eight_bit) == (True, True)
    mail = read({**MAIL, b"envelope_to": "jürgen@x.de".encode()})
    assert (mail.smtputf8, mail.eight_bit) == (True, False)
    mail = read({**RAW, b"envelope_from": "jürgen@x.de".encode()})
    assert (mail.smtputf8, mail.eight_bit) == (True, False)
    mail = read({b"raw": RAW[b"raw"] + "ü".encode()})
    assert (mail.smtputf8, mail.eight_bit) == (False, True)
    assert read({**MAIL, b"to": b"bob@[IPv6:2001:DB8::1]"}).site == "[IPv6:2001:DB8::1]"


def test_an_entry_of_any_time_is_read() -> None:
    for at_ms in (0, 1, 2**64 - 1):
        assert read(MAIL, at_ms=at_ms, entry=f"1{at_ms}-0").content()


NAMES = st.sampled_from([*sorted(BUILT), b"x_a", b"unknown", b"\xff\x00"])
VALUES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([*MAIL.values(), *RAW.values(), *WRONG.values(), b"1", b"<>", b"[]", b"{}", b"1732237562"]),
    st.text('"\\<>@,:;.()[] \r\n\tab=?ü', max_size=30).map(str.encode),
    st.text('{}[]",:\\u0d8 1e', max_size=30).map(str.encode),
)


@settings(max_examples=1000, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=8), st.sampled_from([{}, MAIL, RAW]), st.sampled_from(["full", "hash"]))
def test_any_bytes_are_a_mail_or_a_mail_error(fields: dict[bytes, bytes], base: dict[bytes, bytes], pii: str) -> None:
    with suppress(MailError):
        mail = read({**base, **fields}, pii=pii)
        content = mail.content()
        assert content.endswith(b"\r\n")
        assert content.count(b"\r\n") == content.count(b"\n") == content.count(b"\r")
        assert b"\0" not in content
        assert mail.eight_bit is not content.isascii()
        assert mail.site
        assert "|" not in mail.site
        assert not set(mail.envelope_from + mail.envelope_to) & set("\r\n\0")
        assert isinstance(orjson.loads(b"{" + mail.event + b"}"), dict)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([field for field in sorted(BUILT) if field not in (b"raw", b"text", b"html")]),
    st.text('ab@<>," :=?\r\n\0\u2028\x85\x0b', min_size=1, max_size=30),
)
def test_no_field_adds_a_header_or_a_part(field: bytes, value: str) -> None:
    with suppress(MailError):
        head, _, body = read({**MAIL, field: value.encode()}).content().partition(b"\r\n\r\n")
        names = [line.partition(b":")[0] for line in head.split(b"\r\n") if line[:1] not in (b" ", b"\t")]
        allowed = {b"Sender", b"Reply-To", b"Cc"}
        expected = [*(b"From", b"To", b"Subject", b"Date", b"Message-ID", b"MIME-Version"), b"Content-Type"]
        assert [name for name in names if name not in allowed] == [*expected, b"Content-Transfer-Encoding"]
        assert body == b"Hello\r\n"

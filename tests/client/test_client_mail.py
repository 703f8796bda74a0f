"""Mail: every field of the table by its name, in its form on the wire, judged as the worker judges it."""

from __future__ import annotations

import copy
import pickle
from base64 import b64encode
from datetime import datetime, timedelta, timezone
from email.headerregistry import Address
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq import Attachment, Mail, MailError, MalformedMail, Recipient
from streamq.client.encode import ENCODERS
from streamq.client.mail import Fields
from streamq.mail import BUILT, building, parse

GOOD: dict[str, Any] = {"id": "a1", "from_": "shop@example.com", "to": "bob@example.net", "text": "Hello"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def made(**known: Any) -> dict[str, bytes]:
    """The fields of a good mail with these, which are what is not the good mail's."""
    mail = Mail(**(GOOD | known))
    return {name.decode(): value for name, value in mail.fields.items()}


def said(fields: dict[bytes, bytes]) -> str:
    """What the worker says of them."""
    with pytest.raises(MailError) as caught:
        parse(fields, entry="01-0", at_ms=1, salt=b"", max_bytes=10**6)
    return str(caught.value)


# -- the table ----------------------------------------------------------------------------------------------------


def test_every_field_of_the_table_has_its_keyword() -> None:
    table = {field.decode() for field in BUILT}
    keywords = Fields.__optional_keys__
    assert ENCODERS.keys() == table - {"v"}  # the version of the table is this module's own
    assert {"from" if name == "from_" else name for name in keywords} - {"priority", "extra"} == table - {"v", "raw"}


@pytest.mark.parametrize(
    ("keyword", "value", "wire"),
    [
        ("from_", Address("Shop, Inc.", addr_spec="shop@example.com"), '"Shop, Inc." <shop@example.com>'),
        ("sender", "Shop <shop@example.com>", "Shop <shop@example.com>"),
        ("to", "a@example.net, b@example.net", "a@example.net, b@example.net"),
        ("to", Address("Bob", addr_spec="b@example.net"), "Bob <b@example.net>"),
        ("cc", ["a@b.c", Address("B, C", addr_spec="b@b.c")], '["a@b.c","\\"B, C\\" <b@b.c>"]'),
        ("bcc", ("a@example.net",), '["a@example.net"]'),
        ("reply_to", iter(["a@example.net"]), '["a@example.net"]'),
        ("subject", "Grüße", "Grüße"),
        ("html", "<p>Hi</p>", "<p>Hi</p>"),
        ("headers", {"X-A": "1", "X-B": ["2", "3"]}, '{"X-A":"1","X-B":["2","3"]}'),
        ("envelope_from", "<>", "<>"),
        ("envelope_to", ["a@example.net"], '["a@example.net"]'),
        ("template", "receipt@3", "receipt@3"),
        ("send_at", datetime(2020, 1, 31, 8, tzinfo=timezone(timedelta(hours=1))), "2020-01-31T07:00:00.000+00:00"),
        ("send_at", 1_700_000_000, "1700000000"),
        ("expires_at", 1_700_000_000.25, "1700000000.250"),
        ("expires_at", "2020-01-31T08:00:00Z", "2020-01-31T08:00:00Z"),
        ("delay", timedelta(minutes=2), "120.000"),
        ("ttl", 600, "600"),
        ("collapse_key", "quota-bob", "quota-bob"),
        ("on_ambiguous", "hold", "hold"),
        ("route", "main", "main"),
        ("sensitive", True, "1"),
        ("tags", ["a,b", "c"], '["a,b","c"]'),
        ("tags", "a,b", "a,b"),
        ("metadata", {"order": 18}, '{"order":18}'),
        ("metadata", {"account": 10**30, "at": [1.5, None]}, f'{{"account":{10**30},"at":[1.5,null]}}'),
        ("tenant", "t1", "t1"),
        ("traceparent", TRACE, TRACE),
        ("dsn_notify", ["success", "delay"], '["success","delay"]'),
        ("dsn_ret", "hdrs", "hdrs"),
        ("dsn_envid", "e 1", "e 1"),
        ("require_tls", True, "1"),
        ("extra", {"x_shop": "7"}, "7"),
        ("auto_text", False, "0"),
        ("auto_text", True, "1"),
    ],
)  # fmt: skip
def test_values_in_their_form_on_the_wire(keyword: str, value: Any, wire: str) -> None:
    field = {"from_": "from", "extra": "x_shop"}.get(keyword, keyword)
    assert made(**{keyword: value})[field].decode() == wire


def test_collapsing() -> None:
    assert made(collapse_key="quota", collapse_seconds=timedelta(minutes=1))["collapse_seconds"] == b"60.000"
    with pytest.raises(MalformedMail, match="collapse_seconds: says nothing without collapse_key"):
        made(collapse_seconds=60)


def test_recipients_are_of_either_kind_of_message() -> None:
    each = Recipient(to=Address("B, C", addr_spec="b@example.net"), id="r1", metadata={"m": 2})
    wire = [{"to": '"B, C" <b@example.net>', "id": "r1", "metadata": {"m": 2}}, {"to": "c@d.e"}]
    mail = Mail(from_="shop@example.com", text="x", recipients=[each, Recipient(to="c@d.e")])
    raw = Mail.raw(b"From: a@b.c\n\nx\n", recipients=(each, Recipient(to="c@d.e")))
    for made_of in (mail, raw):
        assert orjson.loads(made_of.fields[b"recipients"]) == wire
        assert made_of.held == ""
    with pytest.raises(MalformedMail, match="to: may not stand beside recipients"):
        made(recipients=[each])


@pytest.mark.parametrize("jinja", [True, False])
def test_a_template_is_the_workers(jinja: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored, and whether it can be filled in, is not this machine's to know; all else is checked."""
    monkeypatch.setattr(building, "installed", lambda: jinja)
    given: dict[str, Any] = {"from_": "shop@example.com", "template": "news@3", "vars": {"month": "May"}}
    mail = Mail(**given, recipients=[Recipient(to="a@example.net", vars={"n": 1})])
    assert (mail.held, mail.fields[b"template"], mail.fields[b"vars"]) == ("", b"news@3", b'{"month":"May"}')
    assert orjson.loads(mail.fields[b"recipients"]) == [{"to": "a@example.net", "vars": {"n": 1}}]
    for wrong in ({"template": "a b"}, {"vars": "x"}, {"ttl": -1}):
        with pytest.raises(MalformedMail):
            Mail(**(given | {"to": "a@example.net"} | wrong))


def test_attachments_are_bytes() -> None:
    content = bytes(range(256))
    whole = Attachment(
        filename="a.bin", content=content, content_type="image/png", content_id="c1", disposition="inline"
    )
    found = orjson.loads(made(attachments=[whole, Attachment(filename="b.txt", content=b"")])["attachments"])
    assert found == [
        {
            "filename": "a.bin",
            "content": b64encode(content).decode(),
            "content_type": "image/png",
            "content_id": "c1",
            "disposition": "inline",
        },
        {"filename": "b.txt", "content": ""},
    ]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("cc", []),
        ("subject", ""),
        ("headers", {}),
        ("tags", ()),
        ("sensitive", False),
        ("route", None),
        ("metadata", {}),
    ],
)
def test_nothing_is_no_field(keyword: str, value: Any) -> None:
    assert made(**{keyword: value}).keys() == {"id", "from", "to", "text"}


# -- what is wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("id", "x" * 257),
        ("id", "a\0b"),
        ("from_", "a@example.com, b@example.com"),
        ("from_", "nobody"),
        ("to", "a@b@c"),
        ("to", ["a@example.net, eve@example.net"]),
        ("subject", "Hi\r\nBcc: eve@example.net"),
        ("headers", {"Bcc": "eve@example.net"}),
        ("headers", {"X-A": "1\n2"}),
        ("send_at", "tomorrow"),
        ("send_at", -1),
        ("send_at", 10**14),
        ("ttl", -5),
        ("route", "no route"),
        ("tags", ["x" * 101]),
        ("metadata", {"x": "y" * 9000}),
        ("on_ambiguous", "maybe"),
        ("dsn_notify", ["sometimes"]),
        ("traceparent", "é"),
        ("envelope_from", "a b"),
    ],
)
def test_the_error_is_the_workers(keyword: str, value: Any) -> None:
    with pytest.raises(MalformedMail) as caught:
        made(**{keyword: value})
    field = "from" if keyword == "from_" else keyword
    wire = ENCODERS[field](field, value)
    fields = {b"from": b"shop@example.com", b"to": b"bob@example.net", b"text": b"Hello"} | {field.encode(): wire}
    assert str(caught.value) == said(fields)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("keyword", "value", "says"),
    [
        ("subject", 5, "subject: not a text, but int: '5'"),
        ("text", b"x", "text: not a text, but bytes: 'x'"),
        ("text", "\ud800", "text: not UTF-8: '\\\\ud800'"),
        ("to", 5, "to: not a mailbox nor a list of them, but int: '5'"),
        ("to", b"a@b.c", "to: not a mailbox nor a list of them, but bytes: 'a@b.c'"),
        ("to", [5], "to: neither a text nor an email.headerregistry.Address, but int: '5'"),
        ("from_", ["a@b.c"], "from: neither a text nor an email.headerregistry.Address, but list: \"['a@b.c']\""),
        ("headers", [("a", "b")], "headers: not a mapping, but list: \"[('a', 'b')]\""),
        ("metadata", {"n": {1}}, "metadata: no JSON (Type is not JSON serializable: set): \"{'n': {1}}\""),
        ("tags", 5, "tags: not a list of texts, but int: '5'"),
        ("send_at", datetime(2030, 1, 1), "send_at: a datetime without tzinfo: 'datetime.datetime(2030, 1, 1, 0, 0)'"),
        ("send_at", True, "send_at: not a number, but bool: 'True'"),
        ("delay", float("inf"), "delay: not a finite number: 'inf'"),
        ("ttl", [], "ttl: not a number, but list: '[]'"),
        ("sensitive", 0, "sensitive: neither True nor False, but int: '0'"),
        ("attachments", [{"filename": "a"}], "attachments: not of Attachment, but of dict: \"{'filename': 'a'}\""),
        ("recipients", "a@b.c", "recipients: not a list, but str: 'a@b.c'"),
        ("attachments", [Attachment(filename="a", content="x")], "attachments: not bytes, but str: 'x'"),  # type: ignore[arg-type]
        ("extra", {"to": "eve@example.net"}, "to: given twice: 'eve@example.net'"),
        ("extra", {"x_n": 5}, "x_n: not a text, but int: '5'"),
        ("extra", {"x_n": "\ud800"}, "x_n: not UTF-8: '\\\\ud800'"),
    ],
)  # fmt: skip
def test_what_has_no_form_on_the_wire_is_named_too(keyword: str, value: Any, says: str) -> None:
    with pytest.raises(MalformedMail) as caught:
        made(**{keyword: value})
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("keyword", "value", "says"),
    [
        ("send_at", float("nan"), "send_at: not a finite number: 'nan'"),
        ("send_at", 10**400, f"send_at: a number of more than 20 digits: '1{'0' * 79}…'"),
        ("delay", -(10**400), f"delay: a number of more than 20 digits: '-1{'0' * 78}…'"),
        ("ttl", 10**5000, "ttl: a number of more than 20 digits: '0x"),
        ("expires_at", 1e300, "expires_at: a number of more than 20 digits: '1e+300'"),
        ("collapse_seconds", 10**20, "collapse_seconds: a number of more than 20 digits"),
        ("ttl", 10**20 - 1, "ttl: more than a year ahead"),
        ("delay", timedelta.max, "delay: more than a year ahead"),
        ("delay", timedelta(days=-1), "delay: not a number of seconds: '-86400.000'"),
        ("tags", [10**5000], "tags: no JSON ("),
        ("to", 10**5000, "to: not a mailbox nor a list of them, but int: '0x"),
        ("metadata", {"a": [1.0, None, {"b": float("nan")}]}, "metadata: no JSON (not a finite number): 'nan'"),
        ("vars", {"a": float("-inf")}, "vars: no JSON (not a finite number): '-inf'"),
        (
            "recipients",
            [Recipient(to="a@x.de", vars={"a": float("nan")})],
            "recipients: no JSON (not a finite number): 'nan'",
        ),
        (
            "expires_at",
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
            "expires_at: no year of UTC (1 to 9999): 'datetime.datetime(9999, 12, 31,",
        ),
    ],
    ids=range(15),
)
def test_a_number_that_is_none_or_too_large_is_named(keyword: str, value: Any, says: str) -> None:
    with pytest.raises(MalformedMail) as caught:
        made(**{keyword: value})
    assert str(caught.value).startswith(says)
    assert len(str(caught.value)) < 200


def test_numbers_that_are_some() -> None:
    assert made(delay=-0.0)["delay"] == made(delay=0.0)["delay"] == b"0.000"
    assert made(metadata={"a": None, "b": [0.5]})["metadata"] == b'{"a":null,"b":[0.5]}'


def test_what_is_missing() -> None:
    for known in ({"from_": None}, {"to": None}, {"text": None}):
        with pytest.raises(MalformedMail):
            made(**known)


@pytest.mark.parametrize("known", [{"subject": "secret\r\n"}, {"subject": 5}])
def test_a_sensitive_mails_error_does_not_repeat_it(known: dict[str, Any]) -> None:
    with pytest.raises(MalformedMail) as caught:
        made(sensitive=True, **known)
    assert caught.value.value == ""


@pytest.mark.parametrize("keyword", ["colour", "from", "_fields"])
def test_a_keyword_that_is_none(keyword: str) -> None:
    known: dict[str, Any] = {keyword: "red"}
    with pytest.raises(TypeError, match=f"a mail has no '{keyword}'"):
        Mail(**(GOOD | known))


def test_what_a_worker_would_hold_it_for() -> None:
    assert Mail(**GOOD).held == ""
    assert Mail(**GOOD, extra={"x_mine": "1"}).held == ""
    assert Mail(**GOOD, extra={"colour": "red"}).held == "unknown fields: colour"
    assert Mail.from_fields({"colour": "red", "to": "nobody"}).held == "unknown fields: colour"


# -- the object ---------------------------------------------------------------------------------------------------


def test_an_id_is_made_once() -> None:
    known = {name: value for name, value in GOOD.items() if name != "id"}
    one, other = Mail(**known), Mail(**known, id="")
    assert one.id == one.id != other.id
    assert len(one.id) == 36
    assert one.fields[b"id"].decode() == one.id


def test_what_was_checked_is_what_is_sent() -> None:
    tags, metadata = ["a"], {"n": 1}
    mail = Mail(**GOOD, tags=tags, metadata=metadata)
    before = dict(mail.fields)
    tags.append("\0")
    metadata["m"] = 2
    assert dict(mail.fields) == before
    with pytest.raises(TypeError):
        mail.fields[b"to"] = b"eve@example.net"  # type: ignore[index]


def test_it_travels() -> None:
    """Into another process, a task queue."""
    mail = Mail(**GOOD, priority="high", extra={"colour": "red"})
    for other in (pickle.loads(pickle.dumps(mail)), copy.copy(mail), copy.deepcopy(mail)):
        assert (other.id, other.priority, other.held, dict(other.fields)) == (
            "a1",
            "high",
            mail.held,
            dict(mail.fields),
        )


def test_its_repr_says_nothing_of_what_is_in_it() -> None:
    mail = Mail(**GOOD)
    assert repr(mail) == f"<Mail 'a1', normal, {mail.size} bytes>"
    assert mail.size == sum(len(name) + len(value) for name, value in mail.fields.items())


def test_raw_is_any_bytes() -> None:
    message = b"From: a@example.com\r\n\r\n" + bytes(range(1, 256))
    mail = Mail.raw(message, "<>", ["bob@example.net"], id="r1", tags=["x"], priority="low")
    assert dict(mail.fields) == {
        b"id": b"r1",
        b"raw": message,
        b"envelope_from": b"<>",
        b"envelope_to": b'["bob@example.net"]',
        b"tags": b'["x"]',
    }
    assert mail.priority == "low"
    assert dict(Mail.raw(bytearray(b"To: a@b.c\n\n"), "x@y.z", id="r2").fields)[b"raw"] == b"To: a@b.c\n\n"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"To: a@b.c\n\n\0", "raw: NUL in it: 'To: a@b.c\\n\\n\\x00'"),
        (b"Subject: x\n\n", "raw: no recipient in To, Cc or Bcc, and no envelope_to: 'Subject: x\\n\\n'"),
        ("To: a@b.c\n\n", "raw: not bytes, but str: 'To: a@b.c\\n\\n'"),
    ],
)
def test_raw_that_is_none(message: Any, says: str) -> None:
    with pytest.raises(MalformedMail) as caught:
        Mail.raw(message, "x@y.z")
    assert str(caught.value) == says


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40)


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_a_name_is_never_an_address(names: list[str]) -> None:
    """Whatever people call themselves, each element is one mailbox, and its own."""
    boxes = [Address(name, f"u{at}", "example.net") for at, name in enumerate(names)]
    fields = Mail(from_="a@example.com", to="b@example.net", reply_to=boxes, text="x").fields
    found = parse(fields, entry="01-0", at_ms=1, salt=b"", max_bytes=10**6).source.reply_to  # type: ignore[attr-defined]
    assert [each.spec for each in found] == [f"u{at}@example.net" for at in range(len(names))]
    assert [" ".join(each.name.split()) for each in found] == [" ".join(name.split()) for name in names]


@given(st.dictionaries(st.sampled_from(sorted(ENCODERS)), st.text() | st.integers() | st.none() | st.lists(st.text())))
def test_any_value_is_taken_or_named(known: dict[str, Any]) -> None:
    known = {"from_" if name == "from" else name: value for name, value in known.items()}
    try:
        mail = Mail(**known)
    except MailError:
        return
    assert all(type(part) is bytes for pair in mail.fields.items() for part in pair)


# -- nested values ------------------------------------------------------------------------------------------------


def nested(depth: int) -> Any:
    found: Any = []
    for _ in range(depth - 1):
        found = [found]
    return found


@pytest.mark.parametrize("beside", [{}, {"n": 10**30}, {"n": 10**30, "z": None}])
@pytest.mark.parametrize("depth", [100, 253, 254, 300, 900, 5000])
def test_what_is_nested_too_deep_is_refused_by_its_name(depth: int, beside: dict[str, Any]) -> None:
    for name in ("metadata", "vars"):
        with pytest.raises(MalformedMail, match=rf"^{name}: nested too deep \(more than 100 levels\)"):
            Mail(
                **(
                    GOOD
                    | ({"text": None, "template": "t"} if name == "vars" else {})
                    | {name: {**beside, "a": nested(depth)}}
                )
            )
    with pytest.raises(MalformedMail, match=r"^recipients: .*nested too deep \(more than 100 levels\)"):
        Mail(**(GOOD | {"to": None, "recipients": [Recipient(to="a@b.example", metadata={"a": nested(depth)})]}))
    assert made(metadata={**beside, "a": nested(99)})["metadata"].endswith(b"[" * 99 + b"]" * 99 + b"}")


@pytest.mark.parametrize("name", ["id", "to", "tags", "metadata", "recipients", "attachments", "delay", "sensitive"])
def test_what_cannot_even_be_shown_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(MalformedMail, match=f"^{name}: "):
        Mail(**(GOOD | {name: nested(5000)}))

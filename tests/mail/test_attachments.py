import re
from base64 import b64decode, b64encode
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamq.errors import MalformedMail
from streamq.mail.attachments import Attachment, read_attachments

GOOD = {"content": "aGk="}


def read(*given: Any) -> tuple[Attachment, ...]:
    return read_attachments(orjson.dumps(list(given)))


def test_what_is_unset() -> None:
    (found,) = read(GOOD)
    assert found == Attachment("", ("application/octet-stream",), "", False, True, b"aGk=")
    assert read({**dict.fromkeys(["filename", "content_type", "content_id", "disposition"]), "content": ""}) == (
        found._replace(data=b""),
    )
    assert read() == ()


def test_what_is_given() -> None:
    given = {
        "filename": " Plan: A/B.ics ",
        "content": "aGk=",
        "content_type": 'text/calendar ; method=REQUEST;charset="utf-8; x"',
        "content_id": "<plan@x.de>",
        "disposition": "attachment",
    }
    types = ("text/calendar", "method=REQUEST", 'charset="utf-8; x"')
    assert read(given) == (Attachment("Plan: A/B.ics", types, "plan@x.de", False, True, b"aGk="),)


def test_a_content_id_makes_it_inline() -> None:
    assert [each.inline for each in read({**GOOD, "content_id": "a"}, {**GOOD, "disposition": "inline"}, GOOD)] == [
        *(True, True, False)
    ]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 80), st.sampled_from(["\n", "\r\n", " ", "\t"]))
def test_base64_of_any_layout_is_kept_without_it(data: bytes, width: int, end: str) -> None:
    flat = b64encode(data).decode()
    laid_out = end.join(flat[at : at + width] for at in range(0, len(flat), width)) + end
    for content in (flat, laid_out):
        assert read({"content": content})[0].data == flat.encode()


@settings(max_examples=300, deadline=None)
@given(st.text("AZaz09+/=-_ \n", max_size=20))
def test_what_is_taken_for_base64_is_base64(content: str) -> None:
    """RFC 4648, section 4, letter by letter. The standard library's decoders take some more."""
    flat = content.translate(str.maketrans("", "", " \n"))
    if re.fullmatch(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", flat):
        assert b64decode(read({"content": content})[0].data) == b64decode(flat)
    else:
        with pytest.raises(MalformedMail, match=r"^attachments: \[0\].content: not base64"):
            read({"content": content})


def test_bits_that_mean_nothing_are_zeroed() -> None:
    assert read({"content": "aGl="})[0].data == b"aGk="


LONG = "x" * 300
WRONG: list[tuple[object, str, str]] = [
    ("text", "[1]: not a JSON object", ""),
    ([], "[1]: not a JSON object", ""),
    ({}, "[1].content: missing", ""),
    ({"content": None}, "[1].content: missing", ""),
    ({"content": 5}, "[1].content: not text", ""),
    ({**GOOD, "filename": ["a"]}, "[1].filename: not text", ""),
    ({**GOOD, "contentType": "a/b"}, "[1]: no member of an attachment", "contentType"),
    ({"content": "aGk"}, "[1].content: not base64 (its length", "aGk"),
    ({"content": "aG=k"}, "[1].content: not base64 ('=' in it)", "aG=k"),
    ({"content": "===="}, "[1].content: not base64", "===="),
    ({"content": "aG-_"}, "[1].content: not base64 ('-' in it)", "aG-_"),
    ({"content": "aGk=aGk="}, "[1].content: not base64", "aGk=aGk="),
    ({"content": "aGü="}, "[1].content: not base64 (characters beyond", "aGü="),
    ({"content": "aGk=\0"}, "[1].content: not base64", "aGk=\0"),
    ({**GOOD, "filename": "a\r\nX: y"}, "[1].filename: control characters", "a\r\nX: y"),
    ({**GOOD, "filename": "a\0"}, "[1].filename: control characters", "a\0"),
    ({**GOOD, "filename": LONG}, "[1].filename: longer than 255", "xxx"),
    ({**GOOD, "content_type": "pdf"}, "[1].content_type: not a media type", "pdf"),
    ({**GOOD, "content_type": "a/b\r\nX: y"}, "[1].content_type: CR, LF", "a/b\r\nX: y"),
    ({**GOOD, "content_type": "a/b; c"}, "[1].content_type: not a media type", "a/b; c"),
    ({**GOOD, "content_type": "a/b; c=ü"}, "[1].content_type: not a media type", "a/b; c=ü"),
    ({**GOOD, "content_type": "a/b; c=1; C=2"}, "[1].content_type: a parameter twice", "a/b; c=1; C=2"),
    ({**GOOD, "content_type": "a/b; name=x"}, "[1].content_type: filename is its name", "a/b; name=x"),
    ({**GOOD, "content_type": "a/b; name*=x"}, "[1].content_type: filename is its name", "a/b; name*=x"),
    ({**GOOD, "content_type": "multipart/mixed"}, "[1].content_type: a multipart is", "multipart/mixed"),
    ({**GOOD, "content_type": "a/b; c=" + "x" * 600}, "[1].content_type: longer than", "a/b"),
    ({**GOOD, "content_id": "a b"}, "[1].content_id: not a Content-ID", "a b"),
    ({**GOOD, "content_id": "<a"}, "[1].content_id: not a Content-ID", "<a"),
    ({**GOOD, "content_id": "<>"}, "[1].content_id: not a Content-ID", "<>"),
    ({**GOOD, "content_id": "a>\r\nX: <y"}, "[1].content_id: CR, LF", "a>\r\nX: <y"),
    ({**GOOD, "content_id": "a@b@c"}, "[1].content_id: not a Content-ID", "a@b@c"),
    ({**GOOD, "content_id": "first"}, "[1].content_id: that of [0], too", "first"),
    ({**GOOD, "disposition": "shown"}, "[1].disposition: not one of", "shown"),
]


@pytest.mark.parametrize(("attachment", "why", "value"), WRONG)
def test_an_error_names_field_index_and_value(attachment: object, why: str, value: str) -> None:
    with pytest.raises(MalformedMail) as found:
        read({**GOOD, "content_id": "first"}, attachment)
    assert found.value.field == "attachments"
    assert found.value.why.startswith(why)
    assert found.value.value.startswith(value)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"{}", "not a JSON array of objects"),
        (b"[", "not a JSON array ("),
        (b"\xff", "not a JSON array ("),
        (orjson.dumps([GOOD] * 101), "more than 100"),
        (b"[" * 2000, "not a JSON array ("),
        (b"[" + b"[" * 1000 + b"]" * 1000 + b"]", "[0]: not a JSON object"),
    ],
)
def test_what_is_no_list_of_attachments(value: bytes, why: str) -> None:
    with pytest.raises(MalformedMail) as found:
        read_attachments(value)
    assert found.value.why.startswith(why)


def message(data: bytes, media_type: str = "message/rfc822") -> Attachment:
    return read({"content": b64encode(data).decode(), "content_type": media_type})[0]


def test_a_message_is_attached_as_it_is() -> None:
    """RFC 2046, section 5.2.1: no encoding is allowed to it."""
    found = message(b"Subject: a\n\n.\nb")
    assert (found.encoded, found.data) == (False, b"Subject: a\r\n\r\n.\r\nb\r\n")
    assert message(b"a", "Message/Delivery-Status").encoded is False
    for bad in ("Subject: ü\n\n".encode(), b"a\0", b"x" * 999):
        with pytest.raises(MalformedMail, match=r"\[0\].content: must be 7-bit"):
            message(bad)


@pytest.mark.parametrize("one", ["[]", "1", "{}", '{"a":1}'])
def test_what_is_no_list_of_attachments_is_read_by_no_parser(one: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Millions of empty arrays would keep it busy for seconds, in one call."""
    monkeypatch.setattr(orjson, "loads", None)
    with pytest.raises(MalformedMail, match=r"attachments: .* at most 100 objects, by its commas and brackets"):
        read_attachments(f"[{','.join([one] * 110_000)}]".encode())


def test_names_may_be_made_of_commas() -> None:
    one = {"content": "", "filename": "," * 255, "content_type": 'a/b; c="' + "{" * 480 + '"', "content_id": "a" * 120}
    many = [one | {"content_id": f"{'{' * 110}{number}"} for number in range(100)]
    assert len(read_attachments(orjson.dumps(many))) == 100

import orjson
import pytest

from streamq.errors import MalformedMail
from streamq.mail.custom import FORBIDDEN, custom_headers


def test_headers_keep_their_order_and_arrays_repeat_them() -> None:
    value = orjson.dumps({"X-B": "1", "List-Unsubscribe": ["<https://x>", "<mailto:y@x>"], "X-A": " 2\t", "X-C": ""})
    headers, overrides = custom_headers(value)
    assert headers == [
        ("X-B", "1"),
        ("List-Unsubscribe", "<https://x>"),
        ("List-Unsubscribe", "<mailto:y@x>"),
        ("X-A", "2"),
    ]
    assert overrides == {}


@pytest.mark.parametrize("date", ["Fri, 22 Nov 2024 01:06:01 +0000", "2 Nov 2024 01:06 -0130"])
def test_date_and_message_id_are_overrides(date: str) -> None:
    headers, overrides = custom_headers(orjson.dumps({"DATE": date, "message-Id": "<a.b@[x]>"}))
    assert (headers, overrides) == ([], {"date": date, "message-id": "<a.b@[x]>"})


@pytest.mark.parametrize("name", [*sorted(FORBIDDEN), "content-type", "ARC-Seal"])
def test_what_may_not_be_set(name: str) -> None:
    with pytest.raises(MalformedMail, match="headers: may not be set") as found:
        custom_headers(orjson.dumps({name.title(): "x"}))
    assert found.value.value == name.title()


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([], "not a JSON object"),
        ("x", "not a JSON object"),
        ({"X A": "1"}, "not a header's name"),
        ({"X:A": "1"}, "not a header's name"),
        ({"": "1"}, "not a header's name"),
        ({"X\r\nBcc": "1"}, "not a header's name"),
        ({"X\n": "1"}, "not a header's name"),
        ({"Ü": "1"}, "not a header's name"),
        ({"X" * 77: "1"}, "not a header's name"),
        ({"References": "<ü@x.de>"}, "not ASCII, or a word"),
        ({"List-Id": "Grüße <news.x.de>"}, "it can't be encoded"),
        ({"list-unsubscribe": "<https://x.de/" + "a" * 900 + ">"}, "a word of more than 900"),
        ({"X": 1}, "neither text"),
        ({"X": None}, "neither text"),
        ({"X": [["1"]]}, "neither text"),
        ({"X": "a\r\nBcc: b@x"}, "CR, LF or NUL"),
        ({"X": ["a", "b\n"]}, "CR, LF or NUL"),
        ({"X": "a\0"}, "CR, LF or NUL"),
        ({"Date": "today"}, "RFC 5322 form"),
        ({"Date": "Fri, 22 Nov 2024 01:06:01 +0000 (UTC)\n"}, "CR, LF or NUL"),
        ({"Message-ID": "a@b"}, "RFC 5322 form"),
        ({"Message-ID": "<a b@c>"}, "RFC 5322 form"),
        ({"Message-ID": "<ü@c>"}, "RFC 5322 form"),
        ({"Message-ID": "<" + "a" * 300 + "@c>"}, "RFC 5322 form"),
        ({"Message-ID": ["<a@b>", "<c@d>"]}, "only once"),
        ({"Message-ID": "<a@b>", "message-id": "<c@d>"}, "only once"),
    ],
)
def test_what_is_no_header(headers: object, why: str) -> None:
    with pytest.raises(MalformedMail, match=why) as found:
        custom_headers(orjson.dumps(headers))
    assert found.value.field == "headers"


@pytest.mark.parametrize("value", [b"{", b"\xff", b'{"a":"\\ud800"}', b'{"a":' * 2000 + b"1" + b"}" * 2000])
def test_what_is_no_json(value: bytes) -> None:
    with pytest.raises(MalformedMail, match="headers: not a JSON object"):
        custom_headers(value)

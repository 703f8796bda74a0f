import orjson
import pytest

from streamq.errors import MalformedMail
from streamq.mail.address import Address
from streamq.mail.custom import ADDRESSES, FORBIDDEN, custom_headers
from streamq.mail.headers import text_field


def test_headers_keep_their_order_and_arrays_repeat_them() -> None:
    value = orjson.dumps(
        {"X-B": "1", "List-Unsubscribe": ["<https://x>", "<mailto:y@x>"], "X-A": [" 2\t", "", "3"], "X-C": ""}
    )
    headers, overrides = custom_headers(value)
    assert headers == [
        ("X-B", "1"),
        ("List-Unsubscribe", "<https://x>, <mailto:y@x>"),  # RFC 2369, section 3: one field
        ("X-A", "2"),
        ("X-A", "3"),
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
        ({"References": "<ü@x.de>"}, "References: not ASCII"),
        ({"List-Id": "Grüße <news.x.de>"}, "List-Id: not ASCII, and programs"),
        ({"X-Token": "a" * 901}, "X-Token: a word of more than 900"),
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
        *[
            ({"Message-ID": wrong}, "Message-ID: not in its RFC 5322 form")
            for wrong in ("<a(b@c:d,e;>", "<a,b@c>", "<a@b;c>", "<a@[b]c>", '<"a@b>', "<a@b@c>", "<a@>", "<@b>")
        ],
        *[
            ({name: wrong}, f"{name}: not message ids in angle brackets")
            for name in ("References", "In-Reply-To")
            for wrong in ("hello world", "a@b", "<a@b> c@d", "<a@b>, <c@d>", "<a b@c>", "<a@b", "<a@<b>>")
        ],
        *[
            ({"Date": wrong}, "Date: not in its RFC 5322 form")
            for wrong in (
                *("Fri, 27 Nov 2026 10:00:00 GMT", "27 Nov 2026 10:00 +0000 (a", "27 Nov 2026 10:00 +0000 (ü)"),
                *(
                    "27 Nov 2026 10:00 +0000 a",
                    "27 \u017fep 2026 10:00 +0000",
                    "27 Nov 2026 (a) 10:00 +0000",
                    f"27 Nov 2026{' ' * 100}10:00 +0000",
                ),
                "27 Nov 2026 10:00 +0000 (" + "(" * 50 + ")" * 51,
            )
        ],
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


@pytest.mark.parametrize(
    ("date", "why"),
    [
        ("99 Feb 0000 99:99:99 +9999", "no such day"),
        ("29 Feb 2023 01:06:01 +0000", "no such day"),
        ("0 Nov 2024 01:06:01 +0000", "no such day"),
        ("Sat, 22 Nov 2024 01:06:01 +0000", "that day is a Fri"),
        ("31 Dec 1899 01:06:01 +0000", "before the year 1900"),
        ("22 Nov 2024 24:00:00 +0000", "no such time of day"),
        ("22 Nov 2024 01:60 +0000", "no such time of day"),
        ("22 Nov 2024 01:06:61 +0000", "no such time of day"),
        ("22 Nov 2024 01:06:01 +0060", "no such time of day"),
        ("22 Nov 2024 01:06:01 -2400", "no such time of day"),
        ("22 Nov 24 01:06:01 +0000", "not in its RFC 5322 form"),
        ("22 Nov 2024 01:06:01 GMT", "not in its RFC 5322 form"),
    ],
)
@pytest.mark.parametrize("name", ["Date", "Resent-Date"])
def test_a_date_that_is_none_is_named(name: str, date: str, why: str) -> None:
    with pytest.raises(MalformedMail) as found:
        custom_headers(orjson.dumps({name: date}))
    assert str(found.value).startswith(f"headers: {name}: {why}")
    assert found.value.value == date


@pytest.mark.parametrize(
    "date",
    [
        *("29 Feb 2024 23:59:60 +0000", "Thu, 1 Jan 1970 00:00 +1400", "2 Nov 2024 01:06 -1200"),
        *(
            "Fri, 27 Nov 2026 10:00:00 +0000 (UTC)",
            "Fri,  6 Nov 2026 10:00:00 +0000",
            "Fri,6 Nov\t2026  10:00:00 -0000",
        ),
        *("fri, 27 nov 2026 10:00:00 +0000", "27 Nov 2026 10:00:00 +0000(a (b\\)) c)", "27 Nov 2026 10:00 +0000 ()"),
    ],
)
def test_a_date_that_is_one(date: str) -> None:
    assert custom_headers(orjson.dumps({"Date": date}))[1] == {"date": date}


@pytest.mark.parametrize(
    ("name", "given", "one"),
    [
        ("References", ["<a@b>", "<c@d> <e@f>"], "<a@b> <c@d> <e@f>"),
        ("In-Reply-To", ["<a@b>", "<c@d>"], "<a@b> <c@d>"),
        ("list-archive", ["<https://a>", "<https://b>"], "<https://a>, <https://b>"),
    ],
)
def test_what_stands_once_in_a_mail_is_one_field(name: str, given: list[str], one: str) -> None:
    """RFC 5322, section 3.6; RFC 2369."""
    assert custom_headers(orjson.dumps({name: given}))[0] == [(name, one)]


@pytest.mark.parametrize(
    "headers",
    [
        {"References": "<a@b>", "references": "<c@d>"},
        {"Resent-To": "a@b.de", "resent-to": "c@d.de"},
        {"List-Id": ["<a.b>", "<c.d>"]},
        {"Auto-Submitted": ["no", "auto-generated"]},
        {"Resent-Date": ["2 Nov 2024 01:06 -0130"] * 2},
    ],
)
def test_and_never_two(headers: dict[str, object]) -> None:
    with pytest.raises(MalformedMail, match=f"headers: {list(headers)[-1]}: may stand only once"):
        custom_headers(orjson.dumps(headers))
    assert custom_headers(orjson.dumps({"X-A": "1", "x-a": "2"}))[0] == [("X-A", "1"), ("x-a", "2")]


@pytest.mark.parametrize("name", sorted(ADDRESSES))
def test_addresses_are_read_as_such(name: str) -> None:
    given = {name: ["Jörg <j@x.de>, k@Bücher.de", '"A, B" <l@x.de>']}
    addresses = (Address("Jörg", "j", "x.de"), Address("", "k", "xn--bcher-kva.de"), Address("A, B", "l", "x.de"))
    assert custom_headers(orjson.dumps(given))[0] == [(name, addresses)]
    with pytest.raises(MalformedMail) as found:
        custom_headers(orjson.dumps({name: "j@x.de, Jörg"}))
    assert str(found.value) == f"headers: {name}: address 2: not an address (no @): 'Jörg'"
    with pytest.raises(MalformedMail, match="no address in it"):
        custom_headers(orjson.dumps({name: "nobody:;"}))


@pytest.mark.parametrize("name", ["Autocrypt", "AUTOCRYPT-GOSSIP"])
def test_a_key_is_folded_in_its_base64(name: str) -> None:
    key = "".join("ABCDEFGH"[n % 8] for n in range(1200)) + "=="
    [(_, value)] = custom_headers(orjson.dumps({name: f"addr=a@x.com; prefer-encrypt=mutual; keydata={key}"}))[0]
    assert isinstance(value, str)
    front, mark, rest = value.partition("keydata=")
    assert (front, mark, rest.replace(" ", "")) == ("addr=a@x.com; prefer-encrypt=mutual; ", "keydata=", key)
    field = text_field(name, value)
    assert max(map(len, field.split("\r\n"))) <= 78
    assert "=?" not in field
    with pytest.raises(MalformedMail, match=f"headers: {name}: a word of more than 900"):
        custom_headers(orjson.dumps({name: f"addr=a@x.com; keydata=!{key}"}))


def test_a_key_of_many_beginnings_costs_no_more_than_its_length() -> None:
    with pytest.raises(MalformedMail, match="a word of more"):  # were it quadratic, the test's time limit would end it
        custom_headers(orjson.dumps({"Autocrypt": "keydata=" * 100_000 + ","}))


@pytest.mark.parametrize("value", [b"{", b"\xff", b'{"a":"\\ud800"}', b'{"a":' * 2000 + b"1" + b"}" * 2000])
def test_what_is_no_json(value: bytes) -> None:
    with pytest.raises(MalformedMail, match="headers: not a JSON object"):
        custom_headers(value)


@pytest.mark.parametrize(
    "name", ['<"a.b"@x.example>', "<a..b@x>", "<a/b=+{c}@[127.0.0.1]>", "<20261127.1@mail_1.example>"]
)
def test_a_message_id_that_is_one(name: str) -> None:
    assert custom_headers(orjson.dumps({"Message-ID": name}))[1] == {"message-id": name}


@pytest.mark.parametrize("ids", ["<a(b@c:d,e;>", "<a@b><c@d>", "<no-at>  <a@b@c>"])
def test_ids_of_others_are_taken_as_they_made_them(ids: str) -> None:
    assert custom_headers(orjson.dumps({"References": ids}))[0] == [("References", ids)]

"""How a mail is found."""

from __future__ import annotations

from typing import Any

import pytest

from streamq.inbox import Inbox, Reader, Wanted
from streamq.inbox.wanted import Unclear, moment
from streamq.mail.domain import to_wire
from streamq.sink import Received

CONTENT = "From: Zoë <zoe@shop.example>\r\nTo: Bob <list@example.net>\r\nSubject: Your  Order 7\r\n\r\n"
CONTENT += "It leaves\r\ntoday. GRÜSSE\r\n"
HTML = b"Subject: News\r\nContent-Type: text/html\r\n\r\n<style>hidden</style><p>A <b>blue</b> coat"


@pytest.fixture
def inbox() -> Inbox:
    made = Inbox(100, 10**7)
    known: dict[str, Any] = {"message_id": b"", "monotonic_ns": 0, "mail_ns": 0, "peer": "", "helo": ""}
    known |= {"eight_bit": False, "smtputf8": False}
    made.add(Received("bounce@mta.example", ("Bob@Example.NET",), CONTENT.encode(), at_ns=10, **known))
    made.add(Received("", ("ann@example.org", "eve@example.org"), HTML, at_ns=20, **known))
    return made


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, [20, 10]),
        ({"to": "bob@example.net"}, [10]),
        ({"to": "BOB@EXAMPLE.net"}, [10]),
        ({"to": "example.net"}, [10]),
        ({"to": "@example.net"}, [10]),
        ({"to": "ample.net"}, []),  # a part is not the domain
        ({"to": "ob@example.net"}, []),
        ({"to": "list@example.net"}, []),  # what To says is no recipient
        ({"to": "eve@example.org"}, [20]),
        ({"from": "zoe@shop.example"}, [10]),
        ({"from": "mta.example"}, [10]),
        ({"subject": "order 7"}, [10]),
        ({"subject": "ORDER"}, [10]),
        ({"text": "leaves today"}, [10]),  # over the line's end
        ({"text": "grüsse"}, [10]),
        ({"text": "blue coat"}, [20]),
        ({"text": "hidden"}, []),
        ({"q": "zoë today"}, [10]),
        ({"q": "list@example.net 7"}, [10]),
        ({"q": "coat eve@"}, [20]),
        ({"q": "coat bob"}, []),
        ({"after": "10"}, [20]),
        ({"before": "20"}, [10]),
        ({"to": "bob@example.net", "subject": "news"}, []),
        ({"unread": "true"}, [20]),
        ({"unread": "0"}, [10]),
    ],
)
def test_filters(inbox: Inbox, given: dict[str, str], found: list[int]) -> None:
    inbox.mark(inbox.get("10"), unread=False)
    # these are few nanoseconds after 1970, so that they are no seconds
    wanted = Wanted.read({name: value for name, value in given.items() if name not in {"after", "before"}})
    changed = {name: int(value) for name, value in given.items() if name in {"after", "before"}}
    wanted = Wanted(**{name: getattr(wanted, name) for name in Wanted.__slots__} | changed)
    assert [kept.number for kept in wanted.those(inbox, Reader(), 10)] == found


def _of_anna(domain: str) -> Inbox:
    made = Inbox(100, 10**7)
    anna = f"anna@{domain}"
    known: dict[str, Any] = {"message_id": b"", "monotonic_ns": 0, "mail_ns": 0, "peer": "", "helo": ""}
    content = f"From: {anna}\r\nTo: {anna}\r\n\r\nHi\r\n".encode()
    made.add(Received(anna, (anna,), content, at_ns=10, eight_bit=False, smtputf8=False, **known))
    return made


@pytest.mark.parametrize("name", ["to", "from", "q"])
@pytest.mark.parametrize("wire", [True, False])
@pytest.mark.parametrize(
    "word",
    [
        "anna@bücher.example",
        "Anna@BÜCHER.example",
        "anna@bu\u0308cher.example",  # in two signs, as some keyboards and file systems have it
        "bücher.example",
        "anna@straße.example",  # whose ß no folding of case may make ss: that is somebody else's domain
        "straße.example",
        "βόλος.example",
    ],
)
def test_an_address_is_found_as_it_was_sent(name: str, word: str, *, wire: bool) -> None:
    """On the wire it has A-labels."""
    domain = to_wire(word.rpartition("@")[2]).lower()
    asked = f"{word.rpartition('@')[0]}@{domain}".removeprefix("@") if wire else word
    assert [kept.number for kept in Wanted.read({name: asked}).those(_of_anna(domain), Reader(), 10)] == [10]


def test_a_domain_of_other_letters_is_another_one() -> None:
    assert Wanted.read({"to": "strasse.example"}).those(_of_anna(to_wire("straße.example")), Reader(), 10) == []


@pytest.mark.parametrize(
    ("q", "found"), [("büch", True), ("ÜCHER.ex", True), ("bcher-kva", True), ("bächer", False), ("xn--bcher", True)]
)
def test_a_part_of_a_name_is_found_in_its_own_letters(q: str, *, found: bool) -> None:
    assert bool(Wanted.read({"q": q}).those(_of_anna("xn--bcher-kva.example"), Reader(), 10)) == found


@pytest.mark.parametrize("domain", ["xn--99999999.example", "xn--a.example", "xn--" + "b" * 900 + ".example"])
def test_what_is_no_a_label_is_found_as_it_stands(domain: str) -> None:
    assert Wanted.read({"q": domain}).those(_of_anna(domain), Reader(), 10)


@pytest.mark.parametrize("name", ["to", "from"])
@pytest.mark.parametrize("text", ["ok tag@example.net", " 15550100@sms.example", "ok @example.net"])
def test_a_plus_that_became_a_blank_is_said(name: str, text: str) -> None:
    with pytest.raises(Unclear, match=rf"{name}: a blank, which no address has: in a URL \+ is one, write %2B"):
        Wanted.read({name: text})


def test_a_blank_that_an_address_may_have_is_none_of_those() -> None:
    assert Wanted.read({"to": '"ok tag"@example.net'}).to == '"ok tag"@example.net'
    assert Wanted.read({"to": "ok@example.net\n"}).to == "ok@example.net"


def test_no_more_than_asked_for(inbox: Inbox) -> None:
    assert [kept.number for kept in Wanted().those(inbox, Reader(), 1)] == [20]


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1764291600", 1_764_291_600 * 10**9),
        ("1764291600.25", 1_764_291_600_250_000_000),
        ("1764291600123", 1_764_291_600_123 * 10**6),
        ("1764291600123456789", 1_764_291_600_123_456_789),  # an id
        ("2025-11-28T01:00:00Z", 1_764_291_600 * 10**9),
        ("2025-11-28T02:00:00.5+01:00", 1_764_291_600_500_000_000),
    ],
)
def test_moments(text: str, ns: int) -> None:
    assert moment("after", text) == ns


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"after": "yesterday"}, "after: .*'yesterday'"),
        ({"after": "2025-11-28T01:00:00"}, "after: .*RFC 3339 with offset"),
        ({"before": "-1"}, "before: "),
        ({"unread": "maybe"}, "unread: true or false .*'maybe'"),
        ({"q": "x" * 1001}, "q: at most 1000 characters .*1001"),
    ],
)
def test_what_cannot_be_read_is_named(given: dict[str, str], says: str) -> None:
    with pytest.raises(Unclear, match=says):
        Wanted.read(given)


def test_a_mail_is_read_once(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamq.inbox import letter, reader

    many = []

    def read(content: bytes) -> letter.Letter:
        many.append(content)
        return letter.read_letter(content)

    monkeypatch.setattr(reader, "read_letter", read)
    one = Reader()
    for _ in range(3):
        Wanted(text="blue").those(inbox, one, 10)
    assert len(many) == 2
    kept = inbox.get("10")
    assert one.letter(kept) is one.letter(kept)

import json
import re
from collections.abc import Iterable

import pytest

from streamq.errors import MalformedMail
from streamq.mail.message import Message, read_message

NOW = 1_732_237_561_234
COMPOSED = {b"from": b"Shop <shop@example.com>", b"to": b"bob@example.net", b"subject": b"Hi", b"text": b"Hello"}
RAW = {b"raw": b"From: Shop <shop@example.com>\nTo: bob@example.net\nSubject: Hi\n\nHello\n"}


def message(fields: dict[bytes, bytes]) -> Message:
    return read_message(fields, entry="11-0", at_ms=NOW, salt=b"salt")


@pytest.mark.parametrize("fields", [COMPOSED, RAW])
def test_the_envelope_follows_the_header(fields: dict[bytes, bytes]) -> None:
    found = message(fields)
    assert (found.envelope_from, found.to[0].spec) == ("shop@example.com", "bob@example.net")


@pytest.mark.parametrize("fields", [COMPOSED, RAW])
def test_the_envelope_fields_win(fields: dict[bytes, bytes]) -> None:
    found = message({**fields, b"envelope_from": b"b+1@Bounce.example", b"envelope_to": b"<x@y.de>"})
    assert (found.envelope_from, found.to[0].spec) == ("b+1@Bounce.example", "x@y.de")
    assert b"x@y.de" not in found.source.content()
    assert message({**fields, b"envelope_from": b"<>"}).envelope_from == ""


@pytest.mark.parametrize("fields", [COMPOSED, RAW])
@pytest.mark.parametrize("field", ["envelope_from", "envelope_to"])
def test_the_envelope_fields_have_rules(fields: dict[bytes, bytes], field: str) -> None:
    for value in (b"bob", b"a@b\r\nRCPT TO:<c@d>", b"a@b> <c@d", b"\xff@x", b"<>\n"):
        with pytest.raises(MalformedMail, match=f"^{field}: "):
            message({**fields, field.encode(): value})
    with pytest.raises(MalformedMail, match="envelope_to: not an address"):
        message({**fields, b"envelope_to": b"<>"})


@pytest.mark.parametrize(
    "fields",
    [
        {**COMPOSED, b"to": b"a@x.de, b@x.de"},
        {**COMPOSED, b"to": b'["a@x.de", "b@x.de"]'},
        {**COMPOSED, b"to": b"a@x.de", b"cc": b"b@x.de"},
        {**COMPOSED, b"to": b"a@x.de", b"bcc": b"b@x.de"},
        {**COMPOSED, b"envelope_to": b"a@x.de, b@x.de"},
        {**RAW, b"envelope_to": b"a@x.de, b@x.de"},
        {b"raw": b"From: a@x.de\nTo: a@x.de, b@x.de\n\n"},
        {b"raw": b"From: a@x.de\nTo: a@x.de\nCc: b@x.de\n\n"},
        {b"raw": b"From: a@x.de\nTo: a@x.de\nTo: b@x.de\n\n"},
        {b"raw": b"From: a@x.de\nTo: a@x.de\nBcc: b@x.de\n\n"},
    ],
)
def test_everybody_who_is_named_is_a_recipient(fields: dict[bytes, bytes]) -> None:
    found = message(fields)
    assert [each.spec for each in found.to] == ["a@x.de", "b@x.de"]
    assert b"Bcc" not in found.source.content()


def test_cc_is_a_header_and_bcc_is_none() -> None:
    fields = {name: value for name, value in COMPOSED.items() if name != b"to"}
    content = message({**fields, b"cc": b"a@x.de, B <b@x.de>", b"bcc": b"c@x.de"}).source.content()
    assert b"\r\nCc: a@x.de, B <b@x.de>\r\n" in content
    assert b"c@x.de" not in content


def test_a_mailbox_may_stand_there_twice() -> None:
    assert [each.spec for each in message({**COMPOSED, b"to": b"Bob <bob@x.de>, bob@X.DE"}).to] == [
        "bob@x.de",
        "bob@X.DE",
    ]


def test_several_in_to_are_a_header_where_the_envelope_names_one() -> None:
    found = message({**COMPOSED, b"to": b"a@x.de, b@x.de", b"envelope_to": b"b@x.de"})
    assert found.to[0].spec == "b@x.de"
    assert b"\r\nTo: a@x.de, b@x.de\r\n" in found.source.content()


def test_a_raw_message_may_hide_its_recipient() -> None:
    found = message({b"raw": b"From: a@x.de\nTo: undisclosed-recipients:;\nBcc: b@x.de\n\nhi"})
    assert found.to[0].spec == "b@x.de"
    assert b"b@x.de" not in found.source.content()


def test_a_raw_message_is_not_asked_for_what_the_envelope_says() -> None:
    found = message({b"raw": b"To: =?broken, <\n\nhi", b"envelope_from": b"<>", b"envelope_to": b"b@x.de"})
    assert (found.envelope_from, found.to[0].spec) == ("", "b@x.de")
    assert found.message_id.endswith("@localhost>")


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({b"to": b"b@x.de", b"text": b"x"}, "from", "needs it"),
        ({b"from": b"b@x.de", b"text": b"x"}, "to", "no recipient"),
        ({b"from": b"b@x.de", b"to": b"b@x.de"}, "text", "nothing to send"),
        ({}, "from", "needs it"),
        ({**RAW, b"subject": b"x"}, "subject", "beside raw"),
        ({**RAW, b"to": b"b@x.de"}, "to", "beside raw"),
        ({**RAW, b"bcc": b"b@x.de"}, "bcc", "beside raw"),
        ({**RAW, b"attachments": b"[]"}, "attachments", "beside raw"),
        ({b"raw": b"From: a@x.de\n\nTo: b@x.de\n"}, "raw", "no recipient"),
        ({b"raw": b"To: b@x.de\n\nFrom: b@x.de\n"}, "raw", "no single address in From"),
        ({b"raw": b"From: b@x.de\nTo: nonsense\n\n"}, "raw", "its To: not an address"),
        ({b"raw": b"From: b@x.de\nTo: b@x.de\n\n\0"}, "raw", "NUL"),
    ],
)
def test_what_is_missing_or_contradicts(fields: dict[bytes, bytes], field: str, why: str) -> None:
    with pytest.raises(MalformedMail, match=why) as found:
        message(fields)
    assert found.value.field == field


RESENT = b"Resent-From: g@x.de\nResent-To: e@x.de\nFrom: a@x.de\nTo: b@x.de\nMessage-ID: <1@x>\n\nbody"


def test_a_resent_message_goes_to_whom_it_was_resent() -> None:
    found = message({b"raw": RESENT})
    assert ([each.spec for each in found.to], found.envelope_from) == (["e@x.de"], "g@x.de")
    assert b"\r\nResent-To: e@x.de\r\n" in found.source.content()
    given = message({b"raw": RESENT, b"envelope_to": b"h@x.de", b"envelope_from": b"i@x.de"})
    assert ([each.spec for each in given.to], given.envelope_from) == (["h@x.de"], "i@x.de")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (
            b"Resent-Date: x\nTo: b@x.de\nFrom: a@x.de\n\n",
            "no recipient in Resent-To, Resent-Cc or Resent-Bcc, and no env",
        ),
        (b"Resent-To: b@x.de\nFrom: a@x.de\n\n", "no single address in Resent-From or Resent-Sender, and no env"),
        (b"Resent-Date: x\n" * 2 + RESENT, "it was resent more than once: who gets it is for envelope_to to say"),
        (b"Resent-Cc: oops\n" + RESENT, "its Resent-Cc: not an address"),
    ],
)
def test_what_a_resent_message_lacks(raw: bytes, why: str) -> None:
    with pytest.raises(MalformedMail, match=why) as found:
        message({b"raw": raw})
    assert found.value.field == "raw"


def test_the_wrong_address_of_a_raw_is_named() -> None:
    good = b",\n ".join(b"user%d@x.de" % n for n in range(300))
    with pytest.raises(MalformedMail) as found:
        message({b"raw": b"From: a@x.de\nX-Long: " + b"y" * 100 + b"\nCc: " + good + b",\n oops <>,\n c@x.de\n\nbody"})
    assert str(found.value) == "raw: its Cc: address 301: not an address (no @): 'oops <>'"


BREAKS = [b"x\rBcc: e@x.de", b"x\nBcc: e@x.de", b"x\r\n\r\nbody", b"x\0"]


@pytest.mark.parametrize(
    "field", ["from", "sender", "reply_to", "to", "cc", "bcc", "subject", "envelope_from", "envelope_to"]
)
@pytest.mark.parametrize("broken", BREAKS)
def test_no_value_writes_a_header(field: str, broken: bytes) -> None:
    forms = [broken] if field == "subject" else [broken, b'"' + broken + b'" <a@x.de>', b"a@x.de" + broken]
    for value in forms:
        with pytest.raises(MalformedMail) as found:
            message({**COMPOSED, field.encode(): value})
        assert found.value.field == field


def test_message_id_and_date_are_overridden_by_headers() -> None:
    headers = b'{"Message-ID": "<mine@x>", "Date": "2 Nov 2024 01:06 +0100", "X-A": "b"}'
    found = message({**COMPOSED, b"headers": headers})
    content = found.source.content()
    assert found.message_id == "<mine@x>"
    assert content.count(b"\r\nMessage-ID: <mine@x>\r\n") == content.lower().count(b"message-id:") == 1
    assert content.count(b"\r\nDate: 2 Nov 2024 01:06 +0100\r\n") == content.lower().count(b"date:") == 1
    assert b"\r\nX-A: b\r\n" in content


def test_a_message_id_is_in_the_senders_domain() -> None:
    assert message(COMPOSED).message_id.endswith("@example.com>")
    assert message(RAW).message_id.endswith("@example.com>")
    assert message({**RAW, b"envelope_from": b"b@bounce.example"}).message_id.endswith("@example.com>")
    nobody = {b"raw": b"Subject: x\n\n", b"envelope_to": b"b@x.de", b"envelope_from": b"b@bounce.example"}
    assert message(nobody).message_id.endswith("@bounce.example>")
    assert message({b"raw": b"From: a@x.de\nTo: b@x.de\nMessage-ID: <1@y>\n\n"}).message_id == "<1@y>"


def test_too_long_a_headers_field() -> None:
    with pytest.raises(MalformedMail, match="headers: longer than"):
        message({**COMPOSED, b"headers": b'{"X":"' + b"a" * 140_000 + b'"}'})


HTML = {b"from": b"a@x.de", b"to": b"b@x.de", b"html": b"<p>Hello <a href='https://x.de/'>you</a>"}


def test_an_html_alone_gets_a_text() -> None:
    content = message(HTML).source.content()
    assert b"multipart/alternative" in content
    assert b"\r\n\r\nHello you <https://x.de/>\r\n" in content
    assert message({**HTML, b"auto_text": b"1"}).source.content() == content


@pytest.mark.parametrize(
    "fields",
    [
        {b"auto_text": b"0"},
        {b"html": b"<img src='https://x.de/a.png'>"},
        {b"html": b"<p>" + b"a " * 70_000},
    ],
    ids=["not asked for", "nothing to read", "over its bound"],
)
def test_an_html_may_go_alone(fields: dict[bytes, bytes]) -> None:
    content = message({**HTML, **fields}).source.content()
    assert b"text/plain" not in content
    assert b"\r\nContent-Type: text/html; charset=utf-8\r\n" in content


def test_a_text_that_is_given_is_the_text() -> None:
    content = message({**HTML, b"text": b"Mine"}).source.content()
    assert b"\r\nMine\r\n" in content
    assert b"Hello you" not in content


def test_copies_are_headers_and_blind_ones_are_not() -> None:
    fields = {**COMPOSED, b"cc": b"C <c@x.de>, d@x.de", b"bcc": b"hidden@x.de", b"envelope_to": b"hidden@x.de"}
    found = message(fields)
    content = found.source.content()
    assert found.to[0].spec == "hidden@x.de"
    assert b"\r\nCc: C <c@x.de>, d@x.de\r\n" in content
    assert b"hidden" not in content
    assert b"bcc" not in content.lower()


@pytest.mark.parametrize("field", ["cc", "bcc"])
def test_a_copy_may_be_the_only_recipient(field: str) -> None:
    found = message({b"from": b"a@x.de", field.encode(): b"b@x.de", b"text": b"x"})
    assert found.to[0].spec == "b@x.de"
    assert (b"\r\nCc: b@x.de\r\n" in found.source.content()) is (field == "cc")
    assert b"\r\nTo:" not in found.source.content()


def test_attachments_alone_are_a_mail() -> None:
    fields = {b"from": b"a@x.de", b"to": b"b@x.de", b"attachments": b'[{"filename":"a.txt","content":"aGk="}]'}
    content = message(fields).source.content()
    assert b"multipart/mixed" in content
    assert b'filename="a.txt"' in content
    with pytest.raises(MalformedMail, match=r"attachments: \[0\].content: not base64"):
        message({**fields, b"attachments": b'[{"content":"!"}]'})
    with pytest.raises(MalformedMail, match="nothing to send"):
        message({**fields, b"attachments": b"[]"})


# -- the length of a header -----------------------------------------------------------------------------------------

POSTFIX = 102_400  # header_size_limit
LISTS = {
    "plain": ", ".join(f"user{n}@example{n}.net" for n in range(4400)),
    "one letter": ",".join(f"a{n}@b.io" for n in range(9000)),
    "names": ", ".join(f"Jörg Müller <u{n}@x.de>" for n in range(3000)),
    "one letter names": ",".join(["ä<a@b.de>"] * 9000),
    "idn": ",".join(["a@ä.de"] * 11_000),
    "idn names": ",".join(["ä<a@ä.de>"] * 7000),
    "local parts": ",".join(["äöü@b.de"] * 8000),
}


def longest_header(fields: dict[bytes, bytes]) -> int:
    head = message({**COMPOSED, **fields}).source.content().partition(b"\r\n\r\n")[0]
    return max(map(len, re.split(rb"\r\n(?![ \t])", head)))


def tried(known: Iterable[dict[bytes, bytes]]) -> tuple[int, set[str]]:
    """The longest header that came of any of them, and why others were refused."""
    longest, whys = 0, set()
    for fields in known:
        try:
            longest = max(longest, longest_header(fields))
        except MalformedMail as found:
            whys.add(f"{found.field}: {found.why}")
    return longest, whys


@pytest.mark.parametrize(
    ("field", "name"), [*((b"to", name) for name in LISTS), (b"cc", "idn"), (b"reply_to", "names")]
)
def test_no_list_becomes_a_header_that_postfix_splits(field: bytes, name: str) -> None:
    """Up to where it is refused it is as long as it may be. The place is looked for by halves: to within a percent."""
    parts = LISTS[name].split(",")
    longest, whys, fits, refused = 0, set(), len(parts) * 10 // 32, len(parts) + 1
    while refused - fits > len(parts) // 100:
        many = (fits + refused) // 2
        try:
            longest = max(longest, longest_header({field: ",".join(parts[:many]).encode()}))
        except MalformedMail as found:
            whys.add(f"{found.field}: {found.why}")
            refused = many
        else:
            fits = many
    assert 95_000 < longest <= POSTFIX
    assert whys
    assert all(why.startswith(f"{field.decode()}: longer than 102000 bytes") for why in whys)


@pytest.mark.parametrize("letter", ["ä", "€", "😀", "x ", "ä "])
def test_nor_does_a_subject_or_a_header_of_ones_own(letter: str) -> None:
    numbers = range(2000, 102_000, 4000)
    longest, whys = tried({b"subject": letter.encode() * number} for number in numbers)
    assert 80_000 < longest <= POSTFIX
    assert all(why.startswith("subject: longer than 102000 bytes") for why in whys)
    longest, whys = tried({b"headers": json.dumps({"X-A": letter * number}).encode()} for number in numbers)
    assert 20_000 < longest <= POSTFIX  # of what JSON escapes less goes in
    assert all("longer than 102000 bytes" in why for why in whys)


def test_an_author_of_a_raw_is_short() -> None:
    """Nobody waits until all of a long list are read, only to hear that they are not one."""
    long = b", ".join([b"a@x.de"] * 200)
    with pytest.raises(MalformedMail, match="no single address in From or Sender"):
        message({b"raw": b"From: %b\nTo: b@x.de\n\n" % long})
    assert message({b"raw": b"From: %b\nSender: c@x.de\nTo: b@x.de\n\n" % long}).envelope_from == "c@x.de"


def test_addresses_in_a_header_of_ones_own_are_as_short() -> None:
    known = (
        {b"headers": json.dumps({"Errors-To": "ä<a@b.de>," * n}, ensure_ascii=False).encode()} for n in (999, 8999)
    )
    longest, whys = tried(known)
    assert 20_000 < longest <= POSTFIX
    assert whys == {"headers: Errors-To: longer than 102000 bytes, encoded and folded"}

"""Bounce reports: parsed back by the standard library, by flufl.bounce, and by RFC 3464's grammar, strictly."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from typing import Any

import pytest
from flufl.bounce import all_failures, scan_message
from hypothesis import given
from hypothesis import strategies as st

from streamq.mail import Mail, parse
from streamq.mail.address import Address
from streamq.mail.report import DELAYED, FAILED, HEAD_MOST, Notice, compose_report

ENTRY = "11732237561234-0"
ARRIVED = 1_732_237_561_234
NOW = ARRIVED + 60_000
SALT = bytes(16)
REFUSED = Notice(FAILED, "bad_address", "5.1.1", 550, "5.1.1 nobody here", "mx1.example.net[192.0.2.1]:25", NOW)
LATE = Notice(
    DELAYED, "greylisted", "4.7.1", 451, "4.7.1 later", "mx1.example.net[192.0.2.1]:25", NOW, NOW + 86_400_000
)


def mail(**fields: str | bytes) -> Mail:
    known: dict[str, str | bytes] = {"to": "bob@example.net", "envelope_from": "bounces@example.com"}
    if "raw" not in fields:
        known |= {"from": "shop@example.com", "subject": "Hi", "text": "secret body"}
    both = {**known, **fields}
    if "raw" in fields:
        both["envelope_to"] = both.pop("to")
    raw = {name.encode(): v if isinstance(v, bytes) else v.encode() for name, v in both.items() if v != ""}
    return parse(raw, entry=ENTRY, at_ms=ARRIVED, salt=SALT, max_bytes=10**7)


def report(notice: Notice = REFUSED, *, author: Address | None = None, **fields: str | bytes) -> bytes:
    one = mail(**fields)
    return compose_report(
        one, one.content(), notice, entry=ENTRY, arrived_ms=ARRIVED, now_ms=NOW, salt=SALT, mta="mq.example.com",
        author=author,
    )  # fmt: skip


def read(raw: bytes) -> EmailMessage:
    found = message_from_bytes(raw, policy=policy.default)
    assert isinstance(found, EmailMessage)
    assert all(not part.defects for part in found.walk())
    return found


def bodies(raw: bytes) -> list[tuple[str, bytes]]:
    """(content type, decoded octets) of the three parts, by the boundary alone: the standard library takes any encoded
    message/* for a message that is not."""
    head, _, body = raw.partition(b"\r\n\r\n")
    found = re.search(rb'boundary="([^"]+)"', head)
    assert found
    _, *parts, last = (b"\r\n" + body).split(b"\r\n--" + found[1])
    assert last == b"--\r\n"
    made = []
    for part in parts:
        plain = message_from_bytes(
            part.removeprefix(b"\r\n").replace(b"Content-Type: message/", b"Content-Type: text/x-")
        )
        data = plain.get_payload(decode=True)
        assert isinstance(data, bytes)
        made.append((plain.get_content_type().replace("text/x-", "message/"), data))
    return made


# RFC 3464, 2.1: per-message fields, a blank line, per-recipient fields; each folded as RFC 5322 has it.
FIELD = re.compile(r"([A-Za-z-]+): (\S.*(?:\r\n .*\S)*)\r\n")
TYPED = {"Reporting-MTA", "Original-Recipient", "Final-Recipient", "Remote-MTA", "Diagnostic-Code"}
ORDER = [
    ["Reporting-MTA", "Original-Envelope-Id", "Arrival-Date"],
    [
        *("Original-Recipient", "Final-Recipient", "Action", "Status"),
        *("Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date", "Will-Retry-Until"),
    ],
]
EXACT = ("Original-Envelope-Id", "Original-Recipient", "Final-Recipient")
DATE = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z][a-z] \d{4} \d\d:\d\d:\d\d \+0000")


def fields_of(status: bytes) -> list[dict[str, str]]:
    groups = []
    blocks = status.decode().split("\r\n\r\n")
    assert len(blocks) == 2
    for block, order in zip((blocks[0] + "\r\n", blocks[1]), ORDER, strict=True):
        found = FIELD.findall(block)
        assert "".join(f"{name}: {value}\r\n" for name, value in found) == block
        names = [name for name, _ in found]
        assert names == [name for name in order if name in names]
        folded = [line for line in block.splitlines() if not line.startswith(EXACT)]
        assert max(map(len, folded)) <= 78 or " " not in max(folded, key=len).strip()[20:]
        assert max(len(line.encode()) for line in block.splitlines()) <= 998
        groups.append({name: value.replace("\r\n ", " ") for name, value in found})
    for name, value in {**groups[0], **groups[1]}.items():
        if name in TYPED:
            assert re.fullmatch(r"[A-Za-z0-9-]+; \S.*", value), value
        if name.endswith(("Date", "Until")):
            assert DATE.fullmatch(value), value
    assert {"Reporting-MTA"} <= groups[0].keys()
    assert {"Final-Recipient", "Action", "Status"} <= groups[1].keys()
    assert groups[1]["Action"] in {"failed", "delayed"}
    assert re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", groups[1]["Status"])
    return groups


def status(raw: bytes) -> dict[str, str]:
    of_mail, of_recipient = fields_of(bodies(raw)[1][1])
    return of_mail | of_recipient


# -- as the standard library reads it ---------------------------------------------------------------------------------


def test_the_head_of_a_report() -> None:
    found = read(report())
    assert (found["From"], found["To"]) == ("Mail Delivery System <mailer-daemon@example.com>", "bounces@example.com")
    assert found["Auto-Submitted"] == "auto-replied"
    assert found["In-Reply-To"] == found["References"] == read(mail().content())["Message-ID"]
    assert found["Message-ID"] not in {None, found["In-Reply-To"]}
    assert found["Date"].datetime.timestamp() == NOW // 1000
    assert found.get_content_type() == "multipart/report"
    assert found["Content-Type"].params["report-type"] == "delivery-status"
    assert [part.get_content_type() for part in found.iter_parts()] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]


@pytest.mark.parametrize("envid", ["a  b", "a   b+c=d", "x" + " " * 30 + "y", "a " * 16 + "b"])
def test_a_senders_id_comes_back_blank_for_blank(envid: str) -> None:
    """RFC 3464, 2.2.1: it is what the sender's program looks for."""
    _, told, _ = read(report(dsn_envid=envid)).iter_parts()
    groups = told.get_payload()
    assert isinstance(groups, list)
    of_mail = groups[0]
    assert isinstance(of_mail, Message)
    assert of_mail["Original-Envelope-Id"] == envid
    assert f"Original-Envelope-Id: {envid}\r\n".encode() in report(dsn_envid=envid)


def test_its_words_and_its_status() -> None:
    raw = report(dsn_envid="order 18", dsn_orcpt="rfc822;bob@example.org")
    text, told, head = read(raw).iter_parts()
    assert "bob@example.net" in text.get_content()
    assert "The server mx1.example.net said:\r\n\r\n    550 5.1.1 nobody here\r\n" in text.get_content()
    groups = told.get_payload()
    assert isinstance(groups, list)
    of_mail, of_recipient = groups
    assert isinstance(of_mail, Message)
    assert isinstance(of_recipient, Message)
    assert dict(of_mail.items()) == {
        "Reporting-MTA": "dns; mq.example.com",
        "Original-Envelope-Id": "order 18",
        "Arrival-Date": "Fri, 22 Nov 2024 01:06:01 +0000",
    }
    assert dict(of_recipient.items()) == {
        "Original-Recipient": "rfc822; bob@example.org",
        "Final-Recipient": "rfc822; bob@example.net",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx1.example.net",
        "Diagnostic-Code": "smtp; 550 5.1.1 nobody here",
        "Last-Attempt-Date": "Fri, 22 Nov 2024 01:07:01 +0000",
    }
    returned = head.get_content()
    assert "Subject: Hi\r\n" in returned
    assert "secret body" not in raw.decode()


def test_a_delay_is_only_a_warning() -> None:
    raw = report(LATE)
    known = status(raw)
    assert (known["Action"], known["Status"]) == ("delayed", "4.7.1")
    assert known["Will-Retry-Until"] == "Sat, 23 Nov 2024 01:07:01 +0000"
    assert "WARNING ONLY" in bodies(raw)[0][1].decode()
    assert read(raw)["Message-ID"] != read(report())["Message-ID"]


@pytest.mark.parametrize(
    ("notice", "code", "said"),
    [
        (Notice(FAILED, "policy", "", 554, "no"), "5.0.0", "smtp; 554 no"),
        (Notice(FAILED, "expired", "4.2.2", 452, "4.2.2 full"), "4.4.7", "smtp; 452 4.2.2 full"),
        (Notice(FAILED, "expired"), "4.4.7", None),
        (Notice(FAILED, "operator", reply="bounced by an operator"), "5.0.0", "x-streamq; bounced by an operator"),
        (Notice(FAILED, "too_large", "5.3.4", 0, "9 bytes; no"), "5.3.4", "x-streamq; 9 bytes; no"),
        (Notice(DELAYED, "timeout"), "4.4.2", None),
        (Notice(DELAYED, "temporary", "", 451, "later"), "4.0.0", "smtp; 451 later"),
        (Notice(FAILED, "policy", "9.9.9\r\nX: y", 550, "no\r\nAction: x"), "5.0.0", "smtp; 550 no Action: x"),
    ],
)  # fmt: skip
def test_a_code_and_its_words(notice: Notice, code: str, said: str | None) -> None:
    known = status(report(notice))
    assert (known["Status"], known.get("Diagnostic-Code")) == (code, said)
    assert "Remote-MTA" not in known


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("[192.0.2.1]:25", "[192.0.2.1]"),
        ("mx.example.net:25", "mx.example.net"),
        ("mx.example.net[2001:db8::1]:25", "mx.example.net"),
        ("mx.example.net.[192.0.2.1]:25", "mx.example.net"),
        ("192.0.2.1[192.0.2.1]:25", "[192.0.2.1]"),
        ("192.0.2.1:25", "[192.0.2.1]"),
        ("2001:db8::1[2001:db8::1]:25", "[IPv6:2001:db8::1]"),
        ("2001:db8::1:25", "[IPv6:2001:db8::1]"),
        ("[2001:db8::1]:25", "[IPv6:2001:db8::1]"),
        ("fe80::1%eth0[fe80::1%eth0]:25", "[IPv6:fe80::1]"),
    ],
)
def test_the_host_that_spoke(peer: str, host: str) -> None:
    assert status(report(REFUSED._replace(peer=peer)))["Remote-MTA"] == f"dns; {host}"


@pytest.mark.parametrize("mta", ["192.0.2.7", "[192.0.2.7]"])
def test_a_host_that_reports_without_a_name(mta: str) -> None:
    one = mail()
    raw = compose_report(
        one, one.content(), REFUSED, entry=ENTRY, arrived_ms=ARRIVED, now_ms=NOW, salt=SALT, mta=mta
    )  # fmt: skip
    assert status(raw)["Reporting-MTA"] == "dns; [192.0.2.7]"


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    "said", ["y" * 450, "y" * 5000, "5.7.1 " + "see https://example.com/" + "ä" * 1500, "a " * 3000]
)
def test_long_words_of_a_server_are_lines_that_every_server_takes(said: str, wide: bool) -> None:
    to = "jörg@example.net" if wide else "bob@example.net"
    raw = report(REFUSED._replace(reply=said), to=to)
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    kind, data = bodies(raw)[1]
    assert kind == ("message/global-delivery-status" if wide else "message/delivery-status")
    if not wide:  # RFC 3464, 2.1: 7bit, no encoding that a reader would have to take off
        assert data in raw
    told = fields_of(data)[1]["Diagnostic-Code"].replace(" ", "")
    shown = said if wide else said.encode("ascii", "backslashreplace").decode()
    assert told == f"smtp;550{shown}".replace(" ", "")


def test_what_readers_compare_is_as_it_was_given() -> None:
    envid = "a  b " + "word " * 12 + " c"
    raw = report(to='"a  b"@example.net', dsn_envid=envid, dsn_orcpt="rfc822;" + "o" * 480 + "+x=y")
    data = bodies(raw)[1][1].decode()
    assert f"Original-Envelope-Id: {envid}\r\n" in data
    assert f"Original-Recipient: rfc822; {'o' * 480}+x=y\r\n" in data
    assert 'Final-Recipient: rfc822; "a  b"@example.net\r\n' in data
    assert all_failures(message_from_bytes(raw))


def test_another_author() -> None:
    assert read(report(author=Address("Post", "post", "example.org")))["From"] == "Post <post@example.org>"


def test_the_same_bytes_every_time() -> None:
    assert report() == report()


# -- RFC 6533 ---------------------------------------------------------------------------------------------------------


def test_a_recipient_beyond_ascii() -> None:
    raw = report(to="дима+1@example.net", subject="Hi")
    assert raw.isascii()  # any server takes it
    kinds = [kind for kind, _ in bodies(raw)]
    assert kinds == ["text/plain", "message/global-delivery-status", "message/global-headers"]
    assert read(raw)["Content-Type"].params["report-type"] == "global-delivery-status"
    assert status(raw)["Final-Recipient"] == r"utf-8; дима\x{2B}1@example.net"
    assert "дима+1@example.net" in bodies(raw)[0][1].decode()
    assert "To: дима+1@example.net\r\n" in bodies(raw)[2][1].decode()


def test_a_sender_beyond_ascii() -> None:
    raw = report(envelope_from="почта@example.com")
    assert read(raw)["To"] == "почта@example.com"
    again = parse(
        {b"raw": raw, b"envelope_from": b"<>", b"envelope_to": "почта@example.com".encode()},
        entry=ENTRY, at_ms=NOW, salt=SALT, max_bytes=10**6,
    )  # fmt: skip
    assert (again.smtputf8, again.bounce_to) == (True, "")
    assert again.content() == raw


def test_a_reply_beyond_ascii_stays_readable() -> None:
    said = REFUSED._replace(reply="5.1.1 неизвестен")
    assert status(report(said, to="дима@example.net"))["Diagnostic-Code"] == "smtp; 550 5.1.1 неизвестен"
    plain = report(said)
    assert plain.isascii()
    assert status(plain)["Diagnostic-Code"].startswith("smtp; 550 5.1.1 \\u043d")


# -- the mail's head --------------------------------------------------------------------------------------------------


def raw_mail(head: bytes) -> bytes:
    return (
        b"From: shop@example.com\r\nDate: Fri, 22 Nov 2024 01:06:01 +0000\r\nMessage-ID: <a@b>\r\n" + head + b"\r\nbody"
    )


def test_the_head_goes_back_as_it_was() -> None:
    given = raw_mail(b"Subject: Hi\r\nX-Long: a\r\n\tb\r\n")
    assert bodies(report(raw=given))[2][1] == given.removesuffix(b"\r\nbody")


def test_of_a_long_head_whole_fields_go_back() -> None:
    long = b"X-A: " + b"a" * 900 + b"\r\n" + b"".join(b" %d\r\n" % n for n in range(100_000, 103_000))
    given = raw_mail(b"Subject: Hi\r\n" + long + b"X-Last: 1\r\n")
    back = bodies(report(raw=given))[2][1]
    assert back == given[: given.index(b"X-A")]
    assert bodies(report(raw=b"X: " + b"a" * 2 * HEAD_MOST + b"\r\n\r\nbody"))[2][1] == b""


def test_a_head_that_ends_at_the_cut_is_whole() -> None:
    start = raw_mail(b"").removesuffix(b"\r\nbody")
    filler = b"X: " + b"a" * 10 + b"\r\n"
    given = start + filler * 2000 + b"\r\nbody"
    back = bodies(report(raw=given))[2][1]
    assert HEAD_MOST - 2 * len(filler) < len(back) <= HEAD_MOST
    assert given.startswith(back)
    assert back.endswith(filler)


@pytest.mark.parametrize(
    "head", [b"Subject: \xff\xfe\r\n", "Subject: Grüße\r\n".encode(), b"X: " + b"a" * 3000 + b"\r\n"]
)
def test_a_head_of_any_bytes_is_seven_bit(head: bytes) -> None:
    raw = report(raw=raw_mail(head))
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert head in bodies(raw)[2][1]
    fields_of(bodies(raw)[1][1])


@pytest.mark.parametrize(
    "found", [b"", b"Message-ID: none\r\n", b"Message-ID: <a b@c>\r\n", b"Message-ID: <x@y> <z@y>\r\n"]
)
def test_no_message_id_that_could_be_answered(found: bytes) -> None:
    given = b"From: shop@example.com\r\nDate: Fri, 22 Nov 2024 01:06:01 +0000\r\n" + found + b"\r\nbody"
    one = mail(raw=given)
    raw = compose_report(one, given, REFUSED, entry=ENTRY, arrived_ms=0, now_ms=NOW, salt=SALT, mta="a")
    assert read(raw)["In-Reply-To"] is None


@given(
    text=st.text(max_size=500),
    to=st.sampled_from(["bob@example.net", "дима@example.net", '"a b"@example.net']),
    kind=st.sampled_from([FAILED, DELAYED]),
    code=st.sampled_from([0, 250, 451, 550]),
    peer=st.text(max_size=40),
    envid=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(str.strip),
)
def test_whatever_a_server_says_the_report_is_one(
    text: str, to: str, kind: str, code: int, peer: str, envid: str
) -> None:
    said = "".join(one if one.isprintable() else " " for one in text)  # what a reply's text is (smtp/judge.py)
    raw = report(Notice(kind, "policy", "", code, said, peer, NOW), to=to, dsn_envid=envid)
    known = status(raw)
    assert known["Action"] == kind
    assert bodies(raw)[0][0] == "text/plain"
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert b"\r" not in raw.replace(b"\r\n", b"")
    again = parse(
        {b"raw": raw, b"envelope_from": b"<>", b"envelope_to": b"bounces@example.com"},
        entry=ENTRY, at_ms=NOW, salt=SALT, max_bytes=10**6,
    )  # fmt: skip
    assert again.content() == raw  # intake changes nothing


# -- as another parser reads it ---------------------------------------------------------------------------------------


def test_flufl_bounce_reads_a_failure() -> None:
    assert all_failures(message_from_bytes(report())) == (frozenset(), frozenset({b"bob@example.net"}))


def test_flufl_bounce_reads_the_original_recipient() -> None:
    raw = report(dsn_orcpt="rfc822;robert@example.org")
    assert scan_message(message_from_bytes(raw)) == {b"robert@example.org"}


def test_flufl_bounce_reads_a_delay() -> None:
    assert all_failures(message_from_bytes(report(LATE))) == (frozenset({b"bob@example.net"}), frozenset())


def test_who_is_told() -> None:
    plain: dict[str, Any] = {"from": "shop@example.com"}
    assert mail(**plain).bounce_to == "bounces@example.com"
    assert mail(**plain, envelope_from="").bounce_to == ""  # its return path is From, and nobody asked for reports
    assert mail(**plain, envelope_from="<>").bounce_to == ""

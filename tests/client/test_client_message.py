"""Mail.from_message: the bytes and the envelope that smtplib would use, and no guess where an address is broken."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from email.mime.text import MIMEText
from email.parser import BytesParser
from typing import Any

import orjson
import pytest

from streamq import Mail, MalformedMail
from streamq.mail import parse


def plain(**headers: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in ({"From": "Shop <shop@example.com>", "Subject": "Hi"} | headers).items():
        message[name.replace("_", "-")] = value
    message.set_content("Hello\nFrom me\n.\n")
    return message


def envelope(mail: Mail) -> tuple[str, list[str]]:
    return mail.fields[b"envelope_from"].decode(), orjson.loads(mail.fields[b"envelope_to"])


def test_to_cc_and_bcc_are_the_recipients_and_bcc_is_gone() -> None:
    message = plain(To="Bob <bob@example.net>, a@example.net", Cc="bob@example.net", Bcc="Eve <eve@example.org>")
    mail = Mail.from_message(message, id="m1", priority="high", tags=["x"])
    assert envelope(mail) == ("shop@example.com", ["bob@example.net", "a@example.net", "eve@example.org"])
    raw = mail.fields[b"raw"]
    assert b"eve" not in raw.lower()
    assert b"\nFrom me\r\n.\r\n" in raw
    assert raw.count(b"\n") == raw.count(b"\r\n")
    assert (mail.id, mail.priority, mail.fields[b"tags"]) == ("m1", "high", b'["x"]')
    assert message["Bcc"] == "Eve <eve@example.org>"  # the caller's message is the caller's


def test_its_meaning_arrives() -> None:
    message = plain(To="bob@example.net", From='"Größe, Bücher" <shop@example.com>', Subject="Grüße")
    message.set_content("Grüße\n")
    message.add_alternative("<p>Grüße</p>", subtype="html")
    message.add_attachment(bytes(range(256)), maintype="application", subtype="octet-stream", filename="ä.bin")
    fields = Mail.from_message(message).fields
    sent = parse(fields, entry="01-0", at_ms=1, salt=b"", max_bytes=10**6).content()
    found = BytesParser(policy=policy.default).parsebytes(sent)
    assert (found["From"], found["Subject"]) == (str(message["From"]), "Grüße")
    text, html, attached = (part for part in found.walk() if not part.is_multipart())
    assert [part.get_content().splitlines() for part in (text, html)] == [["Grüße"], ["<p>Grüße</p>"]]
    assert (attached.get_content(), attached.get_filename()) == (bytes(range(256)), "ä.bin")


def test_the_sender_is_the_return_path() -> None:
    assert envelope(Mail.from_message(plain(To="b@example.net", Sender="list@example.com")))[0] == "list@example.com"
    two = plain(To="b@example.net", From="a@example.com, c@example.com")
    with pytest.raises(MalformedMail, match="more than one address in From, and no Sender"):
        Mail.from_message(two)
    two["Sender"] = "a@example.com"
    assert envelope(Mail.from_message(two))[0] == "a@example.com"


def test_resent_once() -> None:
    again = {"Resent_Date": "Mon, 1 Jan 2024 00:00:00 +0000", "Resent_From": "me@example.org"}
    mail = Mail.from_message(plain(To="b@example.net", Resent_To="c@example.net", Resent_Bcc="d@example.net", **again))
    assert envelope(mail) == ("me@example.org", ["c@example.net", "d@example.net"])
    assert b"Resent-Bcc" not in mail.fields[b"raw"]
    twice = Message()
    for _ in range(2):
        twice["Resent-Date"] = "Mon, 1 Jan 2024 00:00:00 +0000"
    with pytest.raises(MalformedMail, match="resent more than once"):
        Mail.from_message(twice)


@pytest.mark.parametrize("name", ["Resent_To", "Resent_Cc", "Resent_Bcc"])
def test_one_resent_field_is_enough(name: str) -> None:
    """The rule of `raw`: who had it at first does not get it again."""
    mail = Mail.from_message(plain(To="old@example.net", Resent_From="me@example.org", **{name: "new@example.net"}))
    assert envelope(mail) == ("me@example.org", ["new@example.net"])
    with pytest.raises(MalformedMail, match="no address in Resent-From"):
        Mail.from_message(plain(To="old@example.net", **{name: "new@example.net"}))
    with pytest.raises(MalformedMail, match="no recipient in Resent-To, Resent-Cc or Resent-Bcc"):
        Mail.from_message(plain(To="old@example.net", Resent_From="me@example.org"))


@pytest.mark.parametrize("name", ["Date", "From", "Sender", "To", "Cc", "Bcc", "Message-ID"])
def test_any_resent_field_twice_is_resent_twice(name: str) -> None:
    message = Message()
    message["From"] = "shop@example.com"
    for who in ("new", "old"):
        message[f"Resent-{name}"] = f"{who}@example.net"
    message["Resent-To" if name != "To" else "Resent-From"] = "me@example.org"
    with pytest.raises(MalformedMail, match="resent more than once"):
        Mail.from_message(message)


def test_an_address_that_needs_utf8_is_not_mangled() -> None:
    mail = Mail.from_message(plain(To="Bücher <bücher@example.net>"))
    assert "To: Bücher <bücher@example.net>\r\n".encode() in mail.fields[b"raw"]
    assert envelope(mail)[1] == ["bücher@example.net"]


def test_the_older_classes() -> None:
    message = MIMEText("From me\n", "plain", "utf-8")
    message["From"], message["To"] = "shop@example.com", "=?utf-8?q?a=2C_eve=40example=2Eorg?= <bob@example.net>"
    assert envelope(Mail.from_message(message))[1] == ["bob@example.net"]
    folded = message_from_bytes(b"From: a@b.c\nTo: x@example.net,\n y@example.net\n\nFrom here\n")
    mail = Mail.from_message(folded)
    assert envelope(mail)[1] == ["x@example.net", "y@example.net"]
    assert mail.fields[b"raw"].endswith(b"\r\n\r\nFrom here\r\n")


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("a@example.net c@example.net", "raw: its To: invalid address in address-list: 'a@example.net'"),
        ("x <a@b.c> junk, c@d.e", "raw: its To: invalid address in address-list: 'x <a@b.c>, c@d.e'"),
        ("bob", "raw: its To: addr-spec local part with no domain: 'bob'"),
        ("a@-.example", "raw: its To: not a domain name: 'a@-.example'"),
        ("undisclosed-recipients:;", "raw: no recipient in To, Cc or Bcc"),
    ],
)
def test_a_broken_address_is_no_guess(to: str, says: str) -> None:
    with pytest.raises(MalformedMail) as caught:
        Mail.from_message(plain(To=to))
    assert str(caught.value) == says
    with pytest.raises(MalformedMail):
        Mail.from_message(message_from_bytes(f"From: a@b.c\nTo: {to}\n\nx\n".encode()))


def test_empty_members_and_groups_are_none() -> None:
    assert envelope(Mail.from_message(plain(To="a@b.c, , d@e.f", Cc="us: g@h.i;")))[1] == ["a@b.c", "d@e.f", "g@h.i"]


@pytest.mark.parametrize("message", ["To: a@b.c", None, {"To": "a@b.c"}])
def test_what_is_no_message(message: Any) -> None:
    with pytest.raises(MalformedMail, match=r"raw: not an email\.message\.EmailMessage"):
        Mail.from_message(message)


def test_without_an_author() -> None:
    message = Message()
    message["To"] = "a@b.c"
    with pytest.raises(MalformedMail, match="no address in From"):
        Mail.from_message(message)


def test_what_cannot_be_written() -> None:
    older = MIMEText("x", "plain", "utf-8")
    older["From"], older["To"] = "shop@example.com", "bücher@example.net"
    with pytest.raises(MalformedMail, match=r"raw: an address beyond ASCII, which its policy \(compat32\)"):
        Mail.from_message(older)
    broken = plain(To="b@example.net")
    broken.replace_header("Content-Type", "text/plain; charset=klingon")
    broken.replace_header("Content-Transfer-Encoding", "8bit")
    broken.set_payload("h\udce9llo\ud800")
    with pytest.raises(MalformedMail, match="raw: the message cannot be written"):
        Mail.from_message(broken)

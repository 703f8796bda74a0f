"""The envelope: what goes behind MAIL and RCPT, and what a server must offer for it."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_relay import CONTENT, Mails, Relay, hello, letter, office, on_both_loops, route

from streamq.mail.dsn import Dsn
from streamq.smtp.connection import Offer
from streamq.smtp.envelope import Envelope, Unfit, envelope, orcpt
from streamq.smtp.letter import Action

ALL = Offer(pipelining=True, sizes=True, eight_bit=True, smtputf8=True, chunking=True, dsn=True, require_tls=True)
ASKED = Dsn("SUCCESS,FAILURE", "HDRS", "Q 1+1=2")


def lines(offer: Offer = ALL, verified: bool = True, to: str = "bob@example.net", **more: Any) -> list[str]:
    made = envelope(letter(to, **more), offer, verified)
    assert isinstance(made, Envelope)
    return [line.decode() for line in made]


def test_nothing_is_said_that_no_mail_asks_for() -> None:
    assert lines(Offer()) == ["MAIL FROM:<shop@example.com>\r\n", "RCPT TO:<bob@example.net>\r\n"]
    assert lines() == [f"MAIL FROM:<shop@example.com> SIZE={len(CONTENT)}\r\n", "RCPT TO:<bob@example.net>\r\n"]


def test_an_offer_is_read_by_name() -> None:
    words = {"pipelining": "", "size": "0", "8bitmime": "", "smtputf8": "", "chunking": "", "dsn": "", "requiretls": ""}
    assert Offer.of(words) == ALL
    for size in ("", " ", "0", "x", "-1", "9" * 21):
        assert Offer.of({"size": size}) == Offer(sizes=True)
    assert Offer.of({"size": "100"}).size == 100


def test_reports_are_asked_for_where_they_are_offered() -> None:
    mail, rcpt = lines(dsn=ASKED, eight_bit=True)
    assert mail == f"MAIL FROM:<shop@example.com> SIZE={len(CONTENT)} BODY=8BITMIME RET=HDRS ENVID=Q+201+2B1+3D2\r\n"
    assert rcpt == "RCPT TO:<bob@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob@example.net\r\n"
    assert lines(Offer(), dsn=ASKED) == ["MAIL FROM:<shop@example.com>\r\n", "RCPT TO:<bob@example.net>\r\n"]
    mail, rcpt = lines(Offer(dsn=True), dsn=Dsn("NEVER", "", ""))
    assert (mail, rcpt.partition(" NOTIFY=")[2]) == (
        "MAIL FROM:<shop@example.com>\r\n",
        "NEVER ORCPT=rfc822;bob@example.net\r\n",
    )
    assert lines(Offer(dsn=True), dsn=Dsn("", "", "a  b~"))[0] == "MAIL FROM:<shop@example.com> ENVID=a+20+20b~\r\n"
    asked = Dsn("", "", "", "rfc822;a+b@example.org")
    assert lines(Offer(dsn=True), dsn=asked)[1] == "RCPT TO:<bob@example.net> ORCPT=rfc822;a+2Bb@example.org\r\n"


@pytest.mark.parametrize(
    ("recipient", "original"),
    [
        ("bob@example.net", "rfc822;bob@example.net"),
        ("b+o=b@example.net", "rfc822;b+2Bo+3Db@example.net"),
        ('"b b"@example.net', 'rfc822;"b+20b"@example.net'),
        ("bjørn@example.net", r"utf-8;bj\x{F8}rn@example.net"),
        ("用戶+1@example.net", r"utf-8;\x{7528}\x{6236}\x{2B}1@example.net"),
        ('"é \\\\="@example.net', r'utf-8;"\x{E9}\x{20}\x{5C}\x{5C}\x{3D}"@example.net'),
        ("💌@example.net", r"utf-8;\x{1F48C}@example.net"),
        ('"' + " " * 250 + '"@x', ""),  # 500 characters are the most there may be
    ],
)
def test_the_original_recipient(recipient: str, original: str) -> None:
    assert orcpt(recipient) == original


@pytest.mark.parametrize(
    ("offer", "verified", "why"),
    [
        (Offer(), True, "does not offer REQUIRETLS"),
        (ALL, False, "was not proved to be itself over TLS"),
        (Offer(), False, "was not proved to be itself over TLS"),
    ],
)
def test_tls_that_is_required_is_not_done_without(offer: Offer, verified: bool, why: str) -> None:
    unfit = envelope(letter(require_tls=True), offer, verified)
    assert unfit == Unfit("require_tls", "5.7.30", f"REQUIRETLS support required; the server {why}")


def test_tls_that_is_required_is_asked_for() -> None:
    assert lines(Offer(require_tls=True), require_tls=True)[0] == "MAIL FROM:<shop@example.com> REQUIRETLS\r\n"


@on_both_loops
async def test_a_mail_that_requires_tls_never_goes_in_the_clear() -> None:
    """The server offers it where it must not: nothing but QUIT follows, and other mail goes on."""
    async with (
        Relay([*hello("250-relay.example", "250 REQUIRETLS"), Mails()]) as relay,
        office(route(relay.port)) as at,
    ):
        secret, plain = await at.send(letter(require_tls=True), letter())
    assert (secret.action, secret.klass, secret.enhanced) == (Action.FAIL, "require_tls", "5.7.30")
    assert plain.action is Action.SENT
    assert relay.bodies == [CONTENT]

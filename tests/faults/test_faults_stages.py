"""How far a mail is, as the line reads it: whatever the packets are."""

from __future__ import annotations

import pytest

from bench.faults.stages import Stages

ENVELOPE = b"MAIL FROM:<shop@example.com>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n"
BODY = b"Subject: Hi\r\n\r\n..dots\r\n"


def _seen(parts: list[tuple[str, bytes]]) -> list[str]:
    smtp, seen = Stages(), []
    for direction, data in parts:
        if smtp.there(data) if direction == "there" else smtp.back(data):
            seen.append(smtp.stage)
    return seen


def _pieces(data: bytes, length: int) -> list[tuple[str, bytes]]:
    return [("there", data[at : at + length]) for at in range(0, len(data), length)]


@pytest.mark.parametrize("length", [1, 2, 3, 5, 1000])
def test_a_mail_in_packets_of_any_length(length: int) -> None:
    parts = [
        ("back", b"220 hi\r\n"),
        *_pieces(b"EHLO me\r\n", length),
        ("back", b"250 354 is no go-ahead\r\n"),
        *_pieces(ENVELOPE, length),
        ("back", b"250 2.1.0 OK\r\n250 2.1.5 OK\r\n354 go\r\n"),
        *_pieces(BODY + b".\r\n", length),
        ("back", b"250 2.0.0 OK\r\n"),
        *_pieces(ENVELOPE, length),
    ]
    whole = ["mail", "go", "dot", "told", "mail"]
    assert _seen(parts) == (whole if length == 1000 else [*whole[:2], "body", *whole[2:]])


def test_whose_mail_it_is() -> None:
    smtp = Stages()
    for number in range(2):
        smtp.there(ENVELOPE.replace(b"bob", b"bob%d" % number))
        smtp.back(b"250 OK\r\n250 OK\r\n354 go\r\n")
        smtp.there(BODY + b".\r\n")
        smtp.back(b"250 OK\r\n")
    assert list(smtp.recent) == ["bob0@example.net", "bob1@example.net"]
    assert smtp.recipient == "bob1@example.net"


def test_an_empty_body_has_a_dot() -> None:
    """What is sent where nobody was accepted and DATA was all the same (RFC 2920 section 3.1)."""
    smtp = Stages()
    smtp.there(ENVELOPE)
    smtp.back(b"250 OK\r\n550 no\r\n354 go\r\n")
    smtp.there(b".\r\n")
    assert smtp.stage == "dot"


OKS = b"250 2.1.0 OK\r\n250 2.1.5 OK\r\n354 go\r\n"


@pytest.mark.parametrize("length", [1, 7, 1000])
def test_commands_behind_a_body_wait_for_its_reply(length: int) -> None:
    """`overlap`: until the dot is answered the connection's mail is at its dot, and the next has no body out."""
    smtp = Stages()
    smtp.there(ENVELOPE)
    smtp.back(OKS)
    for _, data in _pieces(BODY + b".\r\n" + ENVELOPE.replace(b"bob", b"ann"), length):
        smtp.there(data)
    assert (smtp.stage, list(smtp.recent)) == ("dot", ["bob@example.net", "ann@example.net"])
    smtp.back(b"250 2.0.0 354 of them\r\n")
    assert smtp.stage == "told"
    for _, data in _pieces(OKS, length):
        smtp.back(data)
    assert smtp.stage == "go"
    smtp.there(BODY)
    assert smtp.stage == "body"
    smtp.there(b".\r\n")
    assert smtp.stage == "dot"


@pytest.mark.parametrize("length", [1, 7, 1000])
def test_a_chunk_ends_with_its_last_octet(length: int) -> None:
    """BDAT in the envelope's write: whatever stands in it, a dot or a command, is its body."""
    smtp = Stages()
    body = b"a\r\n.\r\nMAIL FROM:<evil@example.net>\r\n"
    whole = ENVELOPE.removesuffix(b"DATA\r\n") + b"BDAT %d LAST\r\n%b" % (len(body), body)
    for _, data in _pieces(whole[:-1], length):
        smtp.there(data)
    assert smtp.stage == "body"
    smtp.there(whole[-1:])
    assert (smtp.stage, list(smtp.recent)) == ("dot", ["bob@example.net"])
    smtp.back(b"250 2.1.0 OK\r\n250 2.1.5 OK\r\n")
    assert smtp.stage == "dot"
    smtp.back(b"250 2.0.0 OK\r\n")
    assert smtp.stage == "told"


def test_a_chunk_of_its_own_may_go_when_its_recipient_was_answered() -> None:
    """RSET, MAIL and RCPT behind a body (`overlap` with BDAT)."""
    smtp = Stages()
    short = ENVELOPE.removesuffix(b"DATA\r\n")
    smtp.there(short)
    assert smtp.stage == "mail"
    smtp.back(b"250 2.1.0 OK\r\n250-2.1.5 yes\r\n250 OK\r\n")
    assert smtp.stage == "go"
    smtp.there(b"BDAT 2 LAST\r\n\r\nRSET\r\n" + short)
    assert smtp.stage == "dot"
    smtp.back(b"250 2.0.0 OK\r\n")
    assert smtp.stage == "told"
    smtp.back(b"250 2.0.0 reset\r\n250 2.1.0 OK\r\n")
    assert smtp.stage == "told"
    smtp.back(b"250 2.1.5 OK\r\n")
    assert smtp.stage == "go"

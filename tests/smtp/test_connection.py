"""Connecting: each stage refused, silent, broken; TLS; AUTH; a server that says too much."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiosmtplib import SMTP
from aiosmtplib.response import SMTPResponse
from scripted_relay import (
    CLOSE,
    CONTENT,
    DEAF,
    PIPELINING,
    QUITS,
    RESET,
    Expect,
    Mails,
    Relay,
    Script,
    StartTls,
    Step,
    hello,
    letter,
    office,
    on_both_loops,
    route,
    until,
)

from streamq.smtp.access import Access
from streamq.smtp.connection import NotConnected, Offer
from streamq.smtp.handshake import connect
from streamq.smtp.letter import Action, Stage
from streamq.smtp.replies import default_replies

PEM = Path(__file__).with_name("relay_test.pem")  # signs itself, for localhost and 127.0.0.1, key included


def server_side() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    return context


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system trusts the relay's certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(PEM))


async def refused(script: Script, **more: Any) -> NotConnected:
    async with Relay(script) as relay:
        return await refused_by(relay.port, **more)


async def refused_by(port: int, **more: Any) -> NotConnected:
    way = route(port, **more)
    with pytest.raises(NotConnected) as raised:
        await connect(Access(way), 0, default_replies())
    return raised.value


STARTTLS = ["250-relay.example", "250-STARTTLS", "250 PIPELINING"]
AUTH = ["250-relay.example", "250-AUTH PLAIN LOGIN CRAM-MD5", "250 PIPELINING"]
LOGIN = {"login": "user:s%40cret@"}
TLS: dict[str, Any] = {"tls": "require", "verify": False}
BEFORE: dict[Stage, tuple[list[Step], dict[str, Any]]] = {
    Stage.GREETING: ([], {}),
    Stage.EHLO: (["220 hi", Expect("EHLO client.example")], {}),
    Stage.STARTTLS: ([*hello(*STARTTLS), Expect("STARTTLS")], TLS),
    Stage.AUTH: ([*hello(*AUTH), Expect("AUTH PLAIN")], LOGIN),
}
STAGES = list(BEFORE)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("code", ["554 ", "250-x\r\n554 ", ""])
@on_both_loops
async def test_no_control_character_gets_through(stage: Stage, code: str) -> None:
    before, settings = BEFORE[stage]
    failure = await refused([*before, f"{code}\x1b]0;title\x07 \x1b[2J\x9b2J \u202eno"], **settings)
    assert failure.said.isprintable()
    assert str(failure).isprintable()
    assert "no" in failure.said or code.startswith("250")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("reply", ["421 4.3.2 closing channel", "454 4.7.0 not now", "554 5.7.1 not you"])
@on_both_loops
async def test_a_refusal_has_its_stage_and_its_words(stage: Stage, reply: str) -> None:
    before, settings = BEFORE[stage]
    failure = await refused([*before, reply], **settings)
    assert (failure.stage, failure.code, failure.said) == (stage, int(reply[:3]), reply[4:])
    assert failure.enhanced == reply.split()[1]
    assert failure.klass == {
        Stage.STARTTLS: "tls",
        Stage.AUTH: "authentication",
    }.get(stage, {"421": "shutting_down", "454": "temporary", "554": "policy"}[reply[:3]])
    assert failure.peer.startswith("127.0.0.1[127.0.0.1]:")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("breaks", "klass"),
    [([CLOSE], "disconnected"), ([RESET], "disconnected"), (["HTTP/1.1 400 Bad Request"], "protocol")],
    ids=["close", "reset", "garbage"],
)
@on_both_loops
async def test_a_break_has_its_stage(stage: Stage, breaks: list[Step], klass: str) -> None:
    before, settings = BEFORE[stage]
    failure = await refused([*before, *breaks], **settings)
    assert (failure.stage, failure.klass, failure.code) == (stage, klass, 0)


@pytest.mark.parametrize("stage", STAGES)
@on_both_loops
async def test_silence_has_its_stage(stage: Stage) -> None:
    before, settings = BEFORE[stage]
    limit = "greeting_timeout" if stage is Stage.GREETING else "command_timeout"
    failure = await refused(before, **{limit: "0.05s"}, **settings)
    assert (failure.stage, failure.klass, failure.code) == (stage, "timeout", 0)


@on_both_loops
async def test_endless_replies_are_not_read_for_ever() -> None:
    failure = await refused(["220 hi", Expect("EHLO"), b"250-more\r\n" * 20_000, DEAF])
    assert (failure.stage, failure.klass) == (Stage.EHLO, "protocol")


@on_both_loops
async def test_nobody_listens() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        failure = await refused_by(sock.getsockname()[1])
    assert (failure.stage, failure.klass) == (Stage.CONNECT, "unreachable")
    assert "127.0.0.1" in failure.said


@on_both_loops
async def test_nobody_answers_in_time() -> None:
    with socket.socket() as sock, socket.socket() as filler:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        port = sock.getsockname()[1]
        filler.connect(("127.0.0.1", port))  # the queue of those that wait is full
        filler2 = socket.socket()
        filler2.setblocking(False)
        filler2.connect_ex(("127.0.0.1", port))
        failure = await refused_by(port, connect_timeout="0.05s")
        filler2.close()
    assert (failure.stage, failure.klass) == (Stage.CONNECT, "unreachable")


@on_both_loops
async def test_a_name_with_no_address() -> None:
    failure = await refused_by(25, host="nobody.invalid", connect_timeout="5s")
    assert (failure.stage, failure.klass) == (Stage.CONNECT, "unreachable")


@on_both_loops
async def test_helo_where_ehlo_is_not_known() -> None:
    script: Script = ["220 hi", Expect("EHLO"), "502 5.5.1 what", Expect("HELO client.example"), "250 hi", Mails()]
    async with Relay(script) as relay, office(route(relay.port)) as at:
        (report,) = await at.send(letter())
    assert report.action is Action.SENT
    assert relay.heard[0].lines[2] == "MAIL FROM:<shop@example.com>"


@on_both_loops
async def test_the_own_name_never_asks_the_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda *_: pytest.fail("asked the DNS"))
    for host, name in (("shop.example.com", "shop.example.com"), ("laptop", "[127.0.0.1]")):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        failure = await refused(["220 hi", Expect(f"EHLO {name}\r\n"), "550 5.7.1 no"], ehlo="")
        assert failure.stage is Stage.EHLO


def test_what_an_ehlo_offers() -> None:
    assert Offer.of({"size": "35882577", "8bitmime": ""}) == Offer(sizes=True, size=35882577, eight_bit=True)
    assert Offer.of({"size": "0", "pipelining": ""}) == Offer(sizes=True, pipelining=True)
    assert Offer.of({"size": "lots", "smtputf8": ""}) == Offer(sizes=True, smtputf8=True)
    assert Offer.of({"size": "9" * 5000}) == Offer(sizes=True)


# -- TLS -------------------------------------------------------------------------------------------------------


def secured() -> list[Step]:
    return [*hello(*STARTTLS), Expect("STARTTLS"), "220 go", StartTls(server_side()), Expect("EHLO"), *PIPELINING]


@pytest.mark.parametrize("tls", ["may", "require"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@on_both_loops
async def test_starttls_with_a_trusted_certificate(trusted: None, tls: str, host: str) -> None:
    script = [*secured(), Mails()]
    async with Relay(script) as relay, office(route(relay.port, tls=tls, host=host)) as at:
        reports = await at.send(letter(), letter())
        large = await at.send(letter(content=(b"x" * 70 + b"\r\n") * 30_000))
    assert {(report.action, report.tls) for report in (*reports, *large)} == {(Action.SENT, "TLSv1.3")}
    assert relay.bodies[:2] == [CONTENT] * 2
    assert relay.bodies[2] == (b"x" * 70 + b"\r\n") * 30_000


@on_both_loops
async def test_implicit_tls(trusted: None) -> None:
    way: dict[str, Any] = {"scheme": "smtps", "tls": "none"}  # the scheme decides
    async with Relay([*hello(), Mails()], context=server_side()) as relay, office(route(relay.port, **way)) as at:
        (report,) = await at.send(letter())
    assert (report.action, report.tls) == (Action.SENT, "TLSv1.3")


@pytest.mark.parametrize("tls", ["may", "require"])
@on_both_loops
async def test_a_certificate_that_nobody_trusts(tls: str) -> None:
    failure = await refused(secured(), tls=tls)
    assert (failure.stage, failure.klass) == (Stage.STARTTLS, "tls")
    assert "self-signed" in failure.said


@on_both_loops
async def test_an_implicit_tls_that_fails() -> None:
    async with Relay(hello(), context=server_side()) as relay:
        failure = await refused_by(relay.port, scheme="smtps")
        assert (failure.stage, failure.klass) == (Stage.STARTTLS, "tls")
    failure = await refused(["220 in the clear"], scheme="smtps")
    assert (failure.stage, failure.klass) == (Stage.STARTTLS, "tls")


@on_both_loops
async def test_a_certificate_is_not_asked_for_where_the_route_says_so() -> None:
    async with Relay([*secured(), Mails()]) as relay, office(route(relay.port, **TLS)) as at:
        (report,) = await at.send(letter())
    assert (report.action, report.tls) == (Action.SENT, "TLSv1.3")


@on_both_loops
async def test_no_starttls_offered() -> None:
    failure = await refused(hello(), tls="require")
    assert (failure.stage, failure.klass, failure.code) == (Stage.STARTTLS, "tls", 0)
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port, tls="may")) as at:
        (report,) = await at.send(letter())
    assert (report.action, report.tls) == (Action.SENT, "")


@on_both_loops
async def test_starttls_is_not_used_where_the_route_says_none() -> None:
    async with Relay([*hello(*STARTTLS), Mails()]) as relay, office(route(relay.port)) as at:
        (report,) = await at.send(letter())
    assert (report.action, report.tls) == (Action.SENT, "")


@pytest.mark.parametrize("extra", [b"250 injected\r\n", b"250-inj"], ids=["whole", "part"])
@on_both_loops
async def test_what_stands_in_the_clear_behind_starttls_is_not_believed(extra: bytes) -> None:
    """RFC 3207, 4.2; the injection of CVE-2011-0411."""
    script = [*hello(*STARTTLS), Expect("STARTTLS"), b"220 go\r\n" + extra, StartTls(server_side())]
    failure = await refused(script, **TLS)
    assert (failure.stage, failure.klass) == (Stage.STARTTLS, "protocol")


# -- a server that says too much -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        [b"220 hi\r\n250 early\r\n", Expect("EHLO"), *PIPELINING],
        ["220 hi", Expect("EHLO"), b"250 relay\r\n250 stray\r\n"],
        ["220 hi", Expect("EHLO"), b"250 relay\r\n25"],
    ],
    ids=["with the greeting", "after EHLO", "part of one after EHLO"],
)
@on_both_loops
async def test_a_stray_reply_is_met_before_the_first_mail(script: Script) -> None:
    failure = await refused(script)
    assert (failure.stage, failure.klass) == (Stage.EHLO, "protocol")


@on_both_loops
async def test_a_stray_reply_after_auth() -> None:
    failure = await refused([*hello(*AUTH), Expect("AUTH"), b"235 2.7.0 ok\r\n250 2.1.0 stray\r\n"], **LOGIN)
    assert (failure.stage, failure.klass) == (Stage.AUTH, "protocol")


# -- AUTH ------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_auth_plain() -> None:
    secret = base64.b64encode(b"\0user\0s@cret").decode()
    script = [*hello(*AUTH), Expect(f"AUTH PLAIN {secret}\r\n"), "235 2.7.0 ok", Mails()]
    async with Relay(script) as relay, office(route(relay.port, **LOGIN)) as at:
        (report,) = await at.send(letter())
    assert report.action is Action.SENT


@on_both_loops
async def test_auth_login_where_plain_is_only_said_to_be_there() -> None:
    script = [*hello(*AUTH), Expect("AUTH PLAIN"), "504 5.5.4 no", Expect("AUTH LOGIN"), "334 UGFzc3dvcmQ6"]
    async with (
        Relay([*script, Expect("c0BjcmV0\r\n"), "235 ok", Mails()]) as relay,
        office(route(relay.port, **LOGIN)) as at,
    ):
        (report,) = await at.send(letter())
    assert report.action is Action.SENT


@on_both_loops
async def test_a_wrong_password_is_tried_once() -> None:
    async with Relay([*hello(*AUTH), Expect("AUTH PLAIN"), "535 5.7.8 bad", *QUITS]) as relay:
        failure = await refused_by(relay.port, **LOGIN)
        assert (failure.stage, failure.klass, failure.code) == (Stage.AUTH, "authentication", 535)
    assert [line[:4] for line in relay.heard[0].lines] == ["EHLO", "AUTH"]


@on_both_loops
async def test_a_server_without_auth() -> None:
    failure = await refused(hello(), **LOGIN)
    assert (failure.stage, failure.klass) == (Stage.AUTH, "authentication")


@on_both_loops
async def test_a_password_does_not_go_to_strangers_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.smtp.handshake.Handshake._on_this_machine", lambda _: False)
    plain = ["250-relay.example", "250 AUTH PLAIN LOGIN"]
    async with Relay(hello(*plain)) as relay:
        failure = await refused_by(relay.port, tls="may", **LOGIN)
    assert (failure.stage, failure.klass) == (Stage.AUTH, "tls")
    assert [line[:4] for line in relay.heard[0].lines] == ["EHLO"]
    challenge = base64.b64encode(b"<1@relay>").decode()
    script = [*hello(*AUTH), Expect("AUTH CRAM-MD5"), f"334 {challenge}", Expect("dXNlciA"), "235 ok", Mails()]
    async with Relay(script) as relay, office(route(relay.port, tls="may", **LOGIN)) as at:
        (report,) = await at.send(letter())
    assert report.action is Action.SENT


@on_both_loops
async def test_a_connection_that_is_given_up_while_it_opens_leaves_nothing_open() -> None:
    async with Relay(["220 hi"]) as relay:
        opening = asyncio.create_task(connect(Access(route(relay.port)), 0, default_replies()))
        await until(lambda: bool(relay.heard))
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening


@on_both_loops
async def test_a_cancellation_that_aiosmtplib_forgets_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()
    ehlo = SMTP.ehlo

    async def forgets(smtp: SMTP, **more: Any) -> SMTPResponse:
        asked.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return await ehlo(smtp, **more)

    monkeypatch.setattr(SMTP, "ehlo", forgets)
    async with Relay(hello()) as relay:
        opening = asyncio.create_task(connect(Access(route(relay.port)), 0, default_replies()))
        await asked.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

"""Replies out of step, over TLS, and what counts as a connection's first mail."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from scripted_relay import (
    CLOSE,
    CONTENT,
    ENVELOPE,
    Body,
    Expect,
    Gets,
    Mails,
    Relay,
    Script,
    Step,
    hello,
    letter,
    office,
    on_both_loops,
    route,
)

from streamq.smtp.letter import Action, Letter, Scope, Stage

PEM = Path(__file__).with_name("relay_test.pem")
OKS: list[Step] = ["250 2.1.0 ok", "250 2.1.5 ok", "354 go"]
AHEAD = Gets(len("MAIL FROM:<shop@example.com>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n"))


@pytest.mark.parametrize(
    ("replies", "action"),
    [
        (["550 5.7.1 stray", "250 2.1.0 ok", "250 2.1.5 ok"], Action.PARK),
        (["250 stray", "550 5.1.8 sender", "250 2.1.5 ok"], Action.RETRY),
        (["250 2.1.0 ok", "250 stray", "250 2.1.5 ok"], Action.RETRY),
    ],
)
@on_both_loops
async def test_a_250_where_a_354_belongs_takes_the_belief_from_all(replies: list[str], action: Action) -> None:
    """The 354 is still on its way: by count alone nothing is wrong yet."""
    script: Script = [*hello(), *ENVELOPE, *replies]
    async with Relay(script, [*hello(), Mails()]) as relay, office(route(relay.port)) as at:
        (report,) = await at.send(letter())
    assert (report.action, report.klass, report.stage) == (action, "protocol", Stage.DATA)
    assert relay.heard[0].rest == b""


@on_both_loops
async def test_a_mail_that_was_abandoned_unsent_was_not_the_first() -> None:
    """Nothing was said of it, so what happens to the next is the connection's first breath."""

    async def mark(_: int, about: Letter) -> bool:
        return about.envelope_to != "no@example.net"

    ehlo = ["250-relay.example", "250-PIPELINING", "250 CHUNKING"]
    script = [*hello(*ehlo), Expect("MAIL"), CLOSE]
    async with Relay(script) as relay, office(route(relay.port, chunking=True), mark) as at:
        no, first = await at.send(letter("no@example.net", priority=1), letter(priority=2, content=b"x" * 70_000))
    assert no.action is Action.ABANDON
    assert (first.action, first.scope, first.stage) == (Action.PARK, Scope.ROUTE, Stage.MAIL)
    assert len(relay.heard) == 1


@on_both_loops
async def test_over_tls_a_250_that_came_with_the_end_counts_too() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    script: Script = [*hello(), *ENVELOPE, *OKS, Body(), AHEAD, "250 2.0.0 one", CLOSE]
    way: dict[str, Any] = {"scheme": "smtps", "verify": False, "pipelining": "overlap"}
    async with Relay(script, [*hello(), Mails()], context=context) as relay, office(route(relay.port, **way)) as at:
        first, second, third = await at.send(*(letter(priority=1) for _ in range(3)))
    assert (first.action, first.reply) == (Action.SENT, "2.0.0 one")
    assert (second.action, second.scope, second.stage) == (Action.PARK, Scope.SESSION, Stage.MAIL)
    assert third.action is Action.SENT
    assert relay.bodies == [CONTENT] * 2


@pytest.mark.parametrize("verify", [True, False])
@on_both_loops
async def test_tls_that_is_required_is_tls_that_was_verified(verify: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    script: Script = [*hello("250-relay.example", "250 REQUIRETLS"), Mails()]
    way: dict[str, Any] = {"scheme": "smtps", "verify": verify, "host": "localhost"}
    async with Relay(script, context=context) as relay, office(route(relay.port, **way)) as at:
        secret, plain = await at.send(letter(require_tls=True), letter())
    assert plain.action is Action.SENT
    mails = [line for line in relay.heard[0].lines if line.startswith("MAIL")]
    if verify:
        assert secret.action is Action.SENT
        assert mails[0] == "MAIL FROM:<shop@example.com> REQUIRETLS"
    else:
        assert (secret.action, secret.klass, secret.enhanced) == (Action.FAIL, "require_tls", "5.7.30")
        assert mails == ["MAIL FROM:<shop@example.com>"]

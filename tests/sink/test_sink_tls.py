from __future__ import annotations

import asyncio
import gc
import ssl
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import aiosmtplib
import pytest
import uvloop
from sink_client import CONTENT, dial, envelope

from streamq.errors import SettingsError
from streamq.sink import Auth, Certificate, Rule, Rules, Sink, User, self_signed
from streamq.sink.certificate import from_files
from streamq.sink.secured import Secured


@pytest.fixture(scope="module")
def shown() -> Certificate:
    return self_signed()


def trusting(shown: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=shown.pem.decode())


async def send(sink: Sink, shown: Certificate, *, implicit: bool = False, host: str = "") -> None:
    async with aiosmtplib.SMTP(
        hostname=host or sink.host,
        port=sink.port,
        use_tls=implicit,
        start_tls=not implicit,
        tls_context=trusting(shown),
    ) as client:
        await client.sendmail("a@x", ["b@x"], CONTENT % 1)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_client_that_trusts_the_certificate(shown: Certificate, implicit: bool, host: str) -> None:
    async with Sink(tls=shown, implicit_tls=implicit) as sink:
        assert sink.url.startswith("smtps:" if implicit else "smtp:")
        await send(sink, shown, implicit=implicit, host=host)
        assert sink.received[0].tls
        assert sink.received[0].content == CONTENT % 1
        assert sink.counters.handshakes == 1


@pytest.mark.parametrize("implicit", [False, True])
def test_the_same_on_uvloop(shown: Certificate, implicit: bool) -> None:
    async def scenario() -> None:
        async with Sink(tls=shown, implicit_tls=implicit) as sink:
            await send(sink, shown, implicit=implicit)
            assert sink.received[0].tls

    uvloop.run(scenario())


async def test_a_client_that_trusts_nobody(shown: Certificate) -> None:
    async with Sink(tls=shown) as sink:
        with pytest.raises((aiosmtplib.SMTPException, ssl.SSLError)):
            await aiosmtplib.send(
                b"x", sender="a@x", recipients=["b@x"], hostname=sink.host, port=sink.port, start_tls=True
            )
        await sink.wait_for(1, "closed")
        assert sink.counters.handshakes == 0


async def upgrade(client_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, shown: Certificate) -> None:
    await writer.start_tls(trusting(shown), server_hostname="localhost")


async def test_the_state_is_forgotten_and_what_is_offered_changes(shown: Certificate) -> None:
    rules = Rules(users=(User(name="shop", password="x"),), auth=Auth(required=False))
    async with Sink(tls=shown, rules=rules) as sink, dial(sink, hello=False) as client:
        await client.reply()
        await client.send(b"EHLO x\r\n")
        clear = await client.reply()
        assert await client.asked("AUTH PLAIN AHNob3AAeA==", "MAIL FROM:<a@x>", "STARTTLS x") == [
            "235 2.7.0",
            "250 2.1.0",
            "501 5.5.4",
        ]
        assert await client.ask("STARTTLS") == "220 2.0.0"
        await upgrade(client.reader, client.writer, shown)
        assert await client.asked("MAIL FROM:<a@x>", "STARTTLS") == ["503 5.5.1", "503 5.5.1"]
        await client.send(b"EHLO x\r\n")
        within = await client.reply()
        assert ("STARTTLS" in clear, "STARTTLS" in within) == (True, False)
        assert ("REQUIRETLS" in clear, "REQUIRETLS" in within) == (False, True)
        assert await client.asked("RCPT TO:<b@x>", "STARTTLS", "AUTH PLAIN AHNob3AAeA==") == [
            "503 5.5.1",
            "503 5.5.1",
            "235 2.7.0",
        ]
        await client.send(envelope("b@x").replace(b"example.com>", b"example.com> REQUIRETLS") + b".\r\n")
        assert await client.codes(4) == ["250 2.1.0", "250 2.1.5", "354", "250 2.0.0"]
        assert sink.received[0].parameters == {"REQUIRETLS": None}
        assert sink.received[0].user == "shop"


async def test_what_stands_behind_starttls_is_refused(shown: Certificate) -> None:
    async with Sink(tls=shown) as sink, dial(sink) as client:
        await client.send(b"STARTTLS\r\nMAIL FROM:<evil@x>\r\n")
        assert await client.codes(1) == ["554 5.5.0"]
        assert await client.end() == b""
        assert sink.counters.transactions == 0


async def test_not_without_a_certificate_nor_before_ehlo(shown: Certificate) -> None:
    async with Sink() as sink, dial(sink) as client:
        assert await client.ask("STARTTLS") == "502 5.5.1"
    async with Sink(tls=shown, extensions=("SIZE",)) as sink, dial(sink) as client:
        assert await client.ask("STARTTLS") == "502 5.5.1"
    with pytest.raises(SettingsError, match="implicit_tls: needs a certificate"):
        Sink(implicit_tls=True)


async def test_starttls_is_refused_as_told(shown: Certificate) -> None:
    rules = Rules((Rule(stage="starttls", reply="454 4.7.0 TLS not available", times=1),))
    async with Sink(tls=shown, rules=rules) as sink, dial(sink) as client:
        assert await client.asked("STARTTLS", "NOOP", "STARTTLS") == ["454 4.7.0", "250 2.0.0", "220 2.0.0"]


async def test_plaintext_is_injected_before_the_handshake(shown: Certificate) -> None:
    rules = Rules((Rule(stage="starttls", stray="250 2.0.0 injected"),))
    async with Sink(tls=shown, rules=rules) as sink, dial(sink) as client:
        await client.send(b"STARTTLS\r\n")
        assert await client.reader.read(1000) == b"220 2.0.0 Ready to start TLS\r\n250 2.0.0 injected\r\n"
        await upgrade(client.reader, client.writer, shown)
        assert await client.ask("EHLO x") == "250"


@pytest.mark.parametrize("rule", [Rule(stage="starttls", delay_ms=5), Rule(stage="starttls", drip_bytes=9)])
async def test_a_late_220_leads_to_the_handshake(shown: Certificate, rule: Rule) -> None:
    async with Sink(tls=shown, rules=Rules((rule,))) as sink:
        await send(sink, shown)
        assert sink.received[0].tls


async def test_hostile_within_tls(shown: Certificate) -> None:
    for action in ("eof", "rst", "unread"):
        rules = Rules((Rule(stage="dot", action=action, when="after", times=1),))
        async with Sink(tls=shown, rules=rules, implicit_tls=True) as sink:
            reader, writer = await asyncio.open_connection(
                sink.host, sink.port, ssl=trusting(shown), server_hostname="localhost"
            )
            writer.write(b"EHLO x\r\n" + envelope("b@x") + b".\r\n")
            await sink.wait_for(1, "dropped")
            writer.write(b"NOOP\r\n")
            try:
                assert b"221" not in await reader.read()
            except ConnectionResetError:
                assert action != "eof"
            await sink.wait_for(1, "closed")
            writer.transport.abort()


async def leave(shown: Certificate) -> None:
    async with Sink(tls=shown) as sink:
        async with dial(sink) as client:
            assert await client.ask("STARTTLS") == "220 2.0.0"
        await sink.wait_for(1, "closed")
        async with dial(sink) as client:
            assert await client.ask("STARTTLS") == "220 2.0.0"
            await client.send(b"MAIL FROM:<a@x>\r\n" * 9)
            await sink.wait_for(2, "closed")
        async with dial(sink) as client:
            assert await client.ask("STARTTLS") == "220 2.0.0"
            await sink.close()
        assert (sink.counters.connections, sink.counters.open) == (3, 0)  # each counted out once


async def test_a_client_that_leaves_in_the_handshake(shown: Certificate) -> None:
    await leave(shown)


def test_leaving_on_uvloop(shown: Certificate) -> None:
    uvloop.run(leave(shown))


async def test_a_client_that_is_gone_before_the_handshake_begins(
    shown: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Secured._shake_hands

    def gone_first(session: Secured) -> None:
        session._transport.abort()
        begin(session)

    monkeypatch.setattr(Secured, "_shake_hands", gone_first)
    async with Sink(tls=shown) as sink:
        tasks = asyncio.all_tasks()
        async with dial(sink) as client:
            assert await client.ask("STARTTLS") == "220 2.0.0"
        await sink.wait_for(1, "closed")
        if left := asyncio.all_tasks() - tasks:
            _, left = await asyncio.wait(left, timeout=10)
        assert not left  # none waits for the handshake's whole time


@pytest.mark.parametrize("first", ["client", "server", "abort"])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_200_connections_leave_nothing(
    shown: Certificate, loop: Callable[[], asyncio.AbstractEventLoop], first: str
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_come_and_go(shown, first))


async def _come_and_go(shown: Certificate, first: str) -> None:
    async with Sink(tls=shown) as sink:
        left = []
        for most in (20, 220):  # once to warm up
            while sink.counters.connections < most:
                async with dial(sink) as client:
                    assert await client.ask("STARTTLS") == "220 2.0.0"
                    await upgrade(client.reader, client.writer, shown)
                    assert await client.ask("EHLO x") == "250"
                    if first == "server":
                        assert await client.ask("QUIT") == "221 2.0.0"
                        await client.end()
                    elif first == "abort":
                        client.writer.transport.abort()
            await sink.wait_for(most, "closed")
            gc.collect()
            left.append(Counter(name for each in gc.get_objects() if _is_of_tls(name := type(each).__name__)))
        assert left[1] == left[0]


def _is_of_tls(name: str) -> bool:
    return any(part in name for part in ("Transport", "SSLProtocol", "SSLObject", "Session"))


def test_files(tmp_path: Path, shown: Certificate) -> None:
    with pytest.raises(SettingsError, match=r"cert: .*none\.pem"):
        from_files(tmp_path / "none.pem")
    (tmp_path / "half.pem").write_bytes(shown.pem)
    with pytest.raises(SettingsError, match=r"cert: not a certificate and its key.*half\.pem"):
        from_files(tmp_path / "half.pem")


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(SettingsError, match=r"streamq\[tls\]"):
        self_signed()

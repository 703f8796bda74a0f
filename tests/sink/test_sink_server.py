from __future__ import annotations

import asyncio
import smtplib
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import pytest
from sink_client import CONTENT, dial, envelope

from streamq.errors import SettingsError
from streamq.sink import Received, Rule, Rules, Sink


def letter(subject: str = "Grüße", text: str = ".one\n..two\n.\nthree\n") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@example.com", "bob@example.net", subject
    message["Message-ID"] = "<letter@example.com>"
    message.set_content(text, cte="8bit")
    return message


async def test_aiosmtplib_agrees() -> None:
    async with Sink() as sink:
        message = letter()
        errors, reply = await aiosmtplib.send(message, hostname=sink.host, port=sink.port, start_tls=False)
        assert (errors, reply) == ({}, "2.0.0 Ok: queued as 1")
        (mail,) = sink.received
        assert mail.content == message.as_bytes(policy=policy.SMTP)
        assert mail.eight_bit
        found = message_from_bytes(mail.content, policy=policy.default)
        assert found.get_content().splitlines() == [".one", "..two", ".", "three"]
        assert (mail.envelope_from, mail.envelope_to) == ("shop@example.com", ("bob@example.net",))
        assert mail.message_id == b"<letter@example.com>"


async def test_smtplib_agrees() -> None:
    async with Sink(rules=Rules((Rule(match="gone@*", reply="550 5.1.1 gone"),))) as sink:

        def send() -> dict[str, tuple[int, bytes]]:
            with smtplib.SMTP(sink.host, sink.port, timeout=30) as client:
                client.ehlo()
                assert set(client.esmtp_features) == {
                    "pipelining",
                    "8bitmime",
                    "smtputf8",
                    "size",
                    "enhancedstatuscodes",
                    "chunking",
                    "dsn",
                }
                return client.sendmail("a@x", ["b@x", "gone@x"], b"Subject: x\r\n\r\n.\r\n..\r\n")

        assert await asyncio.to_thread(send) == {"gone@x": (550, b"5.1.1 gone")}
        assert [mail.content for mail in sink.received] == [b"Subject: x\r\n\r\n.\r\n..\r\n"]
        assert sink.received[0].envelope_to == ("b@x",)


async def test_wait_for_returns_at_that_mail_and_at_once_after_it() -> None:
    async with Sink() as sink, dial(sink) as client:
        waiters = [asyncio.create_task(sink.wait_for(count)) for count in (1, 2, 3)]
        await client.mail()
        await waiters[0]
        await client.mail()
        await waiters[1]
        await sink.wait_for(2)
        assert not waiters[2].done()
        waiters[2].cancel()
        await asyncio.wait(waiters)
        assert waiters[2].cancelled()
        await client.mail()
        await sink.wait_for(3)


async def test_who_waits_when_the_sink_ends_hears_of_it() -> None:
    sink = Sink()
    await sink.start()
    waiter = asyncio.create_task(sink.wait_for(1))
    await asyncio.sleep(0)
    await sink.close()
    with pytest.raises(ConnectionAbortedError):
        await waiter
    await sink.close()


async def test_the_last_mails_are_kept_and_all_are_counted() -> None:
    async with Sink(keep=3) as sink, dial(sink) as client:
        for number in range(10):
            assert await client.mail(f"{number % 5}@x", CONTENT % (number % 4)) == "250 2.0.0"
        assert [mail.message_id for mail in sink.received] == [b"<%d@example.com>" % n for n in (3, 0, 1)]
        assert sink.ledger.recipients == {f"{number}@x": 2 for number in range(5)}
        assert sink.ledger.message_ids == {b"<%d@example.com>" % n: 3 - (n > 1) for n in range(4)}
        assert sink.counters.accepted == 10
        assert sink.counters.content_bytes == 10 * len(CONTENT % 1)
        assert sink.counters.commands == 1 + 3 * 10


async def test_keep_0_keeps_nothing_and_on_mail_still_sees_all() -> None:
    seen: list[Received] = []
    async with Sink(keep=0, on_mail=seen.append) as sink, dial(sink) as client:
        await client.mail("a@x")
        await client.mail("b@x")
        assert len(sink.received) == 0
        assert [mail.envelope_to for mail in seen] == [("a@x",), ("b@x",)]
        assert [mail.content for mail in seen] == [CONTENT % 1] * 2
        assert seen[0].monotonic_ns <= seen[1].mail_ns <= seen[1].monotonic_ns


async def test_a_mail_to_many_is_one_mail() -> None:
    async with Sink() as sink, dial(sink) as client:
        await client.send(envelope("a@x", "b@x", "a@x") + CONTENT % 1 + b".\r\n")
        await sink.wait_for(1)
        assert sink.received[0].envelope_to == ("a@x", "b@x", "a@x")
        assert sink.ledger.recipients == {"a@x": 2, "b@x": 1}
        assert sink.ledger.message_ids == {b"<1@example.com>": 1}
        assert (sink.counters.accepted, sink.counters.recipients) == (1, 3)


async def test_many_connections_at_once() -> None:
    async with Sink(keep=0) as sink:
        connected = asyncio.Barrier(100)

        async def one(number: int) -> None:
            async with dial(sink) as client:
                await connected.wait()
                await client.send(b"".join(envelope(f"{number}@x") + b"Hi\r\n.\r\n" for _ in range(5)))
                assert (await client.codes(20))[3::4] == ["250 2.0.0"] * 5

        await asyncio.gather(*(one(number) for number in range(100)))
        await sink.wait_until(lambda: sink.counters.open == 0)
        assert sink.ledger.recipients == {f"{number}@x": 5 for number in range(100)}
        assert (sink.counters.connections, sink.counters.most_open) == (100, 100)
        assert sink.ledger.without_id == 500


async def test_the_maildir_gets_each_mail_byte_for_byte(tmp_path: Path) -> None:
    content = b"Subject: \xff\r\n\r\n.\r\n..\r\nbare\nlf\r\n"
    async with Sink(maildir=tmp_path) as sink, dial(sink) as client:
        assert await client.mail(content=b"Subject: \xff\r\n\r\n..\r\n...\r\nbare\nlf\r\n") == "250 2.0.0"
        (path,) = (tmp_path / "new").iterdir()
        assert path.read_bytes() == content == sink.received[0].content
        (tmp_path / "new").rename(tmp_path / "away")
        assert await client.mail() == "452 4.3.1"
        assert sink.counters.accepted == len(sink.received) == sum(sink.ledger.recipients.values()) == 1
        sink.follow(Rules((Rule(stage="dot", reply="250 2.0.0 kept", times=1),)))
        assert await client.mail() == "452 4.3.1"
        (tmp_path / "away").rename(tmp_path / "new")
        assert await client.mail() == "250 2.0.0"


async def test_the_journal_has_a_mail_before_its_250(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with Sink(journal=journal) as sink, dial(sink) as client:
        for number in range(3):
            await client.send(envelope(f"{number}@x", "b@x") + CONTENT % number + b".\r\n")
            assert (await client.codes(5))[4] == "250 2.0.0"
            lines = [line.split(" ", 2) for line in journal.read_text().splitlines()]
            assert [line[1:] for line in lines[-2:]] == [
                [f"{number}@x", f"<{number}@example.com>"],
                ["b@x", f"<{number}@example.com>"],
            ]
            assert len(lines) == 2 * (number + 1)
            assert {int(line[0]) for line in lines[-2:]} == {sink.received[number].at_ns}


async def test_without_its_journal_it_acknowledges_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    async with Sink(journal=tmp_path / "journal") as sink, dial(sink) as client:
        with monkeypatch.context() as patched:
            patched.setattr("os.write", full)
            await client.send(envelope("b@x") + b"Hello\r\n.\r\n")
            await sink.wait_until(lambda: sink.failed is not None)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.codes(5)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            async with dial(sink):
                pass


async def test_the_rules_can_change() -> None:
    async with Sink() as sink, dial(sink) as client:
        assert await client.mail() == "250 2.0.0"
        sink.follow(Rules((Rule(stage="mail", reply="451 4.7.1 later", times=1),)))
        assert await client.mail() == "451 4.7.1"
        assert await client.mail() == "250 2.0.0"


async def test_it_says_421_at_the_end_and_comes_back_on_its_port() -> None:
    sink = Sink()
    await sink.start()
    port = sink.port
    assert sink.url == f"smtp://127.0.0.1:{port}"
    with pytest.raises(RuntimeError):
        await sink.start()
    async with dial(sink) as idle, dial(sink) as busy:
        await busy.send(envelope("b@x"))
        await busy.codes(3)
        await sink.close()
        assert (await idle.end()).startswith(b"421 4.3.2 ")
        assert await busy.end() == b""
    assert (sink.counters.open, sink.counters.cut) == (0, 1)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(sink.host, port)
    async with sink, dial(sink) as client:
        assert sink.port == port
        assert await client.mail() == "250 2.0.0"


async def test_its_end_waits_for_no_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.sink.server.GOODBYE", 0.01)
    sink = Sink()
    await sink.start()
    async with dial(sink) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.writer.write(b"HELP\r\n" * 2_000_000)
        (session,) = sink._reception.sessions
        await sink.wait_until(lambda: session._blocked)
        await sink.close()
        assert sink.counters.open == 0
        client.writer.transport.abort()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com", ""])
def test_only_loopback_unless_allowed(host: str) -> None:
    with pytest.raises(SettingsError, match=f"host: .*'{host}'"):
        Sink(host=host)
    Sink(host=host, allow_remote=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost"])
async def test_loopback_has_several_names(host: str) -> None:
    async with Sink(host=host) as sink, dial(sink) as client:
        assert sink.url.startswith("smtp://127.")
        assert await client.mail() == "250 2.0.0"


def test_numbers_out_of_bounds_are_named() -> None:
    with pytest.raises(SettingsError, match=r"port: .*70000"):
        Sink(port=70_000)
    with pytest.raises(SettingsError, match=r"keep: .*-1"):
        Sink(keep=-1)
    with pytest.raises(SettingsError, match=r"max_size: .*-1"):
        Sink(max_size=-1)
    with pytest.raises(SettingsError, match=r"extensions: .*'VRFY'"):
        Sink(extensions=("VRFY",))


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async with Sink() as sink:
        with pytest.raises(OSError, match="in use"):
            await Sink(port=sink.port, journal=tmp_path / "journal").start()

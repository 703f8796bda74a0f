from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from sink_client import CONTENT, Client, dial, envelope

from streamq.sink import Rule, Rules, Sink
from streamq.sink.hostile import reset
from streamq.sink.rules import Action, Garbage, Stage

CONVERSATION = b"EHLO c.example\r\n" + envelope("b@x") + b"Hello\r\n.\r\n" + b"RSET\r\nNOOP\r\nQUIT\r\n"
REPLIES: dict[Stage, int] = {"greeting": 0, "ehlo": 1, "mail": 2, "rcpt": 3, "data": 4, "dot": 5, "rset": 6, "quit": 8}


def ruled(*rules: Rule) -> Sink:
    return Sink(rules=Rules(rules))


@asynccontextmanager
async def talk(sink: Sink, data: bytes = CONVERSATION) -> AsyncIterator[Client]:
    """All of a conversation in one write; what comes back is read by the test."""
    async with sink, dial(sink, hello=False) as client:
        await client.send(data)
        yield client


async def heard(client: Client) -> tuple[list[str], bool]:
    """The replies' codes until the connection ends, and whether it ended with RST."""
    found = b""
    try:
        while data := await client.reader.read(65_536):
            found += data
    except ConnectionResetError:
        return [], True  # the reader gives nothing of what came before
    return [line[:3].decode() for line in found.split(b"\r\n") if line[3:4] == b" "], False


class Packets(asyncio.Protocol):
    """A client that notes what each read brought."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.packets.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc)


@pytest.mark.parametrize("stage", REPLIES)
@pytest.mark.parametrize("when", ["instead", "after"])
async def test_eof_at_each_stage(stage: Stage, when: str) -> None:
    rule = Rule(stage=stage, action="eof", when=when)  # type: ignore[arg-type]
    async with talk(sink := ruled(rule)) as client:
        codes, was_reset = await heard(client)
        assert (len(codes), was_reset) == (REPLIES[stage] + (when == "after"), False)
        assert sink.counters.drops == {f"{stage} eof": 1}
        client.writer.close()
        await sink.wait_for(1, "closed")
        assert sink.counters.accepted == (REPLIES[stage] >= REPLIES["dot"])


@pytest.mark.parametrize("stage", REPLIES)
@pytest.mark.parametrize("when", ["instead", "after"])
async def test_rst_at_each_stage(stage: Stage, when: str) -> None:
    rule = Rule(stage=stage, action="rst", when=when)  # type: ignore[arg-type]
    async with ruled(rule) as sink:
        transport, client = await asyncio.get_running_loop().create_connection(Packets, sink.host, sink.port)
        transport.write(CONVERSATION)
        assert isinstance(await client.ended, ConnectionResetError)
        await sink.wait_for(1, "closed")
        assert sink.counters.drops == {f"{stage} rst": 1}
        assert sum(sink.counters.replies.values()) == REPLIES[stage] + (when == "after")
        assert sink.counters.accepted == (REPLIES[stage] >= REPLIES["dot"])


@pytest.mark.parametrize("accept", [True, False])
async def test_a_drop_behind_the_dot_with_and_without_the_mail(accept: bool) -> None:
    rule = Rule(stage="dot", action="eof", accept=accept, times=1)
    async with ruled(rule) as sink:
        async with dial(sink) as client:
            await client.send(envelope("b@x") + CONTENT % 1 + b".\r\n")
            assert await client.codes(3) == ["250 2.1.0", "250 2.1.5", "354"]
            assert await client.end() == b""
        async with dial(sink) as client:
            assert await client.mail("b@x") == "250 2.0.0"
        assert sink.ledger.message_ids == {b"<1@example.com>": 1 + accept}


async def test_the_mail_was_kept_and_the_reply_says_451() -> None:
    async with ruled(Rule(stage="dot", reply="451", accept=True)) as sink, dial(sink) as client:
        assert await client.mail() == "451 4.3.0"
        assert sink.counters.accepted == 1


async def test_the_mail_was_thrown_away_and_the_reply_says_250() -> None:
    async with ruled(Rule(stage="dot", accept=False)) as sink, dial(sink) as client:
        assert await client.mail() == "250 2.0.0"
        assert sink.counters.accepted == 0
        assert sink.counters.replies["dot 250"] == 1


@pytest.mark.parametrize("action", ["eof", "rst"])
async def test_a_drop_in_the_middle_of_the_body(action: Action) -> None:
    async with ruled(Rule(stage="body", after_bytes=10, action=action)) as sink, dial(sink) as client:
        await client.send(envelope("b@x") + b"123456789")
        assert await client.codes(3) == ["250 2.1.0", "250 2.1.5", "354"]
        assert sink.counters.dropped == 0
        await client.send(b"0more\r\n.\r\n")
        await sink.wait_for(1, "dropped")
        if action == "eof":
            assert await client.end() == b""
        else:
            with pytest.raises(ConnectionResetError):
                await client.end()
        assert (sink.counters.accepted, sink.counters.drops) == (0, {f"body {action}": 1})


async def test_a_body_that_is_shorter_springs_no_trap() -> None:
    rule = Rule(stage="body", after_bytes=100, reply="421 4.4.2 slow", match="b@x")
    async with ruled(rule) as sink, dial(sink) as client:
        assert await client.mail("b@x", b"x" * 90 + b"\r\n") == "250 2.0.0"
        assert await client.mail("c@x", b"x" * 100 + b"\r\n") == "250 2.0.0"
        await client.send(envelope("b@x") + b"x" * 100)
        assert await client.codes(4) == ["250 2.1.0", "250 2.1.5", "354", "421 4.4.2"]
        assert await client.end() == b""
        assert sink.counters.accepted == 2


async def test_354_although_mail_was_refused() -> None:
    rules = (Rule(stage="mail", reply="451 4.7.1 no"), Rule(stage="data", accept=True))
    async with ruled(*rules) as sink, dial(sink) as client:
        await client.send(envelope("b@x"))
        assert await client.codes(3) == ["451 4.7.1", "503 5.5.1", "354"]
        assert await client.ask(".") == "554 5.5.1"
        assert sink.counters.orphans == 0
        await client.send(envelope("b@x"))
        assert await client.codes(3) == ["451 4.7.1", "503 5.5.1", "354"]
        assert await client.ask("Hello\r\n.") == "554 5.5.1"
        assert sink.counters.orphans == 1


async def test_354_although_rcpt_was_refused_for_whom_the_rule_names() -> None:
    rules = (Rule(reply="550"), Rule(stage="data", match="b@x", accept=True))
    async with ruled(*rules) as sink, dial(sink) as client:
        await client.send(envelope("b@x"))
        assert await client.codes(3) == ["250 2.1.0", "550 5.1.1", "354"]
        assert await client.ask(".") == "554 5.5.1"
        await client.send(envelope("c@x"))
        assert await client.codes(3) == ["250 2.1.0", "550 5.1.1", "554 5.5.1"]
        assert sink.counters.accepted == 0


async def test_mail_is_refused_and_the_rest_answered_as_if_it_were_not() -> None:
    async with ruled(Rule(stage="mail", reply="550 5.7.1 no", accept=True)) as sink, dial(sink) as client:
        await client.send(envelope("b@x"))
        assert await client.codes(3) == ["550 5.7.1", "250 2.1.5", "354"]
        assert await client.ask("Hello\r\n.") == "250 2.0.0"
        assert sink.counters.accepted == 1  # a client that reads its replies would have sent a dot alone


@pytest.mark.parametrize(("stage", "number"), [("mail", 1), ("rcpt", 2), ("data", 3)])
async def test_421_as_one_of_a_pipelined_three(stage: Stage, number: int) -> None:
    async with ruled(Rule(stage=stage, reply="421")) as sink, dial(sink) as client:
        await client.send(envelope("b@x"))
        codes, was_reset = await heard(client)
        assert (codes, was_reset) == ([*["250", "250"][: number - 1], "421"], False)


async def test_250_to_the_dot_and_an_unasked_421() -> None:
    async with ruled(Rule(stage="dot", stray="421 4.3.2 bye")) as sink, dial(sink) as client:
        assert await client.mail() == "250 2.0.0"
        assert await client.codes(1) == ["421 4.3.2"]
        assert await client.end() == b""
        assert sink.counters.accepted == 1


async def test_a_stray_reply_comes_in_the_same_packet_and_the_session_goes_on() -> None:
    async with ruled(Rule(stage="mail", stray="250 2.0.0 stray", times=1)) as sink, dial(sink) as client:
        await client.send(b"MAIL FROM:<a@x>\r\n")
        assert await client.reader.read(1000) == b"250 2.1.0 Ok\r\n250 2.0.0 stray\r\n"
        assert await client.ask("RCPT TO:<b@x>") == "250 2.1.5"
        assert sink.counters.replies["mail 250"] == 1


async def test_drips_are_packets_of_their_own() -> None:
    rules = (
        Rule(stage="mail", drip_bytes=1),
        Rule(stage="rcpt", drip_bytes=5, drip_ms=1, stray="250 x"),
        Rule(stage="*", drip_bytes=100),
    )
    async with ruled(*rules) as sink:
        transport, client = await asyncio.get_running_loop().create_connection(Packets, sink.host, sink.port)
        transport.write(CONVERSATION)
        await client.ended
        found = [packet.decode() for packet in client.packets]
        text = "".join(found)
        at = found.index("2", 2)
        assert "".join(found[at : at + 14]) == "250 2.1.0 Ok\r\n"  # 14 packets of a byte
        assert found[at + 14 :][:4] == ["250 2", ".1.5 ", "Ok\r\n", "250 x"]
        assert text.endswith("221 2.0.0 Bye\r\n")
        assert len(found) > 14 + 4 + 4  # the others came one by one, though two of them may be read at once
        assert [line[:3] for line in text.splitlines() if line[3:4] == " "] == [
            *("220", "250", "250", "250", "250", "354", "250", "250", "250", "221")
        ]


async def test_every_reply_late() -> None:
    async with ruled(Rule(stage="*", delay_ms=20)) as sink:
        started = asyncio.get_running_loop().time()
        async with dial(sink) as client:
            assert await client.mail() == "250 2.0.0"
            assert await client.asked("RSET", "NOOP", "QUIT") == ["250 2.0.0", "250 2.0.0", "221 2.0.0"]
        assert asyncio.get_running_loop().time() - started >= 9 * 0.019


@pytest.mark.parametrize(
    ("garbage", "first"),
    [("text", b"Good"), ("binary", bytes(range(128, 132))), ("nul", b"250\0")],
)
async def test_garbage_instead_of_a_reply(garbage: Garbage, first: bytes) -> None:
    async with ruled(Rule(stage="rcpt", garbage=garbage)) as sink, dial(sink) as client:
        assert await client.ask("MAIL FROM:<a@x>") == "250 2.1.0"
        await client.send(b"RCPT TO:<b@x>\r\n")
        line = await client.reader.readline()
        assert line.startswith(first)
        assert line.endswith(b"\r\n")
        assert await client.ask("DATA") == "354"
        assert "rcpt 250" not in sink.counters.replies


@pytest.mark.parametrize("garbage", ["endless_line", "endless_reply"])
async def test_endless_garbage_ends_at_its_bound(garbage: Garbage) -> None:
    async with ruled(Rule(stage="ehlo", garbage=garbage, garbage_bytes=700_001)) as sink:
        async with dial(sink, hello=False) as client:
            await client.reply()
            await client.send(b"EHLO x\r\n")
            data = await client.end()
        assert len(data) == 700_001 + (4 if garbage == "endless_line" else 0)
        assert data[:4] == (b"250 " if garbage == "endless_line" else b"250-")
        assert (b"\r\n" in data, b"\n250 " in data) == (garbage == "endless_reply", False)
        assert sink.counters.drops == {"ehlo eof": 1}


async def test_endless_garbage_waits_for_the_client_to_read() -> None:
    rule = Rule(stage="ehlo", garbage="endless_reply", garbage_bytes=2**31)
    async with ruled(rule) as sink, dial(sink, hello=False) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(b"EHLO x\r\n")
        (session,) = sink._reception.sessions
        await sink.wait_until(lambda: sink.counters.commands == 1)
        while not session._between:  # noqa: ASYNC110 (it writes until the kernel takes no more: nothing tells)
            await asyncio.sleep(0)
        assert session._transport.get_write_buffer_size() < 1_000_000
        client.writer.transport.abort()
        await sink.wait_for(1, "closed")


@pytest.mark.parametrize("stage", ["greeting", "mail", "dot"])
async def test_silence_is_read_to_its_end(stage: Stage) -> None:
    async with ruled(Rule(stage=stage, action="silent")) as sink:
        async with dial(sink, hello=False) as client:
            await client.send(CONVERSATION + b"x" * 5_000_000)
            await sink.wait_for(1, "dropped")
            await client.codes(REPLIES[stage])
        await sink.wait_for(1, "closed")
        assert sink.counters.drops == {f"{stage} silent": 1}
        assert sink.counters.replies.get("quit 221", 0) == 0


async def stall(sink: Sink) -> None:
    async with sink:
        reader, writer = await asyncio.open_connection(sink.host, sink.port)
        assert (await reader.readline()).startswith(b"220")
        writer.write(b"EHLO x\r\n" + envelope("b@x"))
        writer.write(b"x" * 20_000_000)
        await sink.wait_for(1, "dropped")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.05)  # the kernel takes no more: nobody reads
        reset(writer.transport)  # type: ignore[arg-type]
        await sink.wait_for(1, "closed")
        assert sink.counters.accepted == 0


@pytest.mark.parametrize(
    "rule", [Rule(stage="mail", action="stall"), Rule(stage="body", after_bytes=9, action="stall")]
)
async def test_a_stalled_server_reads_no_more_and_sees_the_client_leave(rule: Rule) -> None:
    await stall(ruled(rule))


def test_the_same_on_uvloop() -> None:
    uvloop.run(stall(ruled(Rule(stage="body", after_bytes=1000, action="stall"))))


async def test_a_connection_is_closed_after_its_mails_politely() -> None:
    async with ruled(Rule(stage="mail", from_mail=3, reply="421 4.7.0 too many messages")) as sink:
        for _ in range(2):
            async with dial(sink) as client:
                assert [await client.mail() for _ in range(3)] == ["250 2.0.0", "250 2.0.0", "421 4.7.0"]
                assert await client.end() == b""
        assert sink.counters.accepted == 4


async def test_a_connection_is_closed_after_its_mails_by_eof() -> None:
    async with ruled(Rule(stage="dot", from_mail=2, action="eof", when="after")) as sink, dial(sink) as client:
        assert [await client.mail() for _ in range(2)] == ["250 2.0.0", "250 2.0.0"]
        assert await client.end() == b""
        assert sink.counters.accepted == 2


@pytest.mark.parametrize("overlap", [True, False])
async def test_what_comes_behind_the_last_mail_is_left_unread(overlap: bool) -> None:
    async with ruled(Rule(stage="dot", from_mail=2, action="unread", when="after")) as sink, dial(sink) as client:
        mail = envelope("b@x") + CONTENT % 1 + b".\r\n"
        await client.send(mail * (3 if overlap else 2))
        await sink.wait_for(1, "dropped")
        if not overlap:
            assert (await client.codes(8))[7] == "250 2.0.0"
            assert sink.counters.open == 1
            await client.send(mail)
        with pytest.raises(ConnectionResetError):
            await client.end()
        await sink.wait_for(1, "closed")
        assert (sink.counters.accepted, sink.counters.transactions) == (2, 2)


async def test_after_so_many_accepted_mails_in_all() -> None:
    async with ruled(Rule(stage="mail", after_accepted=3, reply="550 5.4.5 Daily quota")) as sink:
        codes = []
        for _ in range(2):
            async with dial(sink) as client:
                codes += [await client.mail() for _ in range(2)]
        assert codes == ["250 2.0.0"] * 3 + ["550 5.4.5"]
        sink.follow(Rules())
        async with dial(sink) as client:
            assert await client.mail() == "250 2.0.0"


async def test_rules_change_under_an_open_connection() -> None:
    async with Sink() as sink, dial(sink) as client:
        assert await client.mail() == "250 2.0.0"
        sink.follow(Rules((Rule(stage="mail", reply="450 4.7.1 now"),)))
        assert await client.mail() == "450 4.7.1"
        sink.follow(Rules())
        assert await client.mail() == "250 2.0.0"


async def test_the_sink_closes_over_all_kinds_of_hostile_connections() -> None:
    actions: tuple[Action, ...] = ("eof", "unread", "silent", "stall")
    rules = (
        *(Rule(stage="mail", match=f"{action}@x", action=action) for action in actions),
        Rule(stage="mail", match="late@x", delay_ms=3_600_000),
        Rule(stage="mail", match="endless@x", garbage="endless_reply", garbage_bytes=2**31),
    )
    async with ruled(*rules) as sink:
        writers = []
        for name in (*actions, "late", "endless"):
            reader, writer = await asyncio.open_connection(sink.host, sink.port)
            writers.append(writer)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(f"EHLO x\r\nMAIL FROM:<{name}@x>\r\n".encode())
            assert not reader.at_eof()
        await sink.wait_for(4, "dropped")
        await sink.wait_until(lambda: sink.counters.commands == 12)
    assert sink.counters.open == 0
    for writer in writers:
        writer.transport.abort()


async def test_replies_are_counted_by_stage_and_code() -> None:
    async with ruled(Rule(match="gone@*", reply="550")) as sink, dial(sink) as client:
        await client.send(envelope("gone@x", "b@x") + b".\r\nQUIT\r\n")
        await client.end()
        assert sink.counters.replies == {
            "greeting 220": 1,
            "ehlo 250": 1,
            "mail 250": 1,
            "rcpt 250": 1,
            "rcpt 550": 1,
            "data 354": 1,
            "dot 250": 1,
            "quit 221": 1,
        }

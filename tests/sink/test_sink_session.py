from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest
import uvloop
from sink_client import CONTENT, dial, envelope

from streamq.sink import Mailbox, Rule, Rules, Sink
from streamq.sink.ledger import Ledger
from streamq.sink.reception import EXTENSIONS, Reception
from streamq.sink.rules import Stage
from streamq.sink.session import Session


def ruled(*rules: Rule) -> Sink:
    return Sink(rules=Rules(rules))


async def test_what_is_offered() -> None:
    async with Sink(max_size=5000) as sink, dial(sink, hello=False) as client:
        assert (await client.reply()).startswith("220 ")
        await client.send(b"EHLO client.example\r\n")
        lines = (await client.reply()).split("\r\n")
        assert [line[4:] for line in lines[1:]] == [
            "PIPELINING",
            "8BITMIME",
            "SMTPUTF8",
            "SIZE 5000",
            "ENHANCEDSTATUSCODES",
            "CHUNKING",
            "DSN",
        ]
        assert [line[:4] for line in lines] == ["250-"] * 7 + ["250 "]
        await client.send(b"HELO client.example\r\n")
        assert "\r\n" not in await client.reply()


async def test_what_is_not_offered_is_not_taken() -> None:
    async with Sink(extensions=("PIPELINING", "SIZE")) as sink, dial(sink) as client:
        assert await client.asked(
            "MAIL FROM:<a@x> BODY=8BITMIME",
            "MAIL FROM:<a@x> SMTPUTF8",
            "MAIL FROM:<a@x> AUTH=<>",
            "MAIL FROM:<a@x> SIZE=10",
            "RCPT TO:<b@x> NOTIFY=NEVER",
            "HELO client.example",
            "MAIL FROM:<a@x> SIZE=10",
        ) == ["555 5.5.4"] * 3 + ["250 2.1.0", "555 5.5.4", "250", "555 5.5.4"]


async def test_a_transaction_line_by_line() -> None:
    async with Sink() as sink, dial(sink) as client:
        assert await client.asked(
            "mail from:<a@x> body=8bitmime size=100 smtputf8",
            "rcpt to:<jörg@y>",
            "rcpt to:<c@y>  ",
            "data \t",
        ) == ["250 2.1.0", "250 2.1.5", "250 2.1.5", "354"]
        assert await client.ask(b"Subject: \xff\r\n\r\n..x\r\n.") == "250 2.0.0"
        assert await client.ask("QUIT") == "221 2.0.0"
        assert await client.end() == b""
        (mail,) = sink.received
        assert mail.envelope_from == "a@x"
        assert mail.envelope_to == ("jörg@y", "c@y")
        assert mail.content == b"Subject: \xff\r\n\r\n.x\r\n"
        assert mail.helo == "client.example"
        assert mail.peer.startswith("127.0.0.1:")
        assert (mail.eight_bit, mail.smtputf8) == (True, True)
        assert mail.mail_ns <= mail.monotonic_ns


SEQUENCE = [
    (["MAIL FROM:<a@x>"], "503 5.5.1"),  # before EHLO
    (["EHLO x", "RCPT TO:<b@x>"], "503 5.5.1"),
    (["EHLO x", "DATA"], "503 5.5.1"),
    (["EHLO x", "MAIL FROM:<a@x>", "MAIL FROM:<a@x>"], "503 5.5.1"),
    (["EHLO x", "MAIL FROM:<a@x>", "DATA"], "503 5.5.1"),
    (["EHLO x", "MAIL FROM:<a@x>", "RCPT TO:<>", "DATA"], "554 5.5.1"),
    (["EHLO x", "MAIL FROM:<a@x>", "RCPT TO:<b@x>", "DATA now"], "501 5.5.4"),
    (["EHLO x", "MAIL FROM:<a@x>", "RSET", "RCPT TO:<b@x>"], "503 5.5.1"),
    (["EHLO x", "MAIL FROM:<a@x>", "EHLO y", "RCPT TO:<b@x>"], "503 5.5.1"),
    (["EHLO x", "MAIL FROM:<a@x>", "EHLO", "RCPT TO:<b@x>"], "250 2.1.5"),  # a refused EHLO changes nothing
    (["EHLO x", "MAIL FROM:<a@x>", "NOOP y", "VRFY b", "HELP", "RCPT TO:<b@x>"], "250 2.1.5"),
    (["EHLO"], "501 5.5.4"),
    (["HELO [127.0.0.1]"], "501 5.5.4"),
    (["EHLO [127.0.0.1]"], "250"),
    (["RSET"], "250 2.0.0"),
    (["RSET x"], "501 5.5.4"),
    (["QUIT x"], "501 5.5.4"),
    (["NOOP"], "250 2.0.0"),
    (["VRFY"], "501 5.5.4"),
    (["VRFY bob"], "252 2.1.5"),
    (["HELP"], "214 2.0.0"),
    (["EXPN list"], "502 5.5.1"),
    (["STARTTLS"], "502 5.5.1"),
    (["BDAT 5 LAST"], "502 5.5.1"),
    (["MAILFROM:<a@x>"], "500 5.5.1"),
    (["FOO"], "500 5.5.1"),
    ([""], "500 5.5.1"),
    (["\x00\xff"], "500 5.5.1"),
    (["EHLO x", "MAIL FROM: <a@x>"], "501 5.1.7"),
    (["EHLO x", "MAIL <a@x>"], "501 5.5.2"),
    (["EHLO x", "MAIL FROM:<jörg@x>"], "553 5.6.7"),
    (["EHLO x", "MAIL FROM:<a@x>", "RCPT TO:<jörg@x>"], "553 5.6.7"),
    (["EHLO x", "MAIL FROM:<a@x>", "RCPT TO:b@x"], "501 5.1.3"),
    (["EHLO x", "MAIL FROM:<a@x> SIZE=26214401"], "552 5.3.4"),
    (["EHLO x", "NOOP\nQUIT"], "500 5.5.1"),  # a bare LF ends no line
    (["EHLO x", "MAIL FROM:<a@x>\nRCPT TO:<b@x>"], "501 5.5.4"),
]


@pytest.mark.parametrize(("lines", "last"), SEQUENCE, ids=["|".join(lines) for lines, _ in SEQUENCE])
async def test_sequence_and_syntax(lines: list[str], last: str) -> None:
    async with Sink() as sink, dial(sink, hello=False) as client:
        assert await client.codes(1) == ["220"]
        assert (await client.asked(*lines))[-1] == last
        assert await client.ask("QUIT") == "221 2.0.0"


async def test_lines_are_limited_and_the_session_goes_on() -> None:
    async with Sink() as sink, dial(sink) as client:
        fits = b"NOOP " + b"x" * 505
        assert await client.ask(fits) == "250 2.0.0"
        assert await client.ask(fits + b"x") == "500 5.5.2"
        mail = b"MAIL FROM:<a@x>" + b" " * (512 + 53 + 627 - 2 - 15)
        assert await client.ask(mail + b" ") == "500 5.5.2"
        assert await client.ask(mail) == "250 2.1.0"
        assert await client.ask(b"x" * 1_000_000) == "500 5.5.2"
        assert await client.ask("RCPT TO:<b@x>") == "250 2.1.5"


class Deaf(asyncio.Transport):
    """Takes what is written, and says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.wrote = asyncio.Event()
        self.reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))
        self.wrote.set()

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def deaf_session(*rules: Rule) -> tuple[Session, Deaf]:
    reception = Reception(
        rules=Rules(rules),
        mailbox=Mailbox(0, 0),
        keeps=False,
        ledger=Ledger(),
        on_mail=None,
        max_size=1000,
        extensions=EXTENSIONS,
    )
    session, transport = Session(reception), Deaf()
    session.connection_made(transport)
    return session, transport


async def test_nothing_is_read_or_served_while_replies_are_not_read() -> None:
    session, transport = deaf_session()
    session.pause_writing()
    paused = not transport.reading
    session.data_received(b"NOOP\r\nEHLO x\r\n")
    assert len(transport.written) == 1
    session.resume_writing()
    session.connection_lost(None)
    assert (paused, transport.reading) == (True, True)
    assert transport.written[1].startswith(b"250 2.0.0 Ok\r\n250-localhost\r\n")


async def test_a_delay_that_ends_serves_nothing_while_replies_are_not_read() -> None:
    session, transport = deaf_session(Rule(stage="rset", delay_ms=1))
    session.data_received(b"RSET\r\nNOOP\r\n")
    session.pause_writing()
    transport.wrote.clear()
    await transport.wrote.wait()
    assert transport.written[1:] == [b"250 2.0.0 Ok\r\n"]
    session.resume_writing()
    session.connection_lost(None)
    assert transport.written[2:] == [b"250 2.0.0 Ok\r\n"]


async def test_reading_again_does_not_shorten_a_delay() -> None:
    session, transport = deaf_session(Rule(stage="rset", delay_ms=3_600_000))
    session.data_received(b"RSET\r\nNOOP\r\n")
    session.pause_writing()
    session.resume_writing()
    session.connection_lost(None)
    assert len(transport.written) == 1


async def test_replies_do_not_gather_without_bound() -> None:
    session, transport = deaf_session()
    session.data_received(b"NOOP\r\n" * 2000)
    session.connection_lost(None)
    assert b"".join(transport.written[1:]) == b"250 2.0.0 Ok\r\n" * 2000
    assert max(map(len, transport.written)) <= 256 * 14


async def test_a_line_without_end_takes_no_memory() -> None:
    session, transport = deaf_session()
    piece = b"x" * 65_535 + b"\r"
    tracemalloc.start()
    try:
        for _ in range(100):
            session.data_received(piece)
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
    session.data_received(b"\nNOOP\r\n")
    session.connection_lost(None)
    assert b"".join(transport.written[1:]) == b"500 5.5.2 Line too long\r\n250 2.0.0 Ok\r\n"


async def test_whole_transactions_in_one_packet() -> None:
    async with Sink() as sink, dial(sink, hello=False) as client:
        many = b"".join(envelope(f"{n}@x") + CONTENT % n + b".\r\n" for n in range(30))
        await client.send(b"EHLO client.example\r\n" + many + b"QUIT\r\n")
        expected = ["220", "250", *["250 2.1.0", "250 2.1.5", "354", "250 2.0.0"] * 30, "221 2.0.0"]
        assert await client.codes(len(expected)) == expected
        assert await client.end() == b""
        assert [mail.message_id for mail in sink.received] == [b"<%d@example.com>" % n for n in range(30)]
        assert sink.ledger.recipients == {f"{n}@x": 1 for n in range(30)}


async def feed_bytewise(sink: Sink) -> None:
    async with sink, dial(sink) as client:
        wire = envelope("b@x", "c@x") + b"..\r\n.x\r\n\r\n.\r\n" + envelope("d@x") + b".\r\nQUIT\r\n"
        for index in range(len(wire)):
            client.writer.write(wire[index : index + 1])
            await asyncio.sleep(0)
        first = ["250 2.1.0", "250 2.1.5", "250 2.1.5", "354", "250 2.0.0"]
        second = ["250 2.1.0", "250 2.1.5", "354", "250 2.0.0"]
        assert await client.codes(10) == [*first, *second, "221 2.0.0"]
        assert [mail.content for mail in sink.received] == [b".\r\nx\r\n\r\n", b""]
        assert [mail.envelope_to for mail in sink.received] == [("b@x", "c@x"), ("d@x",)]


async def test_byte_by_byte() -> None:
    await feed_bytewise(Sink())


def test_byte_by_byte_on_uvloop() -> None:
    uvloop.run(feed_bytewise(Sink()))


@pytest.mark.parametrize("fake", [b"\n.\n", b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r"])
async def test_a_smuggled_mail_stays_content(fake: bytes) -> None:
    smuggled = b"MAIL FROM:<evil@x>\r\nRCPT TO:<victim@x>\r\nDATA\r\nevil"
    async with Sink() as sink, dial(sink) as client:
        assert await client.mail(content=b"good" + fake + smuggled + b"\r\n") == "250 2.0.0"
        assert await client.ask("QUIT") == "221 2.0.0"
        assert await client.end() == b""
        (mail,) = sink.received
        assert mail.content.endswith(smuggled + b"\r\n")
        assert sink.ledger.recipients == {"bob@example.net": 1}


async def test_too_big_is_refused_after_the_dot_and_not_counted() -> None:
    async with Sink(max_size=1000) as sink, dial(sink) as client:
        line = b"." * 48 + b"\r\n"
        assert await client.mail(content=(b"." + line) * 20) == "250 2.0.0"
        assert await client.mail(content=(b"." + line) * 20 + b"x\r\n") == "552 5.3.4"
        assert await client.mail(content=b"x" * 2_000_000 + b"\r\n") == "552 5.3.4"
        assert await client.mail() == "250 2.0.0"
        assert [len(mail.content) for mail in sink.received] == [1000, len(CONTENT % 1)]
        assert sink.counters.refused_by == {"dot 552": 2}
        assert sink.counters.accepted == 2


async def test_recipients_are_bounded() -> None:
    async with Sink() as sink, dial(sink) as client:
        await client.send(b"MAIL FROM:<a@x>\r\n" + b"".join(b"RCPT TO:<%d@x>\r\n" % n for n in range(1001)))
        codes = await client.codes(1002)
        assert codes[1:] == ["250 2.1.5"] * 1000 + ["452 4.5.3"]
        assert await client.ask("DATA") == "354"
        assert await client.ask(b".") == "250 2.0.0"
        assert len(sink.received[0].envelope_to) == 1000


async def test_a_client_that_leaves_in_the_middle_of_its_mail_is_not_counted() -> None:
    async with Sink() as sink:
        for left in (b"", b"Subject: half\r\n", b"whole\r\n.\r"):
            async with dial(sink) as client:
                await client.send(envelope("b@x") + left)
                assert await client.codes(3) == ["250 2.1.0", "250 2.1.5", "354"]
        await sink.wait_until(lambda: sink.counters.open == 0)
        assert (sink.counters.accepted, sink.counters.cut) == (0, 3)
        assert not sink.ledger.recipients
        assert not sink.received


async def half_close(sink: Sink) -> None:
    async with sink, dial(sink) as client:
        client.writer.write(envelope("b@x") + b"Hello\r\n.\r\nQUIT\r\n")
        client.writer.write_eof()
        assert await client.codes(5) == ["250 2.1.0", "250 2.1.5", "354", "250 2.0.0", "221 2.0.0"]
        assert await client.end() == b""


@pytest.mark.parametrize("delay_ms", [0, 5])
async def test_a_client_that_only_listens_any_more_gets_its_replies(delay_ms: int) -> None:
    await half_close(ruled(Rule(stage="rcpt", reply="250 2.1.5 Ok", delay_ms=delay_ms)))


@pytest.mark.parametrize("delay_ms", [0, 5])
def test_the_same_on_uvloop(delay_ms: int) -> None:
    async def scenario() -> None:
        await half_close(ruled(Rule(stage="rcpt", reply="250 2.1.5 Ok", delay_ms=delay_ms)))

    uvloop.run(scenario())


async def test_a_client_that_reads_nothing_is_read_no_more_and_gets_all_in_the_end() -> None:
    async with Sink() as sink, dial(sink) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        total = 400_000
        client.writer.write(b"NOOP\r\n" * total + b"QUIT\r\n")
        await sink.wait_until(lambda: sink.counters.commands > 10_000)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        rest = await client.end()
        assert rest == b"250 2.0.0 Ok\r\n" * total + b"221 2.0.0 Bye\r\n"


async def test_450_once_then_250() -> None:
    async with (
        ruled(Rule(match="slow.example", reply="450 4.2.1 later", times=1)) as sink,
        dial(sink) as client,
    ):
        codes = [await client.mail(to) for to in ("a@slow.example", "a@slow.example", "b@slow.example", "a@x")]
        # the second is refused as a nested MAIL: the transaction of the first is still open
        assert codes == ["450 4.2.1", "503 5.5.1", "503 5.5.1", "503 5.5.1"]
        assert await client.ask("RSET") == "250 2.0.0"
        assert await client.mail("a@slow.example") == "250 2.0.0"
        assert await client.mail("b@slow.example") == "450 4.2.1"
        assert sink.ledger.recipients == {"a@slow.example": 1}
        assert sink.counters.refused_by == {"rcpt 450": 2, "mail 503": 3}


async def test_refused_and_accepted_recipients_of_one_pipelined_transaction() -> None:
    async with ruled(Rule(match="gone@*", reply="550")) as sink, dial(sink) as client:
        await client.send(envelope("a@x", "gone@x", "b@x"))
        assert await client.codes(5) == ["250 2.1.0", "250 2.1.5", "550 5.1.1", "250 2.1.5", "354"]
        assert await client.ask(CONTENT % 1 + b".") == "250 2.0.0"
        await client.send(envelope("gone@x"))
        assert await client.codes(3) == ["250 2.1.0", "550 5.1.1", "554 5.5.1"]
        assert sink.ledger.recipients == {"a@x": 1, "b@x": 1}
        assert len(sink.received) == 1


@pytest.mark.parametrize(
    ("stage", "match", "code"),
    [
        ("mail", "shop@example.com", "451 4.7.1"),
        ("rcpt", "example.net", "452 4.2.2"),
        ("data", "bob@*", "451 4.3.0"),
        ("dot", "bob@*", "554 5.7.1"),
    ],
)
async def test_each_stage_of_a_transaction_can_refuse(stage: Stage, match: str, code: str) -> None:
    rules = (
        Rule(stage=stage, match="other", reply="599"),
        Rule(stage=stage, match=match, reply=f"{code} told", times=1),
    )
    async with ruled(*rules) as sink, dial(sink) as client:
        assert await client.mail() == code
        assert not sink.received
        assert sink.counters.refused_by == {f"{stage} {code[:3]}": 1}
        assert await client.ask("RSET") == "250 2.0.0"
        assert await client.mail() == "250 2.0.0"


async def test_a_refused_greeting_leaves_only_quit() -> None:
    sink = ruled(Rule(stage="greeting", match="127.*", reply="554 5.7.1 no"))
    async with sink, dial(sink, hello=False) as client:
        assert await client.codes(1) == ["554 5.7.1"]
        assert await client.asked("EHLO x", "NOOP", "QUIT") == ["503 5.5.1", "503 5.5.1", "221 2.0.0"]
        assert await client.end() == b""


async def test_ehlo_and_helo_are_refused_apart() -> None:
    sink = ruled(Rule(stage="ehlo", match="*.example", reply="502 5.5.1 no"))
    async with sink, dial(sink, hello=False) as client:
        assert await client.codes(1) == ["220"]
        assert await client.asked("EHLO c.example", "MAIL FROM:<a@x>") == ["502 5.5.1", "503 5.5.1"]
        assert await client.asked("HELO c.example", "MAIL FROM:<a@x>") == ["250", "250 2.1.0"]


@pytest.mark.parametrize("stage", ["greeting", "ehlo", "mail", "rcpt", "data", "dot", "rset", "quit"])
@pytest.mark.parametrize("delay_ms", [0, 5])
async def test_421_is_the_last_word(stage: Stage, delay_ms: int) -> None:
    sink = ruled(Rule(stage=stage, reply="421 4.3.2 bye", delay_ms=delay_ms))
    async with sink, dial(sink, hello=False) as client:
        if stage != "greeting":
            assert await client.codes(1) == ["220"]
            transaction = envelope("b@x") + b"Hello\r\n.\r\n"
            await client.send(b"EHLO c.example\r\nRSET\r\n" + transaction + b"QUIT\r\n")
        replies = (await client.end()).decode().splitlines()
        assert [reply for reply in replies if reply.startswith("421")] == ["421 4.3.2 bye"]
        assert replies[-1] == "421 4.3.2 bye"
    assert len(sink.received) == (stage == "quit")


async def test_a_delay_holds_back_what_follows_and_keeps_the_order() -> None:
    rules = (
        Rule(stage="rcpt", match="b@x", delay_ms=60),
        Rule(stage="dot", reply="250 2.0.0 kept", delay_ms=1),
    )
    async with ruled(*rules) as sink, dial(sink) as client:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await client.send(envelope("a@x", "b@x", "c@x") + b"Hello\r\n.\r\nNOOP\r\n")
        assert await client.codes(2) == ["250 2.1.0", "250 2.1.5"]
        assert await client.codes(3) == ["250 2.1.5", "250 2.1.5", "354"]
        assert loop.time() - started >= 0.055
        assert await client.reply() == "250 2.0.0 kept"
        assert await client.codes(1) == ["250 2.0.0"]
        assert sink.ledger.recipients == {"a@x": 1, "b@x": 1, "c@x": 1}


async def test_a_client_that_leaves_during_a_delay_was_accepted_all_the_same() -> None:
    async with ruled(Rule(stage="dot", delay_ms=30)) as sink:
        async with dial(sink) as client:
            await client.send(envelope("b@x") + b"Hello\r\n.\r\n")
            await sink.wait_for(1)
        await sink.wait_until(lambda: sink.counters.open == 0)
        assert sink.counters.cut == 0

from __future__ import annotations

import pytest
from sink_client import CONTENT, dial

from streamq.sink import Rule, Rules, Sink
from streamq.sink.grammar import Refusal, mail_arguments, rcpt_arguments

BEGIN = b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n"


async def test_chunks_are_content_byte_for_byte() -> None:
    async with Sink() as sink, dial(sink) as client:
        await client.send(BEGIN + b"BDAT 7\r\n.\r\n..\r\nBDAT 5 last\r\nQUIT\0BDAT 0\r\n")
        assert await client.codes(5) == ["250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0", "503 5.5.1"]
        assert sink.received[0].content == b".\r\n..\r\nQUIT\0"
        await client.send(BEGIN + b"BDAT %d\r\n%bBDAT 0 LAST\r\n" % (len(CONTENT), CONTENT))
        assert await client.codes(4) == ["250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0"]
        assert sink.received[1].content == CONTENT
        await client.send(BEGIN + b"BDAT 0 LAST\r\n")
        assert await client.codes(3) == ["250 2.1.0", "250 2.1.5", "250 2.0.0"]
        assert sink.received[2].content == b""


async def test_chunks_cut_anywhere() -> None:
    async with Sink() as sink, dial(sink) as client:
        for byte in BEGIN + b"BDAT 3\r\n\r\n.BDAT 3 LAST\r\n\r\nQNOOP\r\n":
            await client.send(bytes((byte,)))
        assert await client.codes(5) == ["250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0", "250 2.0.0"]
        assert sink.received[0].content == b"\r\n.\r\nQ"


async def test_a_chunk_that_is_not_wanted_is_swallowed() -> None:
    async with Sink(rules=Rules((Rule(match="gone@*", reply="550"),))) as sink, dial(sink) as client:
        await client.send(
            b"BDAT 6 LAST\r\nQUIT\r\n" + b"MAIL FROM:<a@x>\r\nRCPT TO:<gone@x>\r\nBDAT 6 LAST\r\nQUIT\r\n"
        )
        assert await client.codes(4) == ["503 5.5.1", "250 2.1.0", "550 5.1.1", "554 5.5.1"]
        assert await client.asked("DATA", "RSET") == ["503 5.5.1", "250 2.0.0"]
        assert await client.mail() == "250 2.0.0"


async def test_no_data_after_a_chunk() -> None:
    async with Sink() as sink, dial(sink) as client:
        await client.send(BEGIN + b"BDAT 1\r\nx")
        assert await client.codes(3) == ["250 2.1.0", "250 2.1.5", "250 2.0.0"]
        assert await client.asked("DATA", "MAIL FROM:<a@x>", "RSET") == ["503 5.5.1", "503 5.5.1", "250 2.0.0"]
        assert await client.mail() == "250 2.0.0"
        assert len(sink.received) == 1


async def test_chunks_are_limited_in_sum_and_broken_until_rset() -> None:
    async with Sink(max_size=10) as sink, dial(sink) as client:
        await client.send(BEGIN + b"BDAT 6\r\n123456BDAT 5\r\n12345BDAT 1 LAST\r\n1")
        assert await client.codes(5) == ["250 2.1.0", "250 2.1.5", "250 2.0.0", "552 5.3.4", "503 5.5.1"]
        assert await client.ask("RSET") == "250 2.0.0"
        await client.send(BEGIN + b"BDAT 10 LAST\r\n1234567890")
        assert (await client.codes(3))[2] == "250 2.0.0"
        huge = 10**19
        await client.send(BEGIN + b"BDAT %d\r\n" % huge + b"x" * 3_000_000)
        assert await client.codes(2) == ["250 2.1.0", "250 2.1.5"]
    assert sink.counters.cut == 1


@pytest.mark.parametrize("argument", [b"", b" x", b" -1", b" 5 FIRST", b" 5LAST", b" " + b"9" * 21])
async def test_a_chunk_without_a_size_ends_the_session(argument: bytes) -> None:
    async with Sink() as sink, dial(sink) as client:
        await client.send(BEGIN + b"BDAT" + argument + b"\r\nRSET\r\n")
        assert await client.codes(3) == ["250 2.1.0", "250 2.1.5", "521 5.5.4"]
        assert await client.end() == b""


async def test_rules_for_chunks() -> None:
    rules = (
        Rule(stage="bdat", match="b@x", reply="451 4.3.0 no", times=1),
        Rule(stage="body", after_bytes=4, action="eof"),
    )
    async with Sink(rules=Rules(rules)) as sink, dial(sink) as client:
        await client.send(BEGIN + b"BDAT 1\r\nxBDAT 1 LAST\r\nx")
        assert await client.codes(4) == ["250 2.1.0", "250 2.1.5", "451 4.3.0", "503 5.5.1"]
        assert await client.ask("RSET") == "250 2.0.0"
        await client.send(BEGIN + b"BDAT 2\r\nxxBDAT 3 LAST\r\nxxx")
        assert await client.codes(3) == ["250 2.1.0", "250 2.1.5", "250 2.0.0"]
        assert await client.end() == b""
        assert (sink.counters.accepted, sink.counters.drops) == (0, {"body eof": 1})


async def test_dsn_parameters_are_kept() -> None:
    async with Sink() as sink, dial(sink) as client:
        assert await client.asked(
            "MAIL FROM:<a@x> RET=HDRS ENVID=QQ+2B314159",
            "RCPT TO:<b@x> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b+2Bc@x",
            "RCPT TO:<c@x>",
            "DATA",
        ) == ["250 2.1.0", "250 2.1.5", "250 2.1.5", "354"]
        assert await client.ask(".") == "250 2.0.0"
        (mail,) = sink.received
        assert mail.parameters == {"RET": "HDRS", "ENVID": "QQ+2B314159"}
        assert mail.rcpt_parameters == ({"NOTIFY": "SUCCESS,FAILURE", "ORCPT": "rfc822;b+2Bc@x"}, {})
        assert await client.mail() == "250 2.0.0"
        assert sink.received[1].parameters == {}


@pytest.mark.parametrize(
    "parameter",
    [
        b"RET=ALL",
        b"RET",
        b"ENVID",
        b"ENVID=" + b"x" * 101,
        b"ENVID=a+2b",
        b"AUTH=a+",
        b"REQUIRETLS=1",
        b"RET=FULL ret=HDRS",
    ],
)
def test_parameters_of_mail_that_are_none(parameter: bytes) -> None:
    with pytest.raises(Refusal, match=r"501 5\.5\.4"):
        mail_arguments(b"FROM:<a@x> " + parameter)


@pytest.mark.parametrize(
    "parameter",
    [
        b"NOTIFY=NEVER,SUCCESS",
        b"NOTIFY=SUCCESS,SUCCESS",
        b"NOTIFY=",
        b"NOTIFY=DELAYED",
        b"ORCPT=b@x",
        b"ORCPT=rfc822;",
        b"ORCPT=rfc822;" + b"x" * 500,
    ],
)
def test_parameters_of_rcpt_that_are_none(parameter: bytes) -> None:
    with pytest.raises(Refusal, match=r"501 5\.5\.4"):
        rcpt_arguments(b"TO:<b@x> " + parameter)


async def test_each_parameter_belongs_to_its_command_and_to_an_extension() -> None:
    async with Sink() as sink, dial(sink) as client:
        assert await client.asked(
            "MAIL FROM:<a@x> NOTIFY=NEVER", "MAIL FROM:<a@x> REQUIRETLS", "MAIL FROM:<a@x> AUTH=<>", "MAIL FROM:<a@x>"
        ) == ["555 5.5.4"] * 3 + ["250 2.1.0"]
        assert await client.asked("RCPT TO:<b@x> RET=FULL", "RCPT TO:<b@x> NOTIFY=NEVER") == ["555 5.5.4", "250 2.1.5"]
    async with Sink(extensions=("PIPELINING",)) as sink, dial(sink) as client:
        assert await client.asked("MAIL FROM:<a@x> RET=FULL", "MAIL FROM:<a@x>", "BDAT 0 LAST") == [
            "555 5.5.4",
            "250 2.1.0",
            "502 5.5.1",
        ]


async def test_long_parameters_fit_and_longer_lines_do_not() -> None:
    async with Sink() as sink, dial(sink) as client:
        assert await client.ask("MAIL FROM:<a@x>") == "250 2.1.0"
        full = b"RCPT TO:<b@x> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;" + b"x" * 493
        assert await client.ask(full) == "250 2.1.5"
        assert await client.ask(full + b" " * 600) == "500 5.5.2"


async def test_size_0_says_that_there_is_no_limit() -> None:
    async with Sink(max_size=0) as sink, dial(sink, hello=False) as client:
        await client.reply()
        await client.send(b"EHLO x\r\n")
        assert "SIZE 0\r\n" in await client.reply()
        assert await client.ask("MAIL FROM:<a@x> SIZE=1000000000") == "250 2.1.0"


async def test_a_trap_at_the_end_of_a_chunk_waits_for_the_next() -> None:
    rules = Rules((Rule(stage="body", after_bytes=2, reply="250 2.0.0 stray"),))
    async with Sink(rules=rules) as sink, dial(sink) as client:
        await client.send(BEGIN + b"BDAT 2\r\nxx")
        assert await client.codes(3) == ["250 2.1.0", "250 2.1.5", "250 2.0.0"]
        await client.send(b"BDAT 1 LAST\r\nx")
        assert await client.reply() == "250 2.0.0 stray"
        assert await client.reply() == "250 2.0.0 Ok: queued as 1"
        await client.send(BEGIN + b"BDAT 2 LAST\r\nxx")
        assert (await client.codes(3))[2] == "250 2.0.0"
        await client.send(BEGIN + b"BDAT 1\r\nx")
        assert (await client.codes(3))[2] == "250 2.0.0"
        await client.ask("RSET")
        sink.follow(Rules())
        assert await client.mail() == "250 2.0.0"

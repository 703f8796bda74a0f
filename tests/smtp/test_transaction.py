"""The transaction, stage by stage, against a relay that follows a script."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from scripted_relay import (
    CLOSE,
    CONTENT,
    DEAF,
    ENVELOPE,
    GOES,
    NOTHING,
    PIPELINING,
    PLAIN,
    QUITS,
    RESET,
    Body,
    Expect,
    Gets,
    Mails,
    Relay,
    Script,
    Step,
    Wait,
    hello,
    letter,
    office,
    on_both_loops,
    route,
    until,
)

from streamq.smtp.access import Access
from streamq.smtp.handshake import connect
from streamq.smtp.letter import Action, Letter, Report, Scope, Stage
from streamq.smtp.replies import default_replies
from streamq.smtp.transaction import Transaction

COMMANDS = {Stage.MAIL: "250 2.1.0 ok", Stage.RCPT: "250 2.1.5 ok", Stage.DATA: "354 go"}
MODES = ["transaction", "off"]


def up_to(stage: Stage, then: list[Step], mode: str) -> Script:
    """Everything goes well until `stage`, where `then` comes instead of the reply."""
    before = list(COMMANDS)[: list(COMMANDS).index(stage)] if stage in COMMANDS else list(COMMANDS)
    verbs: list[Step] = [Expect("MAIL"), Expect("RCPT"), Expect("DATA")]
    script: list[Step] = hello(*(PIPELINING if mode == "transaction" else PLAIN))
    if mode == "transaction":
        script += [*verbs, *(COMMANDS[one] for one in before)]
    else:
        for verb, one in zip(verbs, before, strict=False):
            script += [verb, COMMANDS[one]]
        if stage in COMMANDS:
            script.append(verbs[len(before)])
    if stage is Stage.DOT:
        script.append(Body())
    return [*script, *then]


async def one(script: Script, mode: str = "transaction", **more: Any) -> tuple[Report, Relay]:
    """One letter over a connection that follows `script`; later connections are sane."""
    async with Relay(script, [*hello(), Mails()]) as relay, office(route(relay.port, **more)) as at:
        reports = await at.send(letter())
    return reports[0], relay


@pytest.mark.parametrize("mode", MODES)
@on_both_loops
async def test_many_mails_go_over_few_connections(mode: str) -> None:
    bodies = [b"Subject: %d\r\n\r\n.dot\r\n..two\r\nend\r\n" % n for n in range(60)]
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port, connections=3, pipelining=mode)) as at:
        reports = await at.send(*(letter(content=body) for body in bodies))
    assert {(report.action, report.klass, report.code) for report in reports} == {(Action.SENT, "sent", 250)}
    assert len(relay.heard) <= 3
    assert sorted(relay.bodies) == sorted(body.replace(b"\r\n.", b"\r\n..") for body in bodies)
    assert all(heard.lines[-1] == "QUIT" and "RSET" not in heard.lines for heard in relay.heard)


@on_both_loops
async def test_a_report_says_what_the_server_said() -> None:
    report, relay = await one([*hello(), *GOES, *QUITS])
    assert (report.action, report.stage, report.code) == (Action.SENT, Stage.DOT, 250)
    assert (report.enhanced, report.reply, report.tls) == ("2.0.0", "2.0.0 queued", "")
    assert report.peer == f"127.0.0.1[127.0.0.1]:{relay.port}"
    assert relay.heard[0].lines[1:4] == ["MAIL FROM:<shop@example.com>", "RCPT TO:<bob@example.net>", "DATA"]


@pytest.mark.parametrize(("ehlo", "mode"), [(PLAIN, "transaction"), (PIPELINING, "off")])
@on_both_loops
async def test_nothing_is_pipelined_where_it_is_not_offered_or_not_wanted(ehlo: list[str], mode: str) -> None:
    script = [*hello(*ehlo), Expect("MAIL"), NOTHING, "250 ok", Expect("RCPT"), NOTHING, "250 ok"]
    script += [Expect("DATA"), NOTHING, "354 go", Body(), "250 ok", *QUITS]
    report, relay = await one(script, pipelining=mode)
    assert report.action is Action.SENT
    assert relay.bodies == [CONTENT]


@on_both_loops
async def test_an_envelope_is_one_write() -> None:
    """All of it was there when the first line was: no reply was waited for."""
    ahead = Gets(len("RCPT TO:<bob@example.net>\r\nDATA\r\n"))
    script = [*hello(), Expect("MAIL"), ahead, "250 a", "250 b", "354 c", Body(), "250 d", *QUITS]
    report, _ = await one(script)
    assert report.action is Action.SENT


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT])
@pytest.mark.parametrize(
    ("reply", "klass", "action"),
    [
        ("451 4.3.0 later", "temporary", Action.RETRY),
        ("554 5.0.0 never", "rejected", Action.FAIL),
        ("550 5.1.1 unknown", "bad_address", Action.FAIL),
        ("421 4.7.0 [TSS04] temporarily deferred", "site_rate", Action.RETRY),
    ],
)
@on_both_loops
async def test_a_refusal_is_judged_by_its_class(
    mode: str, stage: Stage, reply: str, klass: str, action: Action
) -> None:
    closes = reply.startswith("421")
    verbs = {Stage.MAIL: 2, Stage.RCPT: 1, Stage.DATA: 0, Stage.DOT: 0}[stage]
    rest: list[Step] = ["503 no"] * verbs if mode == "transaction" else []
    then: list[Step] = [reply, CLOSE] if closes else [reply, *rest, Mails()]
    async with Relay(up_to(stage, then, mode), [*hello(), Mails()]) as relay, office(route(relay.port)) as at:
        first, second = await at.send(letter(), letter("carol@example.net", b"Subject: 2\r\n\r\n2\r\n"))
    assert (first.action, first.klass, first.stage) == (action, klass, stage)
    assert first.code == int(reply[:3])
    assert first.about_recipient is (klass == "bad_address")
    assert second.action is Action.SENT
    assert relay.bodies[-1] == b"Subject: 2\r\n\r\n2\r\n"
    assert len(relay.heard) == (2 if closes else 1)
    begun = stage in {Stage.RCPT, Stage.DATA} and not closes  # the server has an open transaction: RSET first
    assert ("RSET" in relay.heard[0].lines) is begun


@pytest.mark.parametrize("refused", ["MAIL", "RCPT", "both"])
@on_both_loops
async def test_a_354_after_a_refusal_gets_a_lone_dot(refused: str) -> None:
    mail = "250 ok" if refused == "RCPT" else "550 5.1.8 sender"
    rcpt = "250 ok" if refused == "MAIL" else "550 5.1.1 unknown"
    script = [*hello(), *ENVELOPE, mail, rcpt, "354 go", Gets(3), "554 no recipients", Mails()]
    async with Relay(script, [*hello(), Mails()]) as relay, office(route(relay.port)) as at:
        first, second = await at.send(letter(), letter("carol@example.net"))
    assert first.action is Action.FAIL
    assert first.stage is (Stage.RCPT if refused == "RCPT" else Stage.MAIL)
    assert second.action is Action.SENT
    if refused == "MAIL":  # the recipient stands: a dot could make an empty mail
        assert len(relay.heard) == 2
        assert relay.heard[0].rest == b""
    else:
        assert relay.heard[0].rest == b".\r\n"
        assert "RSET" not in relay.heard[0].lines
        assert len(relay.heard) == 1


@on_both_loops
async def test_the_connection_goes_on_after_rset_and_not_without_it() -> None:
    script = [*hello(), *ENVELOPE, "250 ok", "550 5.1.1 unknown", "503 no", Expect("RSET"), *ENVELOPE]
    script += ["502 what", *["250 ok"] * 2, "354 go", CLOSE]
    async with Relay(script, [*hello(), Mails()]) as relay, office(route(relay.port)) as at:
        first, second, third = await at.send(letter(), letter("c@example.net"), letter("d@example.net"))
    assert [first.action, third.action] == [Action.FAIL, Action.SENT]
    assert (second.action, second.klass, second.scope) == (Action.PARK, "protocol", Scope.SESSION)
    assert len(relay.heard) == 2
    assert relay.heard[0].bodies == []


BROKEN_BEFORE_ACCEPTED = (Action.PARK, Scope.ROUTE)  # on a first transaction the route itself is in doubt
BROKEN_BEFORE_DOT = (Action.RETRY, Scope.SESSION)
BROKEN_AFTER_DOT = (Action.AMBIGUOUS, Scope.SESSION)
BREAKS = [
    (Stage.MAIL, BROKEN_BEFORE_ACCEPTED),
    (Stage.RCPT, BROKEN_BEFORE_DOT),
    (Stage.DATA, BROKEN_BEFORE_DOT),
    (Stage.DOT, BROKEN_AFTER_DOT),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("stage", "outcome"), BREAKS)
@pytest.mark.parametrize(
    ("breaks", "klass"),
    [
        ([CLOSE], "disconnected"),
        ([RESET], "disconnected"),
        (["no reply at all"], "protocol"),
        (["199 not in SMTP"], "protocol"),
        ([b"250-endless\r\n" * 200], "protocol"),
        ([b"250 " + b"x" * 5000], "protocol"),
        ([b"250-one\r\n550 other\r\n"], "protocol"),
        (["335 out of place"], "protocol"),
    ],
    ids=["close", "reset", "garbage", "code 199", "endless", "long line", "two codes", "335"],
)
@on_both_loops
async def test_a_break_is_judged_by_where_it_happens(
    mode: str, stage: Stage, outcome: tuple[Action, Scope], breaks: list[Step], klass: str
) -> None:
    report, _ = await one(up_to(stage, breaks, mode))
    assert (report.action, report.scope) == outcome
    assert (report.klass, report.stage) == (klass, stage)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("stage", "outcome"), BREAKS)
@on_both_loops
async def test_silence_ends_at_the_time_limit(mode: str, stage: Stage, outcome: tuple[Action, Scope]) -> None:
    limit = {Stage.DATA: "data_timeout", Stage.DOT: "dot_timeout"}.get(stage, "command_timeout")
    report, _ = await one(up_to(stage, [], mode), **{limit: "0.05s"})
    assert (report.action, report.scope) == outcome
    assert (report.klass, report.stage, report.code) == ("timeout", stage, 0)


@on_both_loops
async def test_a_kept_connection_that_ends_parks_for_the_session_only() -> None:
    script = [*hello(), *GOES, *ENVELOPE, CLOSE]
    async with Relay(script, [*hello(), Mails()]) as relay, office(route(relay.port)) as at:
        first, second, third = await at.send(letter(), letter("c@example.net"), letter("d@example.net"))
    assert [first.action, second.action, third.action] == [Action.SENT, Action.PARK, Action.SENT]
    assert (second.scope, second.klass) == (Scope.SESSION, "disconnected")
    assert at.states == []


@on_both_loops
async def test_a_session_that_takes_no_more_mail_is_ended_whatever_its_digits() -> None:
    full = "452 4.4.5 Maximum number of messages per session exceeded"
    script = [*hello(), *GOES, *ENVELOPE, full, "503 a", "503 b", *QUITS]
    async with Relay(script, [*hello(), Mails()]) as relay, office(route(relay.port)) as at:
        first, second, third = await at.send(letter(), letter("c@example.net"), letter("d@example.net"))
    assert [first.action, second.action, third.action] == [Action.SENT, Action.PARK, Action.SENT]
    assert (second.scope, second.klass) == (Scope.SESSION, "session_limit")
    assert len(relay.heard) == 2


@on_both_loops
async def test_a_reply_in_single_bytes_is_one_reply() -> None:
    script: list[Step] = [*hello(), *ENVELOPE]
    script += [bytes([byte]) for byte in b"250-2.1.0 a\r\n250 2.1.0 b\r\n250 ok\r\n354 go\r\n"]
    report, relay = await one([*script, Body(), b"2", b"50 2", b".0.0 done\r", b"\n", *QUITS])
    assert (report.action, report.reply) == (Action.SENT, "2.0.0 done")
    assert relay.bodies == [CONTENT]


@on_both_loops
async def test_three_replies_in_one_packet() -> None:
    report, _ = await one([*hello(), *ENVELOPE, b"250 a\r\n250 b\r\n354 c\r\n", Body(), "250 d", *QUITS])
    assert report.action is Action.SENT


@on_both_loops
async def test_a_250_that_came_with_the_end_counts() -> None:
    report, _ = await one([*hello(), *ENVELOPE, "250 a", "250 b", "354 c", Body(), "250 2.0.0 d", CLOSE])
    assert (report.action, report.reply) == (Action.SENT, "2.0.0 d")


@on_both_loops
async def test_a_421_after_the_250_takes_nothing_back() -> None:
    bye = b"250 2.0.0 queued\r\n421 4.3.2 shutting down\r\n"
    script = [*hello(), *ENVELOPE, "250 a", "250 b", "354 c", Body(), bye, CLOSE]
    async with Relay(script, [*hello(), Mails()]) as relay, office(route(relay.port)) as at:
        first, second = await at.send(letter(), letter("c@example.net"))
    assert [first.action, second.action] == [Action.SENT, Action.SENT]
    assert len(relay.heard) == 2


@pytest.mark.parametrize("stray", [b"354 c\r\n250 stray\r\n", b"354 c\r\n25"], ids=["whole", "part"])
@on_both_loops
async def test_a_stray_reply_before_the_body_ends_the_connection(stray: bytes) -> None:
    """One more 250 would be taken for the reply to the dot."""
    report, relay = await one([*hello(), *ENVELOPE, b"250 a\r\n250 b\r\n" + stray])
    assert (report.action, report.klass, report.stage) == (Action.RETRY, "protocol", Stage.DATA)
    assert relay.heard[0].rest == b""


@pytest.mark.parametrize("at", [1, 2, 3])
@on_both_loops
async def test_421_as_any_of_three_replies(at: int) -> None:
    said = ("250 a", "250 b", "354 c")[: at - 1]
    report, relay = await one([*hello(), *ENVELOPE, *said, "421 4.4.2 idle for too long", CLOSE])
    assert (report.action, report.klass) == (Action.PARK, "idle_close")
    assert report.stage is [Stage.MAIL, Stage.RCPT, Stage.DATA][at - 1]
    assert relay.heard[0].rest == b""


@on_both_loops
async def test_dots_are_stuffed() -> None:
    content = b".first\r\n..second\r\nplain\r\n.\r\nlast.\r\n"
    script = [*hello(), *GOES, *QUITS]
    async with Relay(script) as relay, office(route(relay.port)) as at:
        await at.send(letter(content=content))
    assert relay.bodies == [b"..first\r\n...second\r\nplain\r\n..\r\nlast.\r\n"]


@on_both_loops
async def test_large_mails_arrive_whole() -> None:
    line = b"." + b"x" * 76 + b"\r\n"
    sizes = [65_536 // len(line), 65_536 // len(line) + 1, 40_000]
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port, connections=1)) as at:
        reports = await at.send(*(letter(content=line * count) for count in sizes))
    assert {report.action for report in reports} == {Action.SENT}
    assert relay.bodies == [(b"." + line) * count for count in sizes]


@on_both_loops
async def test_a_server_that_stops_reading_is_met_before_the_dot() -> None:
    script = [*hello(), *ENVELOPE, "250 a", "250 b", "354 c", DEAF]
    async with Relay(script, [*hello(), Mails()]) as relay, office(route(relay.port, body_timeout="0.1s")) as at:
        (report,) = await at.send(letter(content=b"x" * 62 + b"\r\n" + b"y" * 30_000_000 + b"\r\n"))
    assert (report.action, report.klass, report.stage) == (Action.RETRY, "timeout", Stage.DATA)


@on_both_loops
async def test_a_refusal_in_the_middle_of_the_body_counts() -> None:
    script = [*hello(), *ENVELOPE, "250 a", "250 b", "354 c", Gets(1000), "552 5.3.4 too big"]
    async with Relay([*script, DEAF]) as relay, office(route(relay.port)) as at:
        (report,) = await at.send(letter(content=b"y" * 30_000_000 + b"\r\n"))
    assert (report.action, report.klass, report.stage) == (Action.FAIL, "too_large", Stage.DATA)


@on_both_loops
async def test_a_mark_that_says_no_ends_it_before_the_body() -> None:
    asked: list[tuple[int, Letter]] = []

    async def mark(number: int, about: Letter) -> bool:
        asked.append((number, about))
        return about.envelope_to != "no@example.net"

    wanted, unwanted = letter("yes@example.net"), letter("no@example.net")
    script = [*hello(), *ENVELOPE, "250 a", "250 b", "354 c"]
    async with Relay(script, [*hello(), Mails()]) as relay, office(route(relay.port), mark) as at:
        no, yes = await at.send(unwanted, wanted)
    assert (no.action, no.stage, yes.action) == (Action.ABANDON, Stage.DATA, Action.SENT)
    assert asked == [(0, unwanted), (0, wanted)]
    assert relay.heard[0].rest == b""


@pytest.mark.parametrize(
    ("leaves", "action", "klass"),
    [
        (["421 4.4.2 timeout", CLOSE], Action.PARK, "idle_close"),
        ([CLOSE], Action.RETRY, "disconnected"),
        (["250 what"], Action.RETRY, "protocol"),
        ([b"55"], Action.RETRY, "protocol"),  # of a refusal: the 354 before it was nobody's
    ],
    ids=["421", "close", "stray", "half a reply"],
)
@on_both_loops
async def test_a_server_that_leaves_during_the_mark_gets_no_body(
    leaves: list[Step], action: Action, klass: str
) -> None:
    asked = asyncio.Event()

    async def mark(_: int, __: Letter) -> bool:
        asked.set()
        await until(lambda: bool(link.wire.fault) or not link.wire.between_replies)
        return True

    script = [*hello(), *ENVELOPE, "250 a", "250 b", "354 c", Wait(asked), *leaves]
    async with Relay(script) as relay:
        way = route(relay.port)
        link = await connect(Access(way), 0, default_replies())
        report = await Transaction(link, way, default_replies(), mark).run(letter())
        await link.quit()
    assert (report.action, report.klass, report.stage) == (action, klass, Stage.DATA)
    assert relay.heard[0].rest == b""


@pytest.mark.parametrize("leaves", [["421 4.7.0 too slow", CLOSE], [CLOSE], [RESET]], ids=["421", "close", "reset"])
@on_both_loops
async def test_a_server_that_waited_too_long_for_our_mark_has_judged_nothing(leaves: list[Step]) -> None:
    asked = asyncio.Event()

    async def mark(_: int, __: Letter) -> bool:
        asked.set()
        await until(lambda: bool(link.wire.fault))
        transaction.judge.now = lambda: asyncio.get_running_loop().time() + 11
        return True

    script = [*hello(), *ENVELOPE, "250 a", "250 b", "354 c", Wait(asked), *leaves]
    async with Relay(script) as relay:
        way = route(relay.port)
        link = await connect(Access(way), 0, default_replies())
        transaction = Transaction(link, way, default_replies(), mark)
        report = await transaction.run(letter())
        await link.quit()
    assert (report.action, report.scope, report.klass) == (Action.PARK, Scope.SESSION, "interrupted")
    assert relay.heard[0].rest == b""


@on_both_loops
async def test_what_the_server_does_not_offer() -> None:
    ehlo = ["250-relay.example", "250-PIPELINING", "250 SIZE 100"]
    async with Relay([*hello(*ehlo), Mails()]) as relay, office(route(relay.port)) as at:
        reports = await at.send(
            letter(eight_bit=True),
            letter("bjørn@example.net", smtputf8=True),
            letter(content=b"x" * 99 + b"\r\n"),
            letter("bob@example.net>\r\nRCPT TO:<eve@example.org"),
            letter("bjørn@example.net"),
            letter(envelope_from="", content=b"x" * 98 + b"\r\n"),
        )
    assert [(report.action, report.klass, report.enhanced) for report in reports] == [
        (Action.FAIL, "eight_bit", "5.6.3"),
        (Action.FAIL, "smtputf8", "5.6.7"),
        (Action.FAIL, "too_large", "5.3.4"),
        (Action.FAIL, "bad_envelope", "5.1.3"),
        (Action.FAIL, "bad_envelope", "5.1.3"),
        (Action.SENT, "sent", "2.0.0"),
    ]
    assert [line for line in relay.heard[0].lines if line.startswith("MAIL")] == ["MAIL FROM:<> SIZE=100"]


@on_both_loops
async def test_what_the_server_offers_is_used() -> None:
    ehlo = ["250-relay.example", "250-PIPELINING", "250-SIZE 0", "250-8BITMIME", "250 SMTPUTF8"]
    async with Relay([*hello(*ehlo), Mails()]) as relay, office(route(relay.port)) as at:
        (report,) = await at.send(letter("bjørn@example.net", smtputf8=True, eight_bit=True))
    assert report.action is Action.SENT
    assert relay.heard[0].lines[1:3] == [
        f"MAIL FROM:<shop@example.com> SIZE={len(CONTENT)} BODY=8BITMIME SMTPUTF8",
        "RCPT TO:<bjørn@example.net>",
    ]


@pytest.mark.parametrize("said", [b"\x1b[2Jgarbage \x9b\r\n", b"550 \x1b]0;title\x07no\r\n"])
@on_both_loops
async def test_no_control_character_of_a_server_gets_into_a_report(said: bytes) -> None:
    async with Relay([*hello(), Expect("MAIL"), said, CLOSE]) as relay, office(route(relay.port)) as at_work:
        (report,) = await at_work.send(letter())
        assert report.reply
        assert report.reply.isprintable()

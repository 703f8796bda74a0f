"""BDAT: what is on the wire, where the mark stands, what a refusal is worth when the body is out already."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from scripted_relay import (
    CONTENT,
    DEAF,
    NOTHING,
    PIPELINING,
    QUITS,
    Expect,
    Gets,
    Mails,
    Relay,
    Say,
    Step,
    Wait,
    hello,
    letter,
    office,
    on_both_loops,
    route,
)

from streamq.smtp.letter import Action, Letter, Stage

CHUNKING = ["250-relay.example", "250-PIPELINING", "250-8BITMIME", "250 CHUNKING"]
IN_TURN = ["250-relay.example", "250-8BITMIME", "250 CHUNKING"]
OKS: list[Step] = ["250 2.1.0 ok", "250 2.1.5 ok"]
ENVELOPE: list[Step] = [Expect("MAIL FROM:<"), Expect("RCPT TO:<")]
TRAP = b"Subject: Hi\r\n\r\n.\r\n..\r\nRSET\r\n.end\r\n"
MODES = ["off", "transaction", "overlap"]


def mail(to: str = "bob@example.net", content: bytes = CONTENT, **more: Any) -> Letter:
    return letter(to, content, **{"priority": 1, **more})


def chunk(content: bytes = CONTENT) -> list[Step]:
    return [Expect(f"BDAT {len(content)} LAST\r\n"), Gets(len(content))]


def way(port: int, mode: str = "transaction", **more: Any) -> Any:
    return route(port, pipelining=mode, chunking=True, **more)


@on_both_loops
async def test_envelope_and_body_are_one_write_after_the_mark() -> None:
    """All of it was there when the first line was, and not a byte before the mark."""
    asked, go = asyncio.Event(), asyncio.Event()

    async def mark(_: int, __: Letter) -> bool:
        asked.set()
        await go.wait()
        return True

    script = [
        *hello(*CHUNKING),
        Wait(asked),
        NOTHING,
        Say(go),
        *ENVELOPE,
        *chunk(TRAP),
        *OKS,
        "250 2.0.0 taken",
        *QUITS,
    ]
    async with Relay(script) as relay, office(way(relay.port), mark) as at:
        (report,) = await at.send(mail(content=TRAP, eight_bit=True))
    assert (report.action, report.stage, report.reply) == (Action.SENT, Stage.DOT, "2.0.0 taken")
    assert relay.heard[0].rest == TRAP  # byte for byte: nothing is stuffed, nothing ends it
    assert relay.heard[0].lines[1] == "MAIL FROM:<shop@example.com> BODY=8BITMIME"


@pytest.mark.parametrize(
    ("mode", "priority", "content", "ehlo"),
    [
        ("transaction", 1, b"x" * 70_000 + b"\r\n", CHUNKING),
        ("transaction", 0, CONTENT, CHUNKING),
        ("overlap", 1, CONTENT, CHUNKING),
        ("off", 1, CONTENT, CHUNKING),
        ("transaction", 1, CONTENT, IN_TURN),
    ],
    ids=["large", "has a time of its own", "overlap", "off", "no PIPELINING"],
)
@on_both_loops
async def test_where_the_envelope_goes_first_and_the_mark_between(
    mode: str, priority: int, content: bytes, ehlo: list[str]
) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def mark(_: int, __: Letter) -> bool:
        asked.set()
        await go.wait()
        return True

    before: list[Step] = [*ENVELOPE, NOTHING, *OKS]
    if mode == "off" or ehlo is IN_TURN:
        before = [ENVELOPE[0], NOTHING, OKS[0], ENVELOPE[1], NOTHING, OKS[1]]
    script = [*hello(*ehlo), *before, Wait(asked), NOTHING, Say(go), *chunk(content), "250 taken", *QUITS]
    async with Relay(script) as relay, office(way(relay.port, mode), mark) as at:
        (report,) = await at.send(mail(content=content, priority=priority))
    assert report.action is Action.SENT
    assert relay.heard[0].rest == content


@pytest.mark.parametrize(("ehlo", "wanted"), [(PIPELINING, True), (CHUNKING, False)], ids=["not offered", "not wanted"])
@on_both_loops
async def test_data_where_it_is_not_offered_or_not_wanted(ehlo: list[str], wanted: bool) -> None:
    async with Relay([*hello(*ehlo), Mails()]) as relay, office(route(relay.port, chunking=wanted)) as at:
        (report,) = await at.send(mail(content=TRAP))
    assert report.action is Action.SENT
    assert relay.bodies == [TRAP.replace(b"\r\n.", b"\r\n..")]


@on_both_loops
async def test_the_next_envelope_goes_behind_the_body_and_a_reset_before_it() -> None:
    """What state a refused chunk leaves is not defined: the RSET is there whatever becomes of it."""
    ahead: list[Step] = [Expect("RSET"), *ENVELOPE]
    script = [*hello(*CHUNKING), *ENVELOPE, *OKS, *chunk(), *ahead, "554 5.6.0 no", "250 reset", *OKS]
    script += [*chunk(), NOTHING, "250 taken", *QUITS]
    async with Relay(script) as relay, office(way(relay.port, "overlap")) as at:
        first, second = await at.send(mail(), mail())
    assert (first.action, first.stage) == (Action.FAIL, Stage.DOT)
    assert second.action is Action.SENT


@pytest.mark.parametrize("refused", ["MAIL", "RCPT", "body"])
@on_both_loops
async def test_a_reset_follows_what_was_refused(refused: str) -> None:
    replies = {
        "MAIL": ["550 5.1.8 sender", "503 MAIL first", "503 RCPT first"],
        "RCPT": ["250 ok", "550 5.1.1 unknown", "250 2.0.0 taken"],  # the last one is read, and not believed
        "body": ["250 ok", "250 ok", "554 5.6.0 no"],
    }[refused]
    script = [*hello(*CHUNKING), *ENVELOPE, *chunk(), *replies, Expect("RSET"), *ENVELOPE, NOTHING, "250 reset", *OKS]
    script += [*chunk(), "250 taken", *QUITS]
    async with Relay(script) as relay, office(way(relay.port)) as at:
        first, second = await at.send(mail(), mail())
    assert first.action is Action.FAIL
    assert first.stage is {"MAIL": Stage.MAIL, "RCPT": Stage.RCPT, "body": Stage.DOT}[refused]
    assert second.action is Action.SENT


@on_both_loops
async def test_a_mark_that_says_no_costs_nothing_where_nothing_is_out() -> None:
    async def mark(_: int, about: Letter) -> bool:
        return about.envelope_to != "no@example.net"

    script = [*hello(*CHUNKING), *ENVELOPE, *chunk(), *OKS, "250 taken", *QUITS]
    async with Relay(script) as relay, office(way(relay.port), mark) as at:
        no, yes = await at.send(mail("no@example.net"), mail())
    assert (no.action, no.stage, yes.action) == (Action.ABANDON, Stage.MAIL, Action.SENT)
    assert len(relay.heard) == 1


@pytest.mark.parametrize("mode", ["off", "overlap"])
@on_both_loops
async def test_a_mark_that_says_no_after_the_envelope_closes(mode: str) -> None:
    async def mark(_: int, __: Letter) -> bool:
        return False

    turn = [*ENVELOPE, *OKS] if mode == "overlap" else [ENVELOPE[0], OKS[0], ENVELOPE[1], OKS[1]]
    async with Relay([*hello(*CHUNKING), *turn]) as relay, office(way(relay.port, mode), mark) as at:
        (report,) = await at.send(mail())
    assert (report.action, report.stage) == (Action.ABANDON, Stage.DATA)
    assert relay.heard[0].rest == b""


@pytest.mark.parametrize("stage", ["before the mark returns", "after it"])
@on_both_loops
async def test_close_knows_whether_a_byte_was_out(stage: str) -> None:
    asked, here = asyncio.Event(), asyncio.Event()

    async def mark(_: int, __: Letter) -> bool:
        asked.set()
        if stage == "before the mark returns":
            await asyncio.get_running_loop().create_future()
        return True

    async with Relay([*hello(*CHUNKING), *ENVELOPE, *chunk(), Say(here)]) as relay, office(way(relay.port), mark) as at:
        at.outbox.put(mail())
        await (asked if stage == "before the mark returns" else here).wait()
        await at.courier.close(0)
        await at.running
        ((_, report),) = at.reports
    wanted = Action.PARK if stage == "before the mark returns" else Action.AMBIGUOUS
    assert (report.action, report.klass, report.stage) == (wanted, "interrupted", Stage.MAIL)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunking", [False, True])
@on_both_loops
async def test_a_server_that_stops_reading_is_met_before_the_last_byte(mode: str, chunking: bool) -> None:
    commands = [*ENVELOPE, *([] if chunking else [Expect("DATA")])]
    replies = [*OKS, *([] if chunking else ["354 go"])]
    turn = [step for pair in zip(commands, replies, strict=True) for step in pair]
    script = [*hello(*CHUNKING), *(turn if mode == "off" else [*commands, *replies]), DEAF]
    limits: dict[str, Any] = {"chunking": chunking, "body_timeout": "0.1s"}
    async with Relay(script, [*hello(), Mails()]) as relay, office(route(relay.port, pipelining=mode, **limits)) as at:
        (report,) = await at.send(mail(content=b"y" * 30_000_000 + b"\r\n"))
    assert (report.action, report.klass, report.stage) == (Action.RETRY, "timeout", Stage.DATA)


@pytest.mark.parametrize("mode", MODES)
@on_both_loops
async def test_a_refusal_in_the_middle_of_a_chunk_counts(mode: str) -> None:
    turn = [ENVELOPE[0], OKS[0], ENVELOPE[1], OKS[1]] if mode == "off" else [*ENVELOPE, *OKS]
    script = [*hello(*CHUNKING), *turn, Gets(1000), "552 5.3.4 too big", DEAF]
    async with Relay(script) as relay, office(way(relay.port, mode)) as at:
        (report,) = await at.send(mail(content=b"y" * 30_000_000 + b"\r\n"))
    assert (report.action, report.klass, report.stage) == (Action.FAIL, "too_large", Stage.DATA)

"""Overlap: two mails on one connection, what is on the wire, and each of them reported once."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest
from faulty_relay import FaultyRelay
from scripted_relay import (
    CLOSE,
    CONTENT,
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
    Office,
    Relay,
    Say,
    Step,
    Wait,
    hello,
    letter,
    office,
    on_both_loops,
    route,
    until,
)

from streamq.smtp.letter import Action, Letter, Report, Scope, Stage
from streamq.smtp.protocol import Wire

OKS: list[Step] = ["250 2.1.0 ok", "250 2.1.5 ok", "354 go"]
AHEAD = Gets(len("MAIL FROM:<shop@example.com>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n"))


def mail(to: str = "bob@example.net", content: bytes = CONTENT, **more: Any) -> Letter:
    """Not of the most urgent priority, which has a time of its own and is not sent ahead."""
    return letter(to, content, **{"priority": 1, **more})


@on_both_loops
async def test_the_next_commands_go_with_the_body() -> None:
    """They are there before the body is answered, and three writes carry three mails."""
    script = [*hello(), *ENVELOPE, *OKS, Body(), AHEAD, "250 one", *OKS, Body(), AHEAD, "250 two", *OKS]
    script += [Body(), NOTHING, "250 three", *QUITS]
    async with Relay(script) as relay, office(route(relay.port, pipelining="overlap")) as at:
        reports = await at.send(mail(), mail(), mail())
    assert [(report.action, report.reply) for report in reports] == [
        (Action.SENT, "one"),
        (Action.SENT, "two"),
        (Action.SENT, "three"),
    ]
    assert relay.bodies == [CONTENT] * 3


@pytest.mark.parametrize(
    ("ehlo", "mode", "budget", "priority"),
    [
        (PIPELINING, "transaction", 100, 1),
        (PLAIN, "overlap", 100, 1),
        (PIPELINING, "overlap", 1, 1),
        (PIPELINING, "overlap", 100, 0),
    ],
    ids=["not wanted", "not offered", "last of its budget", "has a time of its own"],
)
@on_both_loops
async def test_where_nothing_goes_ahead(ehlo: list[str], mode: str, budget: int, priority: int) -> None:
    turn: list[Step] = [*ENVELOPE, *OKS]
    if ehlo is PLAIN:
        turn = [step for pair in zip(ENVELOPE, OKS, strict=True) for step in pair]
    script: list[Step] = [*hello(*ehlo), *turn, Body(), NOTHING, "250 one"]
    rest: list[Step] = [*QUITS] if budget == 1 else [*turn, Body(), "250 two", *QUITS]
    way: dict[str, Any] = {"pipelining": mode, "mails_per_connection": budget}
    async with Relay([*script, *rest], [*hello(), Mails()]) as relay, office(route(relay.port, **way)) as at:
        reports = await at.send(mail(priority=priority), mail(priority=priority))
    assert [report.action for report in reports] == [Action.SENT] * 2
    assert len(relay.heard) == (2 if budget == 1 else 1)


@on_both_loops
async def test_a_time_that_is_longer_than_the_dots_may_go_ahead() -> None:
    way = {"pipelining": "overlap", "transaction_timeout": "10m", "dot_timeout": "10m"}
    script = [*hello(), *ENVELOPE, *OKS, Body(), AHEAD, "250 one", *OKS, Body(), "250 two", *QUITS]
    async with Relay(script) as relay, office(route(relay.port, **way)) as at:
        reports = await at.send(letter(), letter())
    assert [report.action for report in reports] == [Action.SENT] * 2


@pytest.mark.parametrize("budget", [1, 2, 3, 7])
@on_both_loops
async def test_a_connection_gets_its_mails_and_no_more(budget: int) -> None:
    way: dict[str, Any] = {"pipelining": "overlap", "mails_per_connection": budget}
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port, **way)) as at:
        reports = await at.send(*(mail() for _ in range(20)))
    assert {report.action for report in reports} == {Action.SENT}
    assert {len(heard.bodies) for heard in relay.heard[:-1]} <= {budget}
    assert all(heard.lines[-1] == "QUIT" and heard.lines.count("QUIT") == 1 for heard in relay.heard)
    assert sum(line.startswith("MAIL") for heard in relay.heard for line in heard.lines) == 20


@on_both_loops
async def test_the_mark_of_the_next_comes_after_the_report_of_the_last() -> None:
    """So `dots` never has to name more than a connection's last two mails."""
    log: list[str] = []

    async def mark(_: int, about: Letter) -> bool:
        log.append(f"mark {about.envelope_to[0]}")
        return True

    async with Relay([*hello(), Mails()]) as relay:
        at = Office(route(relay.port, pipelining="overlap"), mark)
        noted = at.courier._done

        def done(about: Letter, report: Report) -> None:
            log.append(f"done {about.envelope_to[0]}")
            noted(about, report)

        at.courier._done = done
        await at.send(*(mail(f"{name}ob@example.net") for name in "abc"))
        await at.courier.close(5)
        await at.running
    assert log == ["mark a", "done a", "mark b", "done b", "mark c", "done c"]


@on_both_loops
async def test_large_mails_overlap_and_arrive_whole() -> None:
    line = b"." + b"x" * 76 + b"\r\n"
    sizes = [1, 65_536 // len(line), 65_536 // len(line) + 1, 3_000, 2, 1_000]
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port, pipelining="overlap")) as at:
        reports = await at.send(*(mail(content=line * count) for count in sizes))
    assert {report.action for report in reports} == {Action.SENT}
    assert relay.bodies == [(b"." + line) * count for count in sizes]
    assert len(relay.heard) == 1


@on_both_loops
async def test_a_mail_that_the_server_cannot_get_is_refused_in_its_turn() -> None:
    script = [*hello(*PLAIN[:-1], "250-relay.example", "250 PIPELINING"), *GOES, *GOES, *QUITS]
    async with Relay(script) as relay, office(route(relay.port, pipelining="overlap")) as at:
        reports = await at.send(mail(), mail(eight_bit=True), mail())
    assert [(report.action, report.klass) for report in reports] == [
        (Action.SENT, "sent"),
        (Action.FAIL, "eight_bit"),
        (Action.SENT, "sent"),
    ]


@on_both_loops
async def test_a_mail_refused_at_its_dot_leaves_the_next_alone() -> None:
    script = [*hello(), *ENVELOPE, *OKS, Body(), AHEAD, "554 5.6.0 no", *OKS, Body(), "250 two", *QUITS]
    async with Relay(script) as relay, office(route(relay.port, pipelining="overlap")) as at:
        first, second = await at.send(mail(), mail())
    assert (first.action, first.stage, second.action) == (Action.FAIL, Stage.DOT, Action.SENT)


# -- a server that closes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [CLOSE, RESET], ids=["close", "reset"])
@on_both_loops
async def test_a_250_that_came_before_the_end_counts_and_the_next_is_parked(ends: str) -> None:
    """Our commands were unread: the mail before has its 250, the next was never judged and is no attempt."""
    script = [*hello(), *ENVELOPE, *OKS, Body(), "250 2.0.0 one", ends]
    async with Relay(script, [*hello(), Mails()]) as relay, office(route(relay.port, pipelining="overlap")) as at:
        first, second, third = await at.send(mail(), mail(), mail())
    assert (first.action, first.reply) == (Action.SENT, "2.0.0 one")
    assert (second.action, second.scope, second.stage) == (Action.PARK, Scope.SESSION, Stage.MAIL)
    assert third.action is Action.SENT
    assert at.states == []


@pytest.mark.parametrize("ends", [CLOSE, RESET], ids=["close", "reset"])
@on_both_loops
async def test_where_no_250_came_only_the_earlier_one_is_ambiguous(ends: str) -> None:
    script = [*hello(), *ENVELOPE, *OKS, Body(), AHEAD, ends]
    async with Relay(script, [*hello(), Mails()]) as relay, office(route(relay.port, pipelining="overlap")) as at:
        first, second, third = await at.send(mail(), mail(), mail())
    assert (first.action, first.stage, first.klass) == (Action.AMBIGUOUS, Stage.DOT, "disconnected")
    assert (second.action, second.scope, second.stage) == (Action.PARK, Scope.SESSION, Stage.MAIL)
    assert third.action is Action.SENT


@pytest.mark.parametrize("after", [1, 2, 5])
@pytest.mark.parametrize(
    "mode",
    [{"pipelining": mode, "chunking": chunking} for mode in ("off", "transaction", "overlap") for chunking in (0, 1)],
    ids=str,
)
@on_both_loops
async def test_a_server_that_closes_after_some_mails_makes_no_unmarked_double(mode: dict[str, str], after: int) -> None:
    async def mark(_: int, __: Letter) -> bool:
        for _ in range(10):  # a round trip to Redis: the close that came with the last 250 is seen meanwhile
            await asyncio.sleep(0)
        return True

    letters = [mail(f"{n}@example.net") for n in range(25)]
    sent, ambiguous = set[str](), list[str]()
    async with FaultyRelay(closes_after=after) as relay, office(route(relay.port, **mode), mark) as at:
        done = 0
        for one in letters:
            at.outbox.put(one)
        while len(sent) < len(letters):
            await until(lambda: len(at.reports) > done)  # noqa: B023
            about, report = at.reports[done]
            done += 1
            name = about.envelope_to
            if report.action is Action.SENT:
                sent.add(name)
                continue
            assert report.action in {Action.PARK, Action.AMBIGUOUS}  # nobody was judged
            ambiguous += [name] * (report.action is Action.AMBIGUOUS)
            at.courier.look_again()
            at.outbox.put(mail(name))
    taken = [name for name, _ in relay.taken]
    assert set(taken) == sent
    assert {name for name in taken if taken.count(name) > 1} <= set(ambiguous)
    if mode["pipelining"] != "overlap":
        assert ambiguous == []


@on_both_loops
async def test_a_250_behind_a_write_that_fails_is_read() -> None:
    """The server answers and resets; our write fails before the loop had its turn to read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        loop = asyncio.get_running_loop()
        wire = Wire(loop)
        transport, _ = await loop.create_connection(asyncio.Protocol, *listener.getsockname())
        peer, _ = listener.accept()
        peer.settimeout(5)
        wire.attach(transport)
        wire.ask(b"all of it\r\n", 2, 60)
        await until(lambda: len(peer.recv(100, socket.MSG_PEEK)) == len(b"all of it\r\n"))
        peer.recv(100)
        peer.sendall(b"250 2.0.0 queued\r\n")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        wire.write(b"one more\r\n")
        reply = await wire.read()
        assert reply is not None
        assert (reply.code, reply.text) == (250, b"2.0.0 queued")
        assert await wire.read() is None
        assert wire.fault == "disconnected"
        wire.abort()
        await wire.gone(5)


# -- shutdown -----------------------------------------------------------------------------------------------------


@on_both_loops
async def test_close_at_the_dot_reports_both() -> None:
    there = asyncio.Event()
    script = [*hello(), *ENVELOPE, *OKS, Body(), AHEAD, Say(there)]
    async with Relay(script) as relay, office(route(relay.port, pipelining="overlap")) as at:
        for name in "abc":
            at.outbox.put(mail(f"{name}ob@example.net"))
        await there.wait()
        await at.courier.close(0)
        await at.running
        assert [(about.envelope_to[0], r.action, r.stage, r.klass) for about, r in at.reports] == [
            ("a", Action.AMBIGUOUS, Stage.DOT, "interrupted"),
            ("b", Action.PARK, Stage.MAIL, "interrupted"),
        ]
        assert len(at.outbox) == 1


@pytest.mark.parametrize("said", [0, 1, 2])
@on_both_loops
async def test_close_while_the_next_waits_for_its_replies(said: int) -> None:
    script = [*hello(), *ENVELOPE, *OKS, Body(), AHEAD, "250 one", *OKS[:said]]
    stages = [Stage.MAIL, Stage.RCPT, Stage.DATA]
    async with Relay(script) as relay, office(route(relay.port, pipelining="overlap")) as at:
        at.outbox.put(mail("aob@example.net"))
        at.outbox.put(mail("bob@example.net"))
        await at.reported(1)
        for _ in range(50):  # until the client has read what was said
            await asyncio.sleep(0)
        await at.courier.close(0)
        await at.running
        (_, first), (about, second) = at.reports
    assert first.action is Action.SENT
    assert (about.envelope_to, second.action, second.klass) == ("bob@example.net", Action.PARK, "interrupted")
    assert second.stage is stages[said]
    assert relay.heard[0].rest.endswith(b"DATA\r\n")


@pytest.mark.parametrize("how", ["cancelled", "raises"])
@on_both_loops
async def test_a_mark_that_does_not_return_ends_its_own_mail_only(how: str) -> None:
    marked = asyncio.Event()

    async def mark(_: int, about: Letter) -> bool:
        if about.envelope_to == "bob@example.net":
            marked.set()
            if how == "raises":
                raise LookupError("the queue is gone")
            await asyncio.get_running_loop().create_future()
        return True

    script = [*hello(), *ENVELOPE, *OKS, Body(), AHEAD, "250 one", *OKS]
    async with Relay(script) as relay:
        at = Office(route(relay.port, pipelining="overlap"), mark)
        for name in "abc":
            at.outbox.put(mail(f"{name}ob@example.net"))
        await marked.wait()
        if how == "cancelled":
            await at.courier.close(0)
            await at.running
        else:
            with pytest.raises(ExceptionGroup):
                await at.running
    assert [(about.envelope_to[0], r.action, r.stage) for about, r in at.reports] == [
        ("a", Action.SENT, Stage.DOT),
        ("b", Action.PARK, Stage.DATA),
    ]
    assert len(at.outbox) == 1
    assert relay.heard[0].bodies == [CONTENT]


@on_both_loops
async def test_stop_finishes_both() -> None:
    there, go = asyncio.Event(), asyncio.Event()
    script = [*hello(), *ENVELOPE, *OKS, Body(), AHEAD, Say(there), Wait(go), "250 one", *OKS, Body(), NOTHING]
    async with Relay([*script, "250 two", *QUITS]) as relay, office(route(relay.port, pipelining="overlap")) as at:
        for name in "abc":
            at.outbox.put(mail(f"{name}ob@example.net"))
        await there.wait()
        at.courier.stop()
        go.set()
        await at.running
        assert [(about.envelope_to[0], r.action) for about, r in at.reports] == [
            ("a", Action.SENT),
            ("b", Action.SENT),
        ]
        assert len(at.outbox.drain()) == 1


@on_both_loops
async def test_whoever_raises_on_a_report_leaves_no_letter_unreported() -> None:
    """The courier ends, and the mail whose commands are out is told as well."""
    told: list[tuple[str, Action]] = []

    def done(about: Letter, report: Report) -> None:
        told.append((about.envelope_to[0], report.action))
        if len(told) == 1:
            raise LookupError("no room")

    script = [*hello(), *ENVELOPE, *OKS, Body(), AHEAD, "250 one", *OKS]
    async with Relay(script) as relay:
        at = Office(route(relay.port, pipelining="overlap"))
        at.courier._done = done
        at.outbox.put(mail("aob@example.net"))
        at.outbox.put(mail("bob@example.net"))
        with pytest.raises(ExceptionGroup):
            await at.running
    assert told == [("a", Action.SENT), ("b", Action.PARK)]
    assert len(relay.heard[0].bodies) == 1


@on_both_loops
async def test_a_mail_that_is_not_ours_any_more_ends_without_a_byte_of_its_body() -> None:
    async def mark(_: int, about: Letter) -> bool:
        return about.envelope_to != "bob@example.net"

    script = [*hello(), *ENVELOPE, *OKS, Body(), AHEAD, "250 one", *OKS]
    async with Relay(script, [*hello(), Mails()]) as relay, office(route(relay.port, pipelining="overlap"), mark) as at:
        reports = await at.send(*(mail(f"{name}ob@example.net") for name in "abc"))
    assert [(report.action, report.stage) for report in reports] == [
        (Action.SENT, Stage.DOT),
        (Action.ABANDON, Stage.DATA),
        (Action.SENT, Stage.DOT),
    ]
    assert relay.heard[0].rest.endswith(b"DATA\r\n")
    assert len(relay.heard) == 2


@on_both_loops
async def test_a_421_at_the_dot_parks_the_next_unasked() -> None:
    script = [*hello(), *ENVELOPE, *OKS, Body(), AHEAD, "421 4.7.0 [TSS04] temporarily deferred", *OKS, Expect("never")]
    async with Relay(script[:-1], [*hello(), Mails()]) as relay, office(route(relay.port, pipelining="overlap")) as at:
        first, second, third = await at.send(mail(), mail(), mail())
    assert (first.action, first.klass) == (Action.RETRY, "site_rate")
    assert (second.action, second.stage, second.scope) == (Action.PARK, Stage.MAIL, Scope.SESSION)
    assert third.action is Action.SENT
    assert len(relay.heard[0].bodies) == 1

"""The courier: lines, opening and closing, up and down, stopping."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from scripted_relay import (
    CLOSE,
    CONTENT,
    ENVELOPE,
    GOES,
    QUITS,
    Body,
    Expect,
    Mails,
    Office,
    Relay,
    Say,
    Wait,
    hello,
    letter,
    office,
    on_both_loops,
    route,
    until,
)

from streamq.smtp.connection import Connection
from streamq.smtp.handshake import connect
from streamq.smtp.letter import Action, Letter, Scope, Stage


def free_port() -> int:
    """Nobody listens there."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def until_down(at: Office, times: int) -> None:
    """The state is told after the reports."""
    await until(lambda: len(at.states) >= times)


async def skip_the_wait(at: Office) -> None:
    """As if the time until the next probe were over."""
    at.courier.look_again()


@on_both_loops
async def test_one_letter_opens_one_connection() -> None:
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port, connections=10)) as at:
        await at.send(letter())
        await at.send(letter())
        assert at.courier.connections == 1
    assert len(relay.heard) == 1


@on_both_loops
async def test_a_burst_opens_many_at_once_after_the_first_answer() -> None:
    """Ten mails are past their 354 at the same time: ten connections, numbered 0 to 9."""
    numbers: set[int] = set()
    together = asyncio.Event()

    async def mark(number: int, about: Letter) -> bool:
        if about.envelope_to != "first@example.net":
            numbers.add(number)
            if len(numbers) == 10:
                together.set()
            await together.wait()
        return True

    way = 10
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port, connections=way), mark) as at:
        reports = await at.send(letter("first@example.net"), *(letter() for _ in range(100)))
        assert at.courier.connections == 10
    assert {report.action for report in reports} == {Action.SENT}
    assert numbers == set(range(10))
    assert len(relay.heard) == 10


@on_both_loops
async def test_the_urgent_go_first() -> None:
    letters = [letter(f"{n}@example.net", priority=priority) for n, priority in enumerate([2, 1, 0, 1, 0])]
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port)) as at:
        await at.send(*letters)
    sent = [line[9:10] for line in relay.heard[0].lines if line.startswith("RCPT")]
    assert sent == ["2", "4", "1", "3", "0"]


@on_both_loops
async def test_a_connection_is_left_after_its_number_of_mails() -> None:
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port, mails_per_connection=3)) as at:
        reports = await at.send(*(letter() for _ in range(7)))
    assert {report.action for report in reports} == {Action.SENT}
    assert [len(heard.bodies) for heard in relay.heard] == [3, 3, 1]
    assert all(heard.lines[-1] == "QUIT" for heard in relay.heard)


@on_both_loops
async def test_an_idle_connection_is_closed_politely() -> None:
    left = asyncio.Event()
    script = [*hello(), *GOES, *QUITS, Say(left)]
    async with Relay(script, [*hello(), Mails()]) as relay, office(route(relay.port, idle="0.05s")) as at:
        await at.send(letter())
        await left.wait()
        (report,) = await at.send(letter())
    assert report.action is Action.SENT
    assert len(relay.heard) == 2


@on_both_loops
async def test_an_idle_connection_that_the_server_closes_costs_nothing() -> None:
    for bye in (["421 4.4.2 idle"], []):
        gone = asyncio.Event()
        script = [*hello(), *GOES, *bye, Say(gone), CLOSE]
        async with Relay(script, [*hello(), Mails()]) as relay, office(route(relay.port)) as at:
            await at.send(letter())
            await gone.wait()
            await until(lambda: not at.courier.connections)
            (report,) = await at.send(letter())
        assert report.action is Action.SENT
        assert len(relay.heard) == 2


@on_both_loops
async def test_a_relay_that_is_not_there_parks_all() -> None:
    async with office(route(free_port(), connections=5)) as at:
        reports = await at.send(*(letter() for _ in range(20)))
        assert {(r.action, r.scope, r.klass, r.stage) for r in reports} == {
            (Action.PARK, Scope.ROUTE, "unreachable", Stage.CONNECT)
        }
        await until_down(at, 1)
        (state,) = at.states
        assert not at.courier.up
        assert (state.up, state.klass, state.stage) == (False, "unreachable", Stage.CONNECT)
        assert 0 < state.probe_in_ms <= 750
        # Before the time of the probe nothing is tried, and no further state is told.
        (report,) = await at.send(letter())
        assert (report.action, report.scope) == (Action.PARK, Scope.ROUTE)
        assert 0 < report.hint_ms <= 750
        assert len(at.states) == 1
        # After it each letter is a probe, and the time doubles.
        for times in range(2, 9):
            await skip_the_wait(at)
            await at.send(letter())
            await until_down(at, times)
        assert [round(state.probe_in_ms / 750) for state in at.states] == [1, 2, 4, 8, 16, 32, 60, 60]


@on_both_loops
async def test_one_attempt_at_a_time_while_down_and_all_after_it() -> None:
    scripts = [["421 4.3.2 Service not available, closing transmission channel", CLOSE]] * 2
    async with Relay(*scripts, [*hello(), Mails()]) as relay, office(route(relay.port, connections=8)) as at:
        reports = await at.send(*(letter() for _ in range(9)))
        assert {(r.action, r.scope, r.klass, r.stage, r.code) for r in reports} == {
            (Action.PARK, Scope.ROUTE, "shutting_down", Stage.GREETING, 421)
        }
        assert len(relay.heard) == 1
        await until_down(at, 1)
        await skip_the_wait(at)
        await at.send(*(letter() for _ in range(9)))
        assert len(relay.heard) == 2
        await until_down(at, 2)
        await skip_the_wait(at)
        back = await at.send(*(letter() for _ in range(9)))
    assert {report.action for report in back} == {Action.SENT}
    assert [state.up for state in at.states] == [False, False, True]


@pytest.mark.parametrize(
    ("reply", "klass"),
    [
        ("535 5.7.8 Authentication credentials invalid", "authentication"),
        ("530 5.7.0 Authentication required", "authentication"),
        ("550 5.4.5 Daily SMTP relay sending limit exceeded", "quota"),
    ],
)
@on_both_loops
async def test_a_reply_about_our_account_takes_the_route_down(reply: str, klass: str) -> None:
    script = [*hello(), *GOES, *ENVELOPE, reply, "503 no", "503 no", Expect("QUIT"), "221 bye"]
    async with Relay(script, [*hello(), Mails()]) as relay, office(route(relay.port)) as at:
        first, *others = await at.send(*(letter() for _ in range(5)))
        assert first.action is Action.SENT
        assert {(r.action, r.scope, r.klass) for r in others} == {(Action.PARK, Scope.ROUTE, klass)}
        assert [state.klass for state in at.states] == [klass]
        await skip_the_wait(at)
        (back,) = await at.send(letter())
    assert back.action is Action.SENT
    assert [state.up for state in at.states] == [False, True]


@on_both_loops
async def test_a_server_that_takes_two_connections_is_not_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.smtp.opening.FIRST_WAIT", 3600)
    monkeypatch.setattr("streamq.smtp.opening.LONGEST_WAIT", 3600)
    busy = asyncio.Event()
    release = asyncio.Event()

    async def mark(number: int, about: Letter) -> bool:
        if about.envelope_to == "slow@example.net":
            busy.set()
            await release.wait()
        return True

    full = ["421 4.7.0 Error: too many connections", CLOSE]
    way = route(0, connections=4)
    async with Relay([*hello(), Mails()], [*hello(), Mails()], full) as relay:
        way = route(relay.port, connections=4)
        async with office(way, mark) as at:
            await at.send(letter())
            for _ in range(9):
                at.outbox.put(letter("slow@example.net"))
            await busy.wait()
            await until(lambda: len(relay.heard) >= 3)
            release.set()
            reports = await at.reported(10)
            # Held back: a further burst opens nothing.
            heard = len(relay.heard)
            reports = await at.send(*(letter() for _ in range(40)))
            assert len(relay.heard) == heard
    assert {report.action for report in reports} == {Action.SENT}
    assert at.states == []


@on_both_loops
async def test_stop_finishes_what_is_under_way_and_leaves_the_rest() -> None:
    marked, go = asyncio.Event(), asyncio.Event()

    async def mark(_: int, __: Letter) -> bool:
        marked.set()
        await go.wait()
        return True

    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port), mark) as at:
        for _ in range(3):
            at.outbox.put(letter())
        await marked.wait()
        at.courier.stop()
        go.set()
        await at.running
        assert [report.action for _, report in at.reports] == [Action.SENT]
        assert len(at.outbox.drain()) == 2
    assert relay.heard[0].lines[-1] == "QUIT"


@on_both_loops
async def test_close_aborts_what_does_not_end() -> None:
    """Past its dot: ambiguous. Before it: parked, and no attempt."""
    bodies, marks = asyncio.Event(), asyncio.Event()

    async def mark(_: int, about: Letter) -> bool:
        if about.envelope_to == "before@example.net":
            marks.set()
            await asyncio.get_running_loop().create_future()
        return True

    begins = [*hello(), *ENVELOPE, "250 a", "250 b", "354 c"]
    scripts = [[*hello(), Mails(1), *begins[len(hello()) :], Body(), Say(bodies)], begins]
    async with Relay(*scripts) as relay, office(route(relay.port, connections=2), mark) as at:
        await at.send(letter())
        after, before = letter("after@example.net"), letter("before@example.net")
        at.outbox.put(after)
        await bodies.wait()
        at.outbox.put(before)
        await marks.wait()
        await at.courier.close(0)
        await at.running
        reports = {about.envelope_to: report for about, report in at.reports}
    assert (reports["after@example.net"].action, reports["after@example.net"].stage) == (
        Action.AMBIGUOUS,
        Stage.DOT,
    )
    assert (reports["before@example.net"].action, reports["before@example.net"].stage) == (
        Action.PARK,
        Stage.DATA,
    )
    assert relay.heard[1].rest == b""


@on_both_loops
async def test_close_gives_up_a_connection_that_is_being_opened() -> None:
    asked = asyncio.Event()
    async with Relay(["220 hi", Expect("EHLO"), Say(asked)]) as relay, office(route(relay.port)) as at:
        at.outbox.put(letter())
        await asked.wait()
        await at.courier.close(60)
        await at.running
        assert at.reports == []
        assert len(at.outbox) == 1


@on_both_loops
async def test_a_mark_that_raises_ends_the_courier_and_loses_no_letter() -> None:
    async def mark(_: int, __: Letter) -> bool:
        raise LookupError("the queue is gone")

    script = [*hello(), *ENVELOPE, "250 a", "250 b", "354 c"]
    async with Relay(script) as relay:
        at = Office(route(relay.port), mark)
        at.outbox.put(letter())
        at.outbox.put(letter())
        with pytest.raises(ExceptionGroup) as raised:
            await at.running
    assert isinstance(raised.value.exceptions[0], LookupError)
    assert [(report.action, report.stage) for _, report in at.reports] == [(Action.PARK, Stage.DATA)]
    assert len(at.outbox) == 1
    assert relay.heard[0].rest == b""


@on_both_loops
async def test_a_letter_at_its_connections_first_breath_is_not_hammered() -> None:
    """The server greets, then hangs up at MAIL: that is a route that is down, not a mail that is bad."""
    async with Relay([*hello(), *ENVELOPE, CLOSE]) as relay, office(route(relay.port)) as at:
        reports = await at.send(*(letter() for _ in range(5)))
        assert {(r.action, r.scope, r.klass, r.stage) for r in reports} == {
            (Action.PARK, Scope.ROUTE, "disconnected", Stage.MAIL)
        }
        assert len(relay.heard) == 1


@on_both_loops
async def test_letters_wait_for_the_wait() -> None:
    """A letter that the script holds at its body does not keep a second one from a second connection."""
    here, go = asyncio.Event(), asyncio.Event()
    slow = [*hello(), Mails(1), *ENVELOPE, "250 a", "250 b", "354 c", Body(), Say(here), Wait(go), "250 d", *QUITS]
    async with Relay(slow, [*hello(), Mails()]) as relay, office(route(relay.port, connections=2)) as at:
        await at.send(letter())
        at.outbox.put(letter("slow@example.net"))
        await here.wait()
        at.outbox.put(letter("quick@example.net"))
        await at.reported(2)
        go.set()
        await at.reported(3)
    assert [about.envelope_to for about, _ in at.reports[1:]] == ["quick@example.net", "slow@example.net"]
    assert relay.bodies == [CONTENT] * 3


@on_both_loops
async def test_a_line_that_breaks_as_it_is_woken_passes_the_letter_on(monkeypatch: pytest.MonkeyPatch) -> None:
    links: list[Connection] = []
    together = asyncio.Event()

    async def noted(*how: Any) -> Connection:
        links.append(await connect(*how))
        return links[-1]

    async def mark(_: int, about: Letter) -> bool:
        if about.envelope_to == "both@example.net":
            both.append(about)
            if len(both) == 2:
                together.set()
            await together.wait()
        return True

    both: list[Letter] = []
    monkeypatch.setattr("streamq.smtp.courier.connect", noted)
    calm: dict[str, Any] = {"connections": 2, "idle": "1h"}  # else the other would find the letter as its rest ends
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port, **calm), mark) as at:
        await at.send(letter())
        await at.send(letter("both@example.net"), letter("both@example.net"))
        await until(lambda: at.outbox.resting == 2)
        at.outbox.put(letter("last@example.net"))  # wakes one of the two, and now that one breaks
        woken = next(link for link in links if link.wire._waiter is not None and link.wire._waiter.done())
        woken.wire.breach("gone")
        await at.reported(4)
        assert at.reports[-1][1].action is Action.SENT
    assert len(relay.heard) == 2

"""The courier's share of connections: how many it may have changes at any time."""

from __future__ import annotations

import asyncio

from scripted_relay import Mails, Relay, hello, letter, office, on_both_loops, route, until

from streamq.smtp.letter import Action, Letter

MANY = 10


class Gate:
    """Letters stop before their dot until it opens; the numbers of connections that stand there."""

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self.opened = asyncio.Event()

    async def mark(self, number: int, about: Letter) -> bool:
        if about.envelope_to == "first@example.net":
            return True
        self.numbers.add(number)
        await self.opened.wait()
        return True


@on_both_loops
async def test_no_more_than_it_may_and_more_when_it_may() -> None:
    gate = Gate()
    calls: list[int] = []
    async with (
        Relay([*hello(), Mails()]) as relay,
        office(route(relay.port, connections=MANY), gate.mark, short=lambda: calls.append(1)) as at,
    ):
        at.courier.allow(3)
        await at.send(letter("first@example.net"))
        for _ in range(100):
            at.outbox.put(letter())
        await until(lambda: len(gate.numbers) == 3)
        assert (at.courier.connections, at.courier.wanted) == (3, MANY)
        assert calls  # it said that it has work for more
        at.courier.allow(7)
        await until(lambda: len(gate.numbers) == 7)
        assert at.courier.connections == 7
        gate.opened.set()
        reports = await at.reported(101)
    assert {report.action for report in reports} == {Action.SENT}


@on_both_loops
async def test_what_is_too_much_closes_politely_resting_or_at_work() -> None:
    gate = Gate()
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port, connections=MANY), gate.mark) as at:
        await at.send(letter("first@example.net"))
        for _ in range(100):
            at.outbox.put(letter())
        await until(lambda: len(gate.numbers) == MANY)
        at.courier.allow(4)
        assert at.courier.connections == MANY  # nothing that is under way is cut
        gate.opened.set()
        await at.reported(101)
        await until(lambda: at.courier.connections == 4)
        at.courier.allow(0)  # those that rest, too
        await until(lambda: at.courier.connections == 0)
        at.outbox.put(letter())
        assert (at.courier.connections, at.courier.wanted, at.courier.waiting) == (0, 1, 1)
        at.courier.allow(1)
        await at.reported(102)
    assert all(heard.lines[-1] == "QUIT" for heard in relay.heard)
    assert len(relay.heard) == MANY + 1


@on_both_loops
async def test_after_its_time_none_is_opened() -> None:
    now = asyncio.get_running_loop().time()
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port, mails_per_connection=3)) as at:
        await at.send(letter())
        at.courier.allow(1, until=now)
        await at.send(letter(), letter())
        await until(lambda: at.courier.connections == 0)
        at.outbox.put(letter())
        await asyncio.sleep(0)
        assert (at.courier.connections, len(at.reports)) == (0, 3)
        at.courier.allow(1, until=now + 3600)
        await at.reported(4)
    assert [len(heard.bodies) for heard in relay.heard] == [3, 1]


@on_both_loops
async def test_a_line_that_was_begun_in_time_and_comes_to_it_late_opens_nothing() -> None:
    """The process stood still in between."""
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port, mails_per_connection=1)) as at:
        await at.send(letter())
        await until(lambda: at.courier.connections == 0)
        at.outbox.put(letter())
        assert at.courier.connections == 1  # its task has not begun
        at.courier.allow(1, until=asyncio.get_running_loop().time())
        await until(lambda: at.courier.connections == 0)
        assert len(relay.heard) == 1
        at.courier.allow(1)
        await at.reported(2)


@on_both_loops
async def test_what_a_question_did_not_tell_of_is_not_opened_before_its_answer() -> None:
    """The answer may be a smaller number, and others be given the rest, of which nobody knows that it is in use."""
    gate = Gate()
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port, connections=MANY), gate.mark) as at:
        await at.send(letter("first@example.net"))
        at.courier.allow(4)
        at.courier.news()  # one rests
        for _ in range(100):
            at.outbox.put(letter())
        await until(lambda: len(gate.numbers) == 1)
        assert at.courier.connections == 1
        at.courier.allow(3)
        await until(lambda: len(gate.numbers) == 3)
        assert at.courier.connections == 3
        gate.opened.set()
        await at.reported(101)


@on_both_loops
async def test_a_route_that_is_said_to_be_well_is_tried_at_once() -> None:
    async with Relay([*hello(), Mails()]) as relay:
        port = relay.port
    async with office(route(port)) as at:
        (report,) = await at.send(letter())
        assert report.action is Action.PARK
        assert 0 < at.courier.closed_for <= 0.75
        at.courier.look_again()
        assert at.courier.closed_for == 0
        await at.send(letter())
        assert len(at.states) == 2  # it went out to see

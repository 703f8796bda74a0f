"""courier.py: a letter whose slot has run out before its MAIL asks for another one."""

from __future__ import annotations

import asyncio

import pytest
from scripted_relay import Mails, Relay, hello, letter, office, on_both_loops, route, until

from streamq.smtp.letter import Action, Letter, Scope

GONE = 0.0  # loop time, long ago


def late(to: str = "bob@example.net") -> Letter:
    made = letter(to)
    made.fresh_until = GONE
    return made


@on_both_loops
async def test_what_is_late_asks_and_what_is_fresh_does_not() -> None:
    asked: list[str] = []

    async def again(about: Letter) -> bool:
        asked.append(about.envelope_to)
        return True

    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port), again=again) as at:
        fresh = letter("fresh@example.net")
        fresh.fresh_until = asyncio.get_running_loop().time() + 3600
        reports = await at.send(late("late@example.net"), letter("any@example.net"), fresh)
        assert [report.action for report in reports] == [Action.SENT] * 3
    assert asked == ["late@example.net"]


@on_both_loops
async def test_what_is_taken_away_is_not_sent_and_not_reported() -> None:
    async def again(about: Letter) -> bool:
        return False

    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port), again=again) as at:
        at.outbox.put(late())
        reports = await at.send(letter("other@example.net"))
        assert [report.action for report in reports] == [Action.SENT]
        assert len(at.reports) == 1
    assert [line for line in relay.heard[0].lines if line.startswith("RCPT")] == ["RCPT TO:<other@example.net>"]


@on_both_loops
async def test_a_courier_that_ends_while_it_asks_loses_no_letter() -> None:
    asking = asyncio.Event()

    async def again(about: Letter) -> bool:
        asking.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port), again=again) as at:
        at.outbox.put(late())
        await asking.wait()
        await at.courier.close(0)
        await at.running
        assert [(report.action, report.scope) for _, report in at.reports] == [(Action.PARK, Scope.SESSION)]


@on_both_loops
async def test_nothing_that_is_late_goes_ahead() -> None:
    """With `overlap` the next mail's commands go out behind a body: only of one that is fresh then."""
    asked: list[str] = []

    async def again(about: Letter) -> bool:
        asked.append(about.envelope_to)
        return True

    overlap = {"pipelining": "overlap"}
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port, **overlap), again=again) as at:
        reports = await at.send(letter("a@example.net"), late("b@example.net"), letter("c@example.net"))
        assert [report.action for report in reports] == [Action.SENT] * 3
    assert asked == ["b@example.net"]


@on_both_loops
async def test_in_an_outbox_slots_go_first_within_their_priority() -> None:
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port)) as at:
        order = [letter("low@example.net", priority=2), letter("any@example.net", priority=1)]
        slotted = letter("slot@example.net", priority=1)
        slotted.fresh_until = asyncio.get_running_loop().time() + 3600
        urgent = letter("urgent@example.net", priority=0)
        await at.send(*order, slotted, urgent)
        await until(lambda: len(at.reports) == 4)
    names = [line[9:].partition("@")[0] for line in relay.heard[0].lines if line.startswith("RCPT")]
    assert names == ["urgent", "slot", "any", "low"]


@on_both_loops
@pytest.mark.parametrize(("counted", "wanted"), [(True, 6), (False, 3)])
async def test_a_transaction_that_is_counted_waits_for_no_other(counted: bool, wanted: int) -> None:
    async with Relay(*[[*hello(), Mails()]] * 10) as relay, office(route(relay.port, connections=10)) as at:
        await at.send(letter())
        letters = [letter(f"{number}@example.net") for number in range(5)]
        for one in letters:
            one.counted = counted
            at.outbox.put(one)
        assert at.courier.wanted == wanted
        await at.reported(6)

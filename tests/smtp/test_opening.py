"""Opening lines: how many at a time, which failures say that a server takes no more, what all workers hear of it."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

import pytest
from scripted_relay import (
    CLOSE,
    ENVELOPE,
    GOES,
    RESET,
    Expect,
    Mails,
    Office,
    Relay,
    Script,
    Wait,
    hello,
    letter,
    office,
    on_both_loops,
    route,
    until,
)

from streamq.smtp.connection import NotConnected
from streamq.smtp.letter import Action, Letter, Scope, Stage
from streamq.smtp.opening import News, Opening, turned_away

ANSWERS = [*hello(), Mails()]


def lot(most: int = 20, mails: int = 100) -> Opening:
    return Opening(most, mails, lambda: 0.0)


def allow(one: Opening, most: int = 20, **known: Any) -> None:
    one.allow(most, **{"until": inf, "mails": None, "elsewhere": 0, "careful": False, **known})


class Busy:
    """Letters but those to `free@` stop before their dot until it is over."""

    def __init__(self) -> None:
        self.at_work = 0
        self.over = asyncio.Event()

    async def mark(self, _: int, about: Letter) -> bool:
        if about.envelope_to != "free@example.net":
            self.at_work += 1
            await self.over.wait()
        return True


async def two_at_work(at: Office, busy: Busy) -> None:
    """One line stands and is busy; there is work for a second one."""
    await at.send(letter("free@example.net"))
    at.outbox.put(letter())
    await until(lambda: busy.at_work == 1)
    at.outbox.put(letter())


# -- how many ------------------------------------------------------------------------------------------------------


def test_no_more_at_a_time_than_stand() -> None:
    one = lot()
    assert [one.more(20, stand, 0) for stand in (0, 1, 2, 4, 8, 16, 20)] == [1, 1, 2, 4, 8, 4, 0]
    assert one.more(20, 7, 3) == 1  # three are under way, beside four
    assert one.more(5, 4, 0) == 1
    allow(one, 6)
    assert one.more(20, 4, 0) == 2
    allow(one, 3)
    assert one.more(20, 4, 0) == 0
    allow(one, 20)
    one.news(5, 4, lost=False)
    assert [one.more(20, lines, 0) for lines in (4, 5)] == [1, 0]  # before the answer
    allow(one, 20)
    assert one.more(20, 5, 0) == 5


def test_one_by_one_where_some_were_refused() -> None:
    one = lot()
    allow(one, careful=True)
    assert [one.more(20, stand, 0) for stand in (0, 1, 8)] == [1, 1, 1]
    assert one.more(20, 9, 1) == 0


@on_both_loops
async def test_a_line_that_is_greeted_makes_way_for_more() -> None:
    """Before any of the new ones has had an answer to a mail: 1, 2, 4, 8."""
    busy = Busy()
    async with Relay(ANSWERS) as relay, office(route(relay.port, connections=8), busy.mark) as at:
        await at.send(letter("free@example.net"))
        for _ in range(40):
            at.outbox.put(letter())
        await until(lambda: busy.at_work == 8)
        busy.over.set()
        await at.reported(41)
    assert len(relay.heard) == 8


# -- what a failure says ---------------------------------------------------------------------------------------------

AT_THE_DOOR: list[tuple[str, Script, bool]] = [
    ("too many", ["421 4.7.0 Error: too many connections", CLOSE], True),
    ("concurrent", ["554 Too many concurrent SMTP connections", CLOSE], True),
    ("421", ["421 4.3.2 Service not available, closing transmission channel", CLOSE], True),
    ("454", ["454 4.7.0 try again", CLOSE], True),
    ("EHLO", ["220 hi", Expect("EHLO"), "421 4.3.2 later", CLOSE], True),
    ("close", [CLOSE], True),
    ("reset", [RESET], True),
    ("close at EHLO", ["220 hi", Expect("EHLO"), CLOSE], False),
    ("policy", ["554 5.7.1 blocked", CLOSE], False),
    ("garbage", ["hello", CLOSE], False),
]


@pytest.mark.parametrize(
    ("script", "counts"), [each[1:] for each in AT_THE_DOOR], ids=[each[0] for each in AT_THE_DOOR]
)
@on_both_loops
async def test_what_counts_as_turned_away_while_others_work(script: Script, counts: bool) -> None:
    busy = Busy()
    shorts: list[int] = []
    async with (
        Relay(ANSWERS, script) as relay,
        office(route(relay.port, connections=5), busy.mark, short=lambda: shorts.append(1)) as at,
    ):
        await two_at_work(at, busy)
        await until(lambda: len(relay.heard) == 2 and at.courier.connections == 1)
        assert at.courier.news() == News(1, 0, int(counts), int(counts), 0, 0, 1)
        assert bool(shorts) == counts  # news of that kind waits for no renewal
        assert at.courier.news().refused == 0  # told once
        assert at.courier.up
        busy.over.set()
        reports = await at.reported(3)
    assert {report.action for report in reports} == {Action.SENT}
    assert at.states == []


def test_names_tls_and_accounts_fail_for_other_reasons() -> None:
    for stage, klass, code in (
        (Stage.CONNECT, "unreachable", 0),
        (Stage.STARTTLS, "tls", 454),
        (Stage.AUTH, "authentication", 454),
        (Stage.AUTH, "authentication", 421),
        (Stage.GREETING, "timeout", 0),
    ):
        assert not turned_away(NotConnected(stage, klass, "", code=code)), (stage, klass)


@on_both_loops
async def test_a_first_mail_that_meets_the_limit_counts_too() -> None:
    """Exchange greets whom it will not serve, and says so to MAIL."""
    busy = Busy()
    full: Script = [*hello(), *ENVELOPE, "432 4.3.2 Concurrent connections limit exceeded", "503 no", "503 no", CLOSE]
    async with Relay(ANSWERS, full) as relay, office(route(relay.port, connections=5), busy.mark) as at:
        await two_at_work(at, busy)
        reports = await at.reported(2)
        assert (reports[1].action, reports[1].scope) == (Action.PARK, Scope.SESSION)
        assert at.courier.news()[2:4] == (1, 1)
        assert at.states == []
        busy.over.set()
        await at.reported(3)


# -- what follows ----------------------------------------------------------------------------------------------------


@on_both_loops
async def test_nothing_is_opened_until_the_word_is_answered() -> None:
    busy = Busy()
    scripts: list[Script] = [ANSWERS, ["421 too many connections", CLOSE], ANSWERS]
    async with Relay(*scripts) as relay, office(route(relay.port, connections=5), busy.mark) as at:
        await two_at_work(at, busy)
        await until(lambda: len(relay.heard) == 2 and at.courier.connections == 1)
        at.courier.allow(5)  # the answer to an older question
        assert at.courier.connections == 1
        assert at.courier.news().refused == 1
        at.courier.allow(5)
        assert at.courier.connections == 2
        await until(lambda: busy.at_work == 2)
        busy.over.set()
        await at.reported(3)


@on_both_loops
async def test_who_is_turned_away_while_other_workers_stand_takes_nothing_down() -> None:
    scripts: list[Script] = [["421 too many connections", CLOSE], ANSWERS]
    async with Relay(*scripts) as relay, office(route(relay.port, connections=5)) as at:
        at.courier.allow(1, elsewhere=4)
        at.outbox.put(letter())
        await until(lambda: at.courier.held)
        assert (at.courier.up, at.courier.connections, at.courier.waiting) == (True, 0, 1)
        assert at.courier.news() == News(0, 0, 1, 0, 0, 0, 0)
        at.courier.allow(1, elsewhere=4)
        assert not at.courier.held
        (report,) = await at.reported(1)
        assert report.action is Action.SENT


@on_both_loops
async def test_who_is_turned_away_alone_is_down() -> None:
    async with Relay(["421 too many connections", CLOSE]) as relay, office(route(relay.port)) as at:
        (report,) = await at.send(letter())
        assert (report.action, report.scope, report.klass) == (Action.PARK, Scope.ROUTE, "connection_limit")
        await until(lambda: bool(at.states))
        assert not at.courier.up
        assert at.courier.news() == News(0, 1, 0, 0, 0, 0, 0)


@on_both_loops
async def test_silence_at_ones_first_connection_says_nothing_of_the_limit() -> None:
    """Others stand, but it may be our own network."""
    async with Relay([CLOSE]) as relay, office(route(relay.port)) as at:
        at.courier.allow(1, elsewhere=4)
        (report,) = await at.send(letter())
        assert (report.action, report.scope, report.code) == (Action.PARK, Scope.ROUTE, 0)
        assert at.courier.news().refused == 0


# -- sessions that end -------------------------------------------------------------------------------------------------


@on_both_loops
async def test_too_many_in_this_session_is_what_each_line_bears_from_now_on() -> None:
    full: Script = [*hello(), Mails(3), *ENVELOPE, "421 4.7.0 Too many messages in this session", CLOSE]
    shorts: list[int] = []
    async with Relay(full, ANSWERS) as relay:
        async with office(route(relay.port), short=lambda: shorts.append(1)) as at:
            reports = [(await at.send(letter()))[0] for _ in range(4)]
            assert (reports[-1].action, reports[-1].klass) == (Action.PARK, "session_limit")
            assert shorts
            assert at.courier.news()[2:] == (0, 0, 3, 0, 3)
            await at.send(*(letter() for _ in range(7)))
            at.courier.allow(1, mails=2)
            await at.send(*(letter() for _ in range(2)))
        assert [len(heard.bodies) for heard in relay.heard] == [3, 3, 3, 2, 1]
        assert all(heard.lines[-1] == "QUIT" for heard in relay.heard[1:])
        assert at.courier.news().full == 3
    assert at.states == []


@pytest.mark.parametrize(
    ("bye", "klass"),
    [
        ("421 4.3.2 Service shutting down", "shutting_down"),
        ("421 4.4.2 Error: timeout exceeded", "idle_close"),
        ("451 4.4.2 Timeout - closing connection", "idle_close"),
    ],
)
@on_both_loops
async def test_a_session_that_ends_for_another_reason_is_opened_anew(bye: str, klass: str) -> None:
    """At a MAIL: the mail is parked without an attempt, the next one goes over a new connection, nothing is learnt."""
    ends: Script = [*hello(), *GOES, *ENVELOPE, bye, CLOSE]
    async with Relay(ends, ANSWERS) as relay, office(route(relay.port)) as at:
        await at.send(letter())
        (report,) = await at.send(letter())
        assert (report.action, report.scope, report.klass) == (Action.PARK, Scope.SESSION, klass)
        (report,) = await at.send(letter())
        assert report.action is Action.SENT
        assert at.courier.news() == News(1, 0, 0, 0, 0, 0, 2)
        assert at.states == []
    assert len(relay.heard) == 2


@on_both_loops
async def test_while_one_is_greeted_no_other_is_opened() -> None:
    """By a courier that has one: it takes the first steps one at a time."""
    greet = asyncio.Event()
    busy = Busy()
    scripts: list[Script] = [ANSWERS, [Wait(greet), *ANSWERS], ANSWERS]
    async with Relay(*scripts) as relay, office(route(relay.port, connections=9), busy.mark) as at:
        await two_at_work(at, busy)
        for _ in range(30):
            at.outbox.put(letter())
        await until(lambda: len(relay.heard) == 2)
        assert at.courier.connections == 2
        greet.set()
        await until(lambda: busy.at_work == 9)
        busy.over.set()
        await at.reported(33)

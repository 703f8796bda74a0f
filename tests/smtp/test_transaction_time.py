"""A time of a mail's own: by priority, up to the dot and no further."""

from __future__ import annotations

import asyncio
from math import inf
from pathlib import Path
from typing import Any

import pytest
from faulty_relay import Fault, FaultyRelay
from scripted_relay import Mails, Relay, hello, letter, office, on_both_loops, route

from streamq.errors import SettingsError
from streamq.settings import RouteSettings, load_settings
from streamq.smtp.connection import Connection
from streamq.smtp.handshake import connect
from streamq.smtp.letter import Action, Letter, Scope, Stage

NAMES = ("high", "normal", "low")
MODES: list[dict[str, Any]] = [
    {"pipelining": mode, "chunking": chunking}
    for mode in ("off", "transaction", "overlap")
    for chunking in (False, True)
]


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """The connections that a courier made."""
    made: list[Connection] = []

    async def noted(*how: Any) -> Connection:
        made.append(await connect(*how))
        return made[-1]

    monkeypatch.setattr("streamq.smtp.courier.connect", noted)
    return made


async def pass_the_time(relay: FaultyRelay, links: list[Connection]) -> None:
    """As if the next time limit were over."""
    await relay.hangs.wait()
    for _ in range(50):  # both ends turn in this loop: the client reads what was said before
        await asyncio.sleep(0)
    links[0].wire.expired = True
    links[0].wire._wake()


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize(
    ("stage", "action", "klass"),
    [
        (Stage.MAIL, Action.PARK, "slow"),
        (Stage.RCPT, Action.RETRY, "slow"),
        (Stage.DATA, Action.RETRY, "slow"),
        (Stage.DOT, Action.AMBIGUOUS, "timeout"),  # ten minutes, whatever the mail's own time is
    ],
)
@on_both_loops
async def test_it_ends_by_stage(
    mode: dict[str, Any], stage: Stage, action: Action, klass: str, links: list[Connection]
) -> None:
    if mode["chunking"] and stage is Stage.DATA:
        stage, action, klass = Stage.DOT, Action.AMBIGUOUS, "timeout"  # there is nothing between RCPT and the body
    async with FaultyRelay(Fault(1, stage, "silence")) as relay, office(route(relay.port, **mode)) as at:
        clock = asyncio.create_task(pass_the_time(relay, links))
        at.outbox.put(letter())
        (report,) = await at.reported(1)
        await clock
        assert (report.action, report.klass, report.stage, report.scope) == (action, klass, stage, Scope.SESSION)
        assert at.courier.up  # one mail was in a hurry: that says nothing of the route
        (again,) = (await at.send(letter("carol@example.net")))[-1:]
        assert again.action is Action.SENT
    assert len(relay.sessions) == 2


@on_both_loops
async def test_a_mail_without_one_has_the_commands_time_only(links: list[Connection]) -> None:
    async with FaultyRelay(Fault(1, Stage.RCPT, "silence")) as relay, office(route(relay.port)) as at:
        clock = asyncio.create_task(pass_the_time(relay, links))
        at.outbox.put(letter(priority=1))
        (report,) = await at.reported(1)
        await clock
    assert (report.action, report.klass) == (Action.RETRY, "timeout")


@pytest.mark.parametrize(("patience", "seconds"), [(0, 60), (1, 120), (3, 480), (5000, 60 * 1024)])
@on_both_loops
async def test_it_doubles_with_each_time_that_it_was_too_short(
    patience: int, seconds: float, links: list[Connection]
) -> None:
    left: list[float] = []

    async def mark(_: int, __: Letter) -> bool:
        left.append(links[0].wire.limit - asyncio.get_running_loop().time())
        return True

    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port), mark) as at:
        await at.send(letter(patience=patience))
        assert seconds - 40 < left[0] < seconds + 1
        # A connection that rests, or says goodbye, has all the time that it had.
        assert links[0].wire.limit == inf


@on_both_loops
async def test_a_refusal_leaves_no_limit_behind(links: list[Connection]) -> None:
    async with FaultyRelay(Fault(1, Stage.RCPT, "5xx")) as relay, office(route(relay.port)) as at:
        (report,) = await at.send(letter())
        assert report.action is Action.FAIL
        assert links[0].wire.limit == inf
    assert relay.sessions[0].lines[-1] == "QUIT"


# -- the setting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, (60, inf, inf)),
        ("10m", (600, 600, 600)),
        (90, (90, 90, 90)),
        ({"high": "30s"}, (30, inf, inf)),
        ({"high": "30s", "*": "1h"}, (30, 3600, 3600)),
        ({}, (inf, inf, inf)),
    ],
)
def test_how_it_is_set(given: Any, seconds: tuple[float, ...]) -> None:
    way = RouteSettings.model_validate({"url": "smtp://h", "transaction_timeout": given})
    assert way.transaction_seconds(NAMES) == seconds


def test_the_default_is_the_most_urgent_ones() -> None:
    way = RouteSettings.model_validate({"url": "smtp://h"})
    assert way.transaction_seconds(("now", "later")) == (60, inf)
    assert way.transaction_seconds(()) == ()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ('"soon"', "not a duration (write 90s, 5m, 1h, 5d): 'soon'"),
        ('"0.5s"', "*: at least 1s: '0.5s'"),
        ('{high = "0"}', "high: at least 1s: '0'"),
        ('{high = "1m", low = [1]}', "not a duration"),
        ('{urgent = "30s"}', "no such priority: 'urgent'"),
        ("true", "not a duration, nor durations by priority"),
        ("[1]", "not a duration, nor durations by priority"),
    ],
)
def test_a_wrong_one_is_named(given: str, why: str, tmp_path: Path) -> None:
    config = tmp_path / "streamq.toml"
    config.write_text(f"[routes.main]\nurl = 'smtp://h'\ntransaction_timeout = {given}\n")
    with pytest.raises(SettingsError, match=r"routes\.main\.transaction_timeout") as wrong:
        load_settings(config)
    assert why in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_a_priority_of_ones_own_has_one() -> None:
    routes = {"main": {"url": "smtp://h", "transaction_timeout": {"now": "5s"}}}
    made = load_settings(routes=routes, priorities="now,later")
    assert made.ways["main"].transaction_seconds(made.priorities) == (5, inf)


@pytest.mark.parametrize("name", ["connect", "greeting", "command", "data", "body", "dot"])
def test_no_time_at_all_is_no_limit_of_time(name: str) -> None:
    """Who writes 0 means "for ever"; what came of it was a mail that is ambiguous at each of its dots."""
    with pytest.raises(ValueError, match=rf"{name}_timeout\n.*greater than or equal to 1"):
        RouteSettings.model_validate({"url": "smtp://h", f"{name}_timeout": "0s"})

"""Kept connections: how long they live, and that none is given a mail which the server has left already."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from scripted_relay import (
    CLOSE,
    GOES,
    QUITS,
    RESET,
    Mails,
    Relay,
    Say,
    Script,
    Step,
    hello,
    letter,
    office,
    on_both_loops,
    route,
    until,
)
from tidy import tidy

from streamq.settings import RouteSettings
from streamq.smtp.connection import Connection
from streamq.smtp.handshake import connect
from streamq.smtp.letter import Action

HELLO_AGAIN: Script = [*hello(), Mails()]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """The connections of the test's courier."""
    links: list[Connection] = []

    async def noted(*how: Any) -> Connection:
        links.append(await connect(*how))
        return links[-1]

    monkeypatch.setattr("streamq.smtp.courier.connect", noted)
    return links


@on_both_loops
async def test_a_connection_has_its_time(opened: list[Connection]) -> None:
    async with (
        tidy(),
        Relay(HELLO_AGAIN) as relay,
        office(route(relay.port, connection_lifetime="1h", idle="1d")) as at,
    ):
        await at.send(letter())
        await at.send(letter())
        assert len(relay.heard) == 1
        opened[0].since -= 3601
        (report,) = await at.send(letter())
        assert report.action is Action.SENT
    assert [len(heard.bodies) for heard in relay.heard] == [2, 1]
    assert relay.heard[0].lines[-1] == "QUIT"


@on_both_loops
async def test_a_rest_ends_with_the_connections_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def aged(*how: Any) -> Connection:
        link = await connect(*how)
        link.since -= 3600 - 0.1  # nearly over
        return link

    monkeypatch.setattr("streamq.smtp.courier.connect", aged)
    left = asyncio.Event()
    async with (
        Relay([*hello(), *GOES, *QUITS, Say(left)]) as relay,
        office(route(relay.port, connection_lifetime="1h", idle="1d")) as at,
    ):
        await at.send(letter())
        await left.wait()


@pytest.mark.parametrize(
    "end",
    [["421 4.4.2 idle for too long", CLOSE], [CLOSE], [RESET], ["421 4.4.2 idle for too long"], ["250 what"]],
    ids=["421 and close", "close", "reset", "421", "a stray reply"],
)
@on_both_loops
async def test_a_server_that_leaves_while_we_rest_costs_no_mail(end: list[Step]) -> None:
    async with tidy():
        async with Relay([*hello(), *GOES, *end], HELLO_AGAIN) as relay, office(route(relay.port, idle="1d")) as at:
            await at.send(letter())
            await until(lambda: not at.courier.connections)
            (report,) = await at.send(letter())
            assert report.action is Action.SENT
            assert at.states == []
        assert [len(heard.bodies) for heard in relay.heard] == [1, 1]


def farewell(link: Connection) -> None:
    link.wire.data_received(b"421 4.4.2 idle for too long\r\n")


def end_of_file(link: Connection) -> None:
    link.wire.eof_received()


@pytest.mark.parametrize("leave", [farewell, end_of_file])
@pytest.mark.parametrize("first", ["the letter", "the server"])
@on_both_loops
async def test_a_letter_that_crosses_the_servers_leave(
    first: str, leave: Callable[[Connection], None], opened: list[Connection]
) -> None:
    """Both in one turn of the loop."""
    async with tidy():
        async with Relay(HELLO_AGAIN) as relay, office(route(relay.port, idle="1d")) as at:
            await at.send(letter())
            await until(lambda: at.outbox.resting == 1)
            if first == "the letter":
                at.outbox.put(letter())
                leave(opened[0])
            else:
                leave(opened[0])
                at.outbox.put(letter())
            await at.reported(2)
            assert at.reports[-1][1].action is Action.SENT
        assert [len(heard.bodies) for heard in relay.heard] == [1, 1]


def test_a_lifetime_has_a_least() -> None:
    with pytest.raises(ValueError, match="connection_lifetime"):
        RouteSettings.model_validate({"url": "smtp://h", "connection_lifetime": "0.9s"})

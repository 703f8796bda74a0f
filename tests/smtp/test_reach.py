"""Reaching a relay: IPv6 and IPv4, addresses that are dead or silent, source addresses."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from scripted_relay import Mails, Relay, hello, letter, office, on_both_loops, route, until
from tidy import tidy

from streamq.settings import RouteSettings
from streamq.smtp import reach as reach_module
from streamq.smtp.access import Access
from streamq.smtp.connection import NotConnected
from streamq.smtp.handshake import connect
from streamq.smtp.letter import Action, Stage
from streamq.smtp.reach import Reach, Target
from streamq.smtp.replies import default_replies

NEVER = 3600.0


def target(address: str, port: int = 25) -> Target:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return Target(family, socket.SOCK_STREAM, 6, (address, port, 0, 0) if ":" in address else (address, port))


def resolving(monkeypatch: pytest.MonkeyPatch, *targets: Target) -> None:
    """The relay's name has these addresses."""

    async def found(_: Reach) -> list[Target]:
        return list(targets)

    monkeypatch.setattr(Reach, "_look_up", found)


@contextlib.contextmanager
def silent(host: str = "127.0.0.1") -> Iterator[int]:
    """A port that answers nobody: the queue of those that wait is full."""
    with contextlib.ExitStack() as stack:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = stack.enter_context(socket.socket(family))
        server.bind((host, 0))
        server.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket(family))
            client.setblocking(False)
            client.connect_ex(server.getsockname()[:2])
        yield server.getsockname()[1]


def closed_port(host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


async def refused(reach: Reach) -> NotConnected:
    with pytest.raises(NotConnected) as raised:
        await reach.open()
    assert raised.value.stage is Stage.CONNECT
    return raised.value


# -- order -----------------------------------------------------------------------------------------------------


@on_both_loops
async def test_families_alternate_beginning_with_the_resolvers_choice() -> None:
    found = [target(one) for one in ("2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2")]
    ordered = [one.shown for one in Reach(route(25)).order(found)]
    assert ordered == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"]
    ordered = [one.shown for one in Reach(route(25)).order(found[::-1])]
    assert ordered == ["192.0.2.2", "2001:db8::3", "192.0.2.1", "2001:db8::2", "2001:db8::1"]


@on_both_loops
async def test_a_name_with_a_thousand_addresses_is_cut() -> None:
    found = [target(f"192.0.2.{n % 250}", n + 1) for n in range(1000)]
    assert len(Reach(route(25)).order(found)) == reach_module.MOST


@pytest.mark.parametrize(
    ("family", "asked"), [("any", socket.AF_UNSPEC), ("ipv4", socket.AF_INET), ("ipv6", socket.AF_INET6)]
)
@on_both_loops
async def test_the_family_is_asked_for(family: str, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def lookup(*_: Any, **how: Any) -> list[Any]:
        seen.append(how["family"])
        return []

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    await refused(Reach(route(25, family=family)))
    assert seen == [asked]


@on_both_loops
async def test_an_address_of_the_other_family_has_no_address() -> None:
    failure = await refused(Reach(route(25, host="127.0.0.1", family="ipv6")))
    assert failure.klass == "unreachable"


# -- one after the other ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@on_both_loops
async def test_both_families_carry_mail(host: str) -> None:
    written = f"[{host}]" if ":" in host else host
    async with tidy():
        async with Relay([*hello(), Mails()], host=host) as relay, office(route(relay.port, host=written)) as at:
            (report,) = await at.send(letter())
        assert (report.action, report.peer) == (Action.SENT, f"{host}[{host}]:{relay.port}")


@pytest.mark.parametrize("dead", ["::1", "127.0.0.1"])
@on_both_loops
async def test_a_dead_address_is_followed_at_once(dead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    living = "127.0.0.1" if ":" in dead else "::1"
    async with tidy(), Relay([*hello(), Mails()], host=living) as relay:
        resolving(monkeypatch, target(dead, closed_port(dead)), target(living, relay.port))
        access = Access(route(relay.port, host="relay.example"))
        access.reach = Reach(access.route, stagger=NEVER)
        link = await connect(access, 0, default_replies())
        assert link.peer == f"relay.example[{living}]:{relay.port}"
        await link.quit()


@on_both_loops
async def test_a_silent_address_is_overtaken_and_its_family_goes_last_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with tidy(), Relay([]) as relay:
        with silent("::1") as port:
            targets = [target("::1", port), target("::1", closed_port("::1")), target("127.0.0.1", relay.port)]
            resolving(monkeypatch, *targets)
            reach = Reach(route(25), stagger=0.001)
            sock, address = await reach.open()
            sock.close()
            assert address == "127.0.0.1"
            assert [one.shown for one in reach.order(targets)] == ["127.0.0.1", "::1", "::1"]
            monkeypatch.setattr(reach_module, "FORGET", 0.0)
            reach = Reach(route(25), stagger=0.001)
            sock, _ = await reach.open()
            sock.close()
            assert [one.shown for one in reach.order(targets)] == ["::1", "127.0.0.1", "::1"]


@on_both_loops
async def test_a_family_that_wins_again_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Relay([], host="::1") as six, Relay([]) as four:
        reach = Reach(route(25), stagger=NEVER)
        dead, living = target("::1", closed_port("::1")), target("::1", six.port)
        resolving(monkeypatch, dead, target("127.0.0.1", four.port))
        (await reach.open())[0].close()
        resolving(monkeypatch, living, target("127.0.0.1", closed_port()))
        (await reach.open())[0].close()
        assert [one.shown for one in reach.order([living, target("127.0.0.1")])] == ["::1", "127.0.0.1"]


@on_both_loops
async def test_all_addresses_are_tried_within_the_time_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with tidy():
        with silent() as one, silent("::1") as two:
            resolving(monkeypatch, target("127.0.0.1", closed_port()), target("::1", two), target("127.0.0.1", one))
            failure = await refused(Reach(route(25, connect_timeout="0.3s"), stagger=0.0))
        assert failure.klass == "unreachable"
        assert failure.said == "127.0.0.1: Connection refused; ::1: no answer; 127.0.0.1: no answer"


@on_both_loops
async def test_two_that_answer_at_once_leave_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    # Both attempts end in the same turn of the loop: one is taken, the other closed.
    together = asyncio.Event()

    async def attempt(reach: Reach, which: Target) -> socket.socket:
        sock = socket.socket()
        made.append(sock)
        if len(made) == 2:
            together.set()
        await together.wait()
        return sock

    monkeypatch.setattr(Reach, "_try", attempt)
    async with tidy():
        resolving(monkeypatch, target("127.0.0.1", 1), target("127.0.0.1", 2))
        sock, _ = await Reach(route(25), stagger=0.0).open()
        assert [one.fileno() >= 0 for one in made].count(True) == 1
        assert sock.fileno() >= 0
        sock.close()


@on_both_loops
async def test_a_race_that_is_given_up_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with tidy():
        with silent() as one, silent("::1") as two:
            resolving(monkeypatch, target("::1", two), target("127.0.0.1", one))
            tasks = len(asyncio.all_tasks())
            opening = asyncio.create_task(Reach(route(25), stagger=0.0).open())
            await until(lambda: len(asyncio.all_tasks()) == tasks + 3)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening


# -- source ----------------------------------------------------------------------------------------------------


@on_both_loops
async def test_sources_take_turns() -> None:
    ways: dict[str, Any] = {"mails_per_connection": 1, "source": ["127.0.0.2", "127.0.0.3", "::1"]}
    async with Relay([*hello(), Mails()]) as relay, office(route(relay.port, **ways)) as at:
        for _ in range(4):
            await at.send(letter())
    assert [heard.source for heard in relay.heard] == ["127.0.0.2", "127.0.0.3"] * 2


@on_both_loops
async def test_a_family_without_a_source_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    reach = Reach(route(25, source="127.0.0.2"))
    assert [one.shown for one in reach.order([target("::1"), target("127.0.0.1")])] == ["127.0.0.1"]
    resolving(monkeypatch, target("::1", 1))
    failure = await refused(reach)
    assert failure.klass == "settings"
    assert failure.said.startswith("source: ")


@on_both_loops
async def test_a_source_that_this_machine_does_not_have_is_named() -> None:
    async with tidy(), Relay([]) as relay:
        failure = await refused(Reach(route(relay.port, source="192.0.2.1")))
    assert failure.klass == "settings"
    assert "source 192.0.2.1: " in failure.said


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"source": "localhost"}, "not an IPv4 or IPv6 address: 'localhost'"),
        ({"source": ["::1"], "family": "ipv4"}, "source: ::1 is not ipv4"),
        ({"family": "ipv5"}, "'any', 'ipv6' or 'ipv4'"),
        ({"ehlo": "a\r\nMAIL FROM:<x@y>"}, "a host name"),
    ],
)
def test_what_a_route_cannot_be_reached_by(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match="validation error") as raised:
        RouteSettings.model_validate({"url": "smtp://h", **more})
    assert says in str(raised.value)

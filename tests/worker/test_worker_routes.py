"""Several routes, as a user sees them: weights, failover, pauses, trouble with the account, the breaker, connections
over all workers. Real sinks, real workers, a real server."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crew import Crew, crew, rules_of

from streamq.queue.connection import command
from streamq.queue.routes import route_views
from streamq.queue.steer import apply
from streamq.sink import Rules, Sink
from streamq.smtp.access import Access
from streamq.worker import Worker

EVERY = '[[rule]]\nmatch = "*"\nstage = "{}"\nreply = "{}"\n'


async def until(true: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    while True:
        if true():
            return
        await asyncio.sleep(0)


async def another(c: Crew, rules: Rules | None = None, **known: Any) -> Sink:
    """One more sink, closed at the end."""
    sink = Sink(rules=rules or Rules(), **known)
    await sink.start()
    c.stack.push_async_callback(sink.close)
    return sink


def two(c: Crew, second: Sink, **known: Any) -> dict[str, Any]:
    """Settings of a worker with two routes."""
    ways: dict[str, Any] = {"main": {"url": c.sink.url}, "other": {"url": second.url}}
    for name in ways:
        ways[name] |= known.pop(name, {})
    return {"relay": None, "routes": ways, **known}


def got(sink: Sink) -> set[str]:
    return {mail.envelope_to[0] for mail in sink.received}


def every(tmp_path: Path, stage: str, reply: str) -> Rules:
    return rules_of(tmp_path, EVERY.format(stage, reply))


# -- choice and weights --------------------------------------------------------------------------------------------


async def test_weights_hold_over_many(server_url: str) -> None:
    async with crew(server_url) as c:
        other = await another(c)
        await c.worker(**two(c, other, main={"weight": 3}))
        many = 600
        for number in range(many):
            await c.add(to=f"u{number}@example.net")
        await c.until("email.relayed", many=many)
        assert len(c.sink.received) + len(other.received) == many
        assert abs(len(c.sink.received) - 450) < 50  # four and a half standard deviations


async def test_choices_by_tenant_sender_and_name(server_url: str) -> None:
    async with crew(server_url) as c:
        other = await another(c)
        choice = [{"tenant": "acme", "routes": ["other"]}, {"sender": "*.news.example", "routes": ["bulk"]}]
        ways = two(c, other, other={"reserved": True}, choice=choice, groups={"bulk": ["other"]})
        await c.worker(**ways)
        await c.add(to="tenant@example.net", tenant="acme")
        await c.add(to="sender@example.net", envelope_from="b@a.news.example")
        await c.add(to="name@example.net", route="other")
        await c.add(to="group@example.net", route="bulk")
        await c.add(to="usual@example.net")
        await c.until("email.relayed", many=5)
        assert got(c.sink) == {"usual@example.net"}


# -- failover ------------------------------------------------------------------------------------------------------


async def test_a_route_that_is_not_there_costs_no_attempt_and_no_mail(server_url: str) -> None:
    async with crew(server_url) as c:
        other = await another(c)
        await other.close()
        await c.worker(**two(c, other))
        for number in range(60):
            await c.add(to=f"u{number}@example.net")
        events = await c.until("email.relayed", many=60)
        assert {event["attempt"] for event in events} == {1}
        assert len(got(c.sink)) == len(c.sink.received) == 60


async def test_a_mail_that_names_its_route_waits_for_it(server_url: str) -> None:
    async with crew(server_url) as c:
        other = await another(c)
        await other.close()
        await c.worker(**two(c, other))
        await c.add(id="named", to="named@example.net", route="other")
        await c.until("route.paused", "other")
        for number in range(20):
            await c.add(to=f"u{number}@example.net")
        await c.until("email.relayed", many=20)
        assert "named@example.net" not in got(c.sink)
        await other.start()
        await c.until("email.relayed", "named")
        assert got(other) >= {"named@example.net"}


async def test_a_mail_that_may_have_been_sent_stays_with_its_route(server_url: str, tmp_path: Path) -> None:
    """The relay takes the body and says nothing; then it is gone. The other one stands by, and never sees that mail."""
    async with crew(server_url) as c:
        silent = rules_of(tmp_path, '[[rule]]\nmatch = "*"\nstage = "dot"\ndelay_ms = 3600000\n')
        c.sink.follow(silent)
        other = await another(c)
        await c.worker(**two(c, other, main={"dot_timeout": "200ms"}, other={"weight": 0}))
        await c.add(id="double", to="double@example.net")
        event = (await c.until("email.ambiguous", "double"))[0]
        assert event["route"] == "main"
        port = c.sink.port
        await c.sink.close()
        for number in range(20):
            await c.add(to=f"u{number}@example.net")
        await c.until("email.relayed", many=20)
        c.sink = Sink(port=port)
        await c.sink.start()
        c.stack.push_async_callback(c.sink.close)
        event = (await c.until("email.relayed", "double"))[0]
        assert (event["route"], event["attempt"]) == ("main", 2)
        assert "double@example.net" not in got(other)


async def test_a_worker_that_leaves_hands_its_mails_to_the_other_way(server_url: str, tmp_path: Path) -> None:
    """What it had in hand for a route that is paused meanwhile."""
    slow = rules_of(tmp_path, '[[rule]]\nmatch = "*"\nstage = "rcpt"\ndelay_ms = 3600000\n')
    async with crew(server_url, rules=slow) as c:
        other = await another(c)
        ways = two(c, other, other={"weight": 0}, in_hand=10, grace="0s")
        worker = c.new_worker(**ways)
        task = asyncio.create_task(worker.run())
        await worker.ready.wait()
        for number in range(10):
            await c.add(to=f"u{number}@example.net")
        await until(lambda: len(worker.hand.deliveries) == 10)
        worker.stop()
        await task
        await c.spool.scripts.pause("pause", ["main"])
        await c.worker(**ways)
        await c.until("email.relayed", many=10)
        assert len(got(other)) == 10


# -- pauses --------------------------------------------------------------------------------------------------------


async def test_a_paused_route_keeps_its_mails_until_it_is_resumed(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.spool.scripts.pause("pause", ["relay"], reason="moving house")
        worker = await c.worker()
        entries = [await c.add(to=f"u{number}@example.net") for number in range(20)]
        await c.until_state(entries[0], "parked")
        assert not c.sink.received
        [view] = await route_views(c.spool, ["relay"])
        assert [each.why for each in view.closed] == ["operator"]
        await c.spool.scripts.pause("resume", ["relay"])
        events = await c.until("email.relayed", many=20)
        assert {event["attempt"] for event in events} == {1}
        assert worker.settled.get("defer", 0) == 0


# -- trouble with the account --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "reply", "klass"),
    [("mail", "535 5.7.8 Authentication credentials invalid", "authentication"),
     ("rcpt", "550 5.4.5 Daily SMTP relay limit exceeded", "quota")],
)  # fmt: skip
async def test_an_account_in_trouble_kills_nothing(
    server_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, stage: str, reply: str, klass: str
) -> None:
    """In the middle of many mails; the route pauses, a person is told, and all arrive once it is over."""
    many = 400
    async with crew(server_url) as c:
        workers = [await c.worker(retry="1h") for _ in range(2)]
        for number in range(many):
            await c.add(to=f"u{number}@example.net")
        await c.sink.wait_for(many // 4)
        c.sink.follow(every(tmp_path, stage, reply))
        event = (await c.until("route.paused", "relay"))[0]
        assert (event["class"], event["reason"]) == (klass, reply)
        c.sink.follow(Rules())
        await c.sink.wait_for(many)
        await c.until("route.resumed", "relay")
        for worker in workers:
            assert worker.settled.get("dead", 0) == worker.settled.get("defer", 0) == 0
        assert await command(c.spool.redis, "XLEN", c.spool.keys.dead) == 0
        assert len(got(c.sink)) == many
    alerts = [each for each in caplog.records if each.name == "streamq.route" and each.levelno >= logging.ERROR]
    assert any(klass in each.getMessage() for each in alerts)


# -- the breaker ---------------------------------------------------------------------------------------------------


@pytest.mark.leaves_mail
async def test_the_breaker_trips_on_equal_rejections_and_a_250_opens_it(server_url: str, tmp_path: Path) -> None:
    policy = "554 5.7.1 Message rejected as our policy says, id {}"
    async with crew(server_url, rules=every(tmp_path, "dot", policy.format("4f2a1"))) as c:
        await c.worker()
        for number in range(100):
            await c.add(to=f"u{number}@example.net")
        event = (await c.until("route.paused", "relay"))[0]
        assert (event["class"], event["count"]) == ("breaker", 51)
        assert await command(c.spool.redis, "XLEN", c.spool.keys.dead) == 50
        c.sink.follow(Rules())
        relayed, resumed = 0, ""  # what was under way goes before it opens
        async for kind, _, data in c.events():
            relayed += kind == "email.relayed"
            if kind == "route.resumed":
                resumed = data["class"]
            if relayed == 50 and resumed:
                break
        assert resumed == "breaker"


async def test_it_does_not_on_bad_addresses(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url, rules=every(tmp_path, "rcpt", "550 5.1.1 no such user")) as c:
        await c.worker()
        for number in range(120):
            await c.add(to=f"u{number}@example.net")
        await c.until("email.bounced", many=120)
        assert await command(c.spool.redis, "EXISTS", c.spool.keys.pauses) == 0


# -- connections over all workers ------------------------------------------------------------------------------------


async def test_connections_are_counted_over_all_workers(server_url: str) -> None:
    """Three workers, five connections; the sink counts."""
    async with crew(server_url) as c:
        ways: dict[str, Any] = {"relay": None, "routes": {"main": {"url": c.sink.url, "connections": 5}}}
        workers = [await c.worker(**ways) for _ in range(3)]
        many = 0
        seen: list[int] = []

        def look() -> None:
            seen.append(sum(courier.connections for worker in workers for courier in worker.couriers))

        # Until two of them have delivered: as more connections are found to be taken, they are shared out.
        while many < 600 or sum(bool(worker.settled.get("sent")) for worker in workers) < 2:
            if many - c.sink.counters.accepted < 500:
                await c.add(to=f"u{many}@example.net")
                many += 1
            await asyncio.sleep(0)
            look()

        def all_came() -> bool:
            look()
            return c.sink.counters.accepted == many

        await until(all_came)
        await c.until("email.relayed", many=many)
        assert max(seen) <= 5


async def test_a_route_with_fewer_connections_than_workers(server_url: str) -> None:
    """One connection for two workers: whoever has none leaves its mails to the other."""
    async with crew(server_url) as c:
        ways: dict[str, Any] = {"relay": None, "routes": {"main": {"url": c.sink.url, "connections": 1}}}
        for _ in range(2):
            await c.worker(**ways)
        for number in range(60):
            await c.add(to=f"u{number}@example.net")
        events = await c.until("email.relayed", many=60)
        assert {event["attempt"] for event in events} == {1}


async def test_a_worker_alone_has_all_connections_soon(server_url: str, tmp_path: Path) -> None:
    slow = rules_of(tmp_path, '[[rule]]\nmatch = "*"\nstage = "dot"\ndelay_ms = 50\nreply = "250 2.0.0 slow"\n')
    async with crew(server_url, rules=slow) as c:
        worker = await c.worker()
        assert worker.allowances.allowed == {"relay": 1}
        many = 0
        while worker.allowances.allowed != {"relay": 20}:
            if many - worker.settled.get("sent", 0) < 100:  # there is work for all of them
                await c.add(to=f"u{many}@example.net")
                many += 1
            await asyncio.sleep(0)
        assert worker.spool.caller.calls["grant"] <= many / 4  # no round trip per mail
        await c.until("email.relayed", many=many)
        another = await c.worker()
        assert worker.couriers[0].connections + another.allowances.allowed["relay"] <= 20


# -- one host in trouble -------------------------------------------------------------------------------------------


class NoNetwork(Worker):
    """Its connections go nowhere: `port` is one where nobody listens."""

    def __init__(self, settings: Any, url: str, port: int) -> None:
        super().__init__(settings, url)
        self.port = port

    def _build(self) -> None:
        super()._build()
        for courier in self.couriers:
            bad = courier.route.model_copy(update={"url": type(courier.route.url)(f"smtp://127.0.0.1:{self.port}")})
            courier.route, courier._access = bad, Access(bad)


async def test_one_host_without_a_network_takes_nothing_down(server_url: str) -> None:
    async with crew(server_url) as c:
        nowhere = await another(c)
        await nowhere.close()
        good = await c.worker()
        await c.add(id="warm")
        await c.until("email.relayed", "warm")
        bad = NoNetwork(good.settings, c.url, nowhere.port)
        task = asyncio.create_task(bad.run())
        await bad.ready.wait()
        for number in range(300):
            await c.add(to=f"u{number}@example.net")
        await c.until("email.relayed", many=300)
        bad.stop()
        await task
        kinds: Counter[str] = Counter()
        for _, flat in await command(c.spool.redis, "XRANGE", c.spool.keys.events, "-", "+"):
            kinds[flat[1].decode()] += 1
        assert kinds == {"email.relayed": 301}
        assert bad.settled.get("sent", 0) == 0


async def test_a_mail_that_ends_every_session_does_not_go_round_for_ever(
    server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamq.worker.outcome.BREAKS_MOST", 2)
    async with crew(server_url) as c:
        c.sink.follow(rules_of(tmp_path, '[[rule]]\nmatch = "evil@example.com"\nstage = "mail"\naction = "eof"\n'))
        await c.add(to="first@example.net")
        evil = await c.add(id="evil", envelope_from="evil@example.com")
        many = 1000
        for number in range(many):
            await c.add(to=f"u{number}@example.net")
        await c.worker(relay=None, routes={"main": {"url": c.sink.url, "tls": "none", "connections": 1}}, retry="1h")
        (event,) = await c.until("email.deferred", "evil")
        assert (event["class"], event["stage"], event["attempt"]) == ("disconnected", "mail", 1)
        await c.sink.wait_for(many + 1)
        assert c.sink.counters.drops["mail eof"] == 3
        assert await apply(c.spool, "cancel", [evil]) == {"cancelled": 1}

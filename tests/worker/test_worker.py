"""One worker, or two, on a real server, to a real sink: what a user sees."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from crew import crew, rules_of

from streamq.errors import SettingsError
from streamq.queue.connection import command
from streamq.settings import load_settings
from streamq.worker import Worker


async def test_a_plain_xadd_arrives(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.worker()
        await c.add(id="a1")
        event = (await c.until("email.relayed", "a1"))[0]
        mail = c.sink.received[0]
    assert mail.envelope_to == ("bob@example.net",)
    assert b"Subject: Hi\r\n" in mail.content
    assert mail.content.endswith(b"Hello\r\n")
    assert event["rcpt"] == "bob@example.net"
    assert (event["code"], event["attempt"], event["route"], event["site"]) == (250, 1, "relay", "example.net")


async def test_without_a_route_it_says_what_to_set() -> None:
    with pytest.raises(SettingsError, match=r"STREAMQ_RELAY.*streamq sink"):
        Worker(load_settings(), "redis://127.0.0.1:1")


async def test_one_idle_worker_wakes_and_needs_few_commands(server_url: str) -> None:
    async with crew(server_url) as c:
        first, second = await c.worker(), await c.worker()
        await c.add(id="warm")
        await c.until("email.relayed", "warm")
        before = [dict(worker.spool.caller.calls) for worker in (first, second)]
        await c.add(id="a1")
        await c.until("email.relayed", "a1")
        made = [
            {verb: many - old.get(verb, 0) for verb, many in worker.spool.caller.calls.items()}
            for worker, old in zip((first, second), before, strict=True)
        ]
    verbs = ("start", "admit", "mark", "finish", "settle")
    on_path = [{verb: many for verb in verbs if (many := each.get(verb, 0))} for each in made]
    end = (
        "settle" if {"settle": 1}.items() <= max(on_path, key=len).items() else "finish"
    )  # as it had the warm one, or not
    assert sorted(on_path, key=len) == [{}, {"start": 1, "mark": 1, end: 1}]


async def test_a_second_one_with_the_same_id_is_not_sent(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.worker()
        first = await c.add(id="a1")
        await c.until("email.relayed", "a1")
        await c.add(id="a1")
        event = (await c.until("email.duplicate", "a1"))[0]
        await c.add(id="a1", text="something else")
        other = (await c.until("email.rejected", "a1"))[0]
        assert len(c.sink.received) == 1
    assert event["of"] == first
    assert other["class"] == "id_conflict"


async def test_send_at_leaves_at_its_time(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.worker()
        seconds, micros = await command(c.spool.redis, "TIME")
        at_ms = int(seconds) * 1000 + int(micros) // 1000 + 300
        await c.add(id="later", send_at=str(at_ms))
        event = (await c.until("email.relayed", "later"))[0]
    assert event["at"] >= at_ms


async def test_a_450_is_retried_and_a_550_is_a_dead_letter(server_url: str, tmp_path: Path) -> None:
    rules = rules_of(
        tmp_path,
        '[[rule]]\nmatch = "busy@*"\nstage = "rcpt"\ntimes = 1\nreply = "450 4.2.1 busy"\n'
        '[[rule]]\nmatch = "gone@*"\nstage = "rcpt"\nreply = "550 5.1.1 no such user"\n',
    )
    async with crew(server_url, rules=rules) as c:
        await c.worker()
        await c.add(id="b", to="busy@example.net")
        deferred = (await c.until("email.deferred", "b"))[0]
        relayed = (await c.until("email.relayed", "b"))[0]
        await c.add(id="g", to="gone@example.net")
        bounced = (await c.until("email.bounced", "g"))[0]
        ((_, flat),) = await command(c.spool.redis, "XRANGE", c.spool.keys.dead, "-", "+")
        dead = dict(zip(flat[::2], flat[1::2], strict=True))
    assert (deferred["attempt"], relayed["attempt"]) == (1, 2)
    assert deferred["next_attempt_at"] == deferred["at"] + 50
    assert (bounced["code"], bounced["enhanced"], bounced["class"]) == (550, "5.1.1", "bad_address")
    assert dead[b"id"] == b"g"
    assert dead[b"dead_class"] == b"bad_address"
    assert dead[b"attempts"] == b"1"
    assert b"no such user" in dead[b"last_reply"]


@pytest.mark.leaves_mail
async def test_bad_input_stops_nobody(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.worker()
        await c.add(id="bad", to="not an address")
        await c.add(id="bin", text=b"\xff\xfe", subject=b"\x00\n")
        await c.add(id="new", sparkle="1")
        await c.add(id="later", template="welcome")
        rejected = (await c.until("email.rejected", "bad"))[0]
        held = await c.until("email.held", many=2)
        await c.add(id="good")
        await c.until("email.relayed", "good")
        assert len(c.sink.received) == 1
        assert await command(c.spool.redis, "HGET", c.spool.keys.holds, "need:sparkle") == b"1"
    assert rejected["class"] == "malformed"
    assert "to:" in rejected["reason"]
    assert "not an address" in rejected["reason"]
    assert [event["class"] for event in held] == ["unknown_field", "unknown_template"]


async def test_lost_scripts_and_groups_stop_nobody(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.worker()
        for round_ in range(3):
            await command(c.spool.redis, "SCRIPT", "FLUSH")
            await c.add(id=f"s{round_}")
            await c.until("email.relayed", f"s{round_}")
            await command(c.spool.redis, "XGROUP", "DESTROY", c.spool.keys.stream("normal"), "streamq")
            await c.add(id=f"g{round_}")
            await c.until("email.relayed", f"g{round_}")
        assert len(c.sink.received) == 6


async def test_a_relay_that_is_away_burns_no_attempt(server_url: str) -> None:
    async with crew(server_url) as c:
        port = c.sink.port
        await c.sink.close()
        worker = await c.worker(relay=f"smtp://127.0.0.1:{port}")
        for number in range(30):
            await c.add(id=f"m{number}")
        await c.until("route.paused")
        c.sink = type(c.sink)(port=port)
        await c.sink.start()
        events = await c.until("email.relayed", many=30)
        await c.sink.close()
        assert worker.settled["park"] >= 1
    assert {event["attempt"] for event in events} == {1}


async def test_sigterm_hands_back_and_the_next_one_delivers(server_url: str, tmp_path: Path) -> None:
    rules = rules_of(tmp_path, '[[rule]]\nmatch = "*"\nstage = "dot"\ndelay_ms = 200\nreply = "250 2.0.0 slow"\n')
    async with crew(server_url, rules=rules) as c:
        worker = c.new_worker(in_hand=20)
        task = asyncio.create_task(worker.run())
        for number in range(40):
            await c.add(id=f"m{number}")
        await c.until("email.relayed")
        worker.stop()
        await task
        assert len(worker.hand) == 0
        consumers = await command(c.spool.redis, "XINFO", "CONSUMERS", c.spool.keys.stream("normal"), "streamq")
        assert consumers == []
        await c.worker(in_hand=40)
        await c.sink.wait_for(40)
        ids = {mail.message_id for mail in c.sink.received}
        assert len(ids) == len(c.sink.received) == 40


async def test_a_fixed_rate_parks_and_others_go_first(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.worker(sites={"slow.example": {"rate": ["10/s"]}})
        for number in range(25):
            await c.add(id=f"slow{number}", to=f"u{number}@slow.example")
        for number in range(50):
            await c.add(id=f"fast{number}", to=f"u{number}@fast.example")
        await c.sink.wait_for(75)
        order = [mail.envelope_to[0].partition("@")[2] for mail in c.sink.received]
        times = [mail.at_ns / 1e9 for mail in c.sink.received if "slow" in mail.envelope_to[0]]
    assert "slow.example" in order[60:]  # 25 at 10 a second take two seconds: the others were through before
    assert order.index("fast.example") < 30
    assert all(later - earlier >= 0.9 for earlier, later in zip(times, times[10:], strict=False))


@pytest.mark.leaves_mail
async def test_hold_a_domain_then_unhold(server_url: str) -> None:
    from streamq.queue.steer import Selector, apply, select, set_rule, unset_rule

    async with crew(server_url) as c:
        await c.worker()
        await set_rule(c.spool, "domain:example.net", "hold")
        entry = await c.add(id="h1")
        await c.until("email.held", "h1")
        await c.add(id="o1", to="x@example.org")
        await c.until("email.relayed", "o1")
        await unset_rule(c.spool, "domain:example.net")
        held = [view.entry async for view in select(c.spool, Selector(states=("held",)))]
        assert held == [entry]
        assert await apply(c.spool, "unhold", held) == {"scheduled": 1}
        await c.until("email.relayed", "h1")
        assert len(c.sink.received) == 2


@pytest.mark.leaves_mail
async def test_one_mail_does_not_hold_up_a_route(server_url: str, tmp_path: Path) -> None:
    """The receiver says of one recipient what it would say of our whole account. The route goes down, the mail is
    its probe twice, and then it is that mail which is judged."""
    rules = rules_of(tmp_path, '[[rule]]\nmatch = "full@*"\nstage = "rcpt"\nreply = "550 5.4.5 Daily quota exceeded"\n')
    async with crew(server_url, rules=rules) as c:
        await c.worker(retry="1h")
        await c.add(id="bad", to="full@example.net")
        for number in range(30):
            await c.add(id=f"m{number}")
        await c.until("email.deferred", "bad")
        await c.sink.wait_for(30)
        assert await c.count("total:deferred") == 1

"""turns.py: leases that wait in a worker's hand for the limit of the queue, and slots that are asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from crew import crew
from mailroom import LANE, Mailroom
from redis.exceptions import ConnectionError as RedisConnectionError

from streamq.mail import Mail
from streamq.queue.connection import command
from streamq.queue.rows import Admitted
from streamq.smtp.outbox import Outbox
from streamq.worker.gate import Gate
from streamq.worker.hand import Delivery, Hand
from streamq.worker.link import Link
from streamq.worker.turns import Turns

HOUR = {"limits": {"rate": ["1/1h"]}}
WEEK_MS = 7 * 86_400_000


def held(entry: str, token: int, slot: str = "", deadline_ms: int = 0) -> Delivery:
    delivery = Delivery(
        envelope_from="",
        envelope_to="bob@example.net",
        content=b"Hi\r\n",
        site="example.net",
        priority=int(entry[0]),
        entry=entry,
        token=token,
        lane=LANE,
        way="main",
        mail=cast(Mail, SimpleNamespace()),
        deadline_ms=deadline_ms,
    )
    delivery.slot = slot
    return delivery


class Held(Turns):
    """Of w1, on the room's queue; what was handed back, and what was ended."""

    def __init__(self, room: Mailroom) -> None:
        self.back: list[Delivery] = []
        self.over: list[Delivery] = []

        async def recovered() -> None: ...

        super().__init__(
            *(room.spool, Link(recovered), Hand(10), "w1", Gate(), {"main": Outbox()}),
            self.back.append,
            self.over.append,
            lambda: "main",
        )


async def admit(room: Mailroom, many: int) -> tuple[list[str], Admitted]:
    entries = [await room.add() for _ in range(many)]
    await room.read()
    return entries, await room.scripts.admit("w1", [room.row(entry) for entry in entries], "main")


def losing_a_reply(call: Callable[..., Any]) -> Callable[..., Any]:
    """Its first one."""
    calls = 0

    async def called(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        said = await call(*args)
        if calls == 1:
            raise RedisConnectionError("the reply is lost")
        return said

    return called


@pytest.mark.leaves_mail
async def test_a_call_that_is_repeated_gives_no_slot_back_twice(
    room: Mailroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    await room.do("HSET", room.keys.limits, "*", "100:1000000")
    entries, found = await admit(room, 3)
    tat = (await room.do("HGET", room.keys.limit("*"), "1000000")).split(b":")
    await room.do("HSET", room.keys.holds, f"intent:{entries[2]}", "hold")  # so it gets no other one
    turns = Held(room)
    monkeypatch.setattr(room.scripts, "turn", losing_a_reply(room.scripts.turn))
    late = held(entries[2], found.token, found.statuses[2].slot, room.now + WEEK_MS)
    running = asyncio.create_task(turns.run())
    assert not await turns.again(late)
    running.cancel()
    assert turns.back == [late]
    after = (await room.do("HGET", room.keys.limit("*"), "1000000")).split(b":")
    assert int(tat[0]) - int(after[0]) == pytest.approx(float(tat[1]), abs=2)


@pytest.mark.leaves_mail
async def test_an_entry_may_wait_under_a_lost_lease_and_under_its_new_one(room: Mailroom) -> None:
    await room.do("HSET", room.keys.limits, "*", "1:3600000000")
    entries, found = await admit(room, 2)
    turns = Held(room)
    for token in (found.token + 1, found.token, 7):
        turns.wait(held(entries[1], token, deadline_ms=room.now + WEEK_MS))
    await room.do("DEL", room.keys.limits)
    await turns.serve(5)
    assert not turns
    [letter] = turns.outboxes["main"].drain()
    assert cast(Delivery, letter).token == found.token


@pytest.mark.leaves_mail
async def test_when_the_limit_is_back_nobody_asks_without_an_end(room: Mailroom) -> None:
    entries, found = await admit(room, 2)
    turns = Held(room)
    for entry in entries:
        turns.wait(held(entry, found.token, deadline_ms=room.now + WEEK_MS))
    await room.do("HSET", room.keys.limits, "*", "1:3600000000")
    await turns.serve(1000)
    assert room.scripts.caller.calls["turn"] == 1
    assert (len(turns), len(turns.outboxes["main"])) == (1, 1)


async def test_what_waits_for_the_queue_ends_in_time(server_url: str) -> None:
    async with crew(server_url) as c:
        first, late = await c.add(), await c.add("low", ttl="1")
        await c.worker(**HOUR)
        ends: dict[str, str] = {}
        async for kind, _, data in c.events():  # in whichever order: a slow machine takes a second for the first
            ends[data["entry"]] = kind
            if len(ends) == 2:
                break
        assert ends == {first: "email.relayed", late: "email.expired"}
        assert len(c.sink.received) == 1


async def test_a_full_hand_of_what_waits_keeps_nothing_urgent_from_going_first(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.add(to="normal@example.net")
        await c.add("low", to="low@example.net")
        worker = await c.worker(**HOUR, in_hand=1)
        await c.until("email.relayed")
        assert not worker.hand.room
        await c.add("high", to="high@example.net")
        await command(c.spool.redis, "HSET", c.spool.keys.limits, "*", "1:1000000")
        await c.until("email.relayed", many=2)
        names = [mail.envelope_to[0].partition("@")[0] for mail in c.sink.received]
        assert names == ["normal", "high", "low"]


async def test_a_lease_that_comes_back_while_its_lost_one_waits_is_taken(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.add()
        entry = await c.add("low")
        await c.worker(**HOUR, lease_seconds=5)
        await c.until("email.relayed")
        stolen = await c.spool.scripts.reclaim("other", idle_ms=0, room=10, most=3, cursor="")
        assert [lease[0] for lease in stolen.leases] == [entry]
        await command(
            c.spool.redis,
            *("XCLAIM", c.spool.stream(entry), "streamq", "other", 0, entry[1:], "IDLE", 60_000, "JUSTID"),
        )
        reclaimed = 0
        while reclaimed < 2:
            reclaimed = await c.count("reclaimed")
            await asyncio.sleep(0)
        await command(c.spool.redis, "DEL", c.spool.keys.limits)
        await c.until("email.relayed")
        assert len(c.sink.received) == 2

"""bounds.lua, look.py: warned of once before a bound is reached, told when it is, told when it is over."""

from __future__ import annotations

from typing import Any

import pytest
from mailroom import Mailroom

from streamq.queue.connection import pipelined
from streamq.queue.look import BoundSeen, status

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
MANY = 10**12


async def look(room: Mailroom, **known: Any) -> int:
    made = {"mails": MANY, "share": 1.0, "dead": MANY, "events": MANY, "ids": MANY, **known}
    return await room.scripts.bounds(**made)


async def told(room: Mailroom) -> list[tuple[str, str, str, int, int]]:
    return [
        (each.kind, each.id, each.data["level"], each.data["used"], each.data["most"])
        for each in await room.events()
        if each.kind.startswith("queue.")
    ]


async def sign(room: Mailroom) -> bytes | None:
    found: bytes | None = await room.do("GET", room.keys.full)
    return found


async def take(room: Mailroom, many: int) -> None:
    """So many of them go."""
    stream = room.keys.stream("normal")
    for id_, _ in await room.do("XRANGE", stream, "-", "+", "COUNT", many):
        await room.do("XDEL", stream, id_)


async def test_each_level_is_told_once_however_often_it_is_looked_at(room: Mailroom) -> None:
    async def at(mails: int) -> tuple[int, bytes | None]:
        there = await room.do("XLEN", room.keys.stream("normal"))
        for _ in range(mails - there):
            await room.add()
        if mails < there:
            await take(room, there - mails)
        changed = await look(room, mails=10)
        assert await look(room, mails=10) == 0
        return changed, await sign(room)

    assert await at(7) == (0, None)
    assert await at(8) == (1, None)
    assert await at(7) == (0, None)  # a warning is not over by one mail less
    assert await at(10) == (1, b"queue 10 10")
    assert await at(12) == (0, b"queue 12 10")
    assert await at(9) == (1, None)
    assert await at(7) == (0, None)
    assert await at(6) == (1, None)
    assert await told(room) == [
        ("queue.filling", "queue", "filling", 8, 10),
        ("queue.full", "queue", "full", 10, 10),
        ("queue.eased", "queue", "filling", 9, 10),
        ("queue.eased", "queue", "none", 6, 10),
    ]


async def test_mails_of_all_priorities_and_states_count(room: Mailroom) -> None:
    for name in ("high", "low"):
        for state in ("held", "scheduled", "leased", "parked"):
            await room.in_state(
                state, name, **({} if state in ("held", "scheduled") else {"lane": f"main|{name}.example"})
            )
    await look(room, mails=8)
    assert await sign(room) == b"queue 8 8"
    assert (await status(room.spool)).bounds == [BoundSeen("queue", "full", 8, 8)]
    await look(room, mails=100)
    assert (await status(room.spool)).bounds == []
    assert await sign(room) is None


async def test_memory_counts_against_a_share_of_maxmemory(room: Mailroom) -> None:
    async def used() -> int:
        said = (await room.do("INFO", "memory")).decode()
        return int(said.partition("used_memory:")[2].split()[0])

    await look(room)
    assert await told(room) == []  # no maxmemory: no bound
    await room.do("CONFIG", "SET", "maxmemory", await used() * 4)
    await look(room, share=0.9)
    assert await told(room) == []
    await look(room, share=0.28)
    assert [each[:3] for each in await told(room)] == [("queue.filling", "memory", "filling")]
    await look(room, share=0.2)
    found = await sign(room)
    assert found is not None
    bound, have, most = found.decode().split()
    assert (bound, int(have) >= int(most) > 0) == ("memory", True)
    await room.do("CONFIG", "SET", "maxmemory", 1)  # nothing that adds is taken
    assert await look(room) == 0
    assert (await sign(room) or b"").endswith(b" 1")
    await room.do("CONFIG", "SET", "maxmemory", 0)
    await look(room, share=0.2)
    assert await sign(room) is None
    assert (await told(room))[-1][:3] == ("queue.eased", "memory", "none")


async def test_ids_stop_producers_and_none_goes_early(room: Mailroom) -> None:
    """What is looked at once a second is a part of them, and stands for all."""
    generation = room.now // room.scripts.window_ms
    asked: list[str] = []
    commands: list[tuple[str | bytes, ...]] = []
    for back, many in ((0, 3), (1, 1)):
        for slot in range(8192):
            asked.append(f"{room.keys.prefix}seen:{generation - back}:{slot}")
            ids = [part for at in range(many) for part in (b"%010d" % (slot + at), b"1234" + b"e" * 8)]
            commands.append(("HSET", asked[-1], *ids))
    commands.append(("HSET", f"{room.keys.prefix}seen:{generation - 2}:0", "gone", "x" * 100_000))  # nobody asks for it
    await pipelined(room.spool.redis, commands)
    used = sum(await pipelined(room.spool.redis, [("MEMORY USAGE", name) for name in asked]))
    await look(room, ids=used * 2)
    assert await told(room) == []
    await look(room, ids=round(used * 1.1))
    await look(room, ids=round(used * 0.97))
    assert [each[:3] for each in await told(room)] == [
        ("queue.filling", "ids", "filling"),
        ("queue.full", "ids", "full"),
    ]
    found = await sign(room)
    assert found is not None
    bound, have, most = found.decode().split()
    assert (bound, int(most)) == ("ids", round(used * 0.97))
    assert int(have) == pytest.approx(used, rel=0.02)
    assert await room.do("EXISTS", *asked) == len(asked)
    room.tick(2 * room.scripts.window_ms)
    await look(room, ids=used)
    assert await sign(room) is None
    await pipelined(room.spool.redis, [("DEL", each[1]) for each in commands])


async def test_dead_letters_warn_and_stop_nobody(room: Mailroom) -> None:
    for _ in range(3):
        await room.settle("dead", await room.lease())
    kept = int(await room.do("HGET", room.keys.counts, "dead_bytes"))
    await look(room, dead=kept)
    assert [each[:3] for each in await told(room)] == [("queue.full", "dead", "full")]
    assert await sign(room) is None
    [bound] = (await status(room.spool)).bounds
    assert (bound.name, bound.level, bound.used) == ("dead", "full", kept)


async def test_events_are_bounded_in_bytes(room: Mailroom) -> None:
    for at in range(3000):
        await room.do("XADD", room.keys.events, "*", "type", "email.relayed", "id", f"a{at}", "data", "{}" + "x" * 500)
    before = await room.do("MEMORY USAGE", room.keys.events)
    last = (await room.do("XREVRANGE", room.keys.events, "+", "-", "COUNT", 1))[0]
    await look(room, events=before)
    assert await room.do("XLEN", room.keys.events) == 3000
    await look(room, events=before // 4)
    assert await room.do("MEMORY USAGE", room.keys.events) < before * 0.3
    assert (await room.do("XREVRANGE", room.keys.events, "+", "-", "COUNT", 1))[0] == last
    await room.do("DEL", room.keys.events)


async def test_whatever_stood_under_the_sign_s_name_goes(room: Mailroom) -> None:
    """A producer's XADD, where its ACL cannot tell GET from it."""
    await room.do("XADD", room.keys.full, "*", "a", "b")
    await look(room)
    assert await sign(room) is None
    await room.do("XADD", room.keys.full, "*", "a", "b")
    await room.add()
    await look(room, mails=1)
    assert await sign(room) == b"queue 1 1"

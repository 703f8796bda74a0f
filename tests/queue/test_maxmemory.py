"""A server that is full: producers get a clear error, and draining goes on, through every script."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from mailroom import DAY, Lease, Mailroom, ident
from redis.exceptions import ResponseError
from sifting import sift

from streamq.queue.check import check
from streamq.queue.rows import GrantRow, MarkRow, ResettleRow
from streamq.queue.scripts import why
from streamq.queue.spool import Spool

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
VERBS = ["hold", "unhold", "retry", "cancel", "bounce", "expire"]


class Full(Mailroom):
    """`full()`: from here on nothing more fits."""

    was_full = False

    async def full(self) -> None:
        self.was_full = True
        used = int((await self.do("INFO", "memory")).split(b"used_memory:")[1].split(b"\r")[0])
        await self.do("CONFIG", "SET", "maxmemory", used // 2)
        with pytest.raises(ResponseError, match="maxmemory"):
            await self.do("XADD", self.keys.stream("normal"), "*", "to", "bob@example.net")

    async def ends_full(self) -> None:
        with pytest.raises(ResponseError, match="maxmemory"):
            await self.do("XADD", self.keys.stream("normal"), "*", "to", "bob@example.net")
        await self.survey()


@pytest_asyncio.fixture
async def room(spool: Spool) -> AsyncIterator[Full]:
    made = Full(spool)
    yield made
    assert made.was_full
    await made.ends_full()
    await made.do("CONFIG", "SET", "maxmemory", 0)


@pytest.mark.parametrize("op", ["sent", "defer", "dead", "park", "hold", "gone"])
async def test_settle(room: Full, op: str) -> None:
    lease = await room.lease()
    if op == "gone":
        await room.do("XDEL", room.keys.stream("normal"), lease.entry[1:])
    await room.full()
    assert await room.settled(op, lease) == "ok"
    assert await room.settled(op, lease) == "fenced"
    assert (await room.survey()).leases == {}


async def test_routes_close_open_and_share_their_connections(room: Full) -> None:
    lease = await room.lease()
    made = [await room.lease() for _ in range(51)]
    await room.full()
    assert await room.settled("park", lease, down=True) == "ok"
    assert await room.scripts.pause("pause", ["other"], reason="full") == ["paused"]
    _, [granted] = await room.scripts.grant("w1", 4000, [GrantRow("main", 20, 100, 20, 20, 20)])
    assert (granted.allowance, granted.closed_us) == (20, (room.now + 1000) * 1000)
    assert await room.scripts.pause("resume", ["main", "other"]) == ["resumed", "resumed"]
    assert await room.released() == [lease.entry]
    rows = [room.end("dead", each, text="policy no", reply="554 no") for each in made]
    assert (await room.scripts.settle("w1", rows)).statuses == ["ok"] * 50 + ["parked"]


async def test_admit(room: Full) -> None:
    await room.do("HSET", room.keys.limits, "*|slow.example", "1:1000000")
    entries = [await room.add(id=f"a{n}") for n in range(9)]
    await room.read()
    said = why(reason="because", **{"class": "malformed"})
    rows = [
        room.row(entries[0], seen=ident("a0")),
        room.row(entries[1], seen=ident("a0")),
        room.row(entries[2], seen=ident("a0", x="y")),
        room.row(entries[3], kind="dead", why=said),
        room.row(entries[4], kind="hold", why=said),
        room.row(entries[5], due=room.now + 1000, expires=room.now + DAY),
        room.row(entries[6], deadline=room.now),
        room.row(entries[7], lane="main|slow.example"),
        room.row(entries[8], lane="main|slow.example"),
    ]
    await room.full()
    assert await room.admitted(*rows) == [
        *("go", "duplicate", "dead", "dead", "held", "scheduled", "expired", "go", "parked")
    ]


async def test_sift(room: Full) -> None:
    await room.do("HSET", room.keys.limits, "*|slow.example", "1:60000000")
    await room.do("HSET", room.keys.limit("main|slow.example"), "60000000", f"{room.now * 1000 + 61_666_666}:62499999")
    for number in range(4):
        await room.add(to=f"{number}@{'fast' if number == 2 else 'slow'}.example", id=f"a{number}")
    await room.full()
    found = await sift(room)
    assert (found.visited, found.parked, len(found.taken)) == (4, 3, 1)


async def test_read_release_and_the_bell(room: Full) -> None:
    scheduled, parked, waiting = await room.scheduled(), await room.parked(), await room.add()
    room.tick(60_000)
    await room.full()
    assert (await room.release("w1", 1)).left
    reading = await room.spool.wait("w2", 10, 1)
    assert ([each.entry for each in reading.entries], len(reading.bell)) == ([waiting], 1)
    found = await room.release("w2", 10, reading.bell)
    assert len(found.leases) == 1
    assert found.leases[0].entry in {scheduled, parked}, "whichever the first call left: of one place, by turns"
    assert set((await room.survey()).leases) == {scheduled, parked, waiting}


async def test_heartbeat_mark_and_reclaim(room: Full) -> None:
    leases = [await room.lease() for _ in range(3)]
    for lease in leases[1:]:
        await room.silent(lease.entry, "w1")
    await room.do("HSET", room.keys.notes, leases[2].entry, '{"reclaims":3}')
    await room.full()
    assert await room.scripts.heartbeat("w1", [(leases[0].entry, leases[0].token)]) == set()
    assert await room.scripts.mark("w1", [MarkRow("main.1", each.entry, each.token) for each in leases]) == ["ok"] * 3
    [(entry, _, _)] = (await room.reclaim()).leases
    assert entry == leases[1].entry
    [(_, letter)] = await room.letters()
    assert letter["dead_class"] == "poison"


@pytest.mark.parametrize("verb", VERBS)
async def test_move(room: Full, verb: str) -> None:
    entries = [await room.in_state(state) for state in ("held", "scheduled", "leased", "parked", "waiting")]
    await room.full()
    statuses = await room.moved(verb, *entries)
    assert "missing" not in statuses
    assert len(statuses) == 5


async def test_expire_and_resettle(room: Full) -> None:
    again = await room.in_state("scheduled", "high")
    for state in ("held", "parked", "scheduled", "waiting"):
        entry = await room.in_state(state)
    room.tick(5 * DAY)
    await room.full()
    assert await room.scripts.expire([5 * DAY] * 3) == (3, "", [])
    assert await room.scripts.resettle([ResettleRow(again, "a1", "email.relayed", b"", b"", "x.1")]) == 1
    assert entry not in await room.states()


async def test_leader_reap_find_requeue(room: Full) -> None:
    lease = await room.lease(id="a1")
    await room.settled("dead", lease)
    [(letter, _)] = await room.letters()
    await room.full()
    assert await room.scripts.leader("keeper", "w1", 1000)
    assert (await room.scripts.whose("join", consumer="w1")).status == "mine"
    assert await room.scripts.reap(0) == ["w1"]
    assert await room.scripts.find([(None, "a1")]) == [""]
    [entry] = await room.scripts.requeue([letter])  # takes about what it gives
    assert await room.state(entry) == "waiting"


async def test_check_and_repair(room: Full) -> None:
    entry = await room.scheduled()
    await room.do("ZREM", room.keys.schedule, entry)
    await room.full()
    report = await check(room.spool, repair=True)
    assert (len(report.wrong), report.repaired) == (2, 2)
    assert await room.state(entry) == "scheduled"


async def test_open(room: Full) -> None:
    """A worker that starts now, and a group that is gone."""
    entry = await room.add()
    await room.do("XGROUP", "DESTROY", room.keys.stream("normal"), "streamq")
    await room.full()
    await room.spool.open()
    assert await room.read() == [entry]


async def test_a_queue_drains_to_nothing(room: Full) -> None:
    """Read, admit, some deferred once, all sent."""
    many = 120
    for n in range(many):
        await room.add(("high", "normal", "low")[n % 3], text="x" * 1000)
    await room.full()
    sent = 0
    while sent < many:
        room.tick(60_000)
        taken: list[Any] = [*await room.read("w1", 20), *await room.released("w1", 40)]
        found = await room.admit(*taken[:100])
        assert {status for status, *_ in found.statuses} == {"go"}
        leases = [Lease(entry, found.token, "w1") for entry in taken]
        rows = [
            room.end("defer" if n % 5 == 0 and not notes else "sent", lease)
            for n, (lease, (_, notes, *_)) in enumerate(zip(leases, found.statuses, strict=True))
        ]
        sent += sum(1 for row in rows if row.op == "sent")
        assert (await room.scripts.settle("w1", rows)).statuses == ["ok"] * len(rows)
    assert await room.states() == {}
    assert await room.count("total:relayed") == many


async def test_who_buries_makes_room(room: Full) -> None:
    await room.spool.publish_ends()
    await room.do("HSET", room.keys.meta, "dead_bytes", 3000)
    for number in range(4):
        lease = await room.lease(text="x" * 1000, id=f"a{number}")
        await room.settled("dead", lease, **{"class": "policy"})
    last = await room.lease(text="x" * 1000, id="a4")
    await room.full()
    assert await room.settled("dead", last, **{"class": "policy"}) == "ok"
    assert [(fields["id"], len(fields["text"])) for _, fields in await room.letters()] == [("a3", 1000), ("a4", 1000)]
    await room.spool.publish_ends()  # takes no word, and raises nothing
    assert await room.do("HGET", room.keys.meta, "dead_bytes") == b"3000"


async def test_a_sender_is_told_and_letters_are_trimmed(room: Full) -> None:
    """A report is small beside the mail that ends; and what frees memory is never refused."""
    lease = await room.lease("low", id="a1", envelope_from="bounces@example.com")
    report = {"to": "bounces@example.com", "most": 1, "window": 1000, "fields": ["raw", "Subject: x\r\n\r\n"]}
    await room.full()
    assert await room.settled("dead", lease, report=report) == "ok"
    assert "report" in (await room.events())[-1].data
    [(letter, _)] = await room.letters()
    assert await room.scripts.discard([letter, "1-1"], 1000) == (2, 1)
    assert await room.scripts.trim(0, 0) == (0, False)

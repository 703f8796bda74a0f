"""Rates between two looks: what they count is what the server says was added and what has left."""

from __future__ import annotations

import pytest
from mailroom import Lease, Mailroom

from streamq.queue.look import ENDED
from streamq.queue.pulse import Look, Pulse

pytestmark = pytest.mark.leaves_mail


async def added(room: Mailroom) -> int:
    """All XADDs to the spool, ever, as the server counts them."""
    many = 0
    for name in room.spool.priorities:
        flat = await room.do("XINFO STREAM", room.keys.stream(name))
        known = dict(zip(flat[::2], flat[1::2], strict=True))
        if b"entries-added" not in known:
            pytest.skip("Redis 6.2 does not count what was added")
        many += known[b"entries-added"]
    return many


def between(first: Look, second: Look) -> float:
    return (second.status.now_ms - first.status.now_ms) / 1000


async def later(pulse: Pulse, first: Look) -> Look:
    """The next look for which the server's clock has moved."""
    found = await pulse.look()
    while found.status.now_ms == first.status.now_ms:
        found = await pulse.look()
    return found


async def test_the_first_look_has_no_rates(room: Mailroom) -> None:
    found = await Pulse(room.spool, ["main"]).look()
    assert found.flow is None
    assert [view.name for view in found.routes] == ["main"]


async def test_rates_are_what_came_and_went(room: Mailroom) -> None:
    old = [await room.lease("low", id=f"o{n}", to="bob@example.net") for n in range(6)]
    pulse = Pulse(room.spool, [])
    first = await pulse.look()
    before = await added(room), await room.length("low") + await room.length("normal")
    for number in range(4):
        await room.add("normal", id=f"n{number}")
    kept = await room.add("normal", id="kept")
    assert await room.moved("cancel", kept) == ["cancelled"]
    assert await room.settled("sent", old[0]) == "ok"
    assert await room.settled("sent", old[1]) == "ok"
    assert await room.settled("dead", old[2]) == "ok"
    assert await room.settled("defer", old[3]) == "ok"
    found = await later(pulse, first)
    seconds = between(first, found)
    assert found.flow is not None
    left = before[1] + (await added(room) - before[0]) - await room.length("low") - await room.length("normal")
    assert (
        (round(found.flow.came * seconds), round(found.flow.went * seconds))
        == (await added(room) - before[0], left)
        == (5, 4)
    )
    counted = {name: round(rate * seconds) for name, rate in found.flow.outcomes.items() if rate}
    assert counted == {"relayed": 2, "bounced": 1, "deferred": 1, "cancelled": 1}
    assert list(pulse.relayed) == [found.flow.outcomes["relayed"]]


async def test_a_queue_that_was_flushed_counts_anew(room: Mailroom) -> None:
    pulse = Pulse(room.spool, [])
    lease = await room.lease("low", id="a1")
    assert await room.settled("sent", lease) == "ok"
    first = await pulse.look()
    await room.do("FLUSHALL")
    await room.spool.open()
    found = await later(pulse, first)
    assert found.flow is not None
    assert found.flow.came == 0
    assert found.flow.outcomes == {}


async def test_every_outcome_that_ends_a_mail_is_one_that_leaves(room: Mailroom) -> None:
    """Each total that the scripts count when an entry leaves its stream, and none that they count when it stays."""
    for op, gone in (("sent", True), ("dead", True), ("defer", False), ("throttled", False), ("hold", False)):
        lease: Lease = await room.lease("low", id=op)
        before = await room.do("HGETALL", room.keys.counts)
        length = await room.length("low")
        await room.settled(op, lease)
        after = await room.do("HGETALL", room.keys.counts)
        was, now = (dict(zip(flat[::2], flat[1::2], strict=True)) for flat in (before, after))
        totals = {name: many for name, many in now.items() if name.startswith(b"total:")}
        grown = {name[6:].decode() for name, many in totals.items() if was.get(name) != many}
        assert (length - await room.length("low") == 1) == gone == bool(grown & ENDED), (op, grown)

"""adopt.lua: held mails whose fields are known now become leases."""

from __future__ import annotations

import pytest
from mailroom import Lease, Mailroom

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]


async def test_held_ones_become_leases_and_leave_the_count(room: Mailroom) -> None:
    held, other = await room.held(), await room.held("low")
    token, leases = await room.scripts.adopt("w2", [held])
    assert [entry for entry, _ in leases] == [held]
    seen = await room.survey()
    assert seen.leases == {held: ("w2", token)}
    assert (seen.counts["held:1"], seen.counts["held:2"]) == (0, 1)
    assert await room.do("HGET", room.keys.holds, "need:colour") == b"1"
    assert "fields" not in await room.notes(held)
    assert await room.admitted(held, consumer="w2") == ["go"]
    assert await room.state(other) == "held"


@pytest.mark.parametrize("state", ["waiting", "leased", "parked", "scheduled"])
async def test_nothing_else_is_taken(room: Mailroom, state: str) -> None:
    """Two workers may adopt the same one: the second finds it elsewhere."""
    entry = await room.in_state(state)
    before = (await room.survey()).leases
    assert (await room.scripts.adopt("w2", [entry]))[1] == []
    seen = await room.survey()
    assert (seen.states, seen.leases) == ({entry: state}, before)


async def test_not_while_its_stream_is_read_again(room: Mailroom) -> None:
    held = await room.held()
    await room.do("XGROUP", "DESTROY", room.keys.stream("normal"), "streamq")
    await room.spool.open()
    assert (await room.scripts.adopt("w2", [held]))[1] == []
    assert await room.state(held) == "held"
    assert await room.read() == [held]
    assert await room.admitted(held) == ["elsewhere"]
    assert [entry for entry, _ in (await room.scripts.adopt("w2", [held]))[1]] == [held]


async def test_deleted_ones_are_counted_as_vanished(room: Mailroom) -> None:
    held = await room.held()
    await room.do("XDEL", room.keys.stream("normal"), held[1:])
    token, leases = await room.scripts.adopt("w2", [held])
    for entry, _ in leases:  # Redis 6.2 leases what is no more
        await room.settled("gone", Lease(entry, token, "w2"))
    assert await room.count("vanished") == 1
    seen = await room.survey()
    assert (seen.states, seen.leases) == ({}, {})

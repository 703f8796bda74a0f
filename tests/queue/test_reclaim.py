"""heartbeat.lua, mark.lua, reclaim.lua: leases that live, and leases whose worker is gone."""

from __future__ import annotations

import pytest
from mailroom import LANE, Lease, Mailroom

from streamq.queue.rows import MarkRow

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]


async def idle(room: Mailroom, entry: str) -> int:
    [row] = await room.do("XPENDING", room.spool.stream(entry), "streamq", entry[1:], entry[1:], 1)
    return int(row[2])


async def test_a_heartbeat_renews_its_own_and_names_the_lost(room: Mailroom) -> None:
    own, other = await room.lease(), await room.lease("high")
    gone = await room.lease("low")
    await room.settled("sent", gone)
    await room.silent(own.entry, "w1")
    await room.silent(other.entry, "w1")
    stolen = await room.reclaim(room=1)
    assert [entry for entry, _, _ in stolen.leases] == [other.entry]
    leases = [(each.entry, each.token) for each in (own, other, gone)]
    assert await room.scripts.heartbeat("w1", leases) == {other.entry, gone.entry}
    # The new owner's lease is not stolen back, and under its token.
    assert (await room.survey()).leases == {
        own.entry: ("w1", own.token),
        other.entry: ("w2", stolen.token),
    }
    assert await idle(room, own.entry) < 60_000
    assert (await room.kinds()) == ["email.relayed"]


async def test_a_heartbeat_with_an_old_token_is_lost(room: Mailroom) -> None:
    lease = await room.lease()
    again = await room.admit(lease.entry)
    assert await room.scripts.heartbeat("w1", [(lease.entry, lease.token)]) == {lease.entry}
    assert await room.scripts.heartbeat("w1", [(lease.entry, again.token)]) == set()


async def test_many_heartbeats_go_in_one_round_trip(room: Mailroom) -> None:
    for _ in range(250):
        await room.add()
    entries = await room.read("w1", 250)
    leases = []
    for at in range(0, 250, 100):
        found = await room.admit(*entries[at : at + 100])
        leases += [(entry, found.token) for entry in entries[at : at + 100]]
    assert await room.scripts.heartbeat("w1", [*leases, ("01-1", 99)]) == {"01-1"}
    assert await room.scripts.heartbeat("w2", leases) == set(entries)


async def test_a_heartbeat_finds_out_that_its_entry_was_deleted(room: Mailroom) -> None:
    lease = await room.lease()
    await room.do("XDEL", room.keys.stream("normal"), lease.entry[1:])
    if await room.scripts.heartbeat("w1", [(lease.entry, lease.token)]):
        assert await room.count("vanished") == 1
    else:  # Redis 6.2 renews it; the end of the attempt sees to it
        assert await room.settled("gone", lease) == "ok"
    assert (await room.survey()).leases == {}


async def test_reclaim_takes_what_fell_silent_under_a_new_token(room: Mailroom) -> None:
    silent, alive = await room.lease(), await room.lease()
    await room.silent(silent.entry, "w1")
    found = await room.reclaim()
    assert [(entry, past_dot) for entry, _, past_dot in found.leases] == [(silent.entry, False)]
    assert b'"reclaims":1' in found.leases[0][1]
    assert (found.token > alive.token, found.cursor) == (True, "")
    assert (await room.survey()).leases == {
        silent.entry: ("w2", found.token),
        alive.entry: ("w1", alive.token),
    }
    assert await idle(room, silent.entry) < 60_000  # it is not reclaimed again at once
    assert await room.notes(silent.entry) == {"reclaims": 1}
    assert (await room.count("reclaimed"), await room.kinds()) == (1, [])


async def test_what_was_read_and_never_admitted_is_reclaimed_too(room: Mailroom) -> None:
    entry = await room.add()
    await room.read()
    await room.silent(entry, "w1")
    found = await room.reclaim()
    assert [entry for entry, _, _ in found.leases] == [entry]
    assert await room.admitted(entry, consumer="w2") == ["go"]


async def test_reclaim_keeps_a_cursor_over_all_priorities(room: Mailroom) -> None:
    leases = [await room.lease(name) for name in ("low", "low", "high", "normal", "high")]
    for lease in leases:
        await room.silent(lease.entry, "w1")
    got: list[str] = []
    cursor = ""
    for _ in range(5):
        found = await room.reclaim(room=2, cursor=cursor)
        got += [entry for entry, _, _ in found.leases]
        cursor = found.cursor
        if not cursor:
            break
    assert got == sorted(lease.entry for lease in leases)
    assert cursor == ""
    assert len((await room.survey()).leases) == 5
    assert (await room.reclaim(room=0)).leases == []


async def test_a_mail_that_kills_too_many_is_dead(room: Mailroom) -> None:
    lease = await room.lease(id="a1", tenant="acme")
    for n in range(1, 3):
        await room.silent(lease.entry, f"w{n}")
        [(_, notes, _)] = (await room.reclaim(f"w{n + 1}", most=2)).leases
        assert b'"reclaims":%d' % n in notes
    await room.silent(lease.entry, "w3")
    assert (await room.reclaim("w3", most=2)).leases == [], "nobody reclaims from itself"
    assert (await room.reclaim("w4", most=2)).leases == []
    [(_, letter)] = await room.letters()
    assert (letter["dead_class"], letter["attempts"]) == ("poison", "0")
    [event] = await room.events()
    assert (event.kind, event.id, event.data["class"]) == ("email.failed", "a1", "poison")
    assert (event.data["tenant"], event.data["entry"]) == ("acme", lease.entry)
    assert await room.states() == {}
    assert await room.pending() == 0


async def test_suspects_come_one_at_a_time(room: Mailroom) -> None:
    """So that what dies with a mail that kills its worker is that mail, not its neighbours."""
    leases = [await room.lease() for _ in range(3)]
    for lease in leases[:2]:
        await room.do("HSET", room.keys.notes, lease.entry, '{"reclaims":2}')
    for lease in leases:
        await room.silent(lease.entry, "w1")
    found = await room.reclaim(suspects=1)
    assert [entry for entry, _, _ in found.leases] == [leases[2].entry]
    found = await room.reclaim(suspects=0)
    assert [entry for entry, _, _ in found.leases] == [leases[0].entry]
    assert (await room.reclaim(suspects=1)).leases == []
    assert (await room.notes(leases[1].entry))["reclaims"] == 2
    assert (await room.survey()).leases[leases[1].entry] == ("w1", leases[1].token)
    found = await room.reclaim()
    assert [entry for entry, _, _ in found.leases] == [leases[1].entry]


async def test_a_mail_that_was_sent_is_no_poison(room: Mailroom) -> None:
    lease = await room.lease()
    await room.silent(lease.entry, "w1")
    await room.reclaim(most=1)
    assert await room.settled("sent", lease) == "fenced"
    await room.silent(lease.entry, "w2")
    [(entry, notes, _)] = (await room.reclaim("w3", most=1)).leases
    assert b'"sent"' in notes
    assert await room.admitted(entry, consumer="w3") == ["done"]
    assert await room.kinds() == ["email.relayed"]


async def test_past_its_dot_it_is_ambiguous(room: Mailroom) -> None:
    before, past, done = await room.lease(), await room.lease(), await room.lease()
    other = await room.lease(consumer="w3")
    marks = [
        MarkRow("main.1", done.entry, done.token),
        MarkRow("main.2", past.entry, past.token),
    ]
    assert await room.scripts.mark("w1", marks) == ["ok", "ok"]
    assert await room.scripts.mark("w3", [MarkRow("main.1", other.entry, other.token)]) == ["ok"]
    assert await room.settled("sent", done) == "ok"
    assert await room.scripts.mark("w3", [MarkRow("main.1", other.entry, 1)]) == ["lost"]
    for lease in (before, past, other):
        await room.silent(lease.entry, lease.consumer)
    found = await room.reclaim()
    assert {entry: past_dot for entry, _, past_dot in found.leases} == {
        before.entry: False,
        past.entry: True,
        other.entry: True,
    }
    events = [event for event in await room.events() if event.kind == "email.ambiguous"]
    assert [event.data["entry"] for event in events] == [past.entry, other.entry]
    assert (await room.notes(past.entry))["ambiguous"] == 1
    assert await room.count("total:ambiguous") == 2


async def test_the_next_mail_on_a_connection_overwrites_the_mark(room: Mailroom) -> None:
    first, second = await room.lease(), await room.lease()
    await room.scripts.mark("w1", [MarkRow("main.1", first.entry, first.token)])
    await room.scripts.mark("w1", [MarkRow("main.1", second.entry, second.token)])
    assert await room.do("HGETALL", room.keys.dots) == [b"w1/main.1", second.entry.encode()]


async def test_no_dot_for_who_lost_it_or_after_a_late_250(room: Mailroom) -> None:
    lease = await room.lease()
    await room.silent(lease.entry, "w1")
    stolen = Lease(lease.entry, (await room.reclaim()).token, "w2")
    assert await room.scripts.mark("w1", [MarkRow("main.1", lease.entry, lease.token)]) == ["lost"]
    assert await room.settled("sent", lease) == "fenced"
    assert await room.scripts.mark("w2", [MarkRow("main.1", lease.entry, stolen.token)]) == ["sent"]
    assert await room.do("EXISTS", room.keys.dots) == 0
    assert await room.settled("sent", stolen) == "ok"


@pytest.mark.parametrize("state", ["parked", "scheduled", "held"])
async def test_read_again_and_left_it_is_only_acked(room: Mailroom, state: str) -> None:
    entry = await room.in_state(state)
    await room.do("XGROUP", "DESTROY", room.keys.stream("normal"), "streamq")
    await room.spool.open()
    assert await room.read("w9") == [entry]
    await room.silent(entry, "w9")
    assert (await room.reclaim()).leases == []
    assert await room.state(entry) == state
    assert await room.pending() == 0


async def test_deleted_entries_are_not_reclaimed(room: Mailroom) -> None:
    lease = await room.lease()
    await room.settled("defer", lease, wait=0)
    [(lease, _)] = await room.taken()
    await room.silent(lease.entry, "w1")
    await room.do("XDEL", room.keys.stream("normal"), lease.entry[1:])
    found = await room.reclaim()
    for entry, _, _ in found.leases:  # Redis 6.2 claims what is no more
        await room.settled("gone", Lease(entry, found.token, "w2"))
    assert await room.count("vanished") == 1
    assert (await room.survey()).leases == {}


async def test_a_bell_that_nobody_answered_is_swept(room: Mailroom) -> None:
    await room.do("XADD", room.keys.bell, "*", "due", "1")
    reading = await room.spool.wait("w1", 1, 1)
    assert len(reading.bell) == 1
    await room.do("XCLAIM", room.keys.bell, "streamq", "w1", 0, reading.bell[0], "IDLE", 60_000, "JUSTID")
    await room.reclaim()
    assert await room.do("XLEN", room.keys.bell) == 0
    assert (await room.do("XPENDING", room.keys.bell, "streamq"))[0] == 0


async def test_a_finish_after_a_reclaim_is_fenced_and_the_new_owner_ends_it(room: Mailroom) -> None:
    lease = await room.lease()
    await room.silent(lease.entry, "w1")
    stolen = Lease(lease.entry, (await room.reclaim()).token, "w2")
    for op in ("defer", "dead", "park", "hold", "gone"):
        assert await room.settled(op, lease) == "fenced"
    assert await room.settled("park", stolen) == "ok"
    assert (await room.survey()).lanes == {lease.entry: LANE}

"""settle.lua: the ends of attempts, each fenced."""

from __future__ import annotations

import pytest
from mailroom import DAY, LANE, Lease, Mailroom, ident

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
OPS = ["sent", "defer", "dead", "park", "hold", "gone"]


@pytest.mark.drained
async def test_sent_is_gone_with_its_event(room: Mailroom) -> None:
    entry = await room.add(id="a1")
    await room.read()
    found = await room.admit(entry, seen=ident("a1"), expires=room.now + DAY)
    lease = Lease(entry, found.token, "w1")
    assert await room.settled("sent", lease, tail=b'"reply":"250 ok"') == "ok"
    [event] = await room.events()
    assert (event.kind, event.id, event.data["reply"]) == ("email.relayed", entry, "250 ok")
    assert event.data["event_id"] == f"{entry}.{lease.token}"
    assert (await room.length(), await room.pending(), await room.count("total:relayed")) == (0, 0, 1)
    assert await room.scripts.find([(None, "a1")]) == [entry]  # the id stays known


async def test_defer_is_scheduled_with_one_attempt_more(room: Mailroom) -> None:
    lease = await room.lease("high")
    settled = await room.settle("defer", lease, wait=60_000, tail=b'"attempt":1')
    assert settled.statuses == ["ok"]
    assert settled.next_us == (room.now + 60_000) * 1000
    seen = await room.survey()
    assert seen.due == {lease.entry: room.now + 60_000}
    assert (seen.counts["scheduled:0"], await room.pending("high"), await room.length("high")) == (1, 0, 1)
    assert await room.notes(lease.entry) == {
        "attempts": 1,
        "first": room.now,
        "last": room.now,
        "reply": "450 no",
        "class": "greylisted",
    }
    [event] = await room.events()
    assert (event.kind, event.data["attempt"]) == ("email.deferred", 1)
    assert event.data["next_attempt_at"] == room.now + 60_000
    first = room.now
    room.tick(60_000)
    [entry] = await room.released()
    again = Lease(entry, (await room.admit(entry)).token, "w1")
    assert await room.settled("defer", again, wait=1000, reply="451 later") == "ok"
    notes = await room.notes(entry)
    assert (notes["attempts"], notes["first"], notes["last"]) == (2, first, room.now)
    assert notes["reply"] == "451 later"


async def test_a_throttle_is_no_attempt(room: Mailroom) -> None:
    lease = await room.lease()
    assert await room.settled("throttled", lease) == "ok"
    notes = await room.notes(lease.entry)
    assert (notes.get("attempts"), notes["throttled"]) == (None, 1)
    await room.moved("cancel", lease.entry)


async def test_defer_is_clipped_at_the_deadline(room: Mailroom) -> None:
    lease = await room.lease()
    settled = await room.settle("defer", lease, wait=60_000, deadline=room.now + 1000)
    assert settled.next_us == (room.now + 1000) * 1000
    assert (await room.survey()).due == {lease.entry: room.now + 1000}


async def test_defer_past_the_deadline_is_expired(room: Mailroom) -> None:
    lease = await room.lease()
    assert await room.settled("defer", lease, deadline=room.now) == "expired"
    [(_, letter)] = await room.letters()
    assert (letter["dead_class"], letter["attempts"], letter["last_reply"]) == ("expired", "1", "450 no")
    assert await room.kinds() == ["email.expired"]
    assert await room.states() == {}
    assert await room.count("total:expired") == 1


@pytest.mark.drained
async def test_dead_is_a_dead_letter(room: Mailroom) -> None:
    lease = await room.lease(to="bob@example.net", text="Hello", id="a1")
    assert await room.settled("dead", lease) == "ok"
    [(_, letter)] = await room.letters()
    assert (letter["to"], letter["dead_body"], "text" in letter) == ("bob@example.net", "dropped", False)
    assert (letter["dead_class"], letter["dead_reason"]) == ("bad_address", "rcpt: 550 no")
    assert (letter["attempts"], letter["last_reply"]) == ("1", "550 no")
    assert await room.kinds() == ["email.bounced"]
    assert [await room.count(name) for name in ("dead", "class:bad_address", "total:bounced")] == [1, 1, 1]


async def test_dead_without_a_reply_keeps_the_last_one(room: Mailroom) -> None:
    lease = await room.lease()
    await room.settled("defer", lease, wait=0)
    [(again, _)] = await room.taken()
    assert await room.settled("dead", again, reply=None, judged=False) == "ok"
    [(_, letter)] = await room.letters()
    assert (letter["attempts"], letter["last_reply"]) == ("1", "450 no")


async def test_park_is_back_in_its_lane_without_an_attempt(room: Mailroom) -> None:
    lease = await room.lease()
    settled = await room.settle("park", lease, wait=2000)
    assert settled.statuses == ["ok"]
    assert settled.next_us == (room.now + 2000) * 1000
    seen = await room.survey()
    assert (seen.lanes, seen.counts["parked:1"]) == ({lease.entry: LANE}, 1)
    assert seen.visits == {(1, LANE): (room.now + 2000) * 1000}
    assert (await room.notes(lease.entry), await room.kinds()) == ({}, [])


async def test_sessions_that_ended_at_a_mail_are_counted(room: Mailroom) -> None:
    lease = await room.lease()
    await room.settle("park", lease, broke=True)
    again = Lease(lease.entry, (await room.release()).token, "w1")
    assert await room.settled("park", again, broke=True) == "ok"
    assert await room.notes(lease.entry) == {"broke": 2}


async def test_a_route_that_is_down_takes_one_probe_at_a_time(room: Mailroom) -> None:
    leases = [await room.lease() for _ in range(3)]
    assert len(leases) == 3
    for lease in leases:  # failures that were under way at once count as one
        await room.settled("park", lease, down=True, **{"class": "unreachable"})
    [event] = await room.events()
    assert (event.kind, event.id) == ("route.paused", "main")
    assert (event.data["route"], event.data["class"]) == ("main", "unreachable")
    assert await room.released() == []
    room.tick(1000)
    [(probe, _)] = await room.taken()
    assert await room.released() == []
    await room.settled("park", probe, down=True)
    room.tick(1999)
    assert await room.released() == []
    room.tick(1)  # twice as long as the first time
    [(probe, _)] = await room.taken()
    settled = await room.settle("sent", probe)
    assert settled.next_us == room.now * 1000
    assert await room.kinds() == ["route.paused", "route.resumed", "email.relayed"]
    assert len(await room.released()) == 2


async def test_hold_is_held(room: Mailroom) -> None:
    lease = await room.lease()
    assert await room.settled("hold", lease, kind="email.ambiguous") == "ok"
    seen = await room.survey()
    assert (seen.states, seen.counts["held:1"]) == ({lease.entry: "held"}, 1)
    assert await room.notes(lease.entry) == {"reason": "ambiguous", "class": "ambiguous"}
    assert await room.kinds() == ["email.ambiguous"]


async def test_gone_counts_what_somebody_deleted(room: Mailroom) -> None:
    lease = await room.lease()
    await room.do("HSET", room.keys.holds, f"intent:{lease.entry}", "cancel")
    await room.do("XDEL", room.keys.stream("normal"), lease.entry[1:])
    assert await room.settled("gone", lease) == "ok"
    assert await room.states() == {}
    assert (await room.count("vanished"), await room.pending(), await room.kinds()) == (1, 0, [])


async def test_dead_of_what_somebody_deleted_is_no_letter(room: Mailroom) -> None:
    lease = await room.lease()
    await room.do("XDEL", room.keys.stream("normal"), lease.entry[1:])
    assert await room.settled("dead", lease) == "ok"
    assert (await room.letters(), await room.kinds(), await room.count("vanished")) == ([], [], 1)
    assert (await room.survey()).leases == {}


@pytest.mark.parametrize("op", OPS)
async def test_a_stranger_or_an_old_token_changes_nothing(room: Mailroom, op: str) -> None:
    lease = await room.lease()
    seen = await room.survey()
    for wrong in (Lease(lease.entry, lease.token, "w2"), Lease(lease.entry, lease.token - 1, "w1")):
        assert await room.settled(op, wrong) == "fenced"
    after = await room.survey()
    assert (after.states, after.leases) == (seen.states, seen.leases)
    assert (await room.kinds(), await room.letters()) == ([], [])
    assert await room.notes(lease.entry) == ({"sent": ""} if op == "sent" else {})
    assert await room.count("late") == (2 if op == "sent" else 0)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.drained
async def test_twice_is_fenced(room: Mailroom, op: str) -> None:
    """A call whose reply was lost may come again."""
    lease = await room.lease()
    assert await room.settled("sent", lease) == "ok"
    assert await room.settled(op, lease) == "fenced"
    assert await room.kinds() == ["email.relayed"]
    assert await room.count("late") == 0


async def test_a_late_250_is_noted_where_its_mail_stands(room: Mailroom) -> None:
    lease = await room.lease()
    assert await room.settled("defer", lease) == "ok"
    assert await room.settled("sent", lease, tail=b'"x":1') == "fenced"
    assert (await room.notes(lease.entry))["sent"] == '"x":1'
    assert await room.state(lease.entry) == "scheduled"


INTENTS = [
    ("hold", "held", "held", "email.held"),
    ("cancel", "cancelled", "", "email.cancelled"),
    ("bounce", "bounced", "", "email.bounced"),
]


@pytest.mark.parametrize("op", ["defer", "park", "hold"])
@pytest.mark.parametrize(("verb", "status", "state", "kind"), INTENTS)
async def test_intents_are_carried_out_if_it_was_not_sent(
    room: Mailroom, op: str, verb: str, status: str, state: str, kind: str
) -> None:
    entry = await room.add(id="a1")
    await room.read()
    lease = Lease(entry, (await room.admit(entry, seen=ident("a1"))).token, "w1")
    assert await room.moved(verb, entry) == ["intended"]
    asked = await room.settled(op, lease)
    assert asked == ("ok" if (op, verb) == ("hold", "hold") else status)
    assert await room.state(entry) == state
    assert await room.kinds() == [kind]
    assert await room.do("HLEN", room.keys.holds) == 0
    assert await room.scripts.find([(None, "a1")]) == [entry if verb == "hold" else ""]
    attempts = 1 if op == "defer" else 0
    if verb == "bounce":
        assert (await room.letters())[0][1]["attempts"] == str(attempts)
    if verb == "hold":
        assert (await room.notes(entry)).get("attempts", 0) == attempts


@pytest.mark.parametrize(("op", "kind"), [("sent", "email.relayed"), ("dead", "email.bounced")])
@pytest.mark.parametrize("verb", ["hold", "cancel", "bounce"])
@pytest.mark.drained
async def test_intents_end_with_their_mail(room: Mailroom, op: str, kind: str, verb: str) -> None:
    lease = await room.lease()
    assert await room.moved(verb, lease.entry) == ["intended"]
    assert await room.settled(op, lease) == "ok"
    assert await room.kinds() == [kind]


async def test_a_batch_is_a_hundred_of_all_kinds(room: Mailroom) -> None:
    entries = [await room.add(("high", "normal", "low")[n % 3]) for n in range(100)]
    read = await room.read()
    assert sorted(read) == sorted(entries)
    token = (await room.admit(*read)).token
    rows = [room.end(OPS[n % 5], Lease(entry, token, "w1")) for n, entry in enumerate(entries)]
    assert (await room.scripts.settle("w1", rows)).statuses == ["ok"] * 100
    assert (await room.survey()).depth == {"scheduled": 20, "parked": 20, "held": 20}


@pytest.mark.parametrize("op", ["defer", "park", "dead", "hold", "sent"])
@pytest.mark.drained
async def test_what_a_late_250_says_was_sent_ends_so_whatever_its_new_owner_says(room: Mailroom, op: str) -> None:
    lease = await room.lease()
    await room.silent(lease.entry, "w1")
    stolen = Lease(lease.entry, (await room.reclaim()).token, "w2")
    assert await room.settled("sent", lease) == "fenced"
    assert await room.settled(op, stolen) == "ok"
    assert await room.kinds() == ["email.relayed"]
    assert await room.letters() == []


@pytest.mark.parametrize("op", ["sent", "hold"])
async def test_an_end_by_policy_says_that_it_is_ambiguous(room: Mailroom, op: str) -> None:
    lease = await room.lease()
    assert await room.settled(op, lease, ambiguous=True) == "ok"
    assert await room.kinds() == ["email.ambiguous", {"sent": "email.relayed", "hold": "email.held"}[op]]
    events = await room.events()
    assert len({event.data["event_id"] for event in events}) == 2


async def test_the_notes_count_ambiguous_ends(room: Mailroom) -> None:
    lease = await room.lease()
    assert await room.settled("defer", lease, wait=0, ambiguous=True) == "ok"
    [(again, _)] = await room.taken()
    assert await room.settled("defer", again, wait=0) == "ok"
    assert (await room.notes(lease.entry))["ambiguous"] == 1
    [(last, _)] = await room.taken()
    assert await room.settled("hold", last, ambiguous=True) == "ok"
    assert (await room.notes(lease.entry))["ambiguous"] == 2

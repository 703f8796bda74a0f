"""admit.lua: what a worker has read becomes a lease, or goes where it belongs."""

from __future__ import annotations

import pytest
from conftest import MakeSpool
from mailroom import DAY, LANE, Lease, Mailroom, ident

from streamq.queue.rows import Status
from streamq.queue.scripts import why

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]


async def limit(room: Mailroom, rule: str, lane: str = "*|example.net") -> None:
    await room.do("HSET", room.keys.limits, lane, rule)


async def test_go_is_a_lease_under_a_new_token(room: Mailroom) -> None:
    first, second = await room.add(), await room.add("high")
    assert await room.read() == [second, first]
    found = await room.admit(first, second)
    assert [status for status, *_ in found.statuses] == ["go", "go"]
    assert found.now_us == room.now * 1000
    assert (found.next_us, found.closed_us) == (0, 0)
    seen = await room.survey()
    assert seen.leases == {first: ("w1", found.token), second: ("w1", found.token)}
    assert found.token >= 16  # clear of the counts that XREADGROUP writes
    assert await room.kinds() == []
    again = await room.admit(first)
    assert again.token > found.token
    assert (await room.survey()).leases[first] == ("w1", again.token)


async def test_notes_come_with_the_lease(room: Mailroom) -> None:
    lease = await room.lease()
    await room.settled("defer", lease, wait=1000)
    room.tick(1000)
    assert await room.released() == [lease.entry]
    found = await room.admit(lease.entry)
    assert found.statuses[0][0] == "go"
    assert b'"attempts":1' in found.statuses[0][1]


async def test_who_does_not_hold_it_has_lost_it(room: Mailroom) -> None:
    entry, unread = await room.add(), None
    await room.read("w1")
    unread = await room.add()
    assert await room.admitted(entry, unread, consumer="w2") == ["lost", "lost"]
    seen = await room.survey()
    assert seen.leases == {entry: ("w1", 1)}
    assert seen.of("waiting") == [unread]


async def test_send_at_ahead_is_scheduled(room: Mailroom) -> None:
    entry = await room.add("low")
    await room.read()
    found = await room.admit(entry, due=room.now + 5000)
    assert found.statuses == [Status("scheduled", b"", "", "")]
    assert found.next_us == (room.now + 5000) * 1000
    seen = await room.survey()
    assert seen.due == {entry: room.now + 5000}
    assert (seen.counts["scheduled:2"], await room.pending("low"), await room.length("low")) == (1, 0, 1)
    assert await room.kinds() == []


async def test_the_schedule_is_clipped_at_the_deadline(room: Mailroom) -> None:
    entry = await room.add()
    await room.read()
    found = await room.admit(entry, due=room.now + 9000, deadline=room.now + 4000, expires=room.now + 4000)
    assert found.next_us == (room.now + 4000) * 1000
    assert (await room.survey()).due == {entry: room.now + 4000}
    assert int(await room.do("ZSCORE", room.keys.expiry, entry)) == room.now + 4000


async def test_no_slot_parks_in_its_lane(room: Mailroom) -> None:
    await limit(room, "1:1000000")
    entries = [await room.add() for _ in range(3)]
    await room.read()
    found = await room.admit(*entries)
    assert [status for status, *_ in found.statuses] == ["go", "parked", "parked"]
    assert found.next_us == (room.now + 1000) * 1000 + 13_888  # W + σ
    seen = await room.survey()
    assert seen.lanes == {entries[1]: LANE, entries[2]: LANE}
    assert seen.visits == {(1, LANE): (room.now + 1000) * 1000 + 13_888}
    assert (seen.counts["parked:1"], await room.pending(), await room.length()) == (2, 1, 3)
    assert await room.kinds() == []


async def test_a_newcomer_never_overtakes_its_own_lane(room: Mailroom) -> None:
    await limit(room, "1:1000000")
    entries = [await room.add() for _ in range(2)]
    await room.read()
    await room.admit(*entries)
    room.tick(10_000)  # slots are free, and yet
    newcomer, urgent, lower = await room.add(), await room.add("high"), await room.add("low")
    other = await room.add()
    await room.read()
    found = await room.admit(lower, newcomer)
    assert [status for status, *_ in found.statuses] == ["parked", "parked"]
    assert found.next_us == room.now * 1000  # the lane may go at once
    assert await room.admitted(urgent) == ["go"]  # better than all that is parked there
    assert await room.admitted(other, lane="main|elsewhere.org") == ["go"]


async def test_a_newcomer_does_not_bring_its_lane_s_visit_forward(room: Mailroom) -> None:
    """The lane waits for a minute: its site said so."""
    await room.parked()
    visit = (room.now + 60_000) * 1000
    newcomer, lower = await room.add(), await room.add("low")
    await room.read()
    found = await room.admit(newcomer, lower)
    assert ([status for status, *_ in found.statuses], found.next_us) == (["parked", "parked"], visit)
    assert set((await room.survey()).visits.values()) == {visit}


async def test_malformed_becomes_a_dead_letter(room: Mailroom) -> None:
    entry = await room.add(id="a1", to="nobody at all", text="secret")
    await room.read()
    said = why(reason="to: no address: 'nobody at all'", **{"class": "malformed"})
    assert await room.admitted(entry, kind="dead", id="a1", why=said) == ["dead"]
    assert await room.states() == {}
    [(_, letter)] = await room.letters()
    assert letter == {
        "id": "a1",
        "to": "nobody at all",
        "text": "secret",
        "dead_reason": "to: no address: 'nobody at all'",
        "dead_class": "malformed",
        "dead_at": str(room.now),
        "dead_entry": entry,
        "attempts": "0",
        "last_reply": "",
    }
    [event] = await room.events()
    assert (event.kind, event.id, event.data["class"]) == ("email.rejected", "a1", "malformed")
    assert (event.data["entry"], event.data["priority"], event.data["at"]) == (entry, "normal", room.now)
    assert (await room.count("total:rejected"), await room.count("dead"), await room.length()) == (1, 1, 0)


async def test_sensitive_leaves_no_body_in_the_dead_letter(room: Mailroom) -> None:
    entry = await room.add(to="bob", text="secret", html="secret", raw="secret", sensitive="1")
    await room.read()
    await room.admit(entry, kind="dead", why=why(reason="to: no address", **{"class": "malformed"}))
    [(_, letter)] = await room.letters()
    assert letter["to"] == "bob"
    assert "secret" not in letter.values()


async def test_too_many_fields_are_packed_into_one(room: Mailroom) -> None:
    entry = await room.add(**{f"x_{n}": "1" for n in range(1001)})
    await room.read()
    assert await room.admitted(entry, kind="dead", why=why(reason="fields", **{"class": "malformed"})) == ["dead"]
    [(_, letter)] = await room.letters()
    assert set(letter) == {*("packed", "dead_reason", "dead_class", "dead_at", "dead_entry", "attempts", "last_reply")}
    assert '"x_1000","1"' in letter["packed"]


async def test_unknown_fields_are_held_and_counted(room: Mailroom) -> None:
    entry = await room.held()
    seen = await room.survey()
    assert seen.states == {entry: "held"}
    assert (seen.counts["held:1"], await room.pending(), await room.length()) == (1, 0, 1)
    assert await room.notes(entry) == {
        "reason": "unknown fields: colour",
        "class": "unknown_field",
        "fields": ["colour"],
    }
    assert int(await room.do("HGET", room.keys.holds, "need:colour")) == 1
    [event] = await room.events()
    assert (event.kind, event.data["class"]) == ("email.held", "unknown_field")
    # Whoever ends it takes it off the count.
    assert await room.moved("cancel", entry) == ["cancelled"]
    assert await room.do("EXISTS", room.keys.holds) == 0


async def test_same_id_and_content_is_a_duplicate(room: Mailroom) -> None:
    first, second = await room.add(id="a1"), await room.add(id="a1")
    await room.read()
    rows = [room.row(entry, seen=ident("a1", text="x"), id="a1") for entry in (first, second, first)]
    assert await room.admitted(*rows) == ["go", "duplicate", "go"]  # the owner is no duplicate of itself
    assert await room.states() == {first: "leased"}
    [event] = await room.events()
    assert (event.kind, event.id, event.data["entry"]) == ("email.duplicate", "a1", second)
    assert event.data["of"] == first
    assert await room.count("total:duplicate") == 1


async def test_same_id_other_content_is_a_conflict(room: Mailroom) -> None:
    first, second = await room.add(id="a1"), await room.add(id="a1")
    await room.read()
    rows = [
        room.row(first, seen=ident("a1", text="x"), id="a1"),
        room.row(second, seen=ident("a1", text="y"), id="a1", tail=b'"rcpt":"b@c.de"'),
    ]
    assert await room.admitted(*rows) == ["go", "dead"]
    [(_, letter)] = await room.letters()
    assert letter["dead_class"] == "id_conflict"
    assert first in letter["dead_reason"]
    [event] = await room.events()
    assert (event.kind, event.data["class"], event.data["rcpt"]) == ("email.rejected", "id_conflict", "b@c.de")
    assert await room.scripts.find([(None, "a1")]) == [first]  # still the first one's


async def test_too_old_is_expired(room: Mailroom) -> None:
    entry, last = await room.add(id="a1"), await room.add()
    await room.read()
    rows = [
        room.row(entry, deadline=room.now, seen=ident("a1"), id="a1", expires=room.now),
        room.row(last, deadline=room.now + 1),
    ]
    assert await room.admitted(*rows) == ["expired", "go"]
    [(_, letter)] = await room.letters()
    assert letter["dead_class"] == "expired"
    assert str(room.now) in letter["dead_reason"]
    assert await room.kinds() == ["email.expired"]
    assert await room.count("total:expired") == 1
    assert await room.scripts.find([(None, "a1")]) == [""]  # its id is free again


@pytest.mark.parametrize(
    ("verb", "status", "kind"),
    [
        ("hold", "held", "email.held"),
        ("cancel", "cancelled", "email.cancelled"),
        ("bounce", "dead", "email.bounced"),
    ],
)
@pytest.mark.parametrize("by", ["intent", "id", "all", "priority", "domain", "tenant", "tag"])
async def test_what_operators_asked_for_is_carried_out(
    room: Mailroom, verb: str, status: str, kind: str, by: str
) -> None:
    entry, other = await room.add("low", id="a1"), await room.add(id="a2")
    await room.read()
    field = {
        "intent": f"intent:{entry}",
        "id": "id:a1\nacme",
        "all": "rule:all",
        "priority": "rule:priority:low",
        "domain": "rule:domain:example.net",
        "tenant": "rule:tenant:acme",
        "tag": "rule:tag:news",
    }[by]
    await room.do("HSET", room.keys.holds, field, verb)
    tail = b'"site":"example.net","tenant":"acme","tags":["x","news"]'
    rows = [room.row(entry, id="a1", seen=ident("a1"), tail=tail)]
    if by != "all":
        rows.append(room.row(other, id="a2", tail=b'"site":"example.org"'))
    assert await room.admitted(*rows) == [status, "go"][: len(rows)]
    assert await room.state(entry) == ("held" if verb == "hold" else "")
    [event] = await room.events()
    assert (event.kind, event.id, event.data["tags"]) == (kind, "a1", ["x", "news"])
    standing = by not in {"intent", "id"}
    assert await room.do("HEXISTS", room.keys.holds, field) == standing
    owner = await room.scripts.find([(None, "a1")])
    assert owner == [entry if verb == "hold" else ""]


async def test_an_own_deadline_is_known_while_it_is_held(room: Mailroom) -> None:
    entry = await room.add()
    await room.read()
    await room.do("HSET", room.keys.holds, f"intent:{entry}", "hold")
    assert await room.admitted(entry, deadline=room.now + 5000, expires=room.now + 5000) == ["held"]
    room.tick(5000)
    assert await room.scripts.expire([5 * DAY] * 3) == (1, "", [])
    assert await room.states() == {}


async def test_a_late_250_is_not_sent_again(room: Mailroom) -> None:
    lease = await room.lease(id="a1")
    room.tick(60_000)
    await room.silent(lease.entry, "w1")
    stolen = await room.reclaim()
    assert [entry for entry, _, _ in stolen.leases] == [lease.entry]
    row = room.end("sent", lease, tail=b'"reply":"250 ok"')
    assert (await room.scripts.settle("w1", [row])).statuses == ["fenced"]
    assert await room.admitted(lease.entry, consumer="w2", id="a1") == ["done"]
    assert await room.states() == {}
    [event] = await room.events()
    assert (event.kind, event.id, event.data["reply"]) == ("email.relayed", "a1", "250 ok")
    assert (await room.count("total:relayed"), await room.count("late")) == (1, 1)


@pytest.mark.parametrize("state", ["parked", "scheduled", "held"])
async def test_read_again_after_its_group_was_made_anew_it_stands_elsewhere(room: Mailroom, state: str) -> None:
    entry = await room.in_state(state)
    await room.do("XGROUP", "DESTROY", room.keys.stream("normal"), "streamq")
    assert await room.read() == []  # it makes the group again
    assert await room.read() == [entry]
    assert await room.state(entry) == state
    assert await room.admitted(entry) == ["elsewhere"]
    assert await room.state(entry) == state
    assert await room.pending() == 0


async def test_what_somebody_deleted_is_not_sent(room: Mailroom) -> None:
    lease = await room.lease()
    await room.settled("defer", lease, wait=0)  # so that it has notes
    assert await room.released() == [lease.entry]
    await room.do("XDEL", room.keys.stream("normal"), lease.entry[1:])
    found = await room.admit(lease.entry)
    if found.statuses[0][0] == "go":  # Redis 6.2 leases what is no more: there the worker finds no body
        assert await room.settled("gone", Lease(lease.entry, found.token, "w1")) == "ok"
    else:
        assert found.statuses[0][0] == "lost"
    assert await room.states() == {}
    assert await room.count("vanished") == 1
    assert await room.notes(lease.entry) == {}


async def test_a_closed_route_is_told(make_spool: MakeSpool) -> None:
    room = Mailroom(await make_spool())
    lease = await room.lease()
    await room.settled("park", lease, down=True)
    entry = await room.add()
    await room.read()
    found = await room.admit(entry)
    assert found.statuses[0][0] == "parked"
    assert found.closed_us == (room.now + 1000) * 1000


async def test_a_rule_for_an_id_is_one_tenant_s(room: Mailroom) -> None:
    entries = [await room.add(id="a1") for _ in range(3)]
    await room.read()
    await room.do("HSET", room.keys.holds, "id:a1\nacme", "hold")
    tails = [b"", b'"tenant":"other"', b'"tenant":"acme"']
    rows = [room.row(entry, id="a1", tail=tail) for entry, tail in zip(entries, tails, strict=True)]
    assert await room.admitted(*rows) == ["go", "go", "held"]


async def test_what_is_to_be_held_can_be_cancelled_before(room: Mailroom) -> None:
    entry = await room.add(x="1")
    await room.read()
    await room.do("HSET", room.keys.holds, f"intent:{entry}", "cancel")
    reason = why(reason="unknown fields: colour", fields=["colour"], **{"class": "unknown_field"})
    assert await room.admitted(entry, kind="hold", why=reason) == ["cancelled"]
    assert await room.states() == {}
    assert await room.do("EXISTS", room.keys.holds) == 0


@pytest.mark.parametrize(
    "id_", ["1795311164816123-7", "1795311164816-9007199254740995", "281474976710656-18446744073709551614"]
)
async def test_an_id_of_any_size_is_no_duplicate_of_itself(room: Mailroom, id_: str) -> None:
    stream = room.keys.stream("normal")
    await room.do("XADD", stream, id_, "id", "a1", "to", "bob@example.net")
    await room.read("w1")
    entry = f"1{id_}"
    assert await room.admitted(room.row(entry, seen=ident("a1"))) == ["go"]
    assert await room.admitted(room.row(entry, seen=ident("a1"))) == ["go"]
    assert await room.scripts.find([(None, "a1")]) == [entry]


async def test_a_batch_forgets_deadlines_that_it_noted_itself(room: Mailroom) -> None:
    """What hangs on a mail is looked for once a script: the first one that ended had nothing."""
    first, second = [await room.add() for _ in range(2)]
    await room.read()
    said = why(reason="because", **{"class": "malformed"})
    rows = [room.row(first, kind="dead", why=said), room.row(second, expires=room.now + DAY, deadline=room.now)]
    assert await room.admitted(*rows) == ["dead", "expired"]
    assert await room.do("EXISTS", room.keys.expiry) == 0

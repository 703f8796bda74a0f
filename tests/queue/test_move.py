"""move.lua: an operator's verbs, each in every state."""

from __future__ import annotations

import pytest
from mailroom import LANE, Mailroom, ident

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
STATES = ["waiting", "leased", "parked", "scheduled", "held"]

# verb → state → status, and the state after it ("": gone)
TABLE = {
    "hold": {
        "waiting": ("intended", "waiting"),
        "leased": ("intended", "leased"),
        "parked": ("held", "held"),
        "scheduled": ("held", "held"),
        "held": ("held", "held"),
    },
    "unhold": {
        "waiting": ("waiting", "waiting"),
        "leased": ("leased", "leased"),
        "parked": ("parked", "parked"),
        "scheduled": ("scheduled", "scheduled"),
        "held": ("scheduled", "scheduled"),
    },
    "retry": {state: (state, state) for state in STATES},
    "cancel": dict.fromkeys(STATES, ("cancelled", "")) | {"leased": ("intended", "leased")},
    "bounce": dict.fromkeys(STATES, ("bounced", "")) | {"leased": ("intended", "leased")},
    "expire": dict.fromkeys(STATES, ("expired", "")) | {"leased": ("leased", "leased")},
}


@pytest.mark.parametrize(("verb", "state"), [(verb, state) for verb in TABLE for state in STATES])
async def test_every_verb_in_every_state(room: Mailroom, verb: str, state: str) -> None:
    entry = await room.in_state(state, "low", id="a1", to="bob@example.net")
    other = await room.in_state(state)
    seen = await room.survey()
    known = len(await room.kinds())
    status, after = TABLE[verb][state]
    assert await room.moved(verb, entry) == [status]
    now = await room.survey()
    assert now.states == {other: state} | ({entry: after} if after else {})
    assert now.leases == seen.leases
    kinds = (await room.kinds())[known:]
    ended = {"cancelled": "email.cancelled", "bounced": "email.bounced", "expired": "email.expired"}
    if status in ended:
        assert kinds == [ended[status]]
        event = (await room.events())[-1]
        assert (event.id, event.data["entry"], event.data["class"]) == ("a1", entry, "operator")
        assert await room.count(f"total:{status}") == 1
    else:
        assert kinds == (["email.held"] if verb == "hold" and after == "held" != state else [])
    letters = [fields for _, fields in await room.letters()]
    if status in {"bounced", "expired"}:
        [letter] = letters
        assert (letter["to"], letter["dead_entry"]) == ("bob@example.net", entry)
        assert letter["dead_class"] == ("operator" if status == "bounced" else "expired")
    else:
        assert letters == []
    intent = await room.do("HGET", room.keys.holds, f"intent:{entry}")
    assert intent == (verb.encode() if status == "intended" else None)


async def test_a_missing_one(room: Mailroom) -> None:
    await room.lease()
    for verb in TABLE:
        assert await room.moved(verb, f"1{room.now}-99") == ["missing"]


async def test_an_intent_is_carried_out_by_admission(room: Mailroom) -> None:
    entry = await room.add()
    assert await room.moved("hold", entry) == ["intended"]
    await room.read()
    assert await room.admitted(entry) == ["held"]
    assert await room.state(entry) == "held"


async def test_unhold_takes_an_intent_back(room: Mailroom) -> None:
    entry = await room.add()
    await room.moved("hold", entry)
    assert await room.moved("unhold", entry) == ["waiting"]
    await room.read()
    assert await room.admitted(entry) == ["go"]


async def test_unhold_is_due_at_its_old_time_or_when_told(room: Mailroom) -> None:
    due = room.now + 60_000
    for state, old in (("scheduled", due), ("parked", room.now), ("held", room.now)):
        entry = await room.in_state(state)
        await room.moved("hold", entry)
        moved = await room.move("unhold", entry)
        assert (moved.statuses, moved.next_us) == (["scheduled"], old * 1000)
        assert (await room.survey()).due[entry] == old
        await room.moved("hold", entry)
        moved = await room.move("unhold", entry, at_ms=due + 1)
        assert moved.next_us == (due + 1) * 1000
        assert (await room.survey()).due[entry] == due + 1
    assert (await room.survey()).counts["held:1"] == 0


async def test_unhold_of_one_that_was_held_before_its_first_time(room: Mailroom) -> None:
    entry = await room.add()
    await room.moved("hold", entry)
    await room.read()
    await room.admit(entry)
    moved = await room.move("unhold", entry)
    assert moved.next_us == room.now * 1000  # at once, and somebody is told
    assert await room.released() == [entry]
    assert await room.admitted(entry) == ["go"]


async def test_notes_outlive_hold_and_unhold(room: Mailroom) -> None:
    lease = await room.lease()
    await room.settled("defer", lease, reply="450 later", **{"class": "temporary"})
    for _ in range(2):
        assert await room.moved("hold", lease.entry) == ["held"]
        assert (await room.notes(lease.entry))["class"] == "operator"
        await room.moved("unhold", lease.entry)
        notes = await room.notes(lease.entry)
        assert (notes["attempts"], notes["class"]) == (1, "temporary")
        assert not {"due", "said", "reason"} & notes.keys()


async def test_unhold_takes_its_fields_off_the_count(room: Mailroom) -> None:
    entry, other = await room.held(), await room.held()
    await room.moved("unhold", entry)
    assert await room.do("HGET", room.keys.holds, "need:colour") == b"1"
    await room.moved("unhold", other)
    assert await room.do("EXISTS", room.keys.holds) == 0


async def test_retry_is_now_through_the_limits(room: Mailroom) -> None:
    entry = await room.scheduled()
    moved = await room.move("retry", entry)
    assert (moved.statuses, moved.next_us) == (["scheduled"], room.now * 1000)
    found = await room.release()
    assert [(each.entry, each.way) for each in found.leases] == [(entry, "")]


async def test_cancel_gives_the_id_free(room: Mailroom) -> None:
    entry = await room.add(id="a1", tenant="acme")
    await room.read()
    await room.admit(entry, due=room.now + 1000, seen=ident("a1", "acme"))
    assert await room.scripts.find([("acme", "a1")]) == [entry]
    assert await room.moved("cancel", entry) == ["cancelled"]
    assert await room.scripts.find([("acme", "a1")]) == [""]


async def test_a_parked_one_leaves_its_lane_whole(room: Mailroom) -> None:
    first, second = await room.parked(), await room.parked()
    await room.moved("cancel", first)
    seen = await room.survey()
    assert (seen.lanes, seen.counts["parked:1"]) == ({second: LANE}, 1)
    await room.moved("hold", second)
    seen = await room.survey()
    assert (seen.visits, seen.counts["parked:1"]) == ({}, 0)


async def test_own_deadlines_end_with_their_mail(room: Mailroom) -> None:
    entry = await room.add()
    await room.read()
    await room.admit(entry, due=room.now + 1000, expires=room.now + 2000)
    await room.moved("cancel", entry)
    assert await room.do("EXISTS", room.keys.expiry) == 0


async def test_an_entry_of_no_priority_is_an_error_in_words(room: Mailroom) -> None:
    with pytest.raises(Exception, match="no priority has the digit of entry 91-1"):
        await room.moved("hold", "91-1")


@pytest.mark.parametrize("verb", ["cancel", "bounce", "expire"])
@pytest.mark.parametrize("state", ["parked", "scheduled", "held"])
async def test_what_was_sent_ends_as_relayed(room: Mailroom, verb: str, state: str) -> None:
    """A 250 had come, too late for who held it then."""
    entry = await room.in_state(state)
    known = len(await room.kinds())
    await room.do("HSET", room.keys.notes, entry, '{"sent":""}')
    assert await room.moved(verb, entry) == ["relayed"]
    assert (await room.kinds())[known:] == ["email.relayed"]
    assert (await room.states(), await room.letters()) == ({}, [])

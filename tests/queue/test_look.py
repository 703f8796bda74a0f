"""Looks: status, who works, one mail's story, and which entry a name means."""

from __future__ import annotations

import pytest
from law import survey
from mailroom import LANE, START, Lease, Mailroom, ident

from streamq.errors import NotFound
from streamq.queue.look import age_ms, consumers, locate, now_ms, show, status
from streamq.queue.spool import Spool
from streamq.queue.walk import STATES

pytestmark = pytest.mark.leaves_mail


async def one_of_each(room: Mailroom) -> dict[str, str]:
    """A mail in every state of every priority, `<priority>-<state>` its id."""
    entries = {}
    for priority in room.spool.priorities:
        for state in ("leased", "parked", "scheduled", "held"):
            lane = {"lane": f"main|{priority}.example"} if state in {"leased", "parked"} else {}
            known = {"id": f"{priority}-{state}", "to": f"bob@{priority}.example", "text": "Hello"}
            entries[f"{priority}-{state}"] = await room.in_state(state, priority, **lane, **known)
    for priority in room.spool.priorities:
        name = f"{priority}-waiting"
        entries[name] = await room.add(priority, id=name, to=f"bob@{priority}.example", text="Hello")
    return entries


async def test_status_of_an_empty_queue(spool: Spool) -> None:
    seen = await status(spool)
    assert seen.depth == {name: dict.fromkeys(STATES, 0) for name in spool.priorities}
    assert (seen.live, seen.dead, seen.workers, seen.next_due_ms, seen.totals) == (0, 0, 0, 0, {})
    assert set(seen.oldest_ms.values()) == {0}
    assert seen.memory > 0


async def test_status_counts_every_state(room: Mailroom) -> None:
    await one_of_each(room)
    seen = await status(room.spool)
    assert seen.depth == {name: dict.fromkeys(STATES, 1) for name in room.spool.priorities}
    assert seen.live == 15
    assert seen.sum("held") == 3
    assert seen.next_due_ms == START + 60_000
    assert all(age > 0 for age in seen.oldest_ms.values())
    assert (await survey(room.spool.redis)).depth == {state: seen.sum(state) for state in STATES}


async def test_status_tells_what_became_of_mails_and_why(room: Mailroom) -> None:
    assert await room.settled("sent", await room.lease()) == "ok"
    assert await room.settled("defer", await room.lease()) == "ok"
    assert await room.settled("dead", await room.lease()) == "ok"
    seen = await status(room.spool)
    assert seen.totals == {"relayed": 1, "deferred": 1, "bounced": 1}
    assert seen.classes == {"greylisted": 1, "bad_address": 1}
    assert seen.dead == 1
    assert seen.events >= 3


async def test_status_names_a_route_that_is_down(room: Mailroom) -> None:
    await room.do("HSET", room.keys.limit("relay"), "until", (await now_ms(room.spool) + 5000) * 1000)
    await room.do("PEXPIRE", room.keys.limit("relay"), 10_000)
    seen = await status(room.spool)
    assert 0 < seen.paused["relay"] <= 5000


async def test_status_reads_no_bodies(room: Mailroom) -> None:
    await room.add(to="bob@example.net", text="x" * 3_000_000)
    before = await _sent(room)
    await status(room.spool)
    assert await _sent(room) - before < 100_000


async def _sent(room: Mailroom) -> int:
    text = (await room.do("INFO", "stats")).decode()
    return int(text.split("total_net_output_bytes:")[1].split()[0])


async def test_consumers_hold_over_all_priorities(room: Mailroom) -> None:
    await room.lease("high", consumer="w1")
    await room.lease("low", consumer="w1")
    await room.lease("low", consumer="w2")
    await room.spool.touch("idle")
    assert [(one.name, one.pending) for one in await consumers(room.spool)] == [("idle", 0), ("w1", 2), ("w2", 1)]


# -- one mail ----------------------------------------------------------------------------------------------------


async def test_show_says_where_each_is(room: Mailroom) -> None:
    for name, entry in (await one_of_each(room)).items():
        priority, state = name.split("-")
        view = await show(room.spool, entry)
        assert (view.entry, view.priority, view.state, view.text("id")) == (entry, priority, state, name)
        assert bool(view.due_ms) == (state == "scheduled")
        assert view.lane == (f"main|{priority}.example" if state == "parked" else "")
        assert (view.holder, view.token > 0) == (("w1", True) if state == "leased" else ("", False))
        assert (view.notes.get("class") == "unknown_field") == (state == "held")


async def test_show_tells_attempts_and_what_was_asked(room: Mailroom) -> None:
    lease = await room.lease()
    assert await room.moved("cancel", lease.entry) == ["intended"]
    assert (await show(room.spool, lease.entry)).intent == "cancel"
    other = await room.lease()
    await room.settled("defer", other)
    view = await show(room.spool, other.entry)
    assert (view.notes["attempts"], view.notes["reply"]) == (1, "450 no")


async def test_show_of_what_is_gone(room: Mailroom) -> None:
    lease = await room.lease()
    await room.settled("sent", lease)
    with pytest.raises(NotFound, match=lease.entry):
        await show(room.spool, lease.entry)


async def test_a_lane_is_found_however_long_the_ids_are(room: Mailroom) -> None:
    entry = f"1{START}-18446744073709551615"
    await room.do("XADD", room.keys.stream("normal"), entry[1:], "to", "bob@example.net")
    assert await room.read() == [entry]
    token = (await room.admit(entry)).token
    assert await room.settled("park", Lease(entry, token, "w1"), wait=60_000) == "ok"
    assert (await show(room.spool, entry)).lane == LANE


async def test_age_counts_from_the_entry(room: Mailroom) -> None:
    view = await show(room.spool, await room.add())
    assert age_ms(view, START + 5000) == 5000
    assert age_ms(view, START - 5000) == 0


# -- names -------------------------------------------------------------------------------------------------------


async def test_an_entry_is_its_own_name(room: Mailroom) -> None:
    for entry in (await one_of_each(room)).values():
        assert await locate(room.spool, entry) == entry


async def test_a_producers_id_names_its_entry(room: Mailroom) -> None:
    entry = await room.add(id="a1", to="bob@example.net")
    await room.read()
    await room.admitted(entry, seen=ident("a1"))
    assert await locate(room.spool, "a1") == entry
    with pytest.raises(NotFound, match="'a1' of tenant 'acme'"):
        await locate(room.spool, "a1", "acme")


async def test_tenants_have_ids_of_their_own(room: Mailroom) -> None:
    entries = {}
    for tenant in ("", "acme", "other"):
        entries[tenant] = entry = await room.add(id="a1", tenant=tenant, to="bob@example.net")
        await room.read()
        await room.admitted(entry, seen=ident("a1", tenant))
    assert await locate(room.spool, "a1") == entries[""]
    assert await locate(room.spool, "a1", "acme") == entries["acme"]
    assert await locate(room.spool, "a1", "other") == entries["other"]


async def test_an_id_that_looks_like_an_entry(room: Mailroom) -> None:
    """Order numbers do. The entry wins where there is one."""
    name = "02023-5"
    entry = await room.add(id=name, to="bob@example.net")
    await room.read()
    await room.admitted(entry, seen=ident(name))
    assert await locate(room.spool, name) == entry


async def test_a_mail_that_is_held_unread_has_its_id_too(room: Mailroom) -> None:
    entry = await room.held(id="h1", colour="red")
    other = await room.held(id="h1", tenant="acme", colour="red")
    assert await locate(room.spool, "h1") == entry
    assert await locate(room.spool, "h1", "acme") == other


@pytest.mark.parametrize(
    "name", ["", "nobody", f"1{START}-99", "9-0", "1-", "99999999999999999999999-0", f"1{START}-{2**64}", "1" * 10_000]
)
async def test_what_names_nothing(room: Mailroom, name: str) -> None:
    await room.add(id="a1")
    with pytest.raises(NotFound) as wrong:
        await locate(room.spool, name)
    assert len(str(wrong.value)) < 500


async def test_an_id_that_nobody_has_looked_up_is_found_where_it_lies(room: Mailroom) -> None:
    for number in range(230):
        await room.add(to="bob@slow.example", id=f"a{number}")
    entry = await room.add("low", to="bob@slow.example", id="a7", tenant="acme")
    with pytest.raises(NotFound):
        await locate(room.spool, "a7")
    found = await show(room.spool, await locate(room.spool, "a7", deep=True))
    assert (found.text("id"), found.state) == ("a7", "waiting")
    assert await locate(room.spool, "a229", deep=True) != entry
    assert await locate(room.spool, "a7", "acme", deep=True) == entry
    with pytest.raises(NotFound):
        await locate(room.spool, "a230", deep=True)

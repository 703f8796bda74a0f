"""The mails that may be delivered already: whose dot, whose notes, and how much is read to find them."""

from __future__ import annotations

import pytest
from mailroom import Mailroom

from streamq.queue import ambiguous as file
from streamq.queue import look
from streamq.queue.ambiguous import ambiguous, is_ambiguous
from streamq.queue.rows import MarkRow
from streamq.queue.walk import PAGE, MailView

pytestmark = pytest.mark.leaves_mail


async def listed(room: Mailroom) -> dict[str, MailView]:
    """By entry; none comes twice."""
    views = [view async for view in ambiguous(room.spool)]
    assert len({view.entry for view in views}) == len(views)
    return {view.entry: view for view in views}


async def test_nothing_is_ambiguous_in_an_ordinary_queue(room: Mailroom) -> None:
    for state in ("waiting", "leased", "parked", "scheduled", "held"):
        await room.in_state(state)
    lease = await room.lease(lane="main|other.example")
    assert await room.settled("defer", lease, reply="450 4.3.0 ambiguous, whatever that means") == "ok"
    assert await listed(room) == {}


async def test_past_its_dot(room: Mailroom) -> None:
    before, past, gone, other = [await room.lease() for _ in range(4)]
    marks = [MarkRow("main.1", gone.entry, gone.token), MarkRow("main.2", past.entry, past.token, other.entry)]
    assert await room.scripts.mark("w1", marks) == ["ok", "ok"]
    assert await room.settled("sent", gone) == "ok"
    found = await listed(room)
    assert found.keys() == {past.entry, other.entry}
    assert {(view.state, view.holder, view.past_dot) for view in found.values()} == {("leased", "w1", True)}
    assert before.entry not in found
    assert found[past.entry].text("to") == "bob@example.net"


async def test_the_dots_of_somebody_else_say_nothing(room: Mailroom) -> None:
    lease = await room.lease()
    await room.scripts.mark("w1", [MarkRow("main.1", lease.entry, lease.token)])
    assert await room.settled("defer", lease, wait=0) == "ok"  # a 450 to the dot
    assert await listed(room) == {}
    assert [taken.entry for taken, _ in await room.taken("w2")] == [lease.entry]
    assert await listed(room) == {}


async def test_after_an_ambiguous_end_in_every_state(room: Mailroom) -> None:
    entries: dict[str, str] = {}
    for state in ("scheduled", "held", "leased", "parked"):
        lease = await room.lease("high", id=state)
        op = "hold" if state == "held" else "defer"
        wait = 60_000 if state == "scheduled" else 0
        assert await room.settled(op, lease, wait=wait, ambiguous=True) == "ok"
        entries[state] = lease.entry
        if state in {"leased", "parked"}:
            [(again, _)] = await room.taken()
            assert again.entry == lease.entry
        if state == "parked":
            assert await room.settled("park", again, wait=60_000) == "ok"
    found = await listed(room)
    assert {view.state: entry for entry, view in found.items()} == entries
    assert {view.text("id") for view in found.values()} == set(entries)
    assert all(view.notes["ambiguous"] == 1 and not view.past_dot for view in found.values())
    assert found[entries["scheduled"]].due_ms > 0
    assert found[entries["parked"]].lane == "main|example.net"
    assert found[entries["leased"]].holder == "w1"


async def test_after_a_worker_that_died_past_its_dot(room: Mailroom) -> None:
    lease = await room.lease()
    await room.scripts.mark("w1", [MarkRow("main.1", lease.entry, lease.token)])
    await room.silent(lease.entry, "w1")
    assert [entry for entry, _, _ in (await room.reclaim("w2")).leases] == [lease.entry]
    view = (await listed(room))[lease.entry]
    assert (view.state, view.holder, view.past_dot, view.notes["ambiguous"]) == ("leased", "w2", False, 1)
    await room.scripts.mark("w2", [MarkRow("main.1", lease.entry, view.token)])
    assert (await listed(room))[lease.entry].past_dot  # both at once come once


async def test_held_before_ends_were_counted(room: Mailroom) -> None:
    lease = await room.lease()
    assert await room.settled("hold", lease) == "ok"
    assert (await listed(room)).keys() == {lease.entry}


async def test_what_ended_is_not_listed(room: Mailroom) -> None:
    lease = await room.lease()
    assert await room.settled("defer", lease, ambiguous=True) == "ok"
    assert await room.moved("cancel", lease.entry) == ["cancelled"]
    assert await listed(room) == {}
    # Notes and dots that lead nowhere, and some that no script writes.
    await room.do("HSET", room.keys.notes, "11700000000000-9", '{"ambiguous":1}', "x", '{"ambiguous":1}')
    await room.do("HSET", room.keys.notes, "91700000000000-9", '{"ambiguous":1}', "11700000000000-8", "ambiguous{")
    await room.do("HSET", room.keys.dots, "w1/1", "11700000000000-9,x", "odd", "", b"\xff/1", b"\xff")
    assert await listed(room) == {}
    await room.do("DEL", room.keys.notes, room.keys.dots)


async def test_bodies_and_places_are_asked_for_what_is_listed_alone(
    room: Mailroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue of retries costs its notes, in pages of 100."""
    doubtful = []
    for number in range(2 * PAGE + 5):
        lease = await room.lease()
        in_doubt = number % 7 == 0
        assert await room.settled("defer", lease, ambiguous=in_doubt) == "ok"
        doubtful += [lease.entry] if in_doubt else []
    asked: list[int] = []
    placed = look.placed

    async def counted(spool: object, entries: list[str]) -> list[MailView]:
        asked.append(len(entries))
        return await placed(room.spool, entries)

    monkeypatch.setattr(file, "placed", counted)
    assert (await listed(room)).keys() == set(doubtful)
    assert sum(asked) == len(doubtful)
    assert max(asked) <= PAGE


def test_a_view_is_ambiguous_by_its_dot_its_count_or_its_class() -> None:
    assert not is_ambiguous(MailView("1", "", ""))
    assert not is_ambiguous(MailView("1", "", "", notes={"class": "timeout", "ambiguous": 0}))
    assert is_ambiguous(MailView("1", "", "", past_dot=True))
    assert is_ambiguous(MailView("1", "", "", notes={"ambiguous": 2}))
    assert is_ambiguous(MailView("1", "", "", notes={"class": "ambiguous"}))

"""`collapse_key`: of the mails that come while the first one waits only the newest is sent."""

from __future__ import annotations

from typing import Any

import pytest
from mailroom import Lease, Mailroom, ident

from streamq.queue.scripts import why

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
KEY = "0123456789abcdef0123"
MINUTE = 60_000


async def come(room: Mailroom, *, after: int = MINUTE, key: str = KEY, **known: Any) -> tuple[str, str]:
    """A new mail of that key, admitted: entry, status."""
    entry = await room.add()
    await room.read()
    [status] = await room.admitted(entry, collapse=f"{key}{room.now + after}", **known)
    return entry, status


async def due(room: Mailroom) -> dict[str, int]:
    return {entry: ms - room.now for entry, ms in (await room.survey()).due.items()}


async def test_the_newest_takes_the_place_of_the_first(room: Mailroom) -> None:
    first, status = await come(room)
    assert status == "scheduled"
    room.tick(20_000)
    second, status = await come(room)
    assert status == "scheduled"
    assert await due(room) == {second: 40_000}
    event = (await room.events())[-1]
    assert (event.kind, event.id, event.data["entry"], event.data["by"]) == ("email.superseded", first, first, second)
    room.tick(20_000)
    third, _ = await come(room)
    assert await due(room) == {third: 20_000}
    assert await room.count("total:superseded") == 2
    room.tick(20_000)
    [(lease, _)] = await room.taken()
    assert lease.entry == third
    assert await room.do("EXISTS", room.keys.collapse) == 0


async def test_after_its_wait_it_goes_and_waits_no_second_time(room: Mailroom) -> None:
    entry, _ = await come(room)
    room.tick(30_000)
    newest, _ = await come(room)  # its own minute would end later
    room.tick(30_000)
    assert await room.released() == [newest]
    found = await room.admit(newest, collapse=f"{KEY}{room.now + 30_000}")
    assert found.statuses[0][0] == "go"
    assert entry not in await room.states()


async def test_another_one_after_that_is_a_first(room: Mailroom) -> None:
    await come(room)
    room.tick(MINUTE)
    [(lease, _)] = await room.taken()
    second, status = await come(room)
    assert status == "scheduled"
    assert await due(room) == {second: MINUTE}
    assert await room.settled("sent", lease) == "ok"
    assert await due(room) == {second: MINUTE}  # the end of the one before it changes nothing


async def test_one_that_comes_late_gives_way_to_a_newer_one(room: Mailroom) -> None:
    old = await room.add()
    await room.read()  # and its worker takes its time
    newer, _ = await come(room)
    [status] = await room.admitted(old, collapse=f"{KEY}{room.now + MINUTE}")
    assert status == "superseded"
    event = (await room.events())[-1]
    assert (event.kind, event.data["entry"], event.data["by"]) == ("email.superseded", old, newer)
    assert await room.states() == {newer: "scheduled"}


async def test_of_a_backlog_the_last_one_is_sent(room: Mailroom) -> None:
    entries = [await room.add() for _ in range(5)]
    room.tick(10 * MINUTE)
    await room.read()
    rows = [room.row(entry, collapse=f"{KEY}{room.now - 9 * MINUTE}") for entry in entries]
    assert await room.admitted(*rows) == ["scheduled"] * 5
    assert await due(room) == {entries[-1]: 1000}
    assert await room.count("total:superseded") == 4


async def test_other_keys_are_others(room: Mailroom) -> None:
    first, _ = await come(room)
    second, _ = await come(room, key=KEY[::-1])
    assert await due(room) == {first: MINUTE, second: MINUTE}


async def test_send_at_may_be_later(room: Mailroom) -> None:
    first, _ = await come(room, due=room.now + 2 * MINUTE)
    assert await due(room) == {first: 2 * MINUTE}


async def test_an_operator_s_retry_ends_the_wait(room: Mailroom) -> None:
    entry, _ = await come(room)
    await room.moved("retry", entry)
    assert await room.released() == [entry]
    assert await room.admitted(entry, collapse=f"{KEY}{room.now + MINUTE}") == ["go"]
    assert await room.do("EXISTS", room.keys.collapse) == 0


@pytest.mark.parametrize("verb", ["cancel", "bounce", "expire"])
async def test_an_end_of_the_one_that_waits_leaves_nothing(room: Mailroom, verb: str) -> None:
    entry, _ = await come(room)
    await room.moved(verb, entry)
    assert await room.do("EXISTS", room.keys.collapse) == 0
    second, _ = await come(room)
    assert await due(room) == {second: MINUTE}


async def test_one_that_is_held_is_not_replaced(room: Mailroom) -> None:
    held, _ = await come(room)
    await room.moved("hold", held)
    second, status = await come(room)
    assert (status, await room.states()) == ("scheduled", {held: "held", second: "scheduled"})
    await room.moved("cancel", held)
    assert (await room.do("HVALS", room.keys.collapse)) == [second.encode()]


async def test_one_whose_entry_was_deleted_is_replaced(room: Mailroom) -> None:
    first, _ = await come(room)
    await room.do("XDEL", room.keys.stream("normal"), first[1:])
    second, _ = await come(room)
    assert await room.states() == {second: "scheduled"}


async def test_what_was_superseded_keeps_its_id(room: Mailroom) -> None:
    entry = await room.add(id="a1")
    await room.read()
    assert await room.admitted(entry, seen=ident("a1"), collapse=f"{KEY}{room.now + MINUTE}") == ["scheduled"]
    await come(room)
    again = await room.add(id="a1")
    await room.read()
    assert await room.admitted(again, seen=ident("a1"), collapse=f"{KEY}{room.now + MINUTE}") == ["duplicate"]


async def test_after_an_attempt_nothing_replaces_it(room: Mailroom) -> None:
    entry, _ = await come(room)
    room.tick(MINUTE)
    [(_, _leased)] = await room.taken()
    found = await room.admit(entry, collapse=f"{KEY}{room.now}")
    assert await room.settled("defer", Lease(entry, found.token, "w1"), wait=MINUTE) == "ok"
    second, _ = await come(room)
    assert (await room.states()) == {entry: "scheduled", second: "scheduled"}


# -- of those that nobody has looked at --------------------------------------------------------------------------------


async def later(room: Mailroom, **known: Any) -> tuple[str, str]:
    """One that takes long to read."""
    return await come(room, kind="later", lane="", due=room.now + 5_000, **known)


async def test_what_nobody_has_looked_at_makes_room_for_what_comes_behind_it(room: Mailroom) -> None:
    heavy, status = await later(room)
    assert status == "scheduled"
    assert await due(room) == {heavy: MINUTE}  # its own wait, which is longer
    room.tick(10_000)
    newest, _ = await come(room)
    assert await due(room) == {newest: 50_000}
    assert [(event.kind, event.data["by"]) for event in (await room.events())[-1:]] == [("email.superseded", newest)]


async def test_it_waits_with_the_others_when_it_was_looked_at(room: Mailroom) -> None:
    """Nothing came meanwhile: it waits on, at least for a second, and is superseded then as any other."""
    heavy, _ = await later(room, after=2_000)
    room.tick(5_000)
    assert await room.released() == [heavy]
    assert await room.do("EXISTS", room.keys.collapse) == 0
    found = await room.admit(heavy, collapse=f"{KEY}{room.now - 3_000}")
    assert found.statuses[0][0] == "scheduled"
    assert await due(room) == {heavy: 1_000}
    newest, _ = await come(room)
    assert await due(room) == {newest: 1_000}
    room.tick(1_000)
    assert await room.released() == [newest]
    assert (await room.admit(newest, collapse=f"{KEY}{room.now}")).statuses[0][0] == "go"


async def test_it_takes_nobodys_place(room: Mailroom) -> None:
    """It may be no mail, and then none of its key would go."""
    first, _ = await come(room)
    heavy, status = await later(room)
    assert status == "scheduled"
    assert await due(room) == {first: MINUTE, heavy: 5_000}
    room.tick(5_000)
    assert await room.released() == [heavy]
    assert (await room.admit(heavy, collapse=f"{KEY}{room.now + MINUTE}")).statuses[0][0] == "scheduled"
    assert await due(room) == {heavy: 55_000}  # looked at, it does


async def test_an_older_one_waits_until_it_was_looked_at(room: Mailroom) -> None:
    """Which is now: it may be no mail, and if it is one the older is superseded before its own time."""
    older = await room.add()
    await room.read()
    heavy, _ = await later(room)
    assert await room.admitted(older, collapse=f"{KEY}{room.now + MINUTE}") == ["scheduled"]
    assert await due(room) == {heavy: 0, older: MINUTE}
    assert await room.released() == [heavy]
    assert await room.admitted(heavy, collapse=f"{KEY}{room.now + MINUTE}") == ["scheduled"]
    assert await due(room) == {heavy: MINUTE}
    assert [(event.kind, event.data["by"]) for event in (await room.events())[-1:]] == [("email.superseded", heavy)]


async def test_if_that_is_no_mail_the_older_one_goes(room: Mailroom) -> None:
    older = await room.add()
    await room.read()
    heavy, _ = await later(room)
    await room.admitted(older, collapse=f"{KEY}{room.now + MINUTE}")
    assert await room.released() == [heavy]
    assert await room.admitted(heavy, kind="dead", why=why(reason="to: no", **{"class": "malformed"})) == ["dead"]
    room.tick(MINUTE)
    assert await room.released() == [older]
    assert await room.admitted(older, collapse=f"{KEY}{room.now}") == ["go"]


async def test_an_older_one_that_nobody_has_looked_at_is_superseded_by_a_good_one(room: Mailroom) -> None:
    older = await room.add()
    await room.read()
    newest, _ = await come(room)
    row = room.row(older, kind="later", lane="", due=room.now + 5_000, collapse=f"{KEY}{room.now + MINUTE}")
    assert await room.admitted(row) == ["superseded"]
    assert await due(room) == {newest: MINUTE}

"""The breaker: most of a route's last hundred outcomes die of one text that is not about recipients."""

from __future__ import annotations

import random
from typing import Any

import pytest
from mailroom import LANE, Lease, Mailroom

from streamq.queue.rows import SettleRow

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
POLICY: dict[str, Any] = {"class": "policy", "text": "policy 554 no", "reply": "554 5.7.1 no", "reason": "dot: 554"}


async def leases(room: Mailroom, many: int) -> list[Lease]:
    entries = [await room.add() for _ in range(many)]
    await room.read("w1", many)
    made = []
    for at in range(0, many, 100):
        found = await room.admit(*entries[at : at + 100])
        assert {status for status, *_ in found.statuses} == {"go"}
        made += [Lease(entry, found.token, "w1") for entry in entries[at : at + 100]]
    return made


def dies(room: Mailroom, lease: Lease, **known: Any) -> SettleRow:
    return room.end("dead", lease, **POLICY | known)


def bad_address(room: Mailroom, lease: Lease) -> SettleRow:
    return room.end("dead", lease)


async def end(room: Mailroom, *rows: SettleRow) -> list[str]:
    said: list[str] = []
    for at in range(0, len(rows), 100):
        said += (await room.scripts.settle("w1", rows[at : at + 100])).statuses
    return said


async def test_a_hundred_equal_rejections_trip_it(room: Mailroom) -> None:
    """Fifty die, as they may; then it is no doubt the route, and what is in hand parks."""
    made = await leases(room, 100)
    said = await end(room, *(dies(room, lease) for lease in made))
    assert said == ["ok"] * 50 + ["parked"] * 50
    assert len(await room.letters()) == 50
    [event] = [each for each in await room.events() if each.kind == "route.paused"]
    known = {"route": "main", "class": "breaker", "of": "policy", "count": 51, "outcomes": 100}
    assert {name: event.data[name] for name in known} == known
    assert event.data["reason"] == "554 5.7.1 no"
    assert (await room.survey()).depth == {"parked": 50}
    assert await room.released() == []


async def test_a_hundred_bad_addresses_do_not(room: Mailroom) -> None:
    made = await leases(room, 120)
    assert await end(room, *(bad_address(room, lease) for lease in made)) == ["ok"] * 120
    assert await room.do("EXISTS", room.keys.pauses) == 0
    assert await room.do("HEXISTS", room.keys.limit("main"), "ring") == 0


async def test_half_of_them_do_not_and_texts_are_told_apart(room: Mailroom) -> None:
    made = await leases(room, 400)
    rows = [dies(room, lease) if n % 2 else room.end("sent", lease) for n, lease in enumerate(made[:200])]
    rows += [dies(room, lease, text=f"policy 554 {'abc'[n % 3]}") for n, lease in enumerate(made[200:])]
    assert set(await end(room, *rows)) == {"ok"}
    assert await room.do("EXISTS", room.keys.pauses) == 0


async def test_a_text_of_its_own_each_time_is_no_one_text(room: Mailroom) -> None:
    made = await leases(room, 200)
    assert set(await end(room, *(dies(room, lease, text=f"t{n}") for n, lease in enumerate(made)))) == {"ok"}
    assert len(await room.do("HGET", room.keys.limit("main"), "texts")) < 2000  # bounded, whatever they say


async def test_only_the_last_hundred_count(room: Mailroom) -> None:
    """By a plain list beside it."""
    chance = random.Random(5)
    made = await leases(room, 600)
    last: list[bool] = []
    said: list[str] = []
    wanted: list[str] = []
    for n, lease in enumerate(made):
        share = 0.2 if n < 300 else 0.55
        fails = chance.random() < share
        last = [*last, fails][-100:]
        broken = fails and sum(last) > 50
        wanted.append("parked" if broken else "ok")
        said += await end(room, dies(room, lease) if fails else room.end("sent", lease))
        if broken:
            break
    assert said == wanted
    assert wanted[-1] == "parked"


async def test_a_healthy_route_keeps_no_record(room: Mailroom) -> None:
    made = await leases(room, 150)
    await end(room, dies(room, made[0]))
    assert await room.do("HGET", room.keys.limit("main"), "ring") == b"a"
    await end(room, *(room.end("sent", lease) for lease in made[1:100]))
    assert await room.do("HSTRLEN", room.keys.limit("main"), "ring") == 100
    await end(room, *(room.end("sent", lease) for lease in made[100:]))
    assert await room.do("HMGET", room.keys.limit("main"), "ring", "texts") == [None, None]


async def tripped(room: Mailroom) -> list[Lease]:
    made = await leases(room, 60)
    assert (await end(room, *(dies(room, lease) for lease in made)))[-10:] == ["parked"] * 10
    return made[-10:]


async def test_it_probes_with_single_mails_and_longer_waits(room: Mailroom) -> None:
    await tripped(room)
    for wait in (1000, 2000, 4000):
        room.tick(wait - 1)
        assert await room.released() == []
        room.tick(1)
        [(probe, _)] = await room.taken()
        assert await end(room, dies(room, probe)) == ["parked" if wait < 4000 else "ok"]
    # Thrice it was the probe: it may be the only one of its kind, and stand in front of others.
    assert len(await room.letters()) == 51


async def test_a_250_of_a_probe_opens_it(room: Mailroom) -> None:
    rest = await tripped(room)
    room.tick(1000)
    [(probe, _)] = await room.taken()
    assert await end(room, room.end("sent", probe)) == ["ok"]
    resumed = (await room.events())[-2]
    assert (resumed.kind, resumed.data["class"]) == ("route.resumed", "breaker")
    assert len(await room.released()) == len(rest) - 1


async def test_neither_a_bad_address_nor_a_late_250_opens_it(room: Mailroom) -> None:
    made = await leases(room, 62)
    under_way = made[60:]
    await end(room, *(dies(room, lease) for lease in made[:60]))
    assert await end(room, room.end("sent", under_way[0])) == ["ok"]  # leased before
    room.tick(1000)
    [(probe, _)] = await room.taken()
    assert await end(room, bad_address(room, probe)) == ["ok"]
    assert "route.resumed" not in await room.kinds()
    assert await room.released() == []


async def test_other_deaths_go_on_while_it_holds(room: Mailroom) -> None:
    made = await leases(room, 62)
    await end(room, *(dies(room, lease) for lease in made[:60]))
    other = {"class": "too_large", "text": "too_large 552", "reply": "552"}
    assert await end(room, dies(room, made[60], **other), bad_address(room, made[61])) == ["ok", "ok"]


async def test_after_a_pause_one_more_does_not_trip_it(room: Mailroom) -> None:
    await tripped(room)
    room.tick(1000)
    [(probe, _)] = await room.taken()
    await end(room, room.end("sent", probe))
    made = [lease for lease, _ in await room.taken()]
    assert await end(room, *(dies(room, lease) for lease in made)) == ["ok"] * 9


async def test_an_operator_opens_it_and_all_is_forgotten(room: Mailroom) -> None:
    await tripped(room)
    assert await room.scripts.pause("resume", ["main"]) == ["resumed"]
    assert await room.do("HEXISTS", room.keys.limit("main"), "ring") == 0
    made = [lease for lease, _ in await room.taken()]
    assert await end(room, *(dies(room, lease) for lease in made)) == ["ok"] * 10


async def test_what_an_operator_asked_for_comes_before_parking(room: Mailroom) -> None:
    made = await leases(room, 61)
    await room.move("cancel", made[60].entry)
    said = await end(room, *(dies(room, lease) for lease in made))
    assert said[-2:] == ["parked", "cancelled"]


async def test_of_a_route_that_is_down_it_holds_nothing(room: Mailroom) -> None:
    """It is down for another reason already; the ring goes on."""
    made = await leases(room, 61)
    await room.settled("park", made[60], down=True, **{"class": "unreachable"})
    assert set(await end(room, *(dies(room, lease) for lease in made[:60]))) == {"ok"}
    assert await room.do("HGET", room.keys.limit("main"), "ring") == b"a" * 60
    assert (await room.survey()).lanes == {made[60].entry: LANE}

"""The pace that a site or a route was taught by its replies, on its way down: cut, rest, run, hint, floor."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import MakeSpool
from mailroom import LANE, Mailroom
from pacing import adaptive, next_one, pace, refused, sent, slowed

from streamq.queue.rows import MeasureRow, TurnRow

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
OTHER = "main|example.org"


@pytest.fixture
async def paced(make_spool: MakeSpool) -> Mailroom:
    return await adaptive(make_spool)


async def test_the_first_refusal_begins_a_pace_and_is_no_attempt(paced: Mailroom) -> None:
    lease = await refused(paced, took=40.0)
    state = await pace(paced)
    assert (state["rate"], state["top"], int(state["mark"])) == (34, 40, paced.now * 1000)
    assert int(state["till"]) == (paced.now + 1000) * 1000
    notes = await paced.notes(lease.entry)
    assert (notes["throttled"], notes.get("attempts"), notes["reply"]) == (1, None, "421 slow down")
    assert await paced.state(lease.entry) == "parked"
    assert await slowed(paced) == [LANE]
    told, of_mail = await paced.events()
    assert (told.kind, told.id, of_mail.kind, of_mail.id) == ("site.throttled", LANE, "email.throttled", lease.entry)
    known = {"route": "main", "site": "example.net", "rate": 34, "until": paced.now + 1000, "class": "site_rate"}
    assert {name: told.data[name] for name in known} == known
    assert await paced.count("total:throttled") == 1


async def test_a_mail_that_was_refused_goes_first(paced: Mailroom) -> None:
    lease = await refused(paced, took=40.0)
    later = [await paced.add() for _ in range(2)]
    await paced.read()
    assert await paced.admitted(*later) == ["parked", "parked"]
    paced.tick(999)
    assert await paced.released() == []
    paced.tick(1)
    assert await paced.released() == [lease.entry]
    paced.tick(30)  # 34 a second
    assert await paced.released() == later[:1]


async def test_a_site_that_never_took_a_mail_begins_with_one_a_second(paced: Mailroom) -> None:
    await refused(paced)
    assert (await pace(paced))["rate"] == 1


async def test_what_all_workers_took_is_what_it_takes(paced: Mailroom) -> None:
    """Each of them says its share with the first refusal that it meets."""
    first, second, third = [await paced.lease(consumer=name) for name in ("w1", "w2", "w2")]
    await paced.settled("throttled", first, took=10.0)
    assert (await pace(paced))["top"] == 10
    await paced.settled("throttled", second, took=20.0)
    await paced.settled("throttled", third, took=19.0)
    state = await pace(paced)
    assert (state["top"], state["rate"]) == (30, 25.5)


async def test_who_met_no_refusal_says_its_share_when_it_hears_of_one(paced: Mailroom) -> None:
    assert await measured(paced, "w2", 20.0) == 0
    lease = await paced.lease(consumer="w1")
    await paced.settled("throttled", lease, took=30.0)
    assert await measured(paced, "w2", 20.0) == await measured(paced, "w2", 20.0) == 1
    assert ((await pace(paced))["top"], (await pace(paced))["rate"]) == (50, 42.5)
    await measured(paced, "w1", 31.0)
    assert (await pace(paced))["top"] == 51
    # Not for long: what they take now is the new pace.
    paced.tick(5001)
    await measured(paced, "w3", 100.0)
    assert (await pace(paced))["top"] == 51


async def measured(room: Mailroom, who: str, took: float) -> int:
    return await room.scripts.measure(who, [MeasureRow(LANE, took, took)])


async def test_mails_that_left_before_the_cut_say_nothing_new(paced: Mailroom) -> None:
    """Nor do their 250s; and whoever brings them hears that there was a cut since."""
    leases = [await paced.lease() for _ in range(12)]
    await paced.settled("throttled", leases[0], took=40.0)
    before = await pace(paced)
    said = await paced.settle("throttled", leases[1], took=40.0)
    assert said.marks == {LANE: paced.now * 1000}
    for lease in leases[2:7]:
        await paced.settled("throttled", lease)
    said = await paced.settle("sent", leases[7])
    assert said.marks == {LANE: paced.now * 1000}
    after = await pace(paced)
    assert (after.pop("prior"), before.pop("prior")) == (before["last"], "0")
    assert after == before
    paced.tick(1000)
    assert (await paced.settle("sent", await next_one(paced))).marks == {}


async def test_a_refusal_at_the_new_pace_cuts_it_once_there_is_enough_to_judge(paced: Mailroom) -> None:
    await refused(paced, took=40.0)
    paced.tick(1000)
    first = await next_one(paced)
    assert await paced.settled("sent", first) == "ok"
    for n in range(8):
        paced.tick(50)
        await sent(paced, 1)
        assert (await pace(paced))["good"] == n + 2
    paced.tick(50)
    lease = await paced.lease()
    await paced.settled("throttled", lease)
    state = await pace(paced)
    assert (round(state["rate"], 3), state["top"]) == (34 * 0.85, 34)
    assert int(state["till"]) == (paced.now + 500) * 1000
    # Another one of the same moment says nothing; nor one more before there are ten outcomes.
    paced.tick(1000)
    await paced.settled("sent", await next_one(paced))
    paced.tick(100)
    await refused(paced)
    assert round((await pace(paced))["rate"], 3) == 34 * 0.85


async def test_a_slot_that_ran_out_before_its_mail_is_given_back(paced: Mailroom) -> None:
    await paced.moved("cancel", (await refused(paced, took=1.0)).entry)
    paced.tick(1000)
    entry = await paced.add()
    await paced.read()
    found = await paced.admit(entry)
    [status] = found.statuses
    assert status.slot.startswith("500000 ")  # MAIL within half a second
    paced.tick(600)
    _, [turn] = await paced.scripts.turn("w1", [TurnRow(entry, found.token, LANE, status.slot)], "")
    assert turn.status == "go"  # else the next one came in 0.4 s
    paced.tick(100)
    _, [turn] = await paced.scripts.turn("w1", [TurnRow(entry, found.token, LANE, "")], "")
    assert turn.status == "park"


async def test_nothing_but_refusals_rest_longer_each_time_with_single_probes(paced: Mailroom) -> None:
    await refused(paced, took=40.0)
    for _ in range(3):
        entry = await paced.add()
        await paced.read()
        await paced.admitted(entry)
    waits = []
    for _ in range(12):
        since = paced.now
        lease = await next_one(paced)
        waits.append(paced.now - since)
        assert await paced.settled("throttled", lease) == "ok"
        assert await paced.released() == []
    grown = [1000, 1000, 2000, 4000, 8000, 64_000, 128_000, 256_000, 512_000]  # past the box of a minute at one stride
    assert waits == [*grown, 900_000, 900_000, 900_000]  # at most a quarter of an hour
    assert (await pace(paced))["rate"] == 17  # a slower pace mends nothing here: halved once


@pytest.mark.parametrize("lane", [LANE, f"{LANE}/acme"])
async def test_one_that_is_taken_ends_the_run_and_its_rest_is_kept_in_mind(paced: Mailroom, lane: str) -> None:
    await refused(paced, lane, took=40.0)
    for _ in range(4):
        await paced.settled("throttled", await next_one(paced), lane=lane)
    waiting = await paced.add()
    await paced.read()
    assert await paced.admitted(waiting, lane=lane) == ["parked"]
    probe = await next_one(paced)
    assert int((await pace(paced))["till"]) > paced.now * 1000  # it goes alone
    assert await paced.released() == []  # its road is due when the next probe is
    said = await paced.settle("sent", probe, lane=lane)
    assert said.next_us == paced.now * 1000
    paced.tick(60)
    assert await paced.released() == [waiting]
    state = await pace(paced)
    assert (state["run"], int(state["rest"])) == (0, 8_000_000)


async def test_a_probe_that_died_with_its_worker_is_followed_by_another(paced: Mailroom) -> None:
    await refused(paced, took=40.0)
    waiting = await paced.add()
    await paced.read()
    await paced.admitted(waiting)
    await paced.settled("throttled", await next_one(paced))
    probe = await next_one(paced)
    since = paced.now
    assert probe.entry != waiting
    assert (await next_one(paced)).entry == waiting
    assert paced.now - since == 2000


async def test_a_hint_closes_until_then_and_for_four_hours_at_most(paced: Mailroom) -> None:
    await refused(paced, hint=600_000)
    assert (await paced.release()).next_us == (paced.now + 600_000) * 1000
    [told, _] = await paced.events()
    assert told.data["until"] == paced.now + 600_000
    await refused(paced, lane=OTHER, hint=10**9)
    assert int((await pace(paced, OTHER))["till"]) == (paced.now + 4 * 3_600_000) * 1000
    paced.tick(600_000)
    assert len(await paced.released()) == 1


async def test_it_falls_no_lower_than_its_floor(make_spool: MakeSpool) -> None:
    spool = await make_spool(adapt={"floor": "33/s"})
    await spool.publish_adapt()
    room = Mailroom(spool)
    await room.moved("cancel", (await refused(room, took=40.0)).entry)
    room.tick(1000)
    await sent(room, 1)
    for _ in range(9):
        room.tick(50)
        await sent(room, 1)
    room.tick(50)
    await refused(room)
    assert (await pace(room))["rate"] == 33


async def test_one_that_met_it_too_often_goes_on_the_schedule(paced: Mailroom) -> None:
    """Or it would be its lane's one probe for ever."""
    lease = await paced.lease()
    assert await paced.settled("throttled", lease, park=False, wait=5000) == "ok"
    assert (await paced.survey()).due == {lease.entry: paced.now + 5000}
    assert (await paced.events())[-1].data["next_attempt_at"] == paced.now + 5000
    assert (await paced.notes(lease.entry)).get("attempts") is None


async def test_its_age_ends_it_and_so_does_an_operator(paced: Mailroom) -> None:
    old, asked = await paced.lease(), await paced.lease()
    await paced.move("cancel", asked.entry)
    assert await paced.settled("throttled", old, deadline=paced.now) == "expired"
    assert await paced.settled("throttled", asked) == "cancelled"
    assert await slowed(paced) == [LANE]  # what the receiver said holds all the same


async def test_who_is_turned_away_after_a_throttle_does_not_go_on_knocking(paced: Mailroom) -> None:
    """A penalty box at the greeting, whose time doubles with each knock: caught up with by waits that quadruple."""
    known: dict[str, Any] = {"down": True, "class": "temporary", "reply": "421 4.7.0 Blocked"}
    leases = [await paced.lease() for _ in range(4)]
    await paced.settled("throttled", leases[0], scope="route", took_way=40.0)
    for lease in leases[1:]:
        await paced.settled("park", lease, **known)
    waits = []
    for _ in range(3):
        since = paced.now
        lease = await next_one(paced)
        waits.append(paced.now - since)
        assert await paced.settled("park", lease, **known) == "ok"
    assert waits == [65_000, 260_000, 1_040_000]


async def test_a_route_that_goes_down_for_another_reason_is_probed_as_ever(paced: Mailroom) -> None:
    leases = [await paced.lease() for _ in range(2)]
    await paced.settled("throttled", leases[0], scope="route", took_way=40.0)
    await paced.settled("park", leases[1], down=True, lonely=True, **{"class": "unreachable", "reply": ""})
    since = paced.now
    lease = await next_one(paced)
    assert paced.now - since == 1000
    paced.tick(120_000)
    await paced.settled("sent", lease)
    paced.tick(60_000)
    await paced.settled("park", await next_one(paced), down=True, **{"class": "tls", "reply": "454 no"})
    since = paced.now
    await next_one(paced)
    assert paced.now - since == 1000


# -- whose ---------------------------------------------------------------------------------------------------


# -- up, and over --------------------------------------------------------------------------------------------

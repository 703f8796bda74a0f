"""The pace that a site or a route was taught by its replies: cut, rest, run, hint; whose it is; what is left of it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from campaign import Campaign, per_second
from conftest import MakeSpool
from mailroom import LANE, Lease, Mailroom

from streamq.queue.gauge import gauges
from streamq.queue.rows import TurnRow
from streamq.settings import AdaptSettings

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
OTHER = "main|example.org"


@pytest.fixture
async def paced(make_spool: MakeSpool) -> Mailroom:
    """With a policy; no receiver is known."""
    spool = await make_spool()
    await spool.publish_adapt()
    return Mailroom(spool)


async def pace(room: Mailroom, target: str = LANE) -> dict[str, Any]:
    found = await room.do("HGET", room.keys.limit(target), "pace")
    state: dict[str, Any] = orjson.loads(found) if found else {}
    return state


async def slowed(room: Mailroom) -> list[str]:
    return sorted(name.decode() for name in await room.do("ZRANGE", room.keys.throttled, 0, -1))


async def refused(room: Mailroom, lane: str = LANE, **known: Any) -> Lease:
    """A new mail, and it is refused for its pace."""
    lease = await room.lease(lane=lane)
    assert await room.settled("throttled", lease, lane=lane, **known) == "ok"
    return lease


async def sent(room: Mailroom, many: int, lane: str = LANE) -> None:
    """So many mails that are taken."""
    for _ in range(many):
        assert await room.settled("sent", await room.lease(lane=lane), lane=lane) == "ok"


async def next_one(room: Mailroom) -> Lease:
    """What goes next, when it may."""
    for _ in range(100):
        if got := await room.taken():
            [(lease, _)] = got
            return lease
        room.to((await room.release()).next_us / 1000)
    raise AssertionError("nothing goes")


# -- down ------------------------------------------------------------------------------------------------------


async def test_the_first_refusal_begins_a_pace_and_is_no_attempt(paced: Mailroom) -> None:
    lease = await refused(paced, took=40.0)
    state = await pace(paced)
    assert (state["rate"], state["top"], int(state["mark"])) == (34, 40, paced.now * 1000)
    assert int(state["till"]) == (paced.now + 500) * 1000
    notes = await paced.notes(lease.entry)
    assert (notes["throttled"], notes.get("attempts"), notes["reply"]) == (1, None, "421 slow down")
    assert await paced.state(lease.entry) == "parked"
    assert await slowed(paced) == [LANE]
    told, of_mail = await paced.events()
    assert (told.kind, told.id, of_mail.kind, of_mail.id) == ("site.throttled", LANE, "email.throttled", lease.entry)
    known = {"route": "main", "site": "example.net", "rate": 34, "until": paced.now + 500, "class": "site_rate"}
    assert {name: told.data[name] for name in known} == known
    assert await paced.count("total:throttled") == 1


async def test_a_mail_that_was_refused_goes_first(paced: Mailroom) -> None:
    lease = await refused(paced, took=40.0)
    later = [await paced.add() for _ in range(2)]
    await paced.read()
    assert await paced.admitted(*later) == ["parked", "parked"]
    paced.tick(499)
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
    assert (await pace(paced)) == before
    paced.tick(500)
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
    grown = [500, 1000, 2000, 4000, 8000, 64_000, 128_000, 256_000, 512_000]  # past the box of a minute at one stride
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


async def test_a_site_that_is_named_slows_alone(paced: Mailroom) -> None:
    await refused(paced, took=5.0)
    assert await slowed(paced) == [LANE]
    await sent(paced, 3, lane=OTHER)
    assert await pace(paced, "main") == {}


async def test_our_account_slows_the_route_and_no_site(paced: Mailroom) -> None:
    known = {"scope": "route", "class": "route_rate", "reply": "454 Throttling failure: Maximum sending rate exceeded"}
    leases = [await paced.lease(lane=f"main|site{n}.example") for n in range(30)]
    for n, lease in enumerate(leases):
        await paced.settled("throttled", lease, lane=f"main|site{n}.example", took=1.0, took_way=20.0, **known)
    assert await slowed(paced) == ["main"]
    state = await pace(paced, "main")
    assert (state["rate"], state["class"]) == (17, "route_rate")
    assert "site" not in (await paced.events())[0].data
    other = await paced.add()
    await paced.read()
    assert await paced.admitted(other, lane=OTHER) == ["parked"]
    assert (await paced.admit(await paced_mail(paced), lane="second|example.org")).statuses[0][0] == "go"


async def paced_mail(room: Mailroom) -> str:
    entry = await room.add()
    await room.read()
    return entry


async def test_three_sites_that_say_the_same_are_the_route_s(paced: Mailroom) -> None:
    lanes = [f"main|site{n}.example" for n in range(5)]
    leases = [await paced.lease(lane=lane) for lane in lanes]
    for lane, lease in zip(lanes[:2], leases, strict=False):
        await paced.settled("throttled", lease, lane=lane, took=1.0, took_way=20.0, words="no")
    assert await slowed(paced) == lanes[:2]
    await paced.settled("throttled", leases[2], lane=lanes[2], took=1.0, took_way=20.0, words="no")
    assert await slowed(paced) == ["main"]
    assert (await pace(paced, "main"))["rate"] == 17
    assert [await pace(paced, lane) for lane in lanes[:3]] == [{}, {}, {}]
    back = [event.id for event in await paced.events() if event.kind == "site.recovered"]
    assert back == [lanes[2], lanes[1], lanes[0]]
    await paced.settled("throttled", leases[3], lane=lanes[3], words="no")
    assert await slowed(paced) == ["main"]
    await paced.settled("throttled", leases[4], lane=lanes[4], words="something else")
    assert await slowed(paced) == ["main", lanes[4]]


async def test_three_sites_that_say_it_each_in_its_words_or_later_are_not(paced: Mailroom) -> None:
    for n in range(4):
        await refused(paced, lane=f"main|site{n}.example", words=f"words {n}")
    for n in range(4, 8):
        await refused(paced, lane=f"main|site{n}.example", words="same")
        paced.tick(31_000)
    assert len(await slowed(paced)) == 8


async def test_greylisting_and_the_rate_of_one_recipient_slow_nobody(paced: Mailroom) -> None:
    for known in ("greylisted", "recipient_rate", "sender_auth"):
        assert await paced.settled("defer", await paced.lease(), **{"class": known}) == "ok"
    assert await slowed(paced) == []


# -- up, and over --------------------------------------------------------------------------------------------


async def test_ten_a_second_is_found_and_kept(paced: Mailroom) -> None:
    """By the scripts themselves: what it could take is used, and hardly any mail is refused."""
    campaign = Campaign(paced, per_second(10), took=10.0)
    await campaign.fill(1200)
    await campaign.run(90)
    assert campaign.share() <= 0.02
    assert campaign.rate(60) >= 9.0


async def test_a_route_s_ten_a_second_are_shared_by_its_sites(paced: Mailroom) -> None:
    lanes = ("main|a.example", "main|b.example", "main|c.example")
    campaign = Campaign(paced, per_second(10), lanes=lanes, scope="route", took=3.0, took_way=10.0)
    await campaign.fill(600)
    await campaign.run(40)
    assert campaign.share() <= 0.05  # of a short one
    assert campaign.rate(20) >= 9.0
    assert await slowed(paced) == ["main"]


async def test_a_pace_that_is_not_used_up_does_not_grow(paced: Mailroom) -> None:
    await paced.moved("cancel", (await refused(paced, took=10.0)).entry)
    for _ in range(60):
        paced.tick(1000)
        await sent(paced, 1)
    assert (await pace(paced))["rate"] == 8.5


async def test_without_another_refusal_it_is_forgotten_in_an_hour(paced: Mailroom) -> None:
    lease = await refused(paced, took=10.0)
    left = await paced.do("PTTL", paced.keys.limit(LANE))
    assert 3_600_000 <= left <= 3_700_000
    paced.tick(3_700_000)
    await sent(paced, 1, lane=OTHER)
    assert await slowed(paced) == []
    assert await pace(paced) == {}
    event = next(each for each in await paced.events() if each.kind == "site.recovered")
    assert (event.id, event.data["site"], event.data["rate"]) == (LANE, "example.net", 8.5)
    assert await paced.released() == [lease.entry]


async def test_a_short_window_does_not_let_it_expire_early(paced: Mailroom) -> None:
    await paced.do("HSET", paced.keys.limits, "*|*", "100:1000000")
    await paced.moved("cancel", (await refused(paced, took=10.0)).entry)
    paced.tick(60_000)
    await sent(paced, 1)
    assert await paced.do("PTTL", paced.keys.limit(LANE)) > 3_400_000
    paced.tick(1000)
    await paced.moved("cancel", (await refused(paced, scope="route", took_way=9.0)).entry)
    paced.tick(60_000)
    await sent(paced, 1)  # notes who was judged there, for an hour
    assert await paced.do("PTTL", paced.keys.limit("main")) > 3_400_000


async def test_more_targets_than_one_look_shows(paced: Mailroom) -> None:
    for n in range(105):
        await refused(paced, lane=f"main|site{n}.example", words=f"words {n}")
    last = "main|site104.example"
    entries = [await paced.add() for _ in range(2)]
    await paced.read()
    assert await paced.admitted(entries[0], lane=last) == ["parked"]
    assert await paced.admitted(entries[1], lane=OTHER) == ["go"]


async def test_a_healthy_queue_pays_next_to_nothing(paced: Mailroom) -> None:
    """One EXISTS a script."""
    await sent(paced, 2)
    await paced.do("CONFIG", "RESETSTAT")
    lease = await paced.lease()
    stats = (await paced.do("INFO", "commandstats")).decode()
    asked = {line.split(":")[0] for line in stats.splitlines()}
    await paced.settled("sent", lease)
    assert not asked & {"cmdstat_zrange", "cmdstat_pttl", "cmdstat_zscore"}
    assert await paced.do("EXISTS", paced.keys.throttled) == 0


async def test_whoever_looks_sees_it_as_one_more_window(paced: Mailroom) -> None:
    await refused(paced, took=40.0, hint=60_000)
    [gauge] = await gauges(paced.spool, [LANE])
    assert gauge.rate == pytest.approx(34 / 1.02)
    assert gauge.at_us(1) == (paced.now + 60_000) * 1000
    binding = gauge.binding()
    assert binding is not None
    assert binding.target == LANE


# -- off -----------------------------------------------------------------------------------------------------


async def test_without_a_policy_a_throttle_is_a_retry(room: Mailroom) -> None:
    lease = await room.lease()
    assert await room.settled("throttled", lease, took=10.0, wait=5000) == "ok"
    assert (await room.survey()).due == {lease.entry: room.now + 5000}
    assert await slowed(room) == []


async def test_switched_off_nothing_is_slow_any_more(paced: Mailroom, make_spool: MakeSpool) -> None:
    lease = await refused(paced, took=10.0, hint=600_000)
    await (await make_spool(adapt={"enabled": False})).publish_adapt()
    await sent(paced, 5, lane=OTHER)
    paced.tick(600_000)
    assert await paced.released() == [lease.entry]
    await (await make_spool()).publish_adapt()
    assert await paced.do("HGET", paced.keys.meta, "adapt") == AdaptSettings().published()

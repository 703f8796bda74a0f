"""Lanes of tenants: they take turns at a site, high to low, and hold up nobody."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from law import survey
from mailroom import DAY, LANE, Mailroom

from streamq.queue.check import check
from streamq.queue.lanes import lane_of, road_of, site_in, tenant_in

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]

ACME, BETA, ZETA = (f"{LANE}/{name}" for name in ("acme", "beta", "zeta"))


async def limit(room: Mailroom, rule: str = "10:1000000", lane: str = "*|*") -> None:
    await room.do("HSET", room.keys.limits, lane, rule)


async def closed(room: Mailroom) -> None:
    """The window's slots of now are gone."""
    await limit(room)
    await room.lease()


async def parked(room: Mailroom, lane: str, many: int = 1, priority: str = "normal") -> list[str]:
    """So many, that found no slot."""
    made = [await room.add(priority) for _ in range(many)]
    await room.read("w1", many)
    for at in range(0, many, 100):
        assert set(await room.admitted(*made[at : at + 100], lane=lane)) == {"parked"}
    return made


async def order(room: Mailroom, many: int) -> list[str]:
    """Who gets so many slots, one after the other."""
    got = []
    for _ in range(many):
        room.tick(1000)
        got += await room.released(room=1)
    return got


# -- turns -------------------------------------------------------------------------------------------------------


async def test_tenants_take_turns_oldest_first(room: Mailroom) -> None:
    await closed(room)
    acme = await parked(room, ACME, 5)
    beta = await parked(room, BETA, 2)
    zeta = await parked(room, ZETA, 1)
    turns = [acme[0], beta[0], zeta[0], acme[1], beta[1], acme[2], acme[3], acme[4]]
    assert await order(room, 9) == turns
    assert await room.do("KEYS", room.keys.prefix + "turns:*") == []


async def test_a_newcomer_has_its_turn_after_the_others(room: Mailroom) -> None:
    await closed(room)
    acme = await parked(room, ACME, 3)
    beta = await parked(room, BETA, 3)
    assert await order(room, 1) == acme[:1]
    zeta = await parked(room, ZETA, 2)
    assert await order(room, 5) == [beta[0], acme[1], zeta[0], beta[1], acme[2]]


async def test_a_large_backlog_holds_up_nobody_s_ten(room: Mailroom) -> None:
    await closed(room)
    await parked(room, ACME, 300)
    beta = await parked(room, BETA, 10)
    assert set(beta) <= set(await order(room, 20))


async def test_mails_without_a_tenant_are_one_more(room: Mailroom) -> None:
    await closed(room)
    plain = await parked(room, LANE, 3)
    acme = await parked(room, ACME, 3)
    got = await order(room, 6)
    assert [entry for entry in got if entry in plain] == plain
    assert [entry for entry in got if entry in acme] == acme
    assert 2 <= sum(entry in plain for entry in got[:4]) <= 3
    await parked(room, ACME, 1)
    later = await parked(room, LANE, 1)  # the other one came before
    assert (await order(room, 2))[1] == later[0]


async def test_priorities_come_before_turns(room: Mailroom) -> None:
    await closed(room)
    low = await parked(room, BETA, 1, "low")
    high = await parked(room, ACME, 2, "high")
    assert await order(room, 3) == [*high, *low]


async def test_lower_priorities_have_their_share_by_turns_too(room: Mailroom) -> None:
    await closed(room)
    await parked(room, BETA, 5, "low")
    await parked(room, ZETA, 5, "low")
    await parked(room, ACME, 60, "high")
    got = await order(room, 40)
    lanes = Counter(room_of for entry in got for room_of in [entry[0]])
    assert lanes == {"0": 36, "2": 4}
    left = Counter((await room.survey()).lanes.values())
    assert (left[BETA], left[ZETA]) == (3, 3)


async def test_one_window_for_all_of_a_site(room: Mailroom) -> None:
    """However many tenants: a limit is of the way and the site."""
    await limit(room, "2:1000000")
    went = []
    for turn in range(30):
        entry = await room.add()
        await room.read()
        if await room.admitted(entry, lane=f"{LANE}/t{turn % 7}") == ["go"]:
            went.append(room.now)
    for _ in range(100):
        room.tick(100)
        went += [room.now] * len(await room.released())
    assert len(went) >= 18
    assert all(after - first >= 1000 for first, after in zip(went, went[2:], strict=False))
    assert len(await room.do("KEYS", room.keys.limit("*"))) == 1


async def test_slots_at_once_are_the_site_s(room: Mailroom) -> None:
    await limit(room, ";c1")
    first = await room.lease(lane=ACME)
    acme, beta = await parked(room, ACME, 2), await parked(room, BETA, 2)
    got = []
    lease, target = first, LANE
    for _ in range(4):
        row = room.end("sent", lease, lane=ACME)._replace(way=target)
        assert (await room.scripts.settle("w1", [row])).next_us == room.now * 1000
        [(lease, leased)] = await room.taken()
        target = leased.target
        got.append(lease.entry)
    assert got == [acme[0], beta[0], acme[1], beta[1]]
    assert target == LANE


# -- what else looks at lanes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["cancel", "hold"])
async def test_who_leaves_by_another_way_leaves_no_turn(room: Mailroom, verb: str) -> None:
    await closed(room)
    [acme], [beta] = await parked(room, ACME), await parked(room, BETA)
    plain = await parked(room, LANE, 1)
    await room.moved(verb, acme)
    assert (await room.survey()).lanes == {beta: BETA, plain[0]: LANE}
    await order(room, 1)
    await room.moved(verb, *plain)
    await room.moved(verb, beta)
    seen = await room.survey()
    assert (seen.lanes, seen.visits) == ({}, {})
    assert await room.do("EXISTS", room.keys.shared) == 0


async def test_old_mails_of_every_tenant_end(room: Mailroom) -> None:
    await closed(room)
    for name in ("a", "b", "c"):
        await parked(room, f"{LANE}/{name}", 2)
    await parked(room, LANE, 2)
    room.tick(5 * DAY)
    ended = (await room.scripts.expire([5 * DAY] * 3))[0]
    assert ended == 8
    assert not (await room.survey()).of("parked")
    assert await room.do("EXISTS", room.keys.shared) == 0


async def test_a_sweep_goes_on_where_it_ended(room: Mailroom) -> None:
    """Behind more lanes than one call visits, all of them young, and whatever has left meanwhile."""
    await closed(room)
    old = [*await parked(room, f"{LANE}/z1", 1), *await parked(room, f"{LANE}/z2", 1)]
    room.tick(5 * DAY)
    for turn in range(110):
        await parked(room, f"{LANE}/t{turn:03}", 1)
    ended, at, _ = await room.scripts.expire([5 * DAY] * 3)
    assert (ended, at) == (0, f"{LANE}/t099|2")
    await room.moved("cancel", *(await room.survey()).of("parked")[102:])
    assert await room.scripts.expire([5 * DAY] * 3, at) == (2, "", [])
    assert set((await room.survey()).of("parked")).isdisjoint(old)


async def test_check_sees_a_turn_that_is_missing_and_repair_gives_it_one(room: Mailroom) -> None:
    await closed(room)
    [acme] = await parked(room, ACME)
    await room.do("DEL", room.keys.turns("normal", LANE), room.keys.shared)
    report = await check(room.spool)
    assert [(each.entry, each.what) for each in report.wrong] == [(acme, "lane")]
    assert (await check(room.spool, repair=True)).repaired == 1
    await room.survey()
    assert await order(room, 1) == [acme]


async def test_a_turn_without_mails_is_passed(room: Mailroom) -> None:
    """Its parts did not agree."""
    await closed(room)
    beta = await parked(room, BETA, 2)
    await room.do("ZADD", room.keys.turns("normal", LANE), 0, ACME)
    assert (await survey(room.spool.redis)).wrong
    assert await order(room, 2) == beta


async def test_what_may_have_been_sent_keeps_its_tenant_s_lane(room: Mailroom) -> None:
    await closed(room)
    entry = await room.add()
    await room.read()
    await room.do("HSET", room.keys.notes, entry, '{"stays":"main","ambiguous":1}')
    assert await room.admitted(entry, lane="other>main|example.net/acme") == ["parked"]
    assert (await room.survey()).lanes == {entry: ACME}


# -- cost --------------------------------------------------------------------------------------------------------


async def cost(room: Mailroom) -> int:
    """Commands of one release that gives one slot away."""
    room.tick(1000)
    await room.do("CONFIG", "RESETSTAT")
    assert len(await room.released(room=1)) == 1
    stats = (await room.do("INFO", "commandstats")).decode()
    known = {name: int(calls) for name, calls in re.findall(r"^cmdstat_([^:]+):calls=(\d+)", stats, re.M)}
    return sum(calls for name, calls in known.items() if not re.match(r"config|info|evalsha|eval$", name))


async def test_a_release_costs_the_same_whatever_is_parked(room: Mailroom) -> None:
    """No visit of a tenant, of a mail, or of another site's lane that is not due."""
    await closed(room)
    await parked(room, ACME, 3)
    await parked(room, BETA, 3)
    few = await cost(room)
    for turn in range(150):
        await parked(room, f"{LANE}/t{turn}", 2)
    await parked(room, ACME, 300)
    await limit(room, "1:3600000000", "*|slow.example")
    await room.lease(lane="main|slow.example")
    for turn in range(50):
        await parked(room, f"main|slow.example/t{turn}", 2)
    assert await cost(room) <= few
    await order(room, 20)
    assert await cost(room) <= few


async def test_where_no_mail_has_a_tenant_nothing_more_is_asked(room: Mailroom) -> None:
    await closed(room)
    await parked(room, LANE, 20)
    room.tick(5000)
    await room.do("CONFIG", "RESETSTAT")
    assert len(await room.released(room=10)) == 1
    stats = (await room.do("INFO", "commandstats")).decode()
    assert "cmdstat_sadd" not in stats
    assert int((re.search(r"cmdstat_zrange:calls=(\d+)", stats) or ["", "0"])[1]) <= 4
    assert await room.do("EXISTS", room.keys.shared) == 0


# -- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tenant", ["acme", "a/b|c>d", "Größe", " ", "%41", "x" * 300, "ä" * 100])
def test_a_lane_s_name_has_its_parts(tenant: str) -> None:
    lane = lane_of(("main", "other"), "example.net", tenant)
    assert (road_of(lane), site_in(lane)) == ("main>other|example.net", "example.net")
    assert re.fullmatch(r"[A-Za-z0-9_.~%-]{1,64}", tenant_in(lane))
    assert lane_of(("main", "other"), "example.net", tenant + "x") != lane


def test_without_a_tenant_a_lane_is_its_road() -> None:
    assert lane_of(("main",), "example.net") == lane_of(("main",), "example.net", "") == LANE == road_of(LANE)
    assert tenant_in(LANE) == ""

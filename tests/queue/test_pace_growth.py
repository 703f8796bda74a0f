"""A pace that was learnt grows, is shared, is forgotten; and what a queue without one does."""

from __future__ import annotations

import pytest
from campaign import Campaign, per_second
from conftest import MakeSpool
from mailroom import LANE, Mailroom
from pacing import adaptive, pace, refused, sent, slowed

from streamq.queue.gauge import gauges
from streamq.settings import AdaptSettings

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
OTHER = "main|example.org"


@pytest.fixture
async def paced(make_spool: MakeSpool) -> Mailroom:
    return await adaptive(make_spool)


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

"""Whose pace a refusal is about: a site's, a route's, one recipient's, nobody's."""

from __future__ import annotations

import pytest
from conftest import MakeSpool
from mailroom import LANE, Mailroom
from pacing import adaptive, pace, refused, sent, slowed

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
OTHER = "main|example.org"


@pytest.fixture
async def paced(make_spool: MakeSpool) -> Mailroom:
    return await adaptive(make_spool)


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

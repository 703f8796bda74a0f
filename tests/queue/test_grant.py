"""grant.lua: connections over all workers, as leases: never more than there are, fair, free when a worker is gone."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from conftest import MakeSpool
from mailroom import Mailroom

from streamq.queue.look import now_ms
from streamq.queue.routes import route_views
from streamq.queue.rows import GrantRow

pytestmark = pytest.mark.usefixtures("any_server_url")
TTL = 4000  # ms


async def ask(room: Mailroom, who: str, want: int, have: int = 0, *, most: int = 20, route: str = "main") -> int:
    _, [granted] = await room.scripts.grant(who, TTL, [GrantRow(route, most, 100, want, have, have)])
    return granted.allowance


@pytest.fixture
async def known(room: Mailroom) -> Mailroom:
    """As many connections as anybody has in these tests stood once on `main` and `other`: nothing is to be learnt."""
    await room.scripts.grant("before", TTL, [GrantRow(route, 20, 100, 20, 20, 20) for route in ("main", "other")])
    await room.scripts.grant("before", 0, [GrantRow(route, 20, 100, 0, 0) for route in ("main", "other")])
    return room


async def settled(room: Mailroom, wants: Mapping[str, int], most: int = 20, rounds: int = 4) -> dict[str, int]:
    """What each has after a few renewals; each has as many open as it may and has use for."""
    has = dict.fromkeys(wants, 0)
    for _ in range(rounds):
        room.tick(1000)
        for who, want in wants.items():
            has[who] = await ask(room, who, want, min(has[who], want), most=most)
            assert sum(has.values()) <= most
    return has


async def test_a_worker_alone_has_all_of_them_at_once(known: Mailroom) -> None:
    assert await ask(known, "w1", 0) == 20
    assert await ask(known, "w1", 20, 20) == 20


async def test_two_that_want_all_have_half_each(known: Mailroom) -> None:
    assert await settled(known, {"w1": 20, "w2": 20}) == {"w1": 10, "w2": 10}


async def test_what_one_does_not_want_another_gets(known: Mailroom) -> None:
    assert await settled(known, {"w1": 3, "w2": 20, "w3": 0}) == {"w1": 3, "w2": 17, "w3": 0}


async def test_what_nobody_wants_is_lent_evenly(known: Mailroom) -> None:
    assert await settled(known, {"w1": 1, "w2": 0, "w3": 0}, most=10) == {"w1": 4, "w2": 3, "w3": 3}


async def test_more_workers_than_connections(known: Mailroom) -> None:
    has = await settled(known, {f"w{n}": 1 for n in range(5)}, most=2)
    assert sorted(has.values()) == [0, 0, 0, 1, 1]


async def test_nobody_gets_what_another_has_open_still(known: Mailroom) -> None:
    assert await ask(known, "w1", 20) == 20
    assert await ask(known, "w2", 20) == 0  # all are lent
    assert await ask(known, "w1", 20, 18) == 10  # told to close eight
    assert await ask(known, "w2", 20) == 2
    assert await ask(known, "w1", 20, 11) == 10
    assert await ask(known, "w2", 20, 2) == 9
    assert await ask(known, "w1", 20, 10) == 10
    assert await ask(known, "w2", 20, 9) == 10


async def test_the_share_of_a_worker_that_is_gone_is_free_within_seconds(known: Mailroom) -> None:
    await settled(known, {"w1": 20, "w2": 20})
    known.tick(TTL - 1)
    assert await ask(known, "w2", 20, 10) == 10
    known.tick(1)
    assert await ask(known, "w2", 20, 10) == 20
    assert await ask(known, "w1", 20, 10) == 0  # back from the dead: its own are too many until others close theirs


async def test_what_one_has_open_still_counts_though_its_lease_is_over(known: Mailroom) -> None:
    """It stood still, and comes back before, or after, another was given its share."""
    await settled(known, {"w1": 20, "w2": 20})
    known.tick(TTL)
    assert await ask(known, "w1", 20, 10) == 20  # nobody has taken it, and w2's is over, too
    assert await ask(known, "w2", 20, 10) == 0
    assert await ask(known, "w1", 20, 10) == 10  # room is made for what w2 has
    known.tick(TTL)
    assert await ask(known, "w2", 20, 0) == 20
    assert await ask(known, "w1", 20, 10) == 0
    assert await ask(known, "w2", 20, 5) == 10
    assert await ask(known, "w3", 20) == 0  # ten are w2's, and ten w1's still


async def test_who_leaves_gives_back(known: Mailroom) -> None:
    await settled(known, {"w1": 20, "w2": 20})
    assert await known.scripts.grant("w1", 0, [GrantRow("main", 0, 0, 0, 0)])
    assert await ask(known, "w2", 20, 10) == 20


async def test_routes_are_told_apart_and_asked_in_one_call(known: Mailroom) -> None:
    rows = [GrantRow("main", 20, 100, 20, 0), GrantRow("other", 3, 100, 1, 0)]
    _, grants = await known.scripts.grant("w1", TTL, rows)
    assert [each.allowance for each in grants] == [20, 3]
    assert await ask(known, "w2", 1, route="other", most=3) == 0


async def test_a_view_shows_who_has_how_many(known: Mailroom) -> None:
    known.to(await now_ms(known.spool))
    await settled(known, {"w1": 20, "w2": 4})
    [view] = await route_views(known.spool, ["main"])
    assert (view.shares, view.connections) == ({"w1": 16, "w2": 4}, 20)


@pytest.mark.stories
@pytest.mark.parametrize("seed", range(4))
async def test_never_more_than_there_are(room: Mailroom, seed: int) -> None:
    """Workers come, go silent, come back, want more and less, with limits that change: by what each was told and has
    open, while its lease holds."""
    chance = random.Random(seed)
    told: dict[str, tuple[int, int]] = {}  # worker → allowance, ms at which its lease ends
    opened: dict[str, int] = {}
    most = 12
    for _ in range(400):
        room.tick(chance.choice([0, 10, 300, 1000]))
        if chance.random() < 0.02:
            room.tick(TTL)
        told = {who: lease for who, lease in told.items() if lease[1] > room.now}
        opened = {who: many for who, many in opened.items() if who in told}
        who = f"w{chance.randrange(6)}"
        if chance.random() < 0.05:
            await room.scripts.grant(who, 0, [GrantRow("main", most, 100, 0, 0)])
            told.pop(who, None)
            opened.pop(who, None)
            continue
        want = chance.choice([0, 1, 4, 12])
        allowance = await ask(room, who, want, opened.get(who, 0), most=most)
        told[who] = (allowance, room.now + TTL)
        # It closes what is too much at once, or some of it later, and opens what it may.
        lasting = opened.get(who, 0) if chance.random() < 0.3 else 0
        opened[who] = max(lasting, min(want, allowance))
        assert sum(max(opened[name], 0) for name in opened) <= most
        assert sum(max(told[name][0], opened[name]) for name in told) <= most


async def test_it_says_which_routes_are_closed_and_ends_pauses_on_time(room: Mailroom) -> None:
    async def closed() -> list[int]:
        _, grants = await room.scripts.grant(
            "w1", TTL, [GrantRow("main", 1, 100, 0, 0), GrantRow("other", 1, 100, 0, 0)]
        )
        return [each.closed_us and each.closed_us // 1000 - room.now for each in grants]

    assert await closed() == [0, 0]
    await room.scripts.pause("pause", ["other"], till_us=(room.now + 5000) * 1000, reason="tea")
    assert await closed() == [0, 5000]
    room.tick(5000)
    assert await closed() == [0, 0]
    assert [(each.kind, each.data.get("reason")) for each in await room.events()] == [
        ("route.paused", "tea"),
        ("route.resumed", "its time is over"),
    ]
    assert await room.do("EXISTS", room.keys.pauses) == 0


async def test_nothing_is_left_when_all_are_gone(make_spool: MakeSpool) -> None:
    room = Mailroom(await make_spool())
    await ask(room, "w1", 1)
    assert 2 * TTL < await room.do("PTTL", room.keys.grants("main")) <= 3_600_000  # what was learnt stays an hour

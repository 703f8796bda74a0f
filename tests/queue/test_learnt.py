"""lib/learnt.lua, in virtual time: workers that want all they can get, against a server that takes so many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from conftest import MakeSpool
from mailroom import Mailroom

from streamq.queue.look import now_ms
from streamq.queue.routes import Learnt, route_views
from streamq.queue.rows import Grant, GrantRow

TTL = 3000  # ms
STEP, CALM = 250, 1000  # ms between the renewals of one worker: that opens, or that has what it may
CONFIGURED, MAILS = 20, 100
MINUTE = 60_000


@dataclass
class Client:
    """A worker as the script sees it."""

    name: str
    open: int = 0
    lost: bool = False
    refused: int = 0
    worked: int = 0


class Scene:
    """Workers and a server that takes `limit` connections; each renews, and opens at once what it may."""

    def __init__(self, room: Mailroom, limit: int, workers: int, most: int = CONFIGURED) -> None:
        self.room = room
        self.limit = limit
        self.most = most
        self.clients = [Client(f"w{number:02}") for number in range(workers)]
        self.refusals: list[int] = []  # ms at which
        self.rounds = 0
        self.moved = True

    @property
    def open(self) -> int:
        return sum(client.open for client in self.clients)

    async def renew(self, client: Client, want: int | None = None) -> Grant:
        row = GrantRow(
            "main", self.most, MAILS, self.most if want is None else want, client.open, client.open, int(client.lost),
            client.refused, client.worked,
        )  # fmt: skip
        client.refused = client.worked = 0
        [granted] = (await self.room.scripts.grant(client.name, TTL, [row]))[1]
        return granted

    async def turn(self) -> None:
        step, before = (STEP if self.moved else CALM), (self.open, len(self.refusals))
        for client in self.clients:
            self.room.tick(step / len(self.clients))
            granted = await self.renew(client)
            client.open = min(client.open, granted.allowance)
            for _ in range(granted.allowance - client.open):
                if self.open < self.limit:
                    client.open += 1
                else:
                    client.worked = client.open
                    client.refused += 1
                    self.refusals.append(self.room.now)
                    if granted.careful:  # one by one
                        break
        self.rounds += 1
        self.moved = before != (self.open, len(self.refusals))

    async def run(self, ms: int) -> None:
        end = self.room.now + ms
        while self.room.now < end:
            await self.turn()

    async def until(self, many: int) -> int:
        """Rounds until so many are open."""
        begun = self.rounds
        while self.open < many:
            await self.turn()
        return self.rounds - begun


async def test_a_healthy_server_has_all_of_them_after_a_few_rounds(room: Mailroom) -> None:
    scene = Scene(room, 100, 1)
    assert await scene.until(CONFIGURED) <= 13
    assert scene.refusals == []
    assert not (await scene.renew(scene.clients[0])).careful
    # It is remembered: whoever comes next begins where this one was.
    [client] = scene.clients
    client.open = 0
    await room.scripts.grant(client.name, 0, [GrantRow("main", CONFIGURED, MAILS, 0, 0)])
    room.tick(MINUTE)
    assert await scene.until(CONFIGURED) == 1


async def test_each_step_waits_for_so_many_mails_or_a_second(make_spool: MakeSpool) -> None:
    spool = await make_spool(adapt={"ramp": 30})
    await spool.publish_adapt()
    scene = Scene(Mailroom(spool), 100, 1)
    [client] = scene.clients
    row = GrantRow("main", CONFIGURED, MAILS, CONFIGURED, 0, 0)

    async def allowed(ms: int, sent: int = 0) -> int:
        scene.room.tick(ms)
        asked = row._replace(open=client.open, works=client.open, sent=sent)
        [granted] = (await scene.room.scripts.grant(client.name, TTL, [asked]))[1]
        client.open = granted.allowance
        return client.open

    assert await allowed(0) == 1
    assert [await allowed(10, sent) for sent in (29, 0, 1)] == [1, 1, 2]
    assert [await allowed(10, sent) for sent in (20, 19, 1)] == [2, 2, 3]  # of all together
    assert [await allowed(ms) for ms in (980, 10, 10)] == [3, 3, 4]  # a slow server's
    while client.open < CONFIGURED:
        await allowed(1, 10 * (2 + client.open))
    assert await allowed(1) == CONFIGURED
    known = orjson.loads(await scene.room.do("HGET", scene.room.keys.grants("main"), "*"))
    assert known == {"cap": CONFIGURED}  # nothing is left to learn


async def test_those_that_idle_workers_have_hold_nobody_up(room: Mailroom) -> None:
    """What the idle were lent goes back when they renew, once a second; the rounds of a burst are much closer."""
    scene = Scene(room, 100, 4)
    busy, *idle = scene.clients
    for client in idle:
        await scene.renew(client, want=0)
    for _ in range(14):
        room.tick(10)
        granted = await scene.renew(busy)
        assert granted.allowance >= busy.open + 1 or busy.open == CONFIGURED - 1  # the first of them has one yet
        busy.open = granted.allowance
    assert busy.open == CONFIGURED - 1
    # While a connection of its own is being opened there is nothing to be learnt.
    fresh = Scene(room, 100, 2)
    row = GrantRow("other", CONFIGURED, MAILS, CONFIGURED, 1, 0)
    await room.scripts.grant("idle", TTL, [row._replace(want=0, open=0)])
    first = [(await room.scripts.grant(fresh.clients[0].name, TTL, [row]))[1][0].allowance for _ in range(5)]
    assert first == [1] * 5


async def test_nothing_is_kept_for_those_who_have_none_while_the_number_grows(room: Mailroom) -> None:
    """One that had to leave a mail to others asks for a connection, and asks again a second later."""
    scene = Scene(room, 100, 2)
    busy, other = scene.clients
    busy.open = (await scene.renew(busy)).allowance
    while busy.open < CONFIGURED - 2:  # one more, and the next step would be the last
        assert (await scene.renew(other, want=1)).allowance == 0
        before, busy.open = busy.open, (await scene.renew(busy)).allowance
        assert busy.open > before
    busy.open = (await scene.renew(busy)).allowance  # and now that there are no more to come
    assert (await scene.renew(other, want=1)).allowance == 1


@pytest.mark.parametrize("workers", [1, 4, 16])
async def test_a_server_that_takes_five_turns_few_away(room: Mailroom, workers: int) -> None:
    scene = Scene(room, 5, workers)
    await scene.until(5)
    await scene.run(MINUTE // 2)
    assert len(scene.refusals) == 1
    assert scene.open == 5
    await scene.run(4 * MINUTE)
    assert scene.open == 5
    gaps = [after - before for before, after in zip(scene.refusals, scene.refusals[1:], strict=False)]
    assert [round(gap / MINUTE) for gap in gaps] == [1, 2]  # each try that is in vain makes the next one later


async def test_two_tries_in_a_minute_at_most(room: Mailroom) -> None:
    """Servers that count offences mostly do so by the minute."""
    scene = Scene(room, 5, 2)
    await scene.run(12 * MINUTE)
    assert len(scene.refusals) >= 4
    assert (await scene.renew(scene.clients[0])).careful  # one by one
    third = zip(scene.refusals, scene.refusals[2:], strict=False)
    assert min(after - before for before, after in third) > MINUTE


@pytest.mark.parametrize(("before", "after"), [(1, 2), (5, 10), (10, 20), (40, 80)])
async def test_a_doubled_limit_is_used_to_90_percent_within_five_minutes(
    room: Mailroom, before: int, after: int
) -> None:
    scene = Scene(room, before, 2, most=100)
    await scene.run(8 * MINUTE)  # tries are as rare as they ever get
    refused = len(scene.refusals)
    while len(scene.refusals) == refused:
        await scene.turn()  # and the last one has just been
    scene.limit = after
    begun = room.now
    while scene.open < 0.9 * after:
        await scene.turn()
    assert room.now - begun <= 5 * MINUTE
    scene.refusals.clear()
    await scene.run(MINUTE)
    assert scene.open >= 0.9 * after
    assert len(scene.refusals) <= 2  # one a worker
    known = orjson.loads(await room.do("HGET", room.keys.grants("main"), "*"))
    assert int(known["wait"]) <= MINUTE * 1000  # after a run of tries that were not in vain it is soon again


async def test_a_halved_limit_is_cut_to_at_the_first_refusal(room: Mailroom) -> None:
    scene = Scene(room, 10, 2)
    await scene.until(10)
    scene.limit = 5
    for client in scene.clients:  # the server let go of some
        client.open = min(client.open, 3)
    scene.clients[0].open = 2
    scene.refusals.clear()
    await scene.run(5000)
    assert scene.open == 5
    assert len(scene.refusals) <= 5


async def test_never_above_what_is_configured_nor_below_one(room: Mailroom) -> None:
    scene = Scene(room, 1, 3, most=2)
    await scene.run(5 * MINUTE)
    assert scene.open == 1
    [client, *_] = scene.clients
    granted = [await scene.renew(client) for client in scene.clients]
    assert sum(each.allowance for each in granted) <= 2
    for each in scene.clients:
        each.open = 0
        await room.scripts.grant(each.name, 0, [GrantRow("main", 2, MAILS, 0, 0)])
    client.refused, client.worked = 1, 0  # nothing stood
    assert (await scene.renew(client)).allowance == 1
    scene.limit = 100
    await scene.run(10 * MINUTE)
    assert scene.open == 2
    [view] = await route_views(room.spool, ["main"])
    assert view.learnt == Learnt(2)  # nothing is left to try


async def down(scene: Scene, seconds: int = 1) -> None:
    """The server stops listening; its sessions end one after the other, and each is missed at once."""
    while scene.open:
        for client in scene.clients:
            client.open = max(0, client.open - 1)
            client.refused, client.worked = 1, client.open
            scene.room.tick(seconds * 1000)
            await scene.renew(client)
    for client in scene.clients:
        client.lost = True
        await scene.renew(client)
        client.lost = False


async def test_a_server_that_goes_down_was_not_full(room: Mailroom) -> None:
    scene = Scene(room, 100, 2)
    await scene.until(CONFIGURED)
    await scene.turn()
    await down(scene)
    assert sum([(await scene.renew(client)).allowance for client in scene.clients]) == CONFIGURED
    assert await scene.until(CONFIGURED) <= 2
    assert scene.refusals == []


async def test_a_limit_outlives_the_server_that_goes_down(room: Mailroom) -> None:
    scene = Scene(room, 5, 2)
    await scene.until(5)
    await scene.run(MINUTE + 5000)  # one refusal, one try
    assert len(scene.refusals) == 2
    await down(scene, 5)
    await scene.run(MINUTE // 2)
    assert scene.open == 5
    assert len(scene.refusals) == 2


async def test_what_was_refused_long_ago_stays_so(room: Mailroom) -> None:
    """The route is down in between: its limit was found before that."""
    scene = Scene(room, 5, 1)
    await scene.until(5)
    await scene.run(MINUTE // 2)
    [client] = scene.clients
    client.open = 0
    room.tick(MINUTE)
    client.lost = True
    await scene.renew(client)
    client.lost = False
    assert (await scene.renew(client)).allowance == 5


@pytest.mark.leaves_mail
@pytest.mark.parametrize("wary", ["turned away", "slowed", ""])
async def test_what_stands_changes_no_hands_where_somebody_may_be_kept_out(room: Mailroom, wary: str) -> None:
    """What one worker would close the other might not be let in with: a server shuts out who goes on knocking."""
    scene = Scene(room, 100, 2, most=20 if wary == "turned away" else 12)
    first, second = scene.clients
    while first.open < 12:
        first.open = (await scene.renew(first)).allowance
    if wary == "turned away":
        first.refused, first.worked = 1, 12
        await scene.renew(first)
    elif wary:
        await room.spool.publish_adapt()
        reply: dict[str, Any] = {
            "code": 450,
            "class": "route_rate",
            "reply": "",
            "words": "",
            "took": 50.0,
            "took_way": 50.0,
        }
        assert await room.settled("throttled", await room.lease(), scope="route", wait=1, park=True, **reply) == "ok"
        assert await room.do("ZSCORE", room.keys.throttled, "main")
    assert (await scene.renew(second)).allowance == 0
    granted = await scene.renew(first)
    assert (granted.allowance, granted.mails) == ((12, 10 * MAILS) if wary else (6, MAILS))
    for _ in range(61):
        room.tick(1000)
        await scene.renew(second)
        granted = await scene.renew(first)
    assert granted.allowance < 12
    assert granted.mails == MAILS


@pytest.mark.leaves_mail
async def test_a_number_that_the_server_named_holds_whoever_is_kept_out(room: Mailroom) -> None:
    scene = Scene(room, 100, 1)
    [client] = scene.clients
    while client.open < 12:
        client.open = (await scene.renew(client)).allowance
    row = GrantRow("main", CONFIGURED, MAILS, CONFIGURED, 12, 12, 0, 1, 12, 30)
    [granted] = (await room.scripts.grant(client.name, TTL, [row]))[1]
    assert granted.mails == 30


async def test_refusals_of_one_run_count_once(room: Mailroom) -> None:
    """Several workers are told at the same time: the next try is no later for it."""
    scene = Scene(room, 5, 2)
    while not scene.refusals:
        await scene.turn()
    await scene.turn()
    scene.refusals.clear()
    first, second = scene.clients
    for client in (first, second, first):
        client.refused, client.worked = 1, client.open
        room.tick(100)
        await scene.renew(client)
    begun = room.now
    while not scene.refusals:
        await scene.turn()
    assert MINUTE <= scene.refusals[0] - begun < MINUTE + 3000


async def test_without_need_nothing_is_tried(room: Mailroom) -> None:
    scene = Scene(room, 5, 1)
    await scene.until(5)
    await scene.run(2000)
    [client] = scene.clients
    client.open = 3
    for _ in range(100):
        room.tick(MINUTE)
        await scene.renew(client, 3)
    assert (await scene.renew(client, 20)).allowance == 5


async def test_others_that_stand_are_told(room: Mailroom) -> None:
    scene = Scene(room, 20, 2)
    await scene.until(20)
    await scene.turn()
    granted = await scene.renew(scene.clients[0])
    assert granted.elsewhere == scene.clients[1].open > 0
    room.tick(TTL)
    assert (await scene.renew(scene.clients[0])).elsewhere == 0


async def test_who_has_the_only_one_keeps_it(room: Mailroom) -> None:
    """However often the others ask, and whatever they are called."""
    assert (await scene_ask(room, "b", 1, 0)) == 1
    for _ in range(3):
        for name in ("a", "c"):
            assert await scene_ask(room, name, 1, 0) == 0
        assert await scene_ask(room, "b", 1, 1) == 1


async def scene_ask(room: Mailroom, name: str, want: int, have: int) -> int:
    [granted] = (await room.scripts.grant(name, TTL, [GrantRow("main", 1, MAILS, want, have, have)]))[1]
    return granted.allowance


# -- mails on a connection -----------------------------------------------------------------------------------------


async def tell(room: Mailroom, bore: int = 0, full: int = 0, who: str = "w1") -> int:
    row = GrantRow("main", CONFIGURED, MAILS, 1, 1, 1, bore=bore, full=full)
    [granted] = (await room.scripts.grant(who, TTL, [row]))[1]
    return granted.mails


async def test_a_session_that_is_ended_lowers_the_mails_of_all(room: Mailroom) -> None:
    assert await tell(room) == MAILS
    assert await tell(room, bore=20) == 20
    assert await tell(room, who="w2") == 20
    assert await tell(room, bore=30, who="w2") == 20  # of the same run: an older connection


async def test_more_mails_are_tried_rarely_and_only_where_connections_are_full(room: Mailroom) -> None:
    hour = 60 * MINUTE
    await tell(room, bore=20)
    room.tick(hour - 1)
    assert await tell(room, full=1) == 20
    room.tick(1)
    assert await tell(room) == 20  # none bore as many: nobody needs more
    assert await tell(room, full=1) == 25
    assert await tell(room, bore=20) == 20
    room.tick(2 * hour - 1)
    assert await tell(room, full=1) == 20  # later, each time
    room.tick(1)
    assert await tell(room, full=1) == 25
    for _ in range(7):
        room.tick(hour)
        await tell(room, full=1)
    assert await tell(room) == MAILS


async def test_a_view_shows_what_was_learnt(room: Mailroom) -> None:
    room.to(await now_ms(room.spool))
    [view] = await route_views(room.spool, ["main"])
    assert view.learnt is None
    scene = Scene(room, 5, 2)
    await scene.until(5)
    [view] = await route_views(room.spool, ["main"])
    assert view.learnt is not None
    assert view.learnt.refused_ms is None
    while not scene.refusals:
        await scene.turn()
    await scene.turn()
    await tell(room, bore=20)
    [view] = await route_views(room.spool, ["main"])
    assert view.learnt is not None
    assert view.learnt.tries_ms is not None
    assert view.learnt.tries_ms > MINUTE - 2000
    assert view.learnt == Learnt(5, view.learnt.refused_ms, view.learnt.tries_ms, 20)
    assert (view.standing, "*" in view.shares) == (6, False)  # w1's own one, of `tell`

"""What metrics and the page are made of, against Redis read by hand; and what gathering it costs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from family import expanded, parent
from mailroom import START, Mailroom, ident
from redis.exceptions import ConnectionError as RedisConnectionError

from streamq.queue import overview
from streamq.queue.gauge import Meter
from streamq.queue.letters import requeue_dead
from streamq.queue.limits import set_limits
from streamq.queue.look import status
from streamq.queue.overview import Overviews
from streamq.queue.walk import STATES

pytestmark = pytest.mark.leaves_mail


async def test_ages_are_those_of_the_oldest_of_each_state(room: Mailroom) -> None:
    first: dict[str, dict[str, int]] = {name: {} for name in room.spool.priorities}
    for n in range(2):
        for name in room.spool.priorities:
            for state in ("scheduled", "held", "leased", "parked"):
                room.tick(7)
                lane = {"lane": f"main|{name}{n}.{state}"} if state in {"leased", "parked"} else {}
                entry = await room.in_state(state, name, **lane)
                first[name].setdefault(state, int(entry[1:].partition("-")[0]))
    for name in room.spool.priorities * 2:
        room.tick(7)
        entry = await room.add(name)
        first[name].setdefault("waiting", int(entry[1:].partition("-")[0]))
    seen = await status(room.spool)
    for name, ages in seen.aged_ms.items():
        expected = {state: seen.now_ms - first[name][state] for state in ("waiting", "leased", "held")}
        assert ages == expected, name
        assert seen.oldest_ms[name] == seen.now_ms - min(first[name].values())


async def test_ages_of_nothing(room: Mailroom) -> None:
    seen = await status(room.spool)
    assert seen.aged_ms == {name: {} for name in room.spool.priorities}
    assert (seen.accepted, seen.late_ms, seen.swept, seen.consumers) == (0, 0, False, [])


async def test_what_is_held_and_unread_of_another_priority_gives_no_age(room: Mailroom) -> None:
    await room.held("low")
    seen = await status(room.spool)
    assert {name: list(ages) for name, ages in seen.aged_ms.items()} == {"high": [], "normal": [], "low": ["held"]}


async def test_what_a_group_that_was_made_again_has_still_to_read_waits_for_nobody(room: Mailroom) -> None:
    """It stands in an index, and counts there alone."""
    entry = await room.scheduled("low")
    await room.do("XGROUP", "DESTROY", room.keys.stream("low"), "streamq")
    await room.spool.open()
    seen = await status(room.spool)
    counts_itself = seen.added > 0  # since Redis 7
    assert await room.scripts.heads() == (["", "", entry], ["", "", ""], counts_itself * 1)
    assert seen.aged_ms["low"] == {}
    assert (seen.sum("scheduled"), seen.live) == (1, 1)
    room.tick(5)
    unread = await room.add("high")
    assert await room.scripts.heads() == ([unread, "", entry], [unread, "", ""], counts_itself * 2)


async def test_accepted_is_what_the_streams_took(room: Mailroom) -> None:
    """Through every kind of end, by the server's own count."""
    await room.well("main")
    for state in STATES:
        await room.in_state(state, "low")
    sent = [await room.lease("high", lane="main|high.example", to=f"b{n}@high.example") for n in range(3)]
    assert set(await room.finish(*sent, way="main|high.example")) <= {"o", "s"}
    for lease in sent:
        await room.settle("sent", lease)
    for verb in ("cancel", "bounce"):
        assert (await room.moved(verb, await room.scheduled()))[0] in {"cancelled", "bounced"}
    one = await room.add(id="twice")
    two = await room.add(id="twice")
    await room.read()
    await room.admit(room.row(one, id="twice", seen=ident("twice")))
    await room.admit(room.row(two, id="twice", seen=ident("twice")))
    gone = await room.lease("low", lane="main|gone.example")
    await room.do("XDEL", room.keys.stream("low"), gone.entry[1:])
    assert await room.settled("gone", gone) == "ok"
    dead = await room.lease("low", to="c@example.org", lane="main|example.org")
    assert await room.settled("dead", dead) == "ok"
    letters = [(letter, 1) for letter, _ in await room.letters()]
    assert len(await requeue_dead(room.spool, letters[-1:])) == 1
    family = await parent(room)
    assert len(await expanded(room, family)) == 5
    added = 0
    for name in room.spool.priorities:
        flat = await room.do("XINFO", "STREAM", room.keys.stream(name))
        added += dict(zip(flat[::2], flat[1::2], strict=True))[b"entries-added"]
    seen = await status(room.spool)
    assert {"relayed", "bounced", "cancelled", "duplicate", "expanded", "requeued"} <= seen.totals.keys()
    assert seen.tallies["vanished"] == 1
    assert seen.accepted == added > 20


async def test_late_is_how_long_the_schedule_waits(room: Mailroom) -> None:
    await room.scheduled(after=1000)
    seen = await status(room.spool)
    assert seen.late_ms == seen.now_ms - START - 1000


async def test_who_works_and_who_leads(room: Mailroom) -> None:
    await room.lease(consumer="w1")
    await room.spool.touch("w2")
    await room.scripts.leader("keeper", "w2", 60_000)
    seen = await status(room.spool)
    assert {one.name: one.pending for one in seen.consumers} == {"w1": 1, "w2": 0}
    assert (seen.workers, seen.swept) == (2, True)


# -- one gathering for all -------------------------------------------------------------------------------------------


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def _calls(room: Mailroom) -> dict[str, int]:
    """The server's own count of commands."""
    text: bytes = await room.do("INFO", "commandstats")
    rows = (line.split(":", 1) for line in text.decode().splitlines() if line.startswith("cmdstat_"))
    return {name[8:]: int(said.split(",")[0].removeprefix("calls=")) for name, said in rows}


async def test_many_who_ask_are_one_who_asks(room: Mailroom) -> None:
    clock = _Clock()
    overviews = Overviews(room.spool, clock=clock)
    seen = await asyncio.gather(*(overviews.get() for _ in range(50)))
    assert len({id(one) for one in seen}) == 1
    clock.now += 0.9
    assert await overviews.get() is seen[0]
    clock.now += 0.2
    later = await overviews.get()
    assert later is not seen[0]
    assert later.sites is seen[0].sites  # for five seconds
    clock.now += 5
    assert (await overviews.get()).sites is not seen[0].sites
    await overviews.close()


async def test_who_has_changed_something_sees_it(room: Mailroom) -> None:
    overviews = Overviews(room.spool, clock=_Clock())
    assert [view.closed for view in (await overviews.get()).routes] == [[]]
    await room.scripts.pause("pause", ["relay"], reason="why")
    assert [view.closed for view in (await overviews.get()).routes] == [[]]
    seen = await overviews.get(anew=True)
    assert [each.text for view in seen.routes for each in view.closed] == ["why"]
    await overviews.close()


async def test_what_held_mails_wait_for(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where so many intents of operators stand beside it that not all of them are looked at."""
    for _ in range(3):
        await room.held()
    for most in (1000, 0):
        monkeypatch.setattr(overview, "HOLDS_MOST", most)
        overviews = Overviews(room.spool, clock=_Clock())
        assert (await overviews.get()).needs == {"colour": 3}
        await overviews.close()


async def test_nothing_is_read_where_the_queue_or_each_route_has_no_slot(room: Mailroom) -> None:
    clock = _Clock()
    overviews = Overviews(room.spool, clock=clock)

    async def barred() -> set[str]:
        clock.now += 10
        now = await overviews.get()
        assert now.barred == bool(now.bars)
        return set(now.bars)

    assert await barred() == set()
    await set_limits(room.spool, "operator", {"*": "1:3600000000"})
    assert await barred() == set()
    await room.lease()
    assert await barred() == {"limit"}  # until the next hour
    await set_limits(room.spool, "operator", {"*": "", "main": "1:3600000000"})
    assert await barred() == set()
    await room.lease()
    assert await barred() == {"limit"}  # that workers have `main`, and not `relay`, is known by its limit
    await set_limits(room.spool, "operator", {"main": ""})
    assert await barred() == set()
    await room.scripts.pause("pause", ["relay"])
    assert await barred() == {"pause"}
    await overviews.close()


def test_a_fast_limit_binds_though_a_slot_is_free_for_moments() -> None:
    """500 a second: a step of 2 ms, a tolerance of 28."""
    used_up, hardly = (Meter(1_000_000, START * 1000 + ahead, 2_000, 28_000) for ahead in (20_000, 4_000))
    assert used_up.at_us(1, START * 1000) == START * 1000
    assert used_up.binds(START * 1000)
    assert not hardly.binds(START * 1000)


async def test_what_bars_a_route_is_said_by_who_set_it(room: Mailroom) -> None:
    """As many at once as somebody allowed: theirs. What a relay's refusals closed or slowed: nobody's."""
    clock = _Clock()
    overviews = Overviews(room.spool, clock=clock)

    async def bars() -> set[str]:
        clock.now += 10
        return set((await overviews.get()).bars)

    await set_limits(room.spool, "operator", {"relay": ";c2"})
    assert await bars() == set()
    seconds, _ = await room.do("TIME")
    await room.do("HSET", room.keys.grants("relay"), "w1", f"2 0 {int(seconds) + 60}000000 2")
    assert await bars() == {"limit"}
    assert not (await overviews.get()).barred  # it moves, and what stands still would be told
    await set_limits(room.spool, "operator", {"relay": ""})
    assert await bars() == set()
    await room.spool.publish_adapt()
    lease = await room.lease(lane="relay|example.net")
    assert await room.settled("throttled", lease, lane="relay|example.net", scope="route", took_way=40.0) == "ok"
    assert await bars() == {"throttle"}
    await overviews.close()


async def test_parked_mail_is_late_when_its_slot_has_come(room: Mailroom) -> None:
    assert (await status(room.spool)).visit_ms == 0
    await set_limits(room.spool, "operator", {"*|slow.example": "1:3600000000"})
    await room.lease(lane="main|slow.example")
    await room.add(to="b@slow.example")
    [entry] = await room.read()
    assert await room.admitted(entry, lane="main|slow.example") == ["parked"]
    seen = await status(room.spool)
    assert START + 3_600_000 <= seen.visit_ms < START + 3_700_000
    late = [replace(seen, now_ms=seen.visit_ms + ms).parked_late_ms for ms in (-1000, 0, 7)]
    assert late == [0, 0, 7]


async def test_a_gathering_takes_few_commands_whatever_is_parked(room: Mailroom) -> None:
    """A second's gathering the same, however many sites; five seconds' no more than for a hundred lanes. Those of
    scripts are counted, too."""
    many = 150
    for n in range(many):
        await room.parked(lane=f"main|s{n}.example", to=f"b@s{n}.example")
    clock = _Clock()
    overviews = Overviews(room.spool, clock=clock)
    first = await overviews.get()
    assert first.status.depth["normal"]["parked"] == many
    assert first.sites_left == many - 100
    before = await _calls(room)
    clock.now += 2
    await overviews.get()
    between = await _calls(room)
    clock.now += 10  # three times five seconds, for a hundred lanes
    assert (await overviews.get()).sites is first.sites
    before_sites = await _calls(room)
    clock.now += 5
    assert (await overviews.get()).sites is not first.sites
    after = await _calls(room)
    quick = sum(between.values()) - sum(before.values())
    slow = sum(after.values()) - sum(before_sites.values())
    assert quick <= 46, {name: n - before.get(name, 0) for name, n in between.items() if n != before.get(name, 0)}
    assert slow <= quick + 10 * 100
    await overviews.close()


async def test_samples_are_kept_and_an_outage_is_left_out(room: Mailroom) -> None:
    await room.add()
    clock = _Clock()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += seconds
        if len(slept) == 2:
            overviews.get = away  # type: ignore[method-assign]
        if len(slept) == 3:
            overviews.get = real  # type: ignore[method-assign]
        if len(slept) == 4:
            raise EOFError

    async def away(**_: Any) -> Any:
        raise RedisConnectionError

    overviews = Overviews(room.spool, clock=clock, sleep=sleep)
    real = overviews.get
    with pytest.raises(EOFError):
        await overviews.watch((RedisConnectionError,))
    assert [sample.accepted for sample in overviews.samples] == [1, 1, 1]
    assert overviews.samples[-1].depth == {"high": 0, "normal": 1, "low": 0}
    await overviews.close()

"""gauge.py: what limits a lane, held against what the scripts then do."""

from __future__ import annotations

import orjson
import pytest
from mailroom import Lease, Mailroom

from streamq.queue.gauge import gauges, rules_of
from streamq.queue.limits import limit_text, set_limits
from streamq.settings import window

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
LANE = "main|example.net"


async def fill(room: Mailroom, many: int, lane: str = LANE) -> list[str]:
    """So many mails; those that parked."""
    entries = [await room.add() for _ in range(many)]
    await room.read(many=many)
    statuses = await room.admitted(*entries, lane=lane)
    return [entry for entry, status in zip(entries, statuses, strict=True) if status == "parked"]


async def limit(
    room: Mailroom, field: str, *rates: str, layer: str = "settings", connections: int | None = None
) -> None:
    text = limit_text([window(rate) for rate in rates] if rates else None, connections)
    await set_limits(room.spool, layer, {field: text})


@pytest.mark.parametrize("rates", [("10/s",), ("1/s",), ("7/10s", "20/m")])
async def test_the_time_of_every_parked_mail_is_when_it_goes(room: Mailroom, rates: tuple[str, ...]) -> None:
    await limit(room, "*|example.net", *rates)
    await fill(room, 25)
    [gauge] = await gauges(room.spool, [LANE])
    told: list[float | None] = []
    went: list[int] = []
    while (await room.survey()).depth["parked"]:
        told.append(gauge.at_us(len(went) + 1))
        found = await room.release(room=1)
        if found.leases:
            went.append(room.now)
        else:
            room.to(-(-found.next_us // 1000))
        if len(told) > len(went):
            told.pop()
    assert len(went) > 15
    for expected, at in zip(told, went, strict=True):
        assert expected is not None
        assert abs(expected / 1000 - at) <= 2  # ms


async def test_the_least_of_queue_route_and_site_decides(room: Mailroom) -> None:
    await limit(room, "*", "4/s")
    await limit(room, "main", "2/s")
    await limit(room, "main|*", "3/s")
    for lane, rate, target in ((LANE, 2, "main"), ("other|example.net", 4, "*")):
        await room.admitted(*[await added(room) for _ in range(4)], lane=lane)
        [gauge] = await gauges(room.spool, [lane])
        assert gauge.rate == pytest.approx(rate, rel=0.06)
        by = gauge.binding()
        assert by is not None
        assert by.target == target


async def added(room: Mailroom) -> str:
    entry = await room.add()
    await room.read()
    return entry


async def test_nothing_limits(room: Mailroom) -> None:
    [gauge] = await gauges(room.spool, [LANE])
    assert (gauge.open, gauge.rate, gauge.binding(), gauge.at_us(1), gauge.at_us(2)) == (
        True,
        None,
        None,
        room.now * 1000,
        None,
    )
    assert await gauges(room.spool, []) == []


async def test_what_is_closed_opens_when_its_pause_ends(room: Mailroom) -> None:
    await limit(room, "*|*", "1/s")
    await room.scripts.pause("pause", ["*|example.net"], till_us=(room.now + 90_000) * 1000)
    [gauge] = await gauges(room.spool, [LANE])
    assert (gauge.open, gauge.way) == (False, "main")
    assert gauge.opens_us == gauge.at_us(1) == (room.now + 90_000) * 1000
    assert gauge.at_us(11) == pytest.approx((room.now + 100_000) * 1000, rel=1e-9)
    await room.scripts.pause("pause", ["*|example.net"])
    [gauge] = await gauges(room.spool, [LANE])
    assert (gauge.opens_us, gauge.at_us(1)) == (None, None)


async def test_of_several_ways_the_first_that_opens(room: Mailroom) -> None:
    two = "main>other|example.net"
    await room.scripts.pause("pause", ["main"])
    [gauge] = await gauges(room.spool, [two])
    assert (gauge.open, gauge.way) == (True, "other")
    await room.scripts.pause("pause", ["other|example.net"], till_us=(room.now + 5000) * 1000)
    [gauge] = await gauges(room.spool, [two])
    assert (gauge.open, gauge.opens_us) == (False, (room.now + 5000) * 1000)
    await room.scripts.pause("pause", ["main"], hold=True)
    [gauge] = await gauges(room.spool, [two])
    assert (gauge.open, gauge.opens_us) == (False, None)


async def test_until_a_probe_succeeds_nobody_can_tell(room: Mailroom) -> None:
    entry = await added(room)
    found = await room.admit(entry, lane=LANE)
    lease = Lease(entry, found.token, "w1")
    await room.settled("park", lease, lane=LANE, down=True, **{"class": "unreachable"})
    [gauge] = await gauges(room.spool, [LANE])
    assert (gauge.open, gauge.opens_us, gauge.at_us(1)) == (False, (room.now + 1000) * 1000, None)
    assert [(each.name, each.why) for each in gauge.closed] == [("main", "unreachable")]


async def test_a_gauge_takes_nothing(room: Mailroom) -> None:
    await limit(room, "*|*", "1/s")
    for _ in range(3):
        await gauges(room.spool, [LANE])
    assert await room.do("KEYS", room.keys.limit("*")) == []
    assert await room.admitted(await added(room), lane=LANE) == ["go"]


# -- how replies slowed it ---------------------------------------------------------------------------------------


def paced(now_ms: int, rate: float, till_ms: int = 0, tat_ms: int = 0) -> str:
    """As lib/pace.lua keeps it."""
    known = {"rate": rate, "till": f"{till_ms}000", "tat": f"{tat_ms}000", "began": f"{now_ms - 60_000}000"}
    return orjson.dumps(known | {"class": "site_rate", "reply": "421 4.7.0 slower"}).decode()


async def test_the_pace_of_a_site_stands_beside_what_is_set(room: Mailroom) -> None:
    await limit(room, "*|*", "10/s")
    await room.do("HSET", room.keys.limit(LANE), "pace", paced(room.now, 2.0, till_ms=room.now + 5000))
    await room.do("PEXPIRE", room.keys.limit(LANE), 60_000)
    [gauge] = await gauges(room.spool, [LANE])
    by = gauge.binding()
    assert by is not None
    assert by.pace is not None
    assert (by.target, by.pace.klass, by.pace.reply, by.pace.since_ms) == (
        LANE,
        "site_rate",
        "421 4.7.0 slower",
        room.now - 60_000,
    )
    assert by.is_throttled(1, gauge.now_us)
    assert gauge.rate == 2.0
    assert gauge.at_us(11) == pytest.approx((room.now + 10_100) * 1000, abs=100_000)
    [gauge] = await gauges(room.spool, ["other|example.net"])
    assert gauge.binding() is None


async def test_a_pace_that_no_script_wrote_is_none(room: Mailroom) -> None:
    for text in ("", "{", "[]", '"x"', "{}", '{"rate":0}', '{"rate":"x"}', '{"rate":1,"tat":[]}'):
        await room.do("HSET", room.keys.limit(LANE), "pace", text)
        await room.do("PEXPIRE", room.keys.limit(LANE), 60_000)
        [gauge] = await gauges(room.spool, [LANE])
        assert gauge.gauges[2].pace is None


# -- what is set, and by whom ------------------------------------------------------------------------------------


async def test_the_layer_that_says_so(room: Mailroom) -> None:
    await limit(room, "*|*", "9/s", layer="providers")
    await limit(room, "*|example.net", "5/s", layer="settings", connections=4)
    await limit(room, "main|example.net", "2/s", layer="operator", connections=3)
    rules = await rules_of(room.spool, ["main|example.net", "other|example.net", "main|example.org", "main", "*"])
    assert {target: (str(rule), rule.by, rule.connections_by, rule.field) for target, rule in rules.items()} == {
        "main|example.net": ("2/s, 3 at once", "operator", "operator", "main|example.net"),
        "other|example.net": ("5/s, 4 at once", "settings", "settings", "*|example.net"),
        "main|example.org": ("9/s", "providers", "", "*|*"),
        "main": ("", "", "", ""),
        "*": ("", "", "", ""),
    }


async def test_a_limit_that_nobody_of_ours_wrote_is_shown_as_it_stands(room: Mailroom) -> None:
    await room.do("HSET", room.keys.limits, "*|*", "1:5,x:y;cmany", "*|example.net", "")
    rules = await rules_of(room.spool, ["main|example.org", "main|example.net"])
    assert rules["main|example.org"].connections is None
    assert len(rules["main|example.org"].windows) == 1
    assert not rules["main|example.net"]

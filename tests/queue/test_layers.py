"""limits.lua: layers, what holds of them, and what waited for the limits before."""

from __future__ import annotations

import pytest
from mailroom import Mailroom

from streamq.queue.limits import LAYERS, limit_text, look_anew, set_limits, settings_layer
from streamq.queue.scripts import Scripts
from streamq.settings import Settings, window

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]


async def holds(room: Mailroom) -> dict[str, str]:
    flat = await room.do("HGETALL", room.keys.limits)
    return {name.decode(): text.decode() for name, text in zip(flat[::2], flat[1::2], strict=True)}


async def says(room: Mailroom, layer: str) -> dict[str, str]:
    flat = await room.do("HGETALL", room.keys.layer(layer))
    return {name.decode(): text.decode() for name, text in zip(flat[::2], flat[1::2], strict=True)}


async def test_a_later_layer_stands_over_an_earlier_one(room: Mailroom) -> None:
    for number, layer in enumerate(LAYERS, 1):
        assert await set_limits(room.spool, layer, {"*|example.net": f"{number}:1000000"}) == 1
        assert await holds(room) == {"*|example.net": f"{number}:1000000"}
    for number, layer in reversed(list(enumerate(LAYERS))):
        assert await set_limits(room.spool, layer, {"*|example.net": ""}) == 1
        assert await holds(room) == ({"*|example.net": f"{number}:1000000"} if number else {})


async def test_in_whatever_order_they_come(room: Mailroom) -> None:
    await set_limits(room.spool, "operator", {"main": "9:1000000"})
    assert await set_limits(room.spool, "providers", {"main": "5:1000000"}) == 0
    assert await holds(room) == {"main": "9:1000000"}


async def test_each_part_is_set_by_itself(room: Mailroom) -> None:
    await set_limits(room.spool, "settings", {"*|example.net": "5:1000000;c3"})
    await set_limits(room.spool, "operator", {"*|example.net": ";c2"})
    assert await holds(room) == {"*|example.net": "5:1000000;c2"}
    await set_limits(room.spool, "operator", {"*|example.net": "-"})
    assert await holds(room) == {"*|example.net": ";c3"}
    await set_limits(room.spool, "operator", {"*|example.net": "-;c0"})
    assert await holds(room) == {"*|example.net": ""}


async def test_a_change_leaves_the_other_fields_of_its_layer(room: Mailroom) -> None:
    await set_limits(room.spool, "operator", {"*|a.example": "1:1000000", "*|b.example": "2:1000000"})
    await set_limits(room.spool, "operator", {"*|b.example": "3:1000000"})
    assert await says(room, "operator") == {"*|a.example": "1:1000000", "*|b.example": "3:1000000"}
    assert await set_limits(room.spool, "operator", {"*|c.example": "4:1000000"}, whole=True) == 3
    assert await says(room, "operator") == await holds(room) == {"*|c.example": "4:1000000"}
    assert await set_limits(room.spool, "operator", {}, whole=True) == 1
    assert not await room.do("EXISTS", room.keys.limits, room.keys.layer("operator"))


@pytest.mark.parametrize(
    ("said", "field", "rule"),
    [
        ({"*|*": "5:1000000", "*|a.example": ";c2"}, "*|a.example", "5:1000000;c2"),
        ({"*|*": "5:1000000;c9", "*|a.example": "-"}, "*|a.example", ";c9"),
        ({"*|*": "5:1000000;c9", "*|a.example": "7:1000000;c0"}, "*|a.example", "7:1000000"),
        ({"*|a.example": "5:1000000", "main|*": ";c4", "main|a.example": "-"}, "main|a.example", ";c4"),
        ({"*|a.example": "5:1000000;c3", "main|*": ";c4", "main|a.example": "-"}, "main|a.example", ";c3"),
        # What a site leaves open comes of the route: nobody named the two together.
        ({"*|a.example": "5:1000000", "main|*": "6:1000000;c4"}, "main|a.example", "5:1000000;c4"),
        ({"*|a.example": "5:1000000;c3", "main|*": "6:1000000;c4"}, "main|a.example", None),
        # Limits of the queue and of a route hold beside those of sites: nothing is inherited.
        ({"*": "5:1000000", "main": "4:1000000", "main|*": ";c1"}, "main|*", ";c1"),
    ],
)
async def test_what_nobody_sets_for_a_site_is_inherited(
    room: Mailroom, said: dict[str, str], field: str, rule: str | None
) -> None:
    await set_limits(room.spool, "settings", said)
    assert (await holds(room)).get(field) == rule


async def test_an_unknown_layer_changes_nothing(room: Mailroom) -> None:
    with pytest.raises(Exception, match="no layer mine"):
        await room.scripts.limits("set", "mine", {"*": "1:1000000"})
    assert not await room.do("EXISTS", room.keys.limits, room.keys.layer("mine"))


# -- what waits -------------------------------------------------------------------------------------------------------


async def wait_of(room: Mailroom, lane: str) -> int:
    """ms until the lane's next slot."""
    score = await room.do("ZSCORE", room.keys.due("normal"), lane)
    return int(float(score)) // 1000 - room.now


async def waiting(room: Mailroom, lane: str) -> None:
    entries = [await room.add() for _ in range(2)]
    await room.read()
    await room.admit(*entries, lane=lane)
    assert await wait_of(room, lane) > 50_000


async def test_what_waited_for_the_old_limit_is_looked_at_anew(room: Mailroom) -> None:
    await set_limits(room.spool, "settings", {"*|*": "1:60000000"})
    lanes = ("main|a.example", "main|b.example", "other>main|a.example")
    for lane in lanes:
        await waiting(room, lane)
    await set_limits(room.spool, "operator", {"main|a.example": "600:60000000"})
    assert [await wait_of(room, lane) > 0 for lane in lanes] == [False, True, False]
    assert await room.do("XLEN", room.keys.bell) == 1  # whoever sleeps until the old time


async def test_a_change_that_changes_nothing_wakes_nobody(room: Mailroom) -> None:
    await set_limits(room.spool, "settings", {"*|*": "1:60000000"})
    await room.do("DEL", room.keys.bell)
    await room.spool.open()
    await waiting(room, "main|a.example")
    assert await set_limits(room.spool, "settings", {"*|*": "1:60000000"}, whole=True) == 0
    assert await wait_of(room, "main|a.example") > 50_000
    assert await room.do("XLEN", room.keys.bell) == 0


async def sleeping(room: Mailroom, many: int) -> None:
    later = str((room.now + 60_000) * 1000)
    for name in ("high", "normal"):
        pairs = [part for number in range(many) for part in (later, f"main|{number}.example")]
        await room.do("ZADD", room.keys.due(name), *pairs)


async def awake(room: Mailroom) -> int:
    return sum([await room.do("ZCOUNT", room.keys.due(name), 0, room.now * 1000) for name in ("high", "normal")])


async def test_many_lanes_are_looked_at_in_bounded_steps(room: Mailroom) -> None:
    await sleeping(room, 5000)
    try:
        changed, left = await room.scripts.limits("change", "operator", {"*|*": "1:1000000"})
        assert (changed, left) == (1, True)
        some = await awake(room)
        assert 0 < some < 2500
        # A worker that ended here leaves the rest to another one; a second change meanwhile is looked for, too.
        await room.scripts.limits("change", "operator", {"*|0.example": "2:1000000"})
        await look_anew(room.spool)
        assert await awake(room) == 10_000
        assert not await room.do("HEXISTS", room.keys.meta, "look")
        assert await room.scripts.limits("look") == (0, False)
    finally:
        await room.do("DEL", room.keys.due("high"), room.keys.due("normal"))


async def test_many_changed_fields_look_at_every_lane(room: Mailroom) -> None:
    await sleeping(room, 10)
    try:
        rows = {f"*|other{number}.example": "1:1000000" for number in range(200)}
        assert await set_limits(room.spool, "own", rows) == 200
        assert await awake(room) == 20
    finally:
        await room.do("DEL", room.keys.due("high"), room.keys.due("normal"))


async def test_ten_thousand_fields_are_taken(room: Mailroom) -> None:
    rows = {f"*|d{number}.example": "1:1000000;c2" for number in range(10_000)}
    assert await set_limits(room.spool, "own", rows, whole=True) == 10_000
    assert len(await holds(room)) == 10_000


async def test_a_full_memory_keeps_no_operator_from_a_limit(room: Mailroom) -> None:
    await room.do("CONFIG", "SET", "maxmemory", "1")
    assert await set_limits(room.spool, "operator", {"*|a.example": "1:1000000"}) == 1
    assert await holds(room) == {"*|a.example": "1:1000000"}


# -- what the settings say --------------------------------------------------------------------------------------------


def test_values() -> None:
    assert limit_text() == ""
    assert limit_text([window("50/s"), window("60000/h")]) == "50:1000000,60000:3600000000"
    assert limit_text([], 0) == "-;c0"
    assert limit_text(None, 5) == ";c5"
    assert limit_text([window("50/s")], 5) == "50:1000000;c5"


def test_what_the_settings_say() -> None:
    assert settings_layer(Settings.model_validate({})) is None
    assert settings_layer(Settings.model_validate({"sites": {}})) == {}
    said = {
        "limits": {"rate": "100/s"},
        "routes": {"main": {"url": "smtp://h", "rate": []}, "other": {"url": "smtp://h"}},
        "sites": {"*": {"rate": "2/s"}, "free.example": {"rate": [], "connections": 0}, "as.usual": {}},
    }
    assert settings_layer(Settings.model_validate(said)) == {
        "*": "100:1000000",
        "main": "-",
        "*|*": "2:1000000",
        "*|free.example": "-;c0",
        "*|as.usual": "",
    }


async def test_the_stub_says_what_it_did(room: Mailroom) -> None:
    stubs: Scripts = room.scripts
    assert await stubs.limits("set", "settings", {"*": "1:1000000", "main": "2:1000000"}) == (2, False)

"""Sites that put mails off, or fail: by the newest events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mailroom import Mailroom

from streamq.queue.connection import command
from streamq.queue.sites import site_views
from streamq.queue.troubles import LATELY_MS, Trouble, Troubles

pytestmark = pytest.mark.leaves_mail


class _Said:
    """Events as scripts write them, by a clock that the test turns."""

    def __init__(self, room: Mailroom, now_ms: int) -> None:
        self.room, self.now_ms, self.nth = room, now_ms, 0

    async def __call__(self, kind: str, entry: str, site: str, **more: Any) -> None:
        self.nth += 1
        data = json.dumps({"entry": entry, "site": site, "route": "relay", **more})
        known = ("type", f"email.{kind}", "id", entry, "data", data)
        await self.room.do("XADD", self.room.keys.events, f"{self.now_ms}-{self.nth}", *known)


async def test_a_site_that_defers_everything_is_known_until_its_mails_went(room: Mailroom) -> None:
    said = _Said(room, 10_000_000)
    of = Troubles(room.spool)
    for nth in range(3):
        more = {"class": "greylisted", "reply": f"450 no {nth}", "next_attempt_at": said.now_ms + 3_600_000 + nth}
        await said("deferred", f"1{nth}-0", "a.example", **more)
        await said("relayed", f"2{nth}-0", "good.example")
    expected = Trouble("a.example", "relay", 3, 3, "greylisted", "450 no 2", 1000, 3_599_000)
    assert await of.of(said.now_ms + 1000) == [expected]
    # its mails wait longer than anybody calls lately
    later = said.now_ms + LATELY_MS + 1000
    [found] = await of.of(later)
    assert (found.tried, found.failed, found.next_ms) == (3, 3, 3_600_000 - LATELY_MS - 1000)
    said.now_ms = later
    await said("relayed", "10-0", "a.example")
    await said("cancelled", "11-0", "a.example")
    [found] = await of.of(later)
    assert (found.tried, found.failed, found.next_ms) == (1, 0, 3_600_002 - LATELY_MS - 1000)
    assert found.words == "no attempt failed lately"
    await said("relayed", "12-0", "a.example")
    assert await of.of(later) == []


async def test_what_has_been_due_for_long_is_waited_for_no_more(room: Mailroom) -> None:
    """What became of it may be among the events that nobody looked at."""
    said = _Said(room, 10_000_000)
    of = Troubles(room.spool)
    for nth, wait in enumerate((1000, 90_000)):
        await said("deferred", f"1{nth}-0", "a.example", reply="450 no", next_attempt_at=said.now_ms + wait)
    known = []
    for later in (0, 2000, 100_000, 150_001):
        known += [each.next_ms for each in await of.of(said.now_ms + later)]
    assert known == [1000, 88_000, 0]


async def test_a_site_that_bounces_much_is_in_trouble_though_nothing_waits(room: Mailroom) -> None:
    said = _Said(room, 10_000_000)
    for nth in range(8):
        await said("bounced" if nth % 2 else "relayed", f"1{nth}-0", "half.example", reply="550 no")
        await said("relayed" if nth % 4 else "bounced", f"2{nth}-0", "some.example", reply="550 no")
    await said("bounced", "30-0", "few.example", reply="550 no")
    [found] = await Troubles(room.spool).of(said.now_ms)
    assert (found.site, found.tried, found.failed, found.next_ms) == ("half.example", 8, 4, None)
    assert found.words == "50 % of the attempts failed"
    assert await Troubles(room.spool).of(said.now_ms + LATELY_MS + 1) == []


async def test_what_an_operator_bounced_is_no_trouble_of_its_site(room: Mailroom) -> None:
    said = _Said(room, 10_000_000)
    for nth in range(8):
        await said("deferred", f"1{nth}-0", "a.example", next_attempt_at=said.now_ms + 60_000)
        await said("bounced", f"1{nth}-0", "a.example", **({"asked": "bounce"} if nth % 2 else {"class": "operator"}))
        await said("bounced", f"2{nth}-0", "good.example", **{"class": "operator"})
    for nth in range(9):
        await said("relayed", f"3{nth}-0", "a.example")
    assert await Troubles(room.spool).of(said.now_ms) == []


async def test_what_is_read_is_bounded_and_nothing_twice(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.queue.troubles.FIRST", 4)
    monkeypatch.setattr("streamq.queue.troubles.MOST", 2)
    said = _Said(room, 10_000_000)
    of = Troubles(room.spool)
    for expected, more in ((4, 9), (6, 3), (7, 1), (7, 0)):
        for nth in range(more):
            await said("deferred", f"1{said.nth}-0", "a.example", next_attempt_at=said.now_ms + 9 + nth)
        [found] = await of.of(said.now_ms)
        assert found.tried == expected
        assert found.words == f"all of the {expected} attempts seen failed"  # there were more
    said.now_ms += LATELY_MS + 1
    await said("deferred", "20-0", "a.example", next_attempt_at=said.now_ms + 9)
    [found] = await of.of(said.now_ms)
    assert (found.tried, found.words) == (1, "all attempts failed")  # what was not seen is too old by now


async def test_all_is_said_where_all_was_seen(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    said = _Said(room, 10_000_000)
    await said("deferred", "10-0", "a.example", next_attempt_at=said.now_ms + 10 * LATELY_MS)
    of = Troubles(room.spool)
    assert [each.words for each in await of.of(said.now_ms)] == ["all attempts failed"]
    for later in (LATELY_MS + 1, 2 * LATELY_MS):  # older attempts than these are not counted, those that wait are
        assert [each.words for each in await of.of(said.now_ms + later)] == ["the one attempt seen failed"]
    monkeypatch.setattr("streamq.queue.troubles.FIRST", 1)
    assert [each.words for each in await Troubles(room.spool).of(said.now_ms)] == ["the one attempt seen failed"]


async def test_sites_have_rows_of_their_trouble(room: Mailroom) -> None:
    """One that has a row anyway, one that has none; what somebody else wrote into the stream harms nobody."""
    seconds, _ = await room.do("TIME")
    room.to(int(seconds) * 1000)
    for site in ("paused.example", "new.example"):
        lease = await room.lease(lane=f"relay|{site}", to=f"bob@{site}")
        tail = json.dumps({"site": site, "route": "relay", "class": "greylisted", "code": 450, "reply": "wait"})[
            1:-1
        ].encode()
        arg: dict[str, Any] = {"class": "greylisted", "reply": "450 wait", "wait": 60_000}
        assert await room.settled("defer", lease, lane=f"relay|{site}", tail=tail, **arg) == "ok"
    await room.scripts.pause("pause", ["*|paused.example"])
    await command(room.spool.redis, "XADD", room.keys.events, "*", "type", "email.deferred", "data", "[]")
    views, _ = await site_views(room.spool)
    assert [(view.target, view.trouble and view.trouble.reply) for view in views] == [
        ("*|paused.example", "450 wait"),
        ("relay|new.example", "450 wait"),
    ]
    [view], _ = await site_views(room.spool, "new.example")
    assert view.gauge is not None
    assert view.trouble is not None

"""What became of mails in the last minutes, by the queue's own counts and, at first, by its events."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from mailroom import Mailroom

from streamq.queue import lately
from streamq.queue.lately import Recent
from streamq.queue.look import Status, status

pytestmark = pytest.mark.leaves_mail
SECOND = 1000


async def _ended(room: Mailroom, sent: int = 0, bounced: int = 0, deferred: int = 0, reply: str = "550 no") -> None:
    for _ in range(sent):
        assert await room.settled("sent", await room.lease()) == "ok"
    for _ in range(bounced):
        known: dict[str, Any] = {"class": "bad_address", "reply": reply, "reason": reply}
        tail = f'"class":"bad_address","reply":{json.dumps(reply)}'.encode()
        assert await room.settled("dead", await room.lease(), tail=tail, **known) == "ok"
    for _ in range(deferred):
        tail = b'"class":"greylisted","reply":"450 later"'
        assert await room.settled("defer", await room.lease(), tail=tail) == "ok"


async def _now(room: Mailroom, after_s: float = 0) -> Status:
    seen = await status(room.spool)
    seconds, micros = await room.do("TIME")  # of the server, as the ids of events are: the room's clock stands
    return replace(seen, now_ms=int(seconds) * SECOND + int(micros) // SECOND + round(after_s * SECOND))


async def test_who_begins_to_look_knows_of_the_minutes_before(room: Mailroom) -> None:
    await _ended(room, sent=4, bounced=3, deferred=2)
    found = await Recent(room.spool).of(await _now(room))
    assert (found.sent, found.bounced, found.deferred, found.tries) == (4, 3, 2, 9)
    assert found.classes == {"bad_address": 3, "greylisted": 2}
    assert found.commonest == ("bad_address", 3, "550 no")
    assert found.span_ms == 300_000


async def test_who_began_to_look_still_knows_of_them_later(room: Mailroom) -> None:
    await _ended(room, sent=4, bounced=3)
    recent = Recent(room.spool)
    for after in (0, 20, 280):
        found = await recent.of(await _now(room, after))
        assert (found.sent, found.classes) == (4, {"bad_address": 3})
        assert 300_000 <= found.span_ms <= 310_000


async def test_what_is_older_than_minutes_is_over(room: Mailroom) -> None:
    await _ended(room, bounced=3)
    recent = Recent(room.spool)
    assert (await recent.of(await _now(room))).bounced == 3
    for after in range(10, 320, 10):
        found = await recent.of(await _now(room, after))
    assert (found.bounced, found.classes, found.replies) == (0, {}, {})
    assert 300_000 <= found.span_ms <= 320_000
    await _ended(room, sent=1)
    assert (await recent.of(await _now(room, 311))).outcomes == {"relayed": 1}
    # and who has not looked for an hour knows no more than the events say
    found = await recent.of(await _now(room, 4000))
    assert (found.tries, found.span_ms) == (0, 300_000)


async def test_no_more_events_are_read_than_so_many(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    """The span is then as long as they go back."""
    monkeypatch.setattr(lately, "SEEDED", 5)
    await _ended(room, sent=3, bounced=4)
    found = await Recent(room.spool).of(await _now(room, 1))
    assert (found.sent, found.bounced) == (1, 4)
    assert 1000 <= found.span_ms < 60_000


async def test_replies_are_read_while_something_fails(room: Mailroom) -> None:
    recent = Recent(room.spool)
    assert (await recent.of(await _now(room))).commonest == ("", 0, "")
    await _ended(room, bounced=1, reply="550 first")
    assert (await recent.of(await _now(room, 6))).commonest == ("bad_address", 1, "550 first")
    await _ended(room, bounced=1, reply="550 second" * 100)
    found = await recent.of(await _now(room, 7))  # five seconds are not over
    assert found.commonest == ("bad_address", 2, "550 first")
    found = await recent.of(await _now(room, 12))
    assert found.commonest[2].startswith("550 second")
    assert len(found.commonest[2]) == 200
    calls = await _reads(room)
    await _ended(room, sent=3)
    assert (await recent.of(await _now(room, 30))).sent == 3
    assert await _reads(room) == calls


async def test_a_reply_is_told_with_its_code(room: Mailroom) -> None:
    tail = b'"class":"mailbox_full","code":452,"reply":"4.2.2 full"'
    known: dict[str, Any] = {"class": "mailbox_full", "reason": "full"}
    assert await room.settled("dead", await room.lease(), tail=tail, **known) == "ok"
    assert (await Recent(room.spool).of(await _now(room))).commonest == ("mailbox_full", 1, "452 4.2.2 full")


async def test_the_only_site_that_fails_is_named(room: Mailroom) -> None:
    """Until another one does, or something without a site."""
    for second in (b"b.example", b""):
        recent = Recent(room.spool)
        found = []
        for after, sites in ((0, [b"a.example"]), (6, [b"a.example"]), (12, [b"a.example", second])):
            for site in sites:
                tail = b'"class":"mailbox_full","site":"%s"' % site
                assert await room.settled("defer", await room.lease(), tail=tail) == "ok"
            found.append((await recent.of(await _now(room, after))).site)
        assert found == ["a.example", "a.example", ""]
        assert (await recent.of(await _now(room, 330))).site == ""
        await room.do("DEL", room.keys.events)


async def test_what_an_operator_bounced_is_nobody_s_failure(room: Mailroom) -> None:
    recent = Recent(room.spool)
    await recent.of(await _now(room))
    for _ in range(3):
        await room.moved("bounce", await room.scheduled(to="bob@good.example"))
    lease = await room.lease()
    await room.moved("bounce", lease.entry)
    assert await room.settled("defer", lease, tail=b'"class":"temporary","site":"good.example"') == "bounced"
    for looks in (recent, Recent(room.spool)):
        found = await looks.of(await _now(room, 6))
        assert (found.tries, found.classes, found.site) == (0, {}, "")
    await _ended(room, bounced=1)
    for looks in (recent, Recent(room.spool)):
        found = await looks.of(await _now(room, 12))
        assert (found.bounced, found.classes) == (1, {"bad_address": 1})
    assert await room.count("total:bounced") == 5


async def test_what_was_seen_in_part_is_said_to_be(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    """More events than are read came between two looks: others may have failed, too."""
    monkeypatch.setattr(lately, "REPLIES", 3)
    recent = Recent(room.spool)
    found = []
    for after, many in ((0, 1), (6, 2), (12, 4), (18, 1), (24, 1), (400, 1)):
        for _ in range(many):
            tail = b'"class":"mailbox_full","site":"a.example"'
            assert await room.settled("defer", await room.lease(), tail=tail) == "ok"
        found.append((await recent.of(await _now(room, after))).sampled)
    assert found == [False, False, True, True, True, False]


async def test_after_thousands_nothing_is_delivered_any_more(room: Mailroom) -> None:
    """Unread mail that nobody reads, while outcomes look well for minutes."""
    await _ended(room, sent=4)
    await room.add()
    recent, seen = Recent(room.spool), await _now(room)
    later = [_later(seen, seconds) for seconds in (0, 5, 10, 15, 20)]
    found = [await recent.of(each) for each in later]
    assert [each.stalled_ms for each in found] == [0, 5000, 10_000, 15_000, 20_000]
    assert found[1].sent == 4
    assert (await recent.of(_later(seen, 30), barred=True)).stalled_ms == 0  # it waits for a limit
    more = replace(seen, totals=seen.totals | {"relayed": 5})
    assert (await recent.of(_later(more, 35))).stalled_ms == 0
    assert (await recent.of(_later(more, 40))).stalled_ms == 5000


async def test_what_piles_up_is_told_by_what_leaves(room: Mailroom) -> None:
    recent, seen = Recent(room.spool), await _now(room)
    found = []
    for nth in range(14):
        depth = {"low": seen.depth["low"] | {"waiting": 50 * nth}}
        totals = {"relayed": 10 * nth, "deferred": 90 * nth}
        found.append((await recent.of(replace(_later(seen, 10 * nth), depth=depth, totals=totals))).leaves)
    assert found == [*[None] * 12, 1.0, 1.0]


def _later(seen: Status, seconds: int) -> Status:
    """The same, so much later: what waits is older."""
    ms = seconds * SECOND
    aged = {name: {state: age + ms for state, age in ages.items()} for name, ages in seen.aged_ms.items()}
    return replace(seen, now_ms=seen.now_ms + ms, aged_ms=aged)


async def _reads(room: Mailroom) -> int:
    text: bytes = await room.do("INFO", "commandstats")
    rows = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
    return int(rows["cmdstat_xrevrange"].split(",")[0].removeprefix("calls="))


async def test_a_queue_that_was_flushed_begins_anew(room: Mailroom) -> None:
    recent = Recent(room.spool)
    await _ended(room, sent=3)
    assert (await recent.of(await _now(room))).sent == 3
    await room.do("FLUSHDB")
    await room.spool.open()
    assert (await recent.of(await _now(room, 1))).tries == 0
    await _ended(room, sent=2)
    assert (await recent.of(await _now(room, 2))).sent == 2


async def test_events_of_somebody_else_stop_nobody(room: Mailroom) -> None:
    for kind, data in (("x", b"{"), ("email.bounced", b"[]"), ("email.bounced", b'{"class": 7, "reply": ["a"]}')):
        await room.do("XADD", room.keys.events, "*", "type", kind, "data", data)
    await room.do("XADD", room.keys.events, "*", "other", "1")
    assert (await Recent(room.spool).of(await _now(room))).tries == 0

"""Reports in the scripts of their outcomes: both or none, at most so many to a sender and to all."""

from __future__ import annotations

from typing import Any

import pytest
from mailroom import Lease, Mailroom
from telling import TOLD, brought, fields_of, reports

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]

# -- with the end of an attempt ---------------------------------------------------------------------------------------


async def test_a_dead_letter_and_its_report_come_together(room: Mailroom) -> None:
    lease = await room.lease(**TOLD)
    assert await room.settled("dead", lease, report=brought()) == "ok"
    (entry,) = await reports(room)
    event = (await room.events())[-1]
    assert (event.kind, event.data["entry"], event.data["report"]) == ("email.bounced", lease.entry, entry)
    assert await fields_of(room, entry) == {
        b"raw": b"Subject: report\r\n\r\n",
        b"envelope_from": b"<>",
        b"envelope_to": b"bounces@example.com",
    }
    ((_, letter),) = await room.letters()
    assert letter["dead_class"] == "bad_address"
    assert (await room.count("total:reported"), await room.count("total:report_capped")) == (1, 0)


async def test_whoever_lost_the_lease_brings_none(room: Mailroom) -> None:
    lease = await room.lease(**TOLD)
    await room.silent(lease.entry, "w1")
    await room.reclaim()
    assert await room.settled("dead", lease, report=brought()) == "fenced"
    assert await room.settled("dead", Lease(lease.entry, lease.token + 1, "w2"), report=brought()) == "ok"
    assert len(await reports(room)) == 1


async def test_none_for_what_was_sent_or_is_gone(room: Mailroom) -> None:
    sent, gone = await room.lease(**TOLD), await room.lease(**TOLD, lane="main|b.example")
    await room.do("HSET", room.keys.notes, sent.entry, '{"sent":""}')
    await room.do("XDEL", room.keys.stream("normal"), gone.entry[1:])
    assert await room.settled("dead", sent, report=brought()) == "ok"
    await room.settled("dead", gone, report=brought())
    assert await reports(room) == []
    assert (await room.kinds())[-1] == "email.relayed"


async def test_what_the_breaker_keeps_back_has_none_yet(room: Mailroom) -> None:
    await room.lease("high", lane="main|other.example")  # a token, so that the mark is above the mail's
    lease = await room.lease(**TOLD)
    closed = f'{{"down":1,"till":"{(room.now + 1000) * 1000}","since":"1","class":"breaker","of":"policy","mark":99}}'
    await room.do("HSET", room.keys.pauses, "main", closed)
    assert await room.settled("dead", lease, text="no", report=brought(), **{"class": "policy"}) == "parked"
    assert await reports(room) == []


async def test_a_stream_that_takes_no_more_holds_nothing_up(room: Mailroom) -> None:
    """Somebody gave its last entry the greatest id that there is."""
    greatest = f"{2**64 - 1}-{2**64 - 1}"
    await room.do("XADD", room.keys.stream("low"), greatest, "to", "bob@example.net")
    lease = await room.lease(**TOLD)
    assert await room.settled("dead", lease, report=brought()) == "ok"
    event = (await room.events())[-1]
    assert (event.kind, "report" in event.data) == ("email.bounced", False)
    assert await room.count("total:report_failed") == 1


# -- at most so many --------------------------------------------------------------------------------------------------


async def bounce(room: Mailroom, **known: Any) -> bool:
    """One more mail dies; whether its report went."""
    lease = await room.lease(**TOLD | {"id": ""}, lane=f"main|{room.now}.{known.get('to', '')[:1]}.example")
    assert await room.settled("dead", lease, report=brought(**known)) == "ok"
    return "report" in (await room.events())[-1].data


async def test_in_no_window_more_than_so_many(room: Mailroom) -> None:
    """Of any phase; and none is kept back that the rule would let go. Those that come together go together."""
    went: list[int] = []
    steps = (0, 0, 100, 300, 500, 99, 1, 1, 400, 600, 1, 0, 998, 1, 1, 2000, 0, 0, 0)
    for step in steps:
        room.tick(step)
        of_late = [at for at in went if room.now - at < 1000]
        assert await bounce(room, most=3, window=1000) == (len(of_late) < 3)
        if len(of_late) < 3:
            went.append(room.now)
    assert went[:3] == [went[0], went[0], went[0] + 100]
    assert 3 < len(went) == len(await reports(room)) < len(steps)
    assert await room.count("total:report_capped") == len(steps) - len(went)


async def test_the_cap_is_each_sender_s_own(room: Mailroom) -> None:
    assert await bounce(room, most=1)
    assert not await bounce(room, most=1)
    assert not await bounce(room, most=1, to="Bounces@EXAMPLE.com")  # the same one, as receivers have it
    assert await bounce(room, most=1, to="other@example.com")


async def test_all_senders_together_have_a_cap(room: Mailroom) -> None:
    """A thousand forged senders get no thousand reports; what that one keeps back counts for no sender."""
    whole = {"most": 3, "window": 1000}
    went = [await bounce(room, to=f"{name}@example.com", most=2, window=9000, all=whole) for name in "abcd"]
    assert went == [True, True, True, False]
    assert await room.count("total:report_capped") == 1
    room.tick(1000)
    assert [await bounce(room, to="d@example.com", most=2, window=9000, all=whole) for _ in range(3)] == [
        True,
        True,
        False,
    ]
    assert await bounce(room, to="a@example.com", most=2, window=9000, all=whole)
    assert not await bounce(room, to="b@example.com", most=2, window=9000, all=whole)
    key = room.keys.prefix + "reports:all"
    assert await room.do("LLEN", key) == 3
    assert 0 < await room.do("PTTL", key) <= 1000


async def test_what_is_remembered_of_a_sender_goes(room: Mailroom) -> None:
    for _ in range(5):
        await bounce(room, most=2, window=60_000)
        room.tick(60_000)
    (key,) = await room.do("KEYS", room.keys.prefix + "reports:*")
    assert b"bounces" not in key
    assert await room.do("LLEN", key) == 2
    assert 0 < await room.do("PTTL", key) <= 60_000


# -- where nobody knew that it would end ------------------------------------------------------------------------------


# -- as Python brings them --------------------------------------------------------------------------------------------

"""Reports asked for where nobody knew that a mail would end: a deferral, a sweep, an operator; warnings of a delay."""

from __future__ import annotations

import orjson
import pytest
from conftest import MakeSpool
from mailroom import DAY, Lease, Mailroom, ident
from telling import AGES, TOLD, brought, fields_of, reports, telling

from streamq.queue.reports import NOBODY
from streamq.queue.rows import ChildRow, ResettleRow, SettleRow
from streamq.queue.scripts import why
from streamq.queue.steer import apply

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]


async def test_the_time_that_is_over_at_a_deferral(room: Mailroom) -> None:
    await telling(room)
    lease = await room.lease(**TOLD)
    before = await room.kinds()
    assert await room.settled("defer", lease, deadline=room.now, code=451) == "expiring"
    assert (await room.state(lease.entry), await room.kinds()) == ("leased", before)
    notes = await room.notes(lease.entry)
    assert (notes["attempts"], notes["code"], notes["last"]) == (1, 451, room.now)
    end = why(reason="too old", report=brought(), **{"class": "expired"})
    row = SettleRow("dead", lease.entry, lease.token, "", "a1", "email.expired", b"", end)
    assert (await room.scripts.settle("w1", [row])).statuses == ["ok"]
    assert len(await reports(room)) == 1
    ((_, letter),) = await room.letters()
    assert (letter["dead_class"], letter["attempts"], letter["last_reply"]) == ("expired", "1", "450 no")
    assert (await room.survey()).leases == {}


@pytest.mark.parametrize("op", ["defer", "park", "hold"])
async def test_an_operator_s_wish_at_the_end_of_an_attempt(room: Mailroom, op: str) -> None:
    await telling(room)
    lease = await room.lease(**TOLD)
    assert await room.moved("bounce", lease.entry) == ["intended"]
    assert await room.settled(op, lease) == "bouncing"
    assert await room.state(lease.entry) == "leased"
    assert await room.do("HGET", room.keys.holds, f"intent:{lease.entry}") == b"bounce"  # whoever has it next hears it
    assert await room.settled("dead", lease, lane="", report=brought(), **{"class": "operator"}) == "ok"
    assert len(await reports(room)) == 1
    assert await room.do("EXISTS", room.keys.holds) == 0


async def test_a_worker_that_died_between_the_two_calls(room: Mailroom) -> None:
    """Neither dead letter nor report; the next one is asked again."""
    await telling(room)
    lease = await room.lease(**TOLD)
    await room.moved("bounce", lease.entry)
    assert await room.settled("defer", lease) == "bouncing"
    await room.silent(lease.entry, "w1")
    taken = await room.reclaim()
    assert ([entry for entry, *_ in taken.leases], await reports(room), await room.letters()) == ([lease.entry], [], [])
    found = await room.admit(lease.entry, consumer="w2")
    assert [status for status, *_ in found.statuses] == ["bouncing"]
    again = Lease(lease.entry, found.token, "w2")
    assert await room.settled("dead", again, lane="", report=brought(), **{"class": "operator"}) == "ok"
    assert len(await reports(room)) == len(await room.letters()) == 1


async def test_admission_leases_what_is_to_end(room: Mailroom) -> None:
    await telling(room)
    old, asked = await room.add(**TOLD), await room.add(**TOLD | {"id": "a2"})
    await room.do("HSET", room.keys.holds, "id:a2", "bounce")
    await room.read()
    found = await room.admit(
        room.row(old, deadline=room.now, seen=ident("a1")), room.row(asked, id="a2", seen=ident("a2"))
    )
    assert [status for status, *_ in found.statuses] == ["expiring", "bouncing"]
    assert (await room.survey()).leases == {old: ("w1", found.token), asked: ("w1", found.token)}
    assert await room.do("HGETALL", room.keys.holds) == [f"intent:{asked}".encode(), b"bounce"]
    assert await room.letters() == []


async def test_what_vanishes_on_its_way_to_its_end_is_lost(room: Mailroom) -> None:
    await telling(room)
    entry = await room.add(**TOLD)
    await room.read()
    await room.do("XGROUP", "SETID", room.keys.stream("normal"), "streamq", entry[1:])
    found = await room.admit(entry, deadline=room.now)
    await room.do("XDEL", room.keys.stream("normal"), entry[1:])
    end = SettleRow(
        "dead",
        entry,
        found.token,
        "",
        "a1",
        "email.expired",
        b"",
        why(reason="x", report=brought(), **{"class": "expired"}),
    )
    assert (await room.scripts.settle("w1", [end])).statuses == ["ok"]
    assert (await reports(room), await room.letters()) == ([], [])


@pytest.mark.parametrize("state", ["waiting", "parked", "held"])
async def test_the_sweep_asks_before_it_ends_a_mail(room: Mailroom, state: str) -> None:
    await telling(room)
    told = await room.in_state(state, **TOLD)
    quiet = await room.in_state(state, **TOLD | {"id": "a2", "envelope_from": ""})
    room.tick(5 * DAY)
    assert await room.scripts.expire(AGES) == (1, "", [told])
    assert await room.states() == {told: state}
    assert (await room.events())[-1].data["entry"] == quiet
    assert await room.scripts.expire(AGES) == (0, "", [told])
    assert await room.scripts.expire(AGES, "", {told: orjson.dumps(brought())}) == (1, "", [])
    (entry,) = await room.states()
    assert (await room.events())[-1].data["report"] == entry
    assert await room.scripts.expire(AGES) == (0, "", [])


async def test_own_deadlines_are_asked_for_too(room: Mailroom) -> None:
    await telling(room)
    entry = await room.add(**TOLD)
    await room.read()
    over = room.now + 5000
    await room.admit(entry, due=room.now + 9000, deadline=over, expires=over)
    room.tick(5000)
    assert await room.scripts.expire(AGES) == (0, "", [entry])
    assert await room.scripts.expire(AGES, "", {entry: NOBODY}) == (1, "", [])
    assert (await reports(room), len(await room.letters())) == ([], 1)


async def test_the_sweep_is_bounded_by_what_it_asks_for(room: Mailroom) -> None:
    await telling(room)
    entries = [await room.held(**TOLD | {"id": f"a{n}"}) for n in range(60)]
    room.tick(5 * DAY)
    ended, _, due = await room.scripts.expire(AGES)
    assert (ended, len(due), set(due) < set(entries)) == (0, 50, True)
    ended, _, more = await room.scripts.expire(AGES, "", dict.fromkeys(due, NOBODY))
    assert (ended, more) == (50, [])
    assert sorted((await room.scripts.expire(AGES))[2]) == sorted(set(entries) - set(due))


@pytest.mark.parametrize("state", ["waiting", "parked", "scheduled", "held"])
async def test_an_operator_s_bounce_asks_first(room: Mailroom, state: str) -> None:
    await telling(room)
    entry = await room.in_state(state, **TOLD)
    before = await room.kinds()
    assert await room.moved("bounce", entry) == ["report"]
    assert (await room.state(entry), await room.kinds()) == (state, before)
    done = await room.scripts.move("bounce", [entry], None, {entry: orjson.dumps(brought())})
    assert done.statuses == ["bounced"]
    (report,) = await room.states()
    assert (await room.events())[-1].data["report"] == report


async def test_a_cancel_tells_nobody(room: Mailroom) -> None:
    await telling(room)
    assert await room.moved("cancel", await room.held(**TOLD)) == ["cancelled"]
    assert await reports(room) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"envelope_from": ""},
        {"envelope_from": "<>"},  # a report
        {"dsn_notify": "never"},
        {"dsn_notify": "success,delay"},
    ],
)
async def test_nobody_asked(room: Mailroom, fields: dict[str, str]) -> None:
    await telling(room)
    assert await room.moved("bounce", await room.held(**TOLD | fields)) == ["bounced"]


@pytest.mark.parametrize("notify", ["", "failure", "success,failure", '["failure"]', r'["fa\u0069lure"]'])
async def test_somebody_asked(room: Mailroom, notify: str) -> None:
    await telling(room)
    entry = await room.held(**TOLD | {"dsn_notify": notify})
    assert await room.moved("bounce", entry) == ["report"]


async def test_a_queue_that_sends_none(make_spool: MakeSpool) -> None:
    room = Mailroom(await make_spool(reports=False))
    await telling(room)
    assert await room.moved("bounce", await room.held(**TOLD)) == ["bounced"]


async def test_resettled_with_its_report(room: Mailroom) -> None:
    entry = await room.in_state("parked", **TOLD)
    said = why(reason="550 no", report=brought(), **{"class": "bad_address"})
    assert await room.scripts.resettle([ResettleRow(entry, "a1", "email.bounced", b'"x":1', said, "old.7")]) == 1
    (report,) = await reports(room)
    assert (await room.events())[-1].data["report"] == report


async def test_a_child_s_sender_stands_in_what_it_shares(room: Mailroom) -> None:
    """Whether it is told, and of whom."""
    await telling(room)
    lease = await room.lease(**TOLD)
    shared = {name.encode(): value.encode() for name, value in TOLD.items() if name != "to"}
    await room.spool.bodies.upload("up", shared, False)
    rows = [ChildRow("to", b"bob@example.net"), ChildRow("to", b"eve@example.net")]
    made = await room.scripts.expand("w1", lease.entry, lease.token, "a1", b"", rows, upload="up", all_=2)
    first, second = made.children
    assert await room.moved("bounce", first) == ["report"]
    assert dict(await apply(room.spool, "bounce", [first])) == {"bounced": 1}
    (report,) = await reports(room)
    fields = await fields_of(room, report)
    assert (fields[b"envelope_to"], fields[b"x_report_of"]) == (b"bounces@example.com", first.encode())
    raw = fields[b"raw"].decode()
    assert "Final-Recipient: rfc822; bob@example.net" in raw
    assert "eve" not in raw
    assert await room.states() == {second: "waiting", report: "waiting"}
    assert await room.moved("cancel", second) == ["cancelled"]


async def test_what_was_not_expanded_is_reported_to_nobody(room: Mailroom) -> None:
    """It is no mail to somebody yet; its event says what became of it."""
    await telling(room)
    entry = await room.held(**TOLD | {"to": "bob@example.net, eve@example.net"})
    assert dict(await apply(room.spool, "bounce", [entry])) == {"bounced": 1}
    assert (await reports(room), len(await room.letters())) == ([], 1)


# -- a warning --------------------------------------------------------------------------------------------------------


async def test_a_warning_is_noted_with_its_mail(room: Mailroom) -> None:
    lease = await room.lease(**TOLD)
    assert await room.settled("defer", lease, report=brought()) == "ok"
    (report,) = await reports(room)
    event = (await room.events())[-1]
    assert (event.kind, event.data["report"], await room.state(lease.entry)) == ("email.deferred", report, "scheduled")
    assert event.data["next_attempt_at"] == room.now + 60_000
    assert (await room.notes(lease.entry))["warned"] == 1
    later = await room.lease(**TOLD | {"id": "a2"}, lane="main|b.example")
    assert await room.settled("defer", later) == "ok"
    assert "warned" not in await room.notes(later.entry)

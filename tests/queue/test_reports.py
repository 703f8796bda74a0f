"""Reports in the scripts of their outcomes: both or none, at most so many to a sender, asked for where nobody knew."""

from __future__ import annotations

import time
from email import message_from_bytes
from typing import Any

import orjson
import pytest
from conftest import MakeSpool
from mailroom import DAY, Lease, Mailroom, ident

from streamq.mail.template import Template
from streamq.queue.reports import NOBODY, Reports, fetch_reports
from streamq.queue.rows import ChildRow, ResettleRow, SettleRow
from streamq.queue.scripts import why
from streamq.queue.steer import apply
from streamq.settings import load_settings

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
AGES = [5 * DAY, 5 * DAY, 5 * DAY]
TOLD = {
    "id": "a1",
    "from": "shop@example.com",
    "to": "bob@example.net",
    "subject": "Hi",
    "text": "secret",
    "envelope_from": "bounces@example.com",
}
LOW = "2"


def brought(
    to: str = "bounces@example.com",
    most: int = 10,
    window: int = 3_600_000,
    all: dict[str, int] | None = None,
    **fields: str,
) -> dict[str, Any]:
    whole = {"all": all} if all else {}
    known = {"raw": "Subject: report\r\n\r\n", "envelope_from": "<>", "envelope_to": to, **fields}
    flat = [part for pair in known.items() for part in pair]
    return {"to": to, "most": most, "window": window, **whole, "fields": flat}


async def telling(room: Mailroom) -> None:
    await room.spool.publish_reports()


async def reports(room: Mailroom) -> list[str]:
    return [
        entry for entry, state in (await room.states()).items() if entry[0] == LOW and state in {"waiting", "leased"}
    ]


async def fields_of(room: Mailroom, entry: str) -> dict[bytes, bytes]:
    (found,) = await room.spool.fetch([entry])
    assert found is not None
    return found.fields


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


# -- as Python brings them --------------------------------------------------------------------------------------------


async def test_steered_in_two_calls(room: Mailroom) -> None:
    await telling(room)
    told, quiet = await room.held(**TOLD), await room.held(to="bob@example.net", subject="Hi")
    await room.do("HSET", room.keys.notes, told, '{"last":1700000000000,"reply":"4.2.2 full","code":452}')
    assert dict(await apply(room.spool, "bounce", [told, quiet, "11-1"])) == {"bounced": 2, "missing": 1}
    (report,) = await reports(room)
    fields = await fields_of(room, report)
    assert fields.keys() == {b"raw", b"envelope_from", b"envelope_to", b"x_report_of"}
    assert fields[b"x_report_of"] == told.encode()
    raw = fields[b"raw"].decode()
    assert "x-streamq; bounced by an operator" in raw
    assert "Last-Attempt-Date: Tue, 14 Nov 2023 22:13:20 +0000" in raw
    assert "secret" not in raw


async def test_what_they_carry_of_the_mail(room: Mailroom) -> None:
    held = await room.held(**TOLD | {"tenant": "acme", "sensitive": "1", "require_tls": "1"})
    made = orjson.loads((await fetch_reports(room.spool, [held], "expired"))[held])
    fields = dict(zip(made["fields"][::2], made["fields"][1::2], strict=True))
    assert (made["to"], made["most"], made["window"]) == ("bounces@example.com", 100, 3_600_000)
    assert (fields["tenant"], fields["sensitive"], fields["require_tls"]) == ("acme", "1", "1")
    parsed = message_from_bytes(fields["raw"].encode())
    assert parsed.get_content_type() == "multipart/report"
    assert "Status: 4.4.7" in fields["raw"]


async def test_for_whom_none_can_be_made(room: Mailroom) -> None:
    """Malformed, gone, or not to be told: an answer all the same, or the sweep asked for ever."""
    wrong = await room.add(**TOLD | {"to": "nobody"})
    silent = await room.add(**TOLD | {"id": "a2", "dsn_notify": "never"})
    gone = f"1{room.now}-999"
    assert await fetch_reports(room.spool, [wrong, silent, gone], "expired") == dict.fromkeys(
        [wrong, silent, gone], NOBODY
    )


async def test_of_a_mail_that_says_twice_who_gets_it_nobody_is_told(room: Mailroom) -> None:
    flat = [part for pair in TOLD.items() for part in pair]
    for more, made in ((), 1), (("to", "eve@example.net"), 0):
        id_ = await room.do("XADD", room.keys.stream("low"), "*", *flat, *more)
        entry = f"2{id_.decode()}"
        found = await fetch_reports(room.spool, [entry], "expired")
        assert (found[entry] != NOBODY) == made


async def test_the_author_and_the_host_are_settings(room: Mailroom) -> None:
    known = load_settings(
        report_from="Post <post@example.org>",
        report_mta="mq.example.org",
        report_rate="5/10m",
        report_rate_all="50/20m",
    )
    (entry,) = await room.spool.fetch([await room.held(**TOLD)])
    assert entry is not None
    made = orjson.loads(Reports(known, bytes(16)).of_entry(entry, {}, "expired", time.time_ns() // 1_000_000))
    assert (made["most"], made["window"], made["all"]) == (5, 600_000, {"most": 50, "window": 1_200_000})
    raw = made["fields"][1]
    assert "From: Post <post@example.org>\r\n" in raw
    assert "Reporting-MTA: dns; mq.example.org\r\n" in raw


async def test_a_mail_of_a_template_is_one(room: Mailroom) -> None:
    await telling(room)
    await room.spool.templates.put("hello", Template({"subject": "Hi {{ name }}", "text": "Hello"}))
    entry = await room.held(
        id="t1", to="bob@example.net", template="hello", vars='{"name":"Bob"}',
        envelope_from="bounces@example.com", **{"from": "shop@example.com"},
    )  # fmt: skip
    assert dict(await apply(room.spool, "bounce", [entry])) == {"bounced": 1}
    (report,) = await reports(room)
    assert b"Subject: Hi Bob\r\n" in (await fields_of(room, report))[b"raw"]


async def test_a_bug_in_reading_a_mail_does_not_keep_it_from_its_end(
    room: Mailroom, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> object:
        raise KeyError(TOLD["text"])

    await telling(room)
    entry = await room.held(**TOLD)
    monkeypatch.setattr("streamq.queue.reports.parse", fails)
    assert dict(await apply(room.spool, "bounce", [entry])) == {"bounced": 1}
    assert (await reports(room), len(await room.letters())) == ([], 1)
    assert f"{entry}: reading it raised KeyError" in caplog.text
    assert "in fails" in caplog.text
    assert "secret" not in caplog.text

"""Reports as queue/reports.py makes and brings them."""

from __future__ import annotations

import time
from email import message_from_bytes

import orjson
import pytest
from mailroom import Mailroom
from telling import TOLD, fields_of, reports, telling

from streamq.mail.template import Template
from streamq.queue.reports import NOBODY, Reports, fetch_reports
from streamq.queue.steer import apply
from streamq.settings import load_settings

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]


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
    assert f"{entry}: the report of its end raised KeyError" in caplog.text
    assert "in fails" in caplog.text
    assert "secret" not in caplog.text

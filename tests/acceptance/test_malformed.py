"""Malformed entries among good ones: each becomes a dead letter that names field and value, and the good ones go."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.programs import programs, until
from streamq.queue.check import check
from streamq.queue.connection import command, pipelined
from streamq.queue.letters import dead_letters
from streamq.queue.spool import Spool
from streamq.settings import load_settings

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]
GOOD = {"from": "shop@example.com", "to": "bob@example.net", "subject": "Hi", "text": "Hello"}
# What is wrong, and the field that the reason must begin with.
KINDS: list[tuple[dict[str, str | bytes], str]] = [
    ({"to": "nobody"}, "to"),
    ({"to": ""}, "to"),
    ({"from": "a@b, c@d"}, "from"),
    ({"from": ""}, "from"),
    ({"sender": "x"}, "sender"),
    ({"cc": "a@x.example, b@"}, "cc"),
    ({"bcc": "@"}, "bcc"),
    ({"reply_to": "\x00"}, "reply_to"),
    ({"subject": "a\r\nBcc: x@y.example"}, "subject"),
    ({"subject": "", "text": ""}, "text"),
    ({"text": b"\xff\xfe"}, "text"),
    ({"html": b"\xc3("}, "html"),
    ({"headers": "[]"}, "headers"),
    ({"headers": '{"Received":"x"}'}, "headers"),
    ({"headers": '{"X-A":"b\\r\\nc"}'}, "headers"),
    ({"attachments": "{"}, "attachments"),
    ({"attachments": '[{"content":"%%%"}]'}, "attachments"),
    ({"envelope_from": "no"}, "envelope_from"),
    ({"envelope_to": "no"}, "envelope_to"),
    ({"recipients": '[{"to":"a@x.example"}]'}, "to"),
    ({"to": "", "recipients": "[]"}, "recipients"),
    ({"to": "", "recipients": '[{"for":"a@x.example"}]'}, "recipients"),
    ({"template": "no name", "subject": "", "text": ""}, "template"),
    ({"vars": "{}"}, "vars"),
    ({"send_at": "soon"}, "send_at"),
    ({"delay": "-1"}, "delay"),
    ({"expires_at": "1"}, ""),  # it is good, and over
    ({"ttl": "x"}, "ttl"),
    ({"collapse_seconds": "5"}, "collapse_seconds"),
    ({"on_ambiguous": "maybe"}, "on_ambiguous"),
    ({"sensitive": "yes"}, "sensitive"),
    ({"tags": "["}, "tags"),
    ({"metadata": "[1]"}, "metadata"),
    ({"tenant": "a\nb"}, "tenant"),
    ({"traceparent": "\u00e9"}, "traceparent"),
    ({"v": "0"}, "v"),
    ({"dsn_notify": "always"}, "dsn_notify"),
    ({"require_tls": "no"}, "require_tls"),
    ({"raw": "From: a@b.example\r\n\r\n"}, "from"),
    ({"id": "a\tb"}, "id"),
]


@pytest.mark.parametrize(("good", "bad"), [(2000, 200)])
async def test_each_is_named_and_no_good_one_waits(server_url: str, tmp_path: Path, good: int, bad: int) -> None:
    async with programs(tmp_path, server_url) as p:
        sink = await p.sink()
        spool = await Spool.connect(load_settings(), server_url)
        p.stack.push_async_callback(spool.close)
        wrong: dict[str, str] = {}  # mark → field
        commands: list[tuple[str | bytes, ...]] = []
        for number in range(good):
            fields = {**GOOD, "to": f"bob{number}@example.net", "id": f"good-{number}"}
            commands.append(
                ("XADD", spool.keys.stream("normal"), "*", *(part for pair in fields.items() for part in pair))
            )
            if number % (good // bad) == 0:
                kind, field = KINDS[len(wrong) % len(KINDS)]
                mark = f"bad-{len(wrong)}"
                wrong[mark] = field
                given = {name: value for name, value in {**GOOD, **kind, "x_mark": mark}.items() if value != ""}
                flat = [part for pair in given.items() for part in pair]
                commands.append(("XADD", spool.keys.stream("normal"), "*", *flat))
        await pipelined(spool.redis, commands)
        await p.worker()
        await p.worker()
        await sink.until(good)

        async def empty() -> bool:
            return not await command(spool.redis, "XLEN", spool.keys.stream("normal"))

        await until(empty)
        died = {each.text("x_mark"): each async for each in dead_letters(spool)}
        assert (await check(spool)).clean
    assert len(p.duplicates()) == 0
    assert sink.count() == good
    assert died.keys() == wrong.keys()
    for mark, letter in died.items():
        if wrong[mark]:
            assert letter.text("dead_class") == "malformed"
            assert letter.text("dead_reason").partition(":")[0] == wrong[mark], letter
        else:
            assert letter.text("dead_class") == "expired"

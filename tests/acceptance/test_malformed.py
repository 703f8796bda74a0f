"""Malformed entries among good ones: each becomes a dead letter that names field and value, and the good ones go."""

from __future__ import annotations

from pathlib import Path

import orjson
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


# What is given once more, and is wrong for that alone.
TWICE: list[tuple[str, str | bytes]] = [
    ("to", "eve@example.net"),
    ("from", "shop@example.com"),
    ("subject", ""),
    ("text", "Hello"),
    ("id", "other"),
    ("sensitive", "0"),
    ("raw", b"From: a@b.example\r\n\r\n"),
]
GOOD_ONES, BAD_ONES = 10_000, 1_000
# Places that a good mail may fall behind in the order in which mails end: those that are in hand with it may end before
# it, and so may what a script settles at once.
MOST_LATE = 3 * 100


def malformed(number: int, mark: str) -> tuple[list[str | bytes], str]:
    """The fields of one, flat, and the field that is wrong ("": it is good, and over)."""
    kind = number % (len(KINDS) + len(TWICE))
    changed, field = KINDS[kind] if kind < len(KINDS) else ({}, "")
    given = {name: value for name, value in {**GOOD, **changed, "x_mark": mark}.items() if value != ""}
    flat = [part for pair in given.items() for part in pair]
    if kind >= len(KINDS):
        field, value = TWICE[kind - len(KINDS)]
        flat += [*([] if field in given else [field, value]), field, value]
    return flat, field


async def test_each_is_named_and_no_good_one_is_late(server_url: str, tmp_path: Path) -> None:
    """Late is who falls behind in the order in which mails end: a clock would measure the machine."""
    async with programs(tmp_path, server_url) as p:
        sink = await p.sink()
        spool = await Spool.connect(load_settings(), server_url)
        p.stack.push_async_callback(spool.close)
        wrong: dict[str, str] = {}  # mark → field
        good: list[bool] = []  # by place in the stream
        commands: list[tuple[str | bytes, ...]] = []
        for number in range(GOOD_ONES):
            fields = {**GOOD, "to": f"bob{number}@example.net", "id": f"good-{number}"}
            flats: list[list[str | bytes]] = [[part for pair in fields.items() for part in pair]]
            if number % (GOOD_ONES // BAD_ONES) == 0:
                mark = f"bad-{len(wrong)}"
                flat, wrong[mark] = malformed(len(wrong), mark)
                flats.append(flat)
            commands += [("XADD", spool.keys.stream("normal"), "*", *flat) for flat in flats]
            good += [True, False][: len(flats)]
        ids = await pipelined(spool.redis, commands)
        await p.worker()

        async def empty() -> bool:
            return not await command(spool.redis, "XLEN", spool.keys.stream("normal"))

        await until(empty)
        died = {each.text("x_mark"): each async for each in dead_letters(spool)}
        assert (await check(spool)).clean
        events = await command(spool.redis, "XRANGE", spool.keys.events, "-", "+")
    assert len(p.duplicates()) == 0
    assert sink.count() == GOOD_ONES
    assert died.keys() == wrong.keys()
    for mark, letter in died.items():
        if wrong[mark]:
            assert letter.text("dead_class") == "malformed"
            assert letter.text("dead_reason").partition(":")[0] == wrong[mark], letter
        else:
            assert letter.text("dead_class") == "expired"
    ends = [orjson.loads(flat[5]) for _, flat in events]
    place = {f"1{id_.decode()}": at for at, id_ in enumerate(ids)}
    assert [end["attempt"] for end in ends if good[place[end["entry"]]]] == [1] * GOOD_ONES
    late = max(at - place[end["entry"]] for at, end in enumerate(ends) if good[place[end["entry"]]])
    assert late <= MOST_LATE

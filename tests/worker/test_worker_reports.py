"""Bounce reports from a worker to a real sink: to the envelope's sender, from nobody, once, and none for a report."""

from __future__ import annotations

import asyncio
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from crew import Crew, crew, rules_of
from flufl.bounce import all_failures

from streamq.queue.connection import command, pipelined
from streamq.queue.steer import apply
from streamq.sink import Rules
from streamq.sink.mailbox import Received

SENDER = "bounces@example.com"


def rules(folder: Path) -> Rules:
    return rules_of(
        folder,
        '[[rule]]\nmatch = "gone@*"\nstage = "rcpt"\nreply = "550 5.1.1 no such user"\n'
        '[[rule]]\nmatch = "busy@*"\nstage = "rcpt"\nreply = "450 4.2.1 busy"\n'
        '[[rule]]\nmatch = "bounces@*"\nstage = "rcpt"\nreply = "550 5.1.1 nobody here either"\n',
    )


def hearing(folder: Path) -> Rules:
    return rules_of(
        folder,
        '[[rule]]\nmatch = "gone@*"\nstage = "rcpt"\nreply = "550 5.1.1 no such user"\n'
        '[[rule]]\nmatch = "busy@*"\nstage = "rcpt"\nreply = "450 4.2.1 busy"\n',
    )


async def arrived(c: Crew, many: int = 1) -> list[Received]:
    await c.sink.wait_for(many)
    return [mail for mail in c.sink.received if mail.envelope_to == (SENDER,)]


def read(mail: Received) -> EmailMessage:
    found = message_from_bytes(mail.content, policy=policy.default)
    assert isinstance(found, EmailMessage)
    return found


async def letters(c: Crew) -> list[dict[bytes, bytes]]:
    rows = await command(c.spool.redis, "XRANGE", c.spool.keys.dead, "-", "+")
    return [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in rows]


@pytest.mark.drained
async def test_a_report_arrives_with_the_null_sender(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url, rules=hearing(tmp_path)) as c:
        await c.worker()
        died = await c.add(id="g", to="gone@example.net", envelope_from=SENDER, dsn_envid="order 18")
        bounced = (await c.until("email.bounced", "g"))[0]
        relayed = (await c.until("email.relayed"))[0]
        (mail,) = await arrived(c)
    assert mail.envelope_from == ""
    assert (relayed["entry"], relayed["priority"], relayed["rcpt"]) == (bounced["report"], "low", SENDER)
    assert all_failures(message_from_bytes(mail.content)) == (frozenset(), frozenset({b"gone@example.net"}))
    found = read(mail)
    assert found["Auto-Submitted"] == "auto-replied"
    assert found["In-Reply-To"] == bounced["message_id"]
    text = mail.content.decode()
    for line in ("Original-Envelope-Id: order 18", "Diagnostic-Code: smtp; 550 5.1.1 no such user", "Status: 5.1.1"):
        assert f"\r\n{line}\r\n" in text
    assert "Hello" not in text
    assert died.startswith("1")


@pytest.mark.drained
async def test_none_for_a_report_and_none_where_nobody_asked(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url, rules=rules(tmp_path)) as c:
        await c.worker()
        await c.add(id="g", to="gone@example.net", envelope_from=SENDER)
        first, second = await c.until("email.bounced", many=2)
        await c.add(id="n", to="gone@example.net", envelope_from="<>")
        await c.add(id="p", to="gone@example.net")
        await c.until("email.bounced", many=2)
        assert await c.count("total:reported") == 1
        assert await c.count("dead") == 4
    assert first["report"] == second["entry"]  # the report itself was refused
    assert "report" not in second


@pytest.mark.drained
async def test_no_more_than_so_many_to_one_sender(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url, rules=hearing(tmp_path)) as c:
        await c.worker(report_rate="3/h")
        for number in range(8):
            await c.add(id=f"g{number}", to="gone@example.net", envelope_from=SENDER)
        await c.until("email.bounced", many=8)
        await c.until("email.relayed", many=3)
        assert (await c.count("total:reported"), await c.count("total:report_capped")) == (3, 5)
        assert len(await arrived(c, 3)) == 3
        assert len(await letters(c)) == 8


@pytest.mark.drained
async def test_one_warning_of_a_delay(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url, rules=hearing(tmp_path)) as c:
        await c.worker(delay_warning="0s", retry="10ms")
        entry = await c.add(id="b", to="busy@example.net", envelope_from=SENDER)
        first, *others = await c.until("email.deferred", "b", many=4)
        (mail,) = await arrived(c)
        await apply(c.spool, "cancel", [entry])
        await c.until("email.cancelled", "b")
        assert await c.count("total:reported") == 1
    assert "report" in first
    assert not any("report" in each for each in others)
    assert all_failures(message_from_bytes(mail.content)) == (frozenset({b"busy@example.net"}), frozenset())
    assert "\r\nWill-Retry-Until: " in mail.content.decode()


@pytest.mark.drained
@pytest.mark.parametrize("ttl", ["1", "0"])
async def test_a_time_that_is_over(server_url: str, tmp_path: Path, ttl: str) -> None:
    """At an attempt's end (the last one's words are in it), and at admission."""
    async with crew(server_url, rules=hearing(tmp_path)) as c:
        await c.worker(retry="100ms")
        await c.add(
            id="b",
            to="busy@example.net",
            envelope_from=SENDER,
            expires_at="1" if ttl == "0" else "",
            ttl=ttl if ttl == "1" else "",
        )
        expired = (await c.until("email.expired", "b"))[0]
        (mail,) = await arrived(c)
        assert await c.count("total:reported") == 1
    assert "report" in expired
    text = mail.content.decode()
    assert "\r\nStatus: 4.4.7\r\n" in text
    assert ("\r\nDiagnostic-Code: smtp; 450 4.2.1 busy\r\n" in text) == (ttl == "1")


@pytest.mark.drained
async def test_a_mail_that_is_held_too_long(server_url: str, tmp_path: Path) -> None:
    """By the sweep: nobody has it in hand."""
    async with crew(server_url, rules=hearing(tmp_path)) as c:
        worker = await c.worker()
        seconds, _ = await command(c.spool.redis, "TIME")
        entry = await c.add(id="h", envelope_from=SENDER, sparkle="", ttl="1", send_at=str(int(seconds) + 3600))
        await command(c.spool.redis, "HSET", c.spool.keys.holds, f"intent:{entry}", "hold")
        await c.until("email.expired", "h")
        (mail,) = await arrived(c)
        assert worker.spool.caller.calls["expire"] > 0
    assert "Status: 4.4.7" in mail.content.decode()


@pytest.mark.drained
async def test_an_operator_s_bounce_while_it_is_scheduled(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url, rules=hearing(tmp_path)) as c:
        await c.worker(retry="1h")
        entry = await c.add(id="b", to="busy@example.net", envelope_from=SENDER)
        await c.until("email.deferred", "b")
        assert dict(await apply(c.spool, "bounce", [entry])) == {"bounced": 1}
        bounced = (await c.until("email.bounced", "b"))[0]
        (mail,) = await arrived(c)
    assert "report" in bounced
    assert "An operator of the mail system ended it" in mail.content.decode()


@pytest.mark.drained
async def test_an_operator_s_bounce_that_admission_hears(server_url: str, tmp_path: Path) -> None:
    """Of a mail that it can make a report of, and of one that is none."""
    async with crew(server_url, rules=hearing(tmp_path)) as c:
        await command(c.spool.redis, "HSET", c.spool.keys.holds, "id:b", "bounce", "id:u", "bounce")
        await c.worker()
        await c.add(id="b", envelope_from=SENDER)
        bounced = (await c.until("email.bounced", "b"))[0]
        await c.add(id="u", envelope_from=SENDER, sparkle="1")  # held, would nobody want it bounced
        other = (await c.until("email.bounced", "u"))[0]
        await arrived(c)
        classes = [letter[b"dead_class"] for letter in await letters(c)]
        assert await command(c.spool.redis, "EXISTS", c.spool.keys.holds) == 0
    assert "report" in bounced
    assert "report" not in other
    assert classes == [b"operator", b"operator"]


@pytest.mark.drained
async def test_an_operator_s_bounce_while_it_is_under_way(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url, rules=hearing(tmp_path)) as c:
        worker = await c.worker(retry="1h")
        real = worker.spool.scripts.settle
        asked: list[str] = []

        async def first_asked(consumer: str, rows: Any) -> Any:
            if not asked:
                asked.extend((await worker.spool.scripts.move("bounce", [rows[0].entry])).statuses)
            return await real(consumer, rows)

        worker.spool.scripts.settle = first_asked  # type: ignore[method-assign]
        await c.add(id="b", to="busy@example.net", envelope_from=SENDER)
        bounced = (await c.until("email.bounced", "b"))[0]
        (mail,) = await arrived(c)
    assert asked == ["intended"]
    assert (bounced["asked"], bounced["attempt"], "report" in bounced) == ("bounce", 1, True)
    assert "\r\nFinal-Recipient: rfc822; busy@example.net\r\n" in mail.content.decode()


@pytest.mark.drained
async def test_a_worker_that_dies_in_between_leaves_both_or_none(server_url: str, tmp_path: Path) -> None:
    """After settle's word that the mail is to end, before the end: another worker reclaims it, and one report goes."""
    async with crew(server_url, rules=hearing(tmp_path)) as c:
        worker = c.new_worker(retry="1h", lease_seconds=0.5)
        task = asyncio.create_task(worker.run())
        await worker.ready.wait()
        real = worker.spool.scripts.settle
        cut = asyncio.Event()

        async def cut_off(consumer: str, rows: Any) -> Any:
            if any(row.op == "dead" for row in rows):
                cut.set()
                await asyncio.Event().wait()
            entry = rows[0].entry
            await worker.spool.scripts.move("bounce", [entry])
            return await real(consumer, rows)

        worker.spool.scripts.settle = cut_off  # type: ignore[method-assign]
        await c.add(id="b", to="busy@example.net", envelope_from=SENDER)
        await cut.wait()
        assert (await letters(c), await c.count("total:reported")) == ([], 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await c.worker(retry="1h", lease_seconds=0.5)
        await c.until("email.bounced", "b")
        await arrived(c)
        assert (len(await letters(c)), await c.count("total:reported")) == (1, 1)
        bell = c.spool.keys.bell  # what had rung for the one that died is swept, too
        while await command(c.spool.redis, "XLEN", bell):  # noqa: ASYNC110 (no event tells of it)
            await asyncio.sleep(0.01)


async def test_after_the_server_lost_its_last_second_it_is_told_again(server_url: str, tmp_path: Path) -> None:
    """The dead letter and its report were lost together; they come again together, with the same bytes but Date."""
    async with crew(server_url, rules=hearing(tmp_path)) as c:
        worker = await c.worker()
        entry = await c.add(id="g", to="gone@example.net", envelope_from=SENDER)
        bounced = (await c.until("email.bounced", "g"))[0]
        await c.until("email.relayed")
        fields = {"id": "g", "to": "gone@example.net", "envelope_from": SENDER, "from": "shop@example.com"}
        flat = [part for pair in {**fields, "subject": "Hi", "text": "Hello"}.items() for part in pair]
        stream = c.spool.keys.stream("normal")
        back = [
            ("DEL", stream, c.spool.keys.dead),
            ("XADD", stream, entry[1:], *flat),
            ("XGROUP", "CREATE", stream, "streamq", entry[1:]),
        ]
        await pipelined(c.spool.redis, back, atomic=True)
        assert await worker.settler.replay() == 1
        again = (await c.until("email.bounced", "g"))[0]
        await c.until("email.relayed")
        first, second = await arrived(c, 2)
        assert len(await letters(c)) == 1
    assert again["event_id"] == bounced["event_id"]
    assert again["report"] != bounced["report"]
    assert read(first)["Message-ID"] == read(second)["Message-ID"]  # a receiver can drop the double

"""Dead letters that are requeued, from XADD to the sink: who gets which mail, and nobody one twice."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import default
from pathlib import Path

import orjson
import pytest
from crew import Crew, crew, rules_of

from streamq.mail.mail import Several
from streamq.mail.template import Template
from streamq.queue.check import check
from streamq.queue.connection import command
from streamq.queue.letters import DeadLetter, dead_letters, requeue_dead
from streamq.worker import expander
from streamq.worker.expander import Expansion

REFUSES = """
[[rule]]
match = "*@bad.example"
stage = "rcpt"
reply = "550 5.7.1 by policy"
"""
NOTHING = dict.fromkeys(("to", "subject", "text"), "")


async def letters(c: Crew) -> list[DeadLetter]:
    return [each async for each in dead_letters(c.spool)]


async def requeued(c: Crew, letter: DeadLetter, **changes: str) -> str:
    [entry] = await requeue_dead(c.spool, [(letter.letter, letter.size)], changes)
    return entry


async def test_a_new_to_of_a_copy_gets_it_and_nobody_else(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url, rules=rules_of(tmp_path, REFUSES)) as c:
        await c.worker()
        await c.add(id="a1", to="typo@bad.example, ok@x.example", cc="cc@x.example", bcc="bcc@x.example")
        await c.until("email.relayed", many=3)
        [letter] = await letters(c)
        c.sink.received.clear()
        await requeued(c, letter, to="Bob <fixed@x.example>")
        assert [event["rcpt"] for event in await c.until("email.relayed")] == ["fixed@x.example"]
        [sent] = c.sink.received
        assert (await check(c.spool)).clean
    assert sent.envelope_to == ("fixed@x.example",)
    head = message_from_bytes(sent.content, policy=default)
    assert (head["To"], head["Cc"]) == ("Bob <fixed@x.example>", "cc@x.example")


async def test_a_new_list_gets_one_each(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url, rules=rules_of(tmp_path, REFUSES)) as c:
        await c.worker()
        await c.add(id="a1", to="typo@bad.example, ok@x.example")
        await c.until("email.relayed")
        [letter] = await letters(c)
        c.sink.received.clear()
        await requeued(c, letter, to='["one@x.example","two@x.example"]')
        await c.until("email.relayed", many=2)
        assert sorted(mail.envelope_to[0] for mail in c.sink.received) == ["one@x.example", "two@x.example"]
        assert (await check(c.spool)).clean


@pytest.mark.parametrize("blank", ["", "\n"])
async def test_a_child_of_a_campaign_is_the_mail_that_it_was(server_url: str, tmp_path: Path, blank: str) -> None:
    async with crew(server_url, rules=rules_of(tmp_path, REFUSES)) as c:
        await c.spool.templates.put("news", Template({"subject": "{{ month }}", "text": "Hi {{ name }}: {{ month }}"}))
        await c.worker()
        recipients: list[object] = [{"to": "v@bad.example", "vars": {"name": "Ann"}, "metadata": {"user": 7}}]
        known = {"vars": '{"month":"May"}' + blank, "metadata": blank + '{"campaign":"c"}' + blank}
        await c.add(**NOTHING, id="may", template="news", recipients=orjson.dumps(recipients), **known)
        await c.until("email.bounced", "may#1")
        [letter] = await letters(c)
        await requeued(c, letter, to="ann@x.example")
        [event] = await c.until("email.relayed", "may#1")
        [sent] = c.sink.received
    assert event["metadata"] == {"campaign": "c", "user": 7}
    head = message_from_bytes(sent.content, policy=default)
    assert (sent.envelope_to, head["To"], head["Subject"]) == (("ann@x.example",), "ann@x.example", "May")
    assert "Hi Ann: May" in head.get_content()


@pytest.mark.parametrize("named", ["", "a1"])
@pytest.mark.parametrize("kind", ["to", "recipients"])
async def test_what_died_half_made_goes_on_where_it_was(
    server_url: str, monkeypatch: pytest.MonkeyPatch, kind: str, named: str
) -> None:
    """By their numbers, however long ids are known."""
    monkeypatch.setattr(expander, "CHUNK", 7)
    call = expander.Expander._call
    bounced = False

    async def bounces(self: expander.Expander, expansion: Expansion, several: Several, made: int, *more: str) -> object:
        nonlocal bounced
        if made and not bounced:
            bounced = True
            assert (await self.spool.scripts.move("bounce", [expansion.entry])).statuses == ["intended"]
        return await call(self, expansion, several, made, *more)

    monkeypatch.setattr(expander.Expander, "_call", bounces)
    to = [f"r{n}@x.example" for n in range(60)]
    given = orjson.dumps(to) if kind == "to" else orjson.dumps([{"to": each} for each in to])
    async with crew(server_url) as c:
        await c.worker()
        fields: dict[str, str | bytes] = {"to": "", "id": named, kind: given}
        await c.add("normal", **fields)
        await c.until("email.relayed", many=7)
        [letter] = await letters(c)
        assert letter.text("dead_made") == "7"
        for key in await command(c.spool.redis, "KEYS", f"{c.spool.keys.prefix}seen:*"):
            await command(c.spool.redis, "DEL", key)
        await requeued(c, letter)
        await c.until("email.relayed", many=53)
        assert sorted(mail.envelope_to[0] for mail in c.sink.received) == sorted(to)
        assert (await check(c.spool)).clean
        assert await command(c.spool.redis, "EXISTS", c.spool.keys.bodies, c.spool.keys.notes) == 0

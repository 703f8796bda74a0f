"""Stored templates, from XADD to the sink."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from crew import crew

from streamq.mail.template import Template
from streamq.queue.check import check
from streamq.worker import keeper

HELLO = Template({"subject": "Hello {{ name }}", "text": "{{ shop }} greets {{ name }}"})


async def test_a_campaign_of_one_template(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.spool.templates.put("hello", HELLO)
        await c.worker()
        recipients = [{"to": f"r{n}@x.example", "vars": {"name": f"R{n}"}} for n in range(20)] + [{"to": "x@x.example"}]
        fields = dict.fromkeys(("to", "subject", "text"), "")
        await c.add(**fields, id="a1", template="hello", vars='{"shop":"We"}', recipients=orjson.dumps(recipients))
        rejected = await c.until("email.rejected", "a1#21")
        while len(c.sink.received) < 20:
            await c.until("email.relayed")
        found = {mail.envelope_to[0]: mail.content for mail in c.sink.received}
        assert (await check(c.spool)).clean
    assert rejected[0]["reason"] == "vars: subject of the template: 'name' is undefined"
    assert all(f"Subject: Hello R{n}\r\n".encode() in found[f"r{n}@x.example"] for n in range(20))
    assert all(f"We greets R{n}".encode() in found[f"r{n}@x.example"] for n in range(20))


async def test_a_mail_waits_for_its_template(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "TRIM_SECONDS", 0.0)
    async with crew(server_url) as c:
        await c.worker()
        entry = await c.add(id="a1", subject="", text="", template="hello", vars='{"shop":"We","name":"Bob"}')
        held = await c.until("email.held", "a1")
        assert held[0]["class"] == "unknown_template"
        await c.until_state(entry, "held")
        await c.spool.templates.put("hello", HELLO)
        await c.until("email.relayed", "a1")
        assert b"We greets Bob" in c.sink.received[0].content


async def test_a_retry_is_built_of_the_version_that_it_had(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.spool.templates.put("hello", HELLO)
        entry = await c.add(id="a1", subject="", text="", template="hello", vars='{"shop":"We","name":"Bob"}')
        await asyncio.sleep(0.002)  # so that the next version is a later one: times are in ms
        await c.spool.templates.put("hello", Template({"subject": "New", "text": "new"}))
        await c.worker()
        await c.until("email.relayed", "a1")
        assert entry
        assert b"We greets Bob" in c.sink.received[0].content

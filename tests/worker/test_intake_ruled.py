"""Operators' rules and mails that intake holds, buries or puts off: whose they are is known there, too."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from crew import Crew, crew

from streamq.mail.event import hashed_address
from streamq.queue.check import check
from streamq.queue.connection import command
from streamq.queue.rows import AdmitRow
from streamq.queue.spool import Entry
from streamq.queue.steer import Selector, id_rule, rules, set_rule, unset_rule
from streamq.settings import load_settings
from streamq.worker.intake import Intake
from streamq.worker.ways import Ways

pytestmark = pytest.mark.leaves_mail

OWN = {"tenant": "acme", "tags": "a,b", "metadata": '{"order":7}', "traceparent": "00-1"}
CARRIED = {"tenant": "acme", "tags": ["a", "b"], "metadata": {"order": 7}, "traceparent": "00-1"}
TO = {"rcpt": "bob@example.net", "site": "example.net"}
NOTHING = dict.fromkeys(("subject", "text"), "")
# Why intake holds it
HELD: dict[str, dict[str, str]] = {
    "unknown_template": {**NOTHING, "template": "nope"},
    "unknown_field": {"colour": "red"},
    "unknown_route": {"route": "nope"},
}


async def events(c: Crew, many: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Of so many: id → type, data."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    async for kind, name, data in c.events():
        found[name] = (kind, data)
        if len(found) == many:
            break
    return found


async def test_a_rule_for_an_id_of_no_tenant_is_for_no_tenant_s_mail(server_url: str) -> None:
    async with crew(server_url) as c:
        for klass in HELD:
            await set_rule(c.spool, id_rule(klass), "cancel")
        for klass, fields in HELD.items():
            await c.add(id=klass, tenant="acme", **fields)
        await c.worker()
        found = await events(c, len(HELD))
        assert {name: (kind, data["class"], data["tenant"]) for name, (kind, data) in found.items()} == {
            klass: ("email.held", klass, "acme") for klass in HELD
        }
        assert await rules(c.spool) == {f"id:{klass}": "cancel" for klass in HELD}
        for klass in HELD:
            await unset_rule(c.spool, id_rule(klass))
        assert (await check(c.spool)).clean


@pytest.mark.parametrize("twice", [False, True])
async def test_nor_for_one_whose_tenant_nobody_can_tell(server_url: str, twice: bool) -> None:
    async with crew(server_url) as c:
        await set_rule(c.spool, id_rule("a1"), "cancel")
        tenants = ["acme", "other"] if twice else ["a\nb"]
        flat = ["id", "a1", "colour", "red", *(part for tenant in tenants for part in ("tenant", tenant))]
        id_ = await command(c.spool.redis, "XADD", c.spool.keys.stream("normal"), "*", *flat)
        entry = f"{c.spool.digit('normal')}{id_.decode()}"
        await c.worker()
        found = await events(c, 1)
        assert [(name, kind) for name, (kind, _) in found.items()] == [(entry, "email.held")]
        await unset_rule(c.spool, id_rule("a1"))
        assert (await check(c.spool)).clean


async def test_a_tenant_s_own_rule_finds_it(server_url: str) -> None:
    async with crew(server_url) as c:
        for klass in HELD:
            await set_rule(c.spool, id_rule(klass, "acme"), "cancel")
        for klass, fields in HELD.items():
            await c.add(id=klass, tenant="acme", **fields)
        await c.worker()
        found = await events(c, len(HELD))
        assert {kind for kind, _ in found.values()} == {"email.cancelled"}
        assert await rules(c.spool) == {}
        assert (await check(c.spool)).clean


@pytest.mark.parametrize("rule", [Selector(tenant="acme"), Selector(tag="b"), Selector(domain="example.net")])
async def test_so_do_rules_by_what_it_carries(server_url: str, rule: Selector) -> None:
    """By its domain only where no field is strange, which might say where it goes."""
    assert rule.rule is not None
    async with crew(server_url) as c:
        await set_rule(c.spool, rule.rule, "cancel")
        for klass, fields in HELD.items():
            await c.add(id=klass, **OWN, **fields)
        await c.worker()
        found = await events(c, len(HELD))
        held = {name for name, (kind, _) in found.items() if kind == "email.held"}
        assert held == ({"unknown_field"} if rule.domain else set())
        assert {found[name][0] for name in found.keys() - held} == {"email.cancelled"}
        await unset_rule(c.spool, rule.rule)
        assert (await check(c.spool)).clean


async def test_its_events_carry_what_is_the_mail_s_own(server_url: str) -> None:
    bad = {"to": {"to": "nobody"}, "delay": {"delay": "soon"}, "tags": {"tags": "["}}
    async with crew(server_url) as c:
        for name, fields in {**HELD, **bad}.items():
            await c.add(id=name, **{**OWN, **fields})
        await c.worker()
        found = await events(c, len(HELD) + len(bad))
        names = {*CARRIED, *TO}
        said = {name: {part: data[part] for part in names & data.keys()} for name, (_, data) in found.items()}
        assert said == {
            "unknown_template": CARRIED | TO,
            "unknown_field": CARRIED,
            "unknown_route": CARRIED | TO,
            "to": CARRIED,
            "delay": CARRIED | TO,
            "tags": {name: value for name, value in (CARRIED | TO).items() if name != "tags"},
        }
        assert "message_id" in found["unknown_route"][1]
        assert {found[name][0] for name in bad} == {"email.rejected"}
        assert (await check(c.spool)).clean


def row_of(
    fields: dict[str, str], *, later: bool = False, twice: tuple[bytes, ...] = (), pii: str = "full"
) -> AdmitRow:
    known = load_settings(routes={"relay": {"url": "smtp://h"}}, pii=pii)
    intake = Intake(known, bytes(16), Ways(known, bytes(16), known.priorities))
    given = {
        "from": "shop@example.com",
        "to": "bob@example.net",
        "subject": "Hi",
        "text": "Hello",
        "id": "a1",
        **fields,
    }
    entry = Entry("11700000000000-3", {name.encode(): value.encode() for name, value in given.items()}, twice=twice)
    return intake.unread(entry, 1) if later else intake.judge(entry)[0]


def test_one_that_is_looked_at_later_says_whose_it_is() -> None:
    row = row_of(OWN, later=True)
    assert (row.kind, row.id, orjson.loads(b"{%b}" % row.tail)) == ("later", "a1", CARRIED | TO)
    assert row.seen == row_of(OWN).seen != b""
    for unsure in (row_of({"tenant": "a\nb"}, later=True), row_of(OWN, later=True, twice=(b"tenant",))):
        assert (unsure.id, unsure.seen) == (unsure.entry, b"")


@pytest.mark.parametrize("fields", [*HELD.values(), {"delay": "soon"}])
def test_no_address_stands_there_where_none_may(fields: dict[str, str]) -> None:
    row = row_of(fields, pii="hash")
    assert row.kind in ("hold", "dead")
    assert b"bob@" not in row.tail
    assert orjson.loads(b"{%b}" % row.tail).get("rcpt") in (None, hashed_address("bob@example.net"))

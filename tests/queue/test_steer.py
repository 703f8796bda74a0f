"""Steering: which mails a choice means, verbs in batches, standing rules and when admission carries them out."""

from __future__ import annotations

from typing import Any

import pytest
from mailroom import Mailroom, ident

from streamq.queue.steer import (
    Selector,
    apply,
    has_rule,
    id_rule,
    intended,
    rules,
    select,
    set_rule,
    site_of,
    tags_of,
    unset_rule,
)
from streamq.queue.walk import MailView

pytestmark = pytest.mark.leaves_mail
GOOD = {"from": "shop@example.com", "subject": "Hi", "text": "Hello"}


def view(**fields: str | bytes) -> MailView:
    flat = {name.encode(): value if isinstance(value, bytes) else value.encode() for name, value in fields.items()}
    return MailView("11700000000000-0", "normal", "waiting", flat)


async def found(room: Mailroom, selector: Selector, **how: Any) -> set[str]:
    return {one.entry async for one in select(room.spool, selector, **how)}


# -- choosing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "site"),
    [
        ({**GOOD, "to": "bob@example.net"}, "example.net"),
        ({**GOOD, "to": "Bob <bob@Example.NET>"}, "example.net"),
        ({**GOOD, "to": "bob@example.net", "envelope_to": "eve@example.org"}, "example.org"),
        ({**GOOD, "to": "bob@m\u00fcnchen.example"}, "xn--mnchen-3ya.example"),
        ({**GOOD, "to": "bob@[192.0.2.1]"}, "[192.0.2.1]"),
        ({**GOOD, "to": "bob@example.net", "colour": "red"}, "example.net"),  # held, and has a site all the same
        ({**GOOD, "to": "bob@example.net", "cc": "eve@example.org"}, ""),
        ({**GOOD, "to": "bob@example.net, eve@Example.net"}, "example.net"),
        ({**GOOD, "to": "bob@example.net, eve@example.org"}, ""),
        ({**GOOD, "to": "nobody"}, ""),
        ({**GOOD, "to": b"\xff\x1b[31m"}, ""),
        ({**GOOD, "to": "a" * 1_000_000}, ""),
        ({"raw": "From: a@b.example\r\nTo: bob@example.net\r\n\r\nHi"}, "example.net"),
        ({}, ""),
    ],
)
def test_the_site_of_a_mail(fields: dict[str, str | bytes], site: str) -> None:
    assert site_of(view(**fields)) == site


def test_a_parked_mails_lane_names_its_site() -> None:
    one = view()
    one.lane = "relay|example.org"
    assert site_of(one) == "example.org"


@pytest.mark.parametrize(
    ("tags", "listed"),
    [
        ("a, b,,c ", ["a", "b", "c"]),
        ('["a", "b c", 7, null]', ["a", "b c"]),
        ("[broken", []),
        ("", []),
        ('{"a": 1}', ['{"a": 1}']),
        (b"\xff,b", ["\ufffd", "b"]),
    ],
)
def test_tags_are_a_comma_list_or_an_array(tags: str | bytes, listed: list[str]) -> None:
    assert tags_of(view(tags=tags)) == listed


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({}, "all"),
        ({"priority": "low"}, "priority:low"),
        ({"domain": "Example.NET"}, "domain:example.net"),
        ({"domain": "m\u00fcnchen.example"}, "domain:xn--mnchen-3ya.example"),
        ({"tenant": "Acme"}, "tenant:Acme"),
        ({"tag": "a:b"}, "tag:a:b"),
        ({"tag": "a", "tenant": "b"}, None),
    ],
)
def test_a_choice_of_one_part_is_a_rule(given: dict[str, str], rule: str | None) -> None:
    selector = Selector(given.get("priority"), given.get("domain"), given.get("tenant"), given.get("tag"))
    assert selector.rule == rule
    assert selector.among("held").rule == rule


@pytest.mark.parametrize("domain", ["", "a b", "exa\x1bmple.net", "-", "x" * 300, "bob@example.net"])
def test_a_domain_is_one(domain: str) -> None:
    with pytest.raises(ValueError, match="domain"):
        Selector(domain=domain)


async def test_select_takes_what_fits_every_part(room: Mailroom) -> None:
    given: dict[str, dict[str, Any]] = {
        "plain": {"to": "bob@example.net"},
        "other": {"to": "bob@example.org"},
        "acme": {"to": "bob@example.net", "tenant": "acme"},
        "tagged": {"to": "bob@example.net", "tags": '["news", "x"]'},
        "both": {"to": "bob@example.org", "tags": "news", "tenant": "acme"},
    }
    entries = {name: await room.add(**GOOD, **fields) for name, fields in given.items()}
    entries["low"] = await room.add("low", **GOOD, to="bob@example.net")
    for selector, names in [
        (Selector(), set(entries)),
        (Selector(priority="low"), {"low"}),
        (Selector(domain="EXAMPLE.net"), {"plain", "acme", "tagged", "low"}),
        (Selector(domain="example.net", priority="normal"), {"plain", "acme", "tagged"}),
        (Selector(tenant="acme"), {"acme", "both"}),
        (Selector(tag="news"), {"tagged", "both"}),
        (Selector(tag="news", tenant="acme"), {"both"}),
        (Selector(tag="NEWS"), set()),
        (Selector(states=("held",)), set()),
    ]:
        for sweep in (False, True):
            assert await found(room, selector, sweep=sweep) == {entries[name] for name in names}, (selector, sweep)


async def test_a_sweep_reads_bodies_only_where_it_must(room: Mailroom) -> None:
    """A million parked mails of one site are chosen by their lanes."""
    for _ in range(20):
        await room.parked(lane="main|example.net", to="bob@example.net", text="x" * 100_000)
    for selector in (Selector(), Selector(domain="example.net"), Selector(priority="normal")):
        before = await _sent(room)
        assert len(await found(room, selector.among("parked"), sweep=True)) == 20
        assert await _sent(room) - before < 50_000
    assert await found(room, Selector(domain="example.org", states=("parked",)), sweep=True) == set()


async def _sent(room: Mailroom) -> int:
    text = (await room.do("INFO", "stats")).decode()
    return int(text.split("total_net_output_bytes:")[1].split()[0])


# -- verbs -------------------------------------------------------------------------------------------------------


async def test_apply_goes_in_batches_and_counts(room: Mailroom) -> None:
    await room.say_pii("full")
    entries = [await room.add(**GOOD, to="bob@example.net") for _ in range(205)]
    told: list[int] = []
    before = room.spool.caller.calls.get("move", 0)
    done = await apply(room.spool, "cancel", [*entries, entries[0], "11-0"], progress=told.append)
    assert done == {"cancelled": 205, "missing": 1}
    assert told == [100, 100, 6]
    assert room.spool.caller.calls["move"] - before == 3
    assert await apply(room.spool, "cancel", []) == {}


@pytest.mark.parametrize("verb", ["bounce", "cancel", "hold"])
async def test_large_mails_go_in_several_calls(room: Mailroom, verb: str) -> None:
    """A script that copies a hundred of 2 MB keeps all others from the server for half a second."""
    entries = [await room.scheduled(text="x" * 1_500_000) for _ in range(6)]
    small = [await room.scheduled() for _ in range(3)]
    first = (await room.move(verb, *entries)).statuses
    assert len(first) == (2 if verb == "bounce" else 3)
    assert [await room.state(entry) for entry in entries[len(first) :]] == ["scheduled"] * (6 - len(first))
    before = room.spool.caller.calls["move"]
    told: list[int] = []
    done = await apply(room.spool, verb, [*entries[len(first) :], *small], progress=told.append)
    assert done == {first[0]: len(entries) - len(first) + len(small)}
    assert (room.spool.caller.calls["move"] - before, told) == ((3, [7]) if verb == "bounce" else (2, [6]))


async def test_a_mail_beyond_the_bound_goes_alone(room: Mailroom) -> None:
    entries = [await room.scheduled(text="x" * 5_000_000) for _ in range(2)]
    assert await apply(room.spool, "bounce", entries) == {"bounced": 2}


async def test_unhold_takes_a_time(room: Mailroom) -> None:
    entry = await room.held()
    assert await apply(room.spool, "unhold", [entry], at_ms=room.now + 5000) == {"scheduled": 1}
    assert int(await room.do("ZSCORE", room.keys.schedule, entry)) == room.now + 5000


async def test_what_was_asked_for_while_it_could_not_be_done_is_found(room: Mailroom) -> None:
    leased = (await room.lease(**GOOD, to="bob@example.net")).entry
    waiting = await room.add(**GOOD, to="bob@example.net")
    other = await room.add(**GOOD, to="bob@example.net")
    assert await room.moved("hold", leased, waiting) == ["intended", "intended"]
    assert await room.moved("cancel", leased) == ["intended"]
    await room.moved("hold", other)
    await room.do("XDEL", room.keys.stream("normal"), other[1:])
    await room.do("HSET", room.keys.holds, "intent:nonsense", "hold", b"intent:\xff", "hold")
    assert [one.entry async for one in intended(room.spool, "hold")] == [waiting]
    assert [one.entry async for one in intended(room.spool, "cancel")] == [leased]
    await room.do("HDEL", room.keys.holds, "intent:nonsense", b"intent:\xff", f"intent:{other}")


# -- standing rules ----------------------------------------------------------------------------------------------


async def test_rules_are_set_told_and_ended(room: Mailroom) -> None:
    names = ["all", "domain:example.net", "tag:a:b", id_rule("a1"), id_rule("a1", "acme")]
    for name in names:
        assert not await has_rule(room.spool, name)
        await set_rule(room.spool, name, "hold")
        assert await has_rule(room.spool, name)
    await room.moved("hold", await room.add())  # an intent is no rule
    assert await rules(room.spool) == dict.fromkeys(names, "hold")
    for name in names:
        assert await unset_rule(room.spool, name)
        assert not await unset_rule(room.spool, name)
    assert await rules(room.spool) == {}


async def test_rules_are_found_among_many_intents(room: Mailroom) -> None:
    await set_rule(room.spool, "all", "hold")
    flat = [part for number in range(3000) for part in (f"intent:1{number}-0", "hold")]
    await room.do("HSET", room.keys.holds, *flat)
    assert await rules(room.spool) == {"all": "hold"}
    await room.do("DEL", room.keys.holds)


@pytest.mark.parametrize(
    "selector",
    [
        Selector(),
        Selector(priority="low"),
        Selector(domain="Example.NET"),
        Selector(tenant="acme"),
        Selector(tag="a:b"),
    ],
)
async def test_admission_carries_a_rule_out(room: Mailroom, selector: Selector) -> None:
    assert selector.rule is not None
    await set_rule(room.spool, selector.rule, "hold")
    tail = b'"site":"example.net","tenant":"acme","tags":["x","a:b"]'
    entry = await room.add("low")
    await room.read()
    assert await room.admitted(entry, tail=tail) == ["held"]
    await unset_rule(room.spool, selector.rule)
    entry = await room.add("low")
    await room.read()
    assert await room.admitted(entry, tail=tail) == ["go"]


@pytest.mark.parametrize("verb", ["hold", "cancel"])
async def test_a_rule_for_an_id_counts_once(room: Mailroom, verb: str) -> None:
    await set_rule(room.spool, id_rule("a1"), verb)
    one, other = await room.add(id="a1"), await room.add(id="a1", text="again")
    await room.read()
    assert await room.admitted(one, id="a1") == [{"hold": "held", "cancel": "cancelled"}[verb]]
    assert await room.admitted(other, id="a1") == ["go"]
    assert await rules(room.spool) == {}


async def test_a_tenants_rule_is_not_for_another(room: Mailroom) -> None:
    """Two tenants may use the same id."""
    await set_rule(room.spool, id_rule("a1", "acme"), "cancel")
    entries = {tenant: await room.add(id="a1", tenant=tenant) for tenant in ("", "other", "acme")}
    await room.read()
    statuses = {}
    for tenant, entry in entries.items():
        tail = f'"tenant":"{tenant}"'.encode() if tenant else b""
        statuses[tenant] = await room.admitted(entry, id="a1", tail=tail, seen=ident("a1", tenant))
    assert statuses == {"": ["go"], "other": ["go"], "acme": ["cancelled"]}
    await set_rule(room.spool, id_rule("a2"), "cancel")
    entry = await room.add(id="a2", tenant="acme")
    await room.read()
    assert await room.admitted(entry, id="a2", tail=b'"tenant":"acme"') == ["go"]
    assert await rules(room.spool) == {"id:a2": "cancel"}

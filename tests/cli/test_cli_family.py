"""A mail to several recipients by its own id, after it has become one mail each."""

from __future__ import annotations

from collections import Counter

import pytest
from family import TO, end, expand, expanded, parent
from mailroom import DAY, Lease, Mailroom, ident

from cli.shell import streamq

pytestmark = pytest.mark.leaves_mail
ACME = ("--tenant", "acme")


async def five(queue: Mailroom, id: str = "a1") -> tuple[str, list[str]]:
    """Of the tenant acme; of nobody, where another id is given."""
    if id == "a1":
        lease = await parent(queue)
        return lease.entry, await expanded(queue, lease, tail=b'"tenant":"acme"')
    entry = await queue.add(id=id, to=",".join(TO), text="Hello")
    await queue.read()
    found = await queue.admit(entry, kind="expand", lane="", id=id, seen=ident(id))
    return entry, await expanded(queue, Lease(entry, found.token, "w1"))


@pytest.mark.parametrize("by", ["id", "entry"])
async def test_what_it_became_is_shown(queue: Mailroom, by: str) -> None:
    entry, children = await five(queue)
    assert await end(queue, "sent", children[0]) == "ok"
    named = (entry,) if by == "entry" else ("a1", *ACME)
    for verb in ("why", "show"):
        said = await streamq(verb, *named, columns=160)
        assert said.code == 0
        assert said.out.startswith(f"{named[0]} became one mail for each of its 5 recipients: 4 live mails\n")
        assert all(child in said.out for child in children)
        [line] = [line for line in said.out.splitlines() if "relayed" in line]
        assert children[0] in line
        known = (await streamq(verb, *named, "--json", "--limit", "2")).json
        assert (known["entry"], known["recipients"], known["more"]) == (entry, 5, True)
        assert [mail["entry"] for mail in known["mails"]] == children[1:3]
        assert [(each["event"], each["entry"]) for each in known["ended"]] == [("email.relayed", children[0])]


async def test_when_all_have_ended_their_ends_are_told(queue: Mailroom) -> None:
    _, children = await five(queue)
    for child in children:
        assert await end(queue, "sent", child) == "ok"
    said = await streamq("why", "a1", *ACME, columns=160)
    assert (said.code, said.err) == (1, "")
    assert said.out.startswith("a1 became one mail for each of its 5 recipients: no live mail\n")
    assert said.out.count("relayed") == 5
    assert (await streamq("cancel", "a1", *ACME, "--yes")).code == 1


@pytest.mark.parametrize("forgotten", [False, True])
async def test_the_verbs_mean_all_of_them(queue: Mailroom, forgotten: bool) -> None:
    """Also when its id was forgotten before the last of them had gone: they may wait for days."""
    _, children = await five(queue)
    assert await end(queue, "sent", children[0]) == "ok"
    if forgotten:
        await queue.do("DEL", *await queue.do("KEYS", f"{queue.keys.prefix}seen:*"))
    known = (await streamq("hold", "a1", *ACME, "--dry-run", "--json")).json
    assert known["mails"] == 4
    await queue.read()
    said = await streamq("hold", "a1", *ACME, "--yes", "--json")
    assert (said.code, said.json["mails"], said.json["rules"]) == (0, 4, {})
    assert sum(said.json["statuses"].values()) == 4
    said = await streamq("unhold", "a1", *ACME, "--yes", "--json")
    assert (said.code, said.json["mails"]) == (0, 4)
    said = await streamq("cancel", "a1", *ACME, "--yes", "--json")
    assert (said.code, said.json["mails"]) == (0, 4)


async def test_of_one_half_made_both_are_meant(queue: Mailroom) -> None:
    """What it becomes is stopped first; those that came between look and order are meant, too."""
    lease = await parent(queue)
    made = await expanded(queue, lease, 2)
    said = await streamq("cancel", "a1", *ACME, "--yes", "--json")
    assert (said.code, said.json["statuses"]) == (0, {"intended": 1, "cancelled": 2})
    assert (await expand(queue, lease, start=2)).status == "cancelled"
    assert Counter((await queue.states()).values()) == {}
    assert [event.id for event in await queue.events() if event.kind == "email.cancelled"] == ["a1#1", "a1#2", "a1"]
    assert len(made) == 2


async def test_one_that_was_requeued_is_among_them(queue: Mailroom) -> None:
    entry, children = await five(queue)
    assert await end(queue, "dead", children[0]) == "ok"
    [(letter, _)] = await queue.do("XRANGE", queue.keys.dead, "-", "+")
    said = await streamq("why", "a1", *ACME, columns=160)
    assert "`streamq dead requeue a1 --tenant acme` sends those that are dead again" in said.err
    for name in ("a1", entry):
        assert (await streamq("dead", "show", name)).out.startswith(letter.decode())
    assert (await streamq("dead", "requeue", "a1", *ACME)).code == 0
    for child in children[1:]:
        assert await end(queue, "sent", child) == "ok"
    fields = ("id", "a1#3", "tenant", "acme", "to", "eve@example.net", "text", "Hello")
    stranger = f"1{(await queue.do('XADD', queue.keys.stream('normal'), '*', *fields)).decode()}"
    again = next(entry for entry in await queue.states() if entry != stranger)
    known = (await streamq("why", "a1", *ACME, "--json")).json
    assert [mail["entry"] for mail in known["mails"]] == [again]
    said = await streamq("cancel", "a1", *ACME, "--yes", "--json")
    assert (said.code, said.json["statuses"]) == (0, {"intended": 1})
    assert await queue.do("HKEYS", queue.keys.holds) == [f"intent:{again}".encode()]


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_tenants_are_not_meant_by_the_bare_id(queue: Mailroom, forgotten: bool) -> None:
    """Who only looks finds them."""
    _, children = await five(queue)
    if forgotten:
        await queue.do("DEL", *await queue.do("KEYS", f"{queue.keys.prefix}seen:*"))
    for verb in ("retry", "cancel", "hold"):
        said = await streamq(verb, "a1", "--yes")
        assert (said.code, "--tenant acme" in said.err) == (1, True), said
    assert await queue.states() == dict.fromkeys(children, "waiting")
    assert (await streamq("why", "a1")).out.startswith("a1 became one mail for each of its 5 recipients: 5 live mails")


async def test_an_id_that_is_like_an_address(queue: Mailroom) -> None:
    """Its letters and events may be gone: workers know it still."""
    _, children = await five(queue, id="order@shop.example")
    await queue.do("XTRIM", queue.keys.events, "MAXLEN", 0)
    said = await streamq("why", "order@shop.example")
    assert said.out.startswith("order@shop.example became one mail for each of its 5 recipients: 5 live mails")
    said = await streamq("cancel", "order@shop.example", "--yes", "--json")
    assert (said.code, said.json["mails"]) == (0, len(children))


async def test_letters_of_tenants_are_not_meant_by_the_bare_id(queue: Mailroom) -> None:
    for tenant in ("acme", "other"):
        lease = await queue.lease(id="o7", tenant=tenant, to="bob@example.net", text="Hello")
        await queue.settled("dead", lease, **{"class": "policy"})
    for verb in ("rm", "requeue", "export"):
        said = await streamq("dead", verb, "o7", *(["--yes"] if verb != "export" else []))
        assert (said.code, "--tenant acme, --tenant other" in said.err) == (1, True), said
    assert (await streamq("dead", "show", "o7")).code == 1
    assert "other" in (await streamq("dead", "show", "o7", "--tenant", "other")).out
    assert (await streamq("dead", "rm", "o7", *ACME, "--yes", "--json")).json == {"removed": 1}
    assert "other" in (await streamq("dead", "show", "o7")).out  # who only looks
    assert (await streamq("dead", "rm", "o7")).code == 1
    assert (await streamq("dead", "rm", "bob@example.net", "--yes", "--json")).json == {"removed": 1}


async def test_of_two_tenants_both_are_named(queue: Mailroom) -> None:
    for tenant in ("acme", "other"):
        entry = await queue.scheduled(id="o8", tenant=tenant, to="bob@example.net", after=DAY)
        assert (await streamq("cancel", entry, "--yes")).code == 0
    for verb in ("why", "show", "retry", "hold"):
        said = await streamq(verb, "o8")
        assert (said.code, "--tenant acme" in said.err, "--tenant other" in said.err) == (1, True, True), said
    assert (await streamq("why", "o8", "--tenant", "other")).out.startswith("o8 is not in the queue any more")

"""Where the mail to somebody is, why it is not there, and make it go now: by the address alone, one command."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from mailroom import DAY, Lease, Mailroom, ident

from cli.shell import streamq
from streamq.queue.scripts import why
from streamq.queue.steer import rules

pytestmark = pytest.mark.leaves_mail
ANNA = "anna@example.org"
GOOD: dict[str, Any] = {"from": "shop@example.com", "text": "Hello"}


async def due(queue: Mailroom, entry: str) -> float:
    return float(await queue.do("ZSCORE", queue.keys.schedule, entry))


async def several(queue: Mailroom) -> dict[str, str]:
    """Mails to her, of nobody and of a tenant, in every state; and one to somebody else."""
    found = {}
    known: dict[str, Any] = {"to": "Anna <Anna@example.org>", **GOOD}
    more: dict[str, dict[str, Any]] = {"parked": {"lane": "main|example.org"}, "scheduled": {"after": DAY}}
    for state in ("leased", "parked", "scheduled", "held"):
        found[state] = await queue.in_state(state, id=state, **known, **more.get(state, {}))
    found["acme"] = await queue.scheduled("low", after=DAY, to=ANNA, id="theirs", tenant="acme", **GOOD)
    found["bob"] = await queue.scheduled(after=DAY, to="bob@example.org", **GOOD)
    found["waiting"] = await queue.add(id="waiting", **known)
    return found


async def test_why_an_address(queue: Mailroom) -> None:
    found = await several(queue)
    said = await streamq("why", ANNA)
    assert said.code == 0
    assert said.out.splitlines()[0] == "6 live mails to anna@example.org"
    assert all(entry in said.out for name, entry in found.items() if name != "bob")
    assert "waits     to be read: no worker has come to it yet" in said.out
    assert "tenant    acme" in said.out
    known = (await streamq("why", "ANNA@Example.ORG", "--json")).json
    assert {mail["entry"] for mail in known["mails"]} == {entry for name, entry in found.items() if name != "bob"}
    assert known["mails"][0]["waits_for"] == "read"  # the newest first
    assert (known["looked"], known["live"], known["more"], known["ended"]) == (7, 7, False, [])
    known = (await streamq("why", ANNA, "--tenant", "acme", "--json")).json
    assert [mail["id"] for mail in known["mails"]] == ["theirs"]
    said = await streamq("why", ANNA, "--limit", "2", "--json")
    assert (len(said.json["mails"]), said.json["more"]) == (2, True)


async def test_what_became_of_the_last_ones(queue: Mailroom) -> None:
    lease = await queue.lease(id="s1", to=ANNA, **GOOD)
    tail = b'"rcpt":"anna@example.org","reply":"250 2.0.0 taken as 4711","peer":"mx.example.org"'
    row = queue.end("sent", lease, tail=tail)._replace(id="s1")
    assert (await queue.scripts.settle("w1", [row])).statuses == ["ok"]
    for verb in ("why", "show"):
        said = await streamq(verb, ANNA, columns=160)
        assert said.code == 1  # as of one mail that is not live
        assert said.out.startswith("no live mail to anna@example.org\n")
        assert "relayed  s1  250 2.0.0 taken as 4711 (mx.example.org)" in said.out
        [end] = (await streamq(verb, ANNA, "--json")).json["ended"]
        assert (end["event"], end["id"], end["data"]["reply"]) == ("email.relayed", "s1", "250 2.0.0 taken as 4711")
    said = await streamq("log", ANNA)
    assert (said.code, said.out.count("\n")) == (0, 1)
    # and of one mail, by its id
    told = [(await streamq(verb, "s1")) for verb in ("why", "show")]
    assert told[0] == told[1]
    assert (told[1].code, told[1].err) == (1, "")
    assert told[1].out.splitlines()[0] == "s1 is not in the queue any more; its last event: relayed"


async def test_what_an_operator_ended_is_found_by_its_address(queue: Mailroom) -> None:
    """Whose event is hashed: no worker has said that it may not be."""
    for name, to in (("c1", ANNA), ("c2", "bob@example.net")):
        await queue.scheduled(after=DAY, id=name, to=to, **GOOD)
        assert (await streamq("cancel", name, "--yes")).code == 0
    [end] = (await streamq("why", "Anna@Example.ORG", "--json")).json["ended"]
    assert (end["event"], end["id"]) == ("email.cancelled", "c1")
    for words in ([ANNA], ["--to", ANNA], ["--domain", "example.org"]):
        said = await streamq("log", *words, "--format", "json")
        assert [orjson.loads(line)["id"] for line in said.out.splitlines()] == ["c1"], words
    assert "@" not in (await queue.events())[-1].data["rcpt"]


async def test_make_it_go_now(queue: Mailroom) -> None:
    found = await several(queue)
    said = await streamq("retry", ANNA)
    assert (said.code, said.out) == (1, "")
    assert "retry 6 mails?" in said.err
    assert await due(queue, found["scheduled"]) > queue.now + DAY / 2
    said = await streamq("retry", ANNA, "--yes")
    assert said.code == 0
    assert said.out.startswith("retry: 2 scheduled, 1 ")
    assert "held: `streamq unhold`" in said.err
    assert max(await due(queue, found["scheduled"]), await due(queue, found["acme"])) < queue.now + DAY / 2
    assert await due(queue, found["bob"]) > queue.now + DAY / 2


@pytest.mark.parametrize(
    ("verb", "many", "statuses"),
    [
        ("retry", 6, {"scheduled": 2, "parked": 1, "leased": 1, "held": 1, "waiting": 1}),
        ("hold", 6, {"held": 4, "intended": 2}),
        ("unhold", 1, {"scheduled": 1}),
        ("cancel", 6, {"cancelled": 5, "intended": 1}),
        ("bounce", 6, {"bounced": 5, "intended": 1}),
    ],
)
async def test_to_is_a_choice_of_every_verb(queue: Mailroom, verb: str, many: int, statuses: dict[str, int]) -> None:
    await several(queue)
    for words in (("--to", ANNA), (ANNA,)):
        known = (await streamq(verb, *words, "--dry-run", "--json")).json
        assert (known["mails"], known["rules"]) == (many, {})
    assert (await streamq(verb, "--to", ANNA, "--domain", "example.net", "--yes", "--json")).json["mails"] == 0
    known = (await streamq(verb, "--to", ANNA, "--yes", "--json")).json
    assert (known["mails"], known["statuses"], known["rules"]) == (many, statuses, {})
    assert await rules(queue.spool) == {}


async def test_lists_take_it_too(queue: Mailroom) -> None:
    await several(queue)
    assert {one["fields"]["id"] for one in (await streamq("ls", "--to", ANNA, "--state", "held", "--json")).json} == {
        "held"
    }
    assert (await streamq("qshape", "--to", ANNA, "--json")).json["total"]
    await streamq("bounce", ANNA, "--yes")
    assert len((await streamq("dead", "ls", "--to", "ANNA@example.org", "--json")).json) == 5
    assert (await streamq("ls", "--to", "anna")).code == 2


@pytest.mark.parametrize("verb", ["hold", "cancel"])
async def test_an_address_is_no_id_unless_that_is_said(queue: Mailroom, verb: str) -> None:
    said = await streamq(verb, ANNA)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"streamq: no live mail is to {ANNA}, and none has '{ANNA}' as its id; --unseen: ")
    assert await rules(queue.spool) == {}
    assert (await streamq(verb, ANNA, "--unseen")).code == 0
    assert await rules(queue.spool) == {f"id:{ANNA}": verb}
    assert (await streamq("unhold", ANNA)).code == 0
    assert await rules(queue.spool) == {}


async def test_an_id_comes_first(queue: Mailroom) -> None:
    """Read already, or by nobody yet."""
    entry = await queue.scheduled(id=ANNA, to="bob@example.net", **GOOD)
    await queue.scheduled(id="a1", to=ANNA, **GOOD)
    for verb in ("why", "show"):
        assert (await streamq(verb, ANNA, "--json")).json["entry"] == entry
    assert (await streamq("retry", ANNA, "--json")).json["mails"] == 1


async def test_an_id_whose_mail_has_ended_hides_no_live_mail_to_that_address(queue: Mailroom) -> None:
    """A digest's id may be its reader's address, each day."""
    old = await queue.add(id=ANNA, to=ANNA, **GOOD)
    await queue.read()
    found = await queue.admit(old, id=ANNA, seen=ident(ANNA))
    assert await queue.settled("sent", Lease(old, found.token, "w1"), tail=b'"rcpt":"anna@example.org"') == "ok"
    entry = await queue.scheduled(id="a1", to=ANNA, **GOOD)
    known = (await streamq("why", ANNA, "--json")).json
    assert ([mail["entry"] for mail in known["mails"]], [end["entry"] for end in known["ended"]]) == ([entry], [old])
    assert (await streamq("retry", ANNA)).out == "retry: 1 scheduled\n"


async def test_a_mail_of_a_tenant_is_found_or_it_is_said_how(queue: Mailroom) -> None:
    entry = await queue.add(id="a1", tenant="acme", to=ANNA, **GOOD)
    await queue.read()
    await queue.admitted(entry, id="a1", seen=ident("a1", "acme"), due=queue.now + DAY)
    for verb in ("why", "show"):
        assert (await streamq(verb, "a1", "--json")).json["entry"] == entry
    for verb in ("retry", "hold", "cancel", "bounce"):
        said = await streamq(verb, "a1")
        assert (said.code, said.out) == (1, "")
        assert said.err.endswith("no live mail without a tenant has the id 'a1', but one of a tenant: --tenant acme\n")
    assert await rules(queue.spool) == {}
    assert (await streamq("cancel", "a1", "--tenant", "acme")).code == 0
    said = await streamq("why", "a1")
    assert "is not in the queue any more; its last event: cancelled" in said.out


async def test_rules_that_a_dry_run_would_set_or_end_are_told(queue: Mailroom) -> None:
    assert (await streamq("site", "pause", "Example.org.", "--json")).json["site"] == "example.org"
    said = await streamq("hold", "--domain", "example.org.", "--dry-run")
    assert said.out.splitlines()[0] == "domain:example.org: would be a standing rule"
    assert (await streamq("hold", "--domain", "example.org.", "-y")).code == 0
    for words in (("--json",), ()):
        said = await streamq("unhold", "--domain", "example.org", "--dry-run", *words)
        assert "domain:example.org" in said.out
        assert "would be no standing rule any more" in said.out
    assert await rules(queue.spool) == {"domain:example.org": "hold"}


async def test_what_would_be_held_again_is_not_let_go(queue: Mailroom) -> None:
    odd = await queue.held(id="h1", to=ANNA, colour="red", **GOOD)
    fine = await queue.held(id="h2", to=ANNA, **GOOD)
    for words in (("h1",), (odd,)):
        said = await streamq("unhold", *words)
        assert (said.code, said.out) == (1, "unhold: 1 kept\n")
        assert f"kept: {odd}: unknown fields: colour\n" in said.err
        assert "takes it up by itself" in " ".join(said.err.split())
    assert await queue.state(odd) == "held"
    known = (await streamq("unhold", "--all", "--yes", "--json")).json
    assert (known["statuses"], known["kept"]) == ({"scheduled": 1, "kept": 1}, {odd: "unknown fields: colour"})
    assert await queue.state(fine) == "scheduled"
    entry = await queue.add(id="h3", to=ANNA, route="nowhere", **GOOD)
    await queue.read()
    reason = why(reason="route: no such route: 'nowhere'", fields=["route=nowhere"], **{"class": "unknown_route"})
    assert await queue.admitted(entry, kind="hold", why=reason) == ["held"]
    said = await streamq("unhold", entry)
    assert (said.code, f"kept: {entry}: route: no such route: 'nowhere'\n" in said.err) == (1, True)
    assert (await streamq("bounce", "h1")).code == 0
    assert (await streamq("dead", "requeue", "h1", "--set", "colour=")).code == 0
    assert "waiting" in (await queue.states()).values()


@pytest.mark.parametrize("command", ["ls", "qshape", "retry", "hold", "log"])
async def test_a_class_that_cannot_be_is_named(queue: Mailroom, command: str) -> None:
    said = await streamq(command, "--class", "greylistd")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("streamq: --class: one of account, ambiguous, ")
    assert said.err.endswith("(got 'greylistd'; did you mean greylisted?)\n")


async def test_a_log_of_nothing(queue: Mailroom) -> None:
    said = await streamq("log", "nope")
    assert (said.code, said.out, said.err) == (1, "", "no event of 'nope' is kept that fits\n")
    assert (await streamq("log")).code == 0
    await streamq("cancel", await queue.scheduled(id="a1"))
    assert (await streamq("log", "a1", "--json")).json["type"] == "email.cancelled"
    assert (await streamq("log", "--json", "--format", "text")).code == 2

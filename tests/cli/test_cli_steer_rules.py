"""Standing rules: hold, cancel and bounce of what comes, until unhold."""

from __future__ import annotations

import pytest
from mailroom import Mailroom

from cli.conftest import Fill, intents
from cli.shell import streamq
from streamq.queue.steer import rules

pytestmark = pytest.mark.leaves_mail


# -- hold as a rule ----------------------------------------------------------------------------------------------


async def test_hold_is_a_rule_and_a_sweep(queue: Mailroom, fill: Fill) -> None:
    entries = await fill()
    said = await streamq("hold", "--domain", "Low.Example", "--yes")
    assert said.code == 0
    first, second = said.out.splitlines()
    assert first.startswith("domain:low.example: a standing rule from now on")
    assert set(second.removeprefix("hold: ").split(", ")) == {"2 held", "1 intended", "1 by rule"}
    assert await rules(queue.spool) == {"domain:low.example": "hold"}
    states = await queue.states()
    assert {states[entries[f"low-{name}"]] for name in ("parked", "scheduled", "held")} == {"held"}
    assert await intents(queue) == {entries["low-leased"]: "hold"}
    await queue.read()
    assert await queue.admitted(entries["low-waiting"], tail=b'"site":"low.example"') == ["held"]


async def test_a_rule_holds_though_nothing_is_there_yet(queue: Mailroom) -> None:
    said = await streamq("hold", "--all", "--json")
    assert (said.code, said.json["mails"]) == (0, 0)
    assert await rules(queue.spool) == {"all": "hold"}


async def test_unhold_ends_the_rule_and_all_that_it_held(queue: Mailroom, fill: Fill) -> None:
    entries = await fill()
    await streamq("hold", "--domain", "low.example", "--yes")
    said = await streamq("unhold", "--domain", "LOW.example", "--yes")
    assert said.code == 0
    first, second = said.out.splitlines()
    assert first == "domain:low.example: no standing rule any more"
    assert set(second.removeprefix("unhold: ").split(", ")) == {"3 scheduled", "1 leased"}
    assert await rules(queue.spool) == {}
    assert await intents(queue) == {}, "what is in delivery would be held afterwards"
    states = await queue.states()
    assert {states[entries[f"low-{name}"]] for name in ("parked", "scheduled", "held")} == {"scheduled"}


async def test_unhold_without_an_answer_ends_no_rule(queue: Mailroom, fill: Fill) -> None:
    await fill()
    await streamq("hold", "--all", "--yes")
    assert (await streamq("unhold", "--all")).code == 1
    assert (await streamq("unhold", "--all", "--dry-run")).code == 0
    assert await rules(queue.spool) == {"all": "hold"}


async def test_unhold_in_a_while(queue: Mailroom) -> None:
    entry = await queue.held()
    seconds, _ = await queue.do("TIME")
    assert (await streamq("unhold", entry, "--in", "5m")).code == 0
    due = int(float(await queue.do("ZSCORE", queue.keys.schedule, entry)))
    assert 300_000 <= due - int(seconds) * 1000 < 400_000


async def test_a_class_is_no_standing_rule(queue: Mailroom) -> None:
    """What is read for the first time has none."""
    assert (await streamq("hold", "--class", "greylisted", "--yes")).code == 0
    assert await rules(queue.spool) == {}
    assert await queue.do("EXISTS", queue.keys.holds) == 0


@pytest.mark.parametrize(("verb", "gone"), [("cancel", "cancelled"), ("bounce", "dead")])
async def test_a_standing_verb_takes_what_comes_until_unhold(queue: Mailroom, verb: str, gone: str) -> None:
    before = await queue.scheduled("low", to="bob@a.example", tags="spring")
    other = await queue.scheduled("low", to="bob@a.example")
    asked = await streamq(verb, "--tag", "spring", "--standing")
    assert (asked.code, asked.out) == (1, "")
    assert asked.err.startswith(f"{verb} 1 mail, and what comes? No terminal to ask")
    assert await rules(queue.spool) == {}
    said = await streamq(verb, "--tag", "spring", "--standing", "--yes")
    assert said.code == 0
    assert said.out.startswith("tag:spring: a standing rule from now on, until `streamq unhold`")
    assert await rules(queue.spool) == {"tag:spring": verb}
    assert set(await queue.states()) == {other}
    assert before != other
    entry = await queue.add("low", tags="spring")
    await queue.read()
    tail = b'"tags":["spring"]'
    assert await queue.admitted(entry, tail=tail) == [gone]
    assert f"rule      {verb} --tag spring" in (await streamq("status")).out
    assert (await streamq("unhold", "--tag", "spring", "--yes")).code == 0
    assert await rules(queue.spool) == {}


@pytest.mark.parametrize("words", [["a1"], ["--class", "greylisted"], ["--tag", "a", "--domain", "b.example"]])
async def test_a_standing_verb_takes_one_choice(queue: Mailroom, words: list[str]) -> None:
    said = await streamq("cancel", *words, "--standing", "--yes")
    assert (said.code, said.out) == (2, "")
    assert "cancel: a standing rule takes one of --domain" in said.err
    assert await rules(queue.spool) == {}

"""why ID: in words and as JSON, for mails in every state and for those that are gone."""

from __future__ import annotations

import re

import orjson
import pytest
from mailroom import Mailroom

from cli.conftest import Fill, hostile
from cli.shell import steers, streamq
from streamq.queue.limits import limit_text, set_limits
from streamq.settings import window

pytestmark = pytest.mark.leaves_mail


def lines_of(out: str) -> dict[str, str]:
    _, *rest = out.splitlines()
    return {line[:9].strip(): line[10:] for line in rest}


async def test_the_limit_of_its_site(queue: Mailroom) -> None:
    await set_limits(queue.spool, "settings", {"*|example.net": limit_text([window("1/h")])})
    entries = [await queue.add(to="bob@example.net", id=f"a{number}") for number in range(4)]
    await queue.read()
    assert await queue.admitted(*entries) == ["go", "parked", "parked", "parked"]
    said = await streamq("why", entries[3])
    assert (said.code, said.err) == (0, "")
    head = said.out.splitlines()[0]
    assert head.startswith(f"{entries[3]}  normal  parked  ")
    lines = lines_of(said.out)
    assert lines["to"] == "bob@example.net (site example.net, route main)"
    assert lines["waits"] == "for the limit of its site there: 1/h (settings)"
    assert lines["since"].startswith("it came, ")
    assert lines["ahead"] == "0 of better priority, 2 older ones of its own"
    assert lines["next"] in {"in 1.0 h, the first of its lane", "in 60.0 m, the first of its lane"}
    assert lines["expected"] == "in 3.0 h, at 24/d"
    assert lines["tried"] == "not yet"
    known = (await streamq("why", entries[3], "--json")).json
    assert (known["waits_for"], known["target"], known["limit"]["rate"]) == ("site", "main|example.net", ["1/h"])
    assert known["ahead"] == {"better": 0, "older": 2}
    assert known["words"] == lines["waits"]


async def test_every_state_by_a_producers_id(queue: Mailroom, fill: Fill) -> None:
    await fill()
    told = {
        state: lines_of((await streamq("why", f"normal-{state}")).out)["waits"]
        for state in ("waiting", "leased", "parked", "scheduled", "held")
    }
    assert told.pop("leased").startswith("in delivery by w1, heard of ")
    assert told == {
        "waiting": "to be read: no worker has come to it yet",
        "parked": "for its turn: nothing limits it, the next worker with room takes it",
        "scheduled": "for its time (send_at, delay, or an operator's)",
        "held": "held: unknown fields: colour; goes by itself when a worker can send it, else mend and send anew",
    }


async def test_one_that_nobody_reads_knows_its_own_slot(queue: Mailroom) -> None:
    """Not the first one's."""
    await queue.do("HSET", queue.keys.limits, "*", "1:60000000")
    await queue.add()
    await queue.admitted(*await queue.read(), lane="main|example.net")
    for _ in range(3):
        await queue.add("high")
    entries = [await queue.add() for _ in range(3)]
    lines = lines_of((await streamq("why", entries[-1])).out)
    assert lines["ahead"] == "2 of its priority that nobody has read, 3 of better ones"
    assert re.fullmatch(r"in (1\.0 m|\d\d\.\d s), the first of them", lines["next"])
    assert re.fullmatch(r"in 6\.[12] m", lines["expected"])  # the sixth of them


async def test_a_pause_and_a_rule(queue: Mailroom) -> None:
    await streamq("site", "pause", "example.net", "--reason", "they asked")
    entry = await queue.add()
    await queue.read()
    assert await queue.admitted(entry) == ["parked"]
    lines = lines_of((await streamq("why", entry)).out)
    assert lines["waits"] == "its site is paused by an operator until `streamq site resume`: they asked"
    assert re.fullmatch(r"it came, \S+ m?s ago; its site was closed \S+ m?s ago", lines["since"])
    assert (lines["next"], lines["expected"]) == ("not before it is opened, the first of its lane", "nobody can tell")
    waiting = await queue.add()
    await streamq("hold", "--domain", "example.net", "--yes")
    assert lines_of((await streamq("why", waiting)).out)["waits"] == (
        "to be read; then it will be held, as an operator said (`streamq unhold --domain example.net` ends that rule)"
    )


async def test_a_pace_that_replies_taught(queue: Mailroom) -> None:
    entry = await queue.parked()
    known = {"rate": 0.5, "till": f"{queue.now + 90_000}000", "began": f"{queue.now - 60_000}000", "class": "site_rate"}
    await queue.do("HSET", queue.keys.limit("main|example.net"), "pace", orjson.dumps(known | {"reply": "421 slower"}))
    await queue.do("PEXPIRE", queue.keys.limit("main|example.net"), 60_000)
    lines = lines_of((await streamq("why", entry)).out)
    assert lines["waits"] == "slowed to 30/m, site_rate: 421 slower"
    assert re.fullmatch(r"it came, \S+ m?s ago; it was slowed 1\.\S m ago", lines["since"])
    assert lines["next"] == "in 1.5 m, the first of its lane"
    assert "slowed to 30/m, site_rate: 421 slower" in (await streamq("site", "ls", columns=160)).out
    assert "slowed    slowed to 30/m" not in (await streamq("site", "show", "example.net")).out
    [view] = (await streamq("site", "show", "example.net", "--json")).json
    assert (view["throttled"][0]["rate"], view["throttled"][0]["class"]) == (0.5, "site_rate")


async def test_a_retry_and_its_reply(queue: Mailroom) -> None:
    lease = await queue.lease()
    await queue.settled("defer", lease, wait=3_600_000, reply="450 4.2.1 later", **{"class": "recipient_rate"})
    lines = lines_of((await streamq("why", lease.entry)).out)
    assert lines["waits"] == "for its next attempt, after recipient_rate"
    assert lines["tried"].startswith("1 attempt, the last ")
    assert lines["reply"] == "450 4.2.1 later (recipient_rate)"
    assert lines["next"] in {"in 1.0 h", "in 60.0 m"}


async def test_a_retry_whose_way_is_paused(queue: Mailroom) -> None:
    lease = await queue.lease(id="a1", to="bob@slow.example")
    await queue.settled("defer", lease, wait=3_600_000, reply="450 4.2.1 later", **{"class": "temporary"})
    await streamq("site", "pause", "slow.example")
    lines = lines_of((await streamq("why", lease.entry)).out)
    paused = "its site is paused by an operator until `streamq site resume`"
    assert lines["waits"] == f"for its next attempt, after temporary; then it parks: {paused}"
    assert (lines["expected"], "in " in lines["next"]) == ("not before it is opened", True)
    known = (await streamq("why", lease.entry, "--json")).json
    assert ([each["name"] for each in known["closed"]], known["expected_ms"]) == (["*|slow.example"], None)
    said = await streamq("retry", lease.entry)
    assert (said.code, said.out) == (0, "retry: 1 scheduled\n")
    assert f"waits for its next attempt, after temporary; then it parks: {paused}" in said.err
    await streamq("site", "resume", "slow.example")
    assert (await streamq("retry", lease.entry)).err == ""


async def test_one_that_is_gone_or_was_never_there(queue: Mailroom) -> None:
    sent, dead = await queue.lease(id="s1"), await queue.lease(id="d1")
    await queue.settled("sent", sent, tail=b'"peer":"mx.example.net"')
    await queue.settled("dead", dead, tail=b'"class":"bad_address","reply":"550 5.1.1 who"', **{"class": "bad_address"})
    said = await streamq("why", sent.entry)
    assert (said.code, said.err) == (1, "")
    assert said.out.splitlines()[0] == f"{sent.entry} is not in the queue any more; its last event: relayed"
    said = await streamq("why", dead.entry)
    assert said.code == 1
    assert said.out.splitlines()[0] == f"{dead.entry} is dead (bounced)"
    assert f"`streamq dead requeue {dead.entry}` sends it again" in said.out
    assert lines_of(said.out)["reply"] == "550 5.1.1 who"
    known = await streamq("why", dead.entry, "--json")
    assert (known.code, known.json["state"], known.json["event"]) == (1, "dead", "email.bounced")
    said = await streamq("why", "never")
    assert (said.code, said.out) == (1, "")
    assert "none that was seen has the id 'never'" in said.err


async def test_hostile_mails_do_not_reach_the_terminal(queue: Mailroom) -> None:
    for entry in await hostile(queue):
        for words in ((), ("--json",)):
            said = await streamq("why", entry, *words)
            assert (said.code, steers(said.out)) == (0, set()), said.err

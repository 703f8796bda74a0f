"""route ls, show, pause, resume: as an operator sees them, with and without the workers' settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from mailroom import Mailroom

from cli.conftest import EVIL
from cli.shell import streamq
from streamq.queue.look import now_ms
from streamq.queue.rows import GrantRow

pytestmark = pytest.mark.leaves_mail
FILE = """\
[routes.main]
url = "smtp://user:secret@relay.example:587"
weight = 3
[routes.bulk]
url = "smtp://bulk.example"
reserved = true
connections = 5
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "streamq.toml"
    path.write_text(FILE)
    return str(path)


async def test_ls(queue: Mailroom, config: str) -> None:
    await queue.scripts.grant("w1", 4000, [GrantRow("main", 20, 100, 3, 20, 20)])
    await queue.parked(lane="main>bulk|example.net")
    said = await streamq("--config", config, "route", "ls")
    assert (said.code, said.err) == (0, "")
    lines = [line.split() for line in said.out.splitlines()]
    assert lines[0] == ["route", "weight", "connections", "parked", "state"]
    assert lines[1:] == [["main", "3", "20/20", "1", "open"], ["bulk", "reserved", "0/5", "0", "open"]]
    assert "secret" not in said.out
    listed = (await streamq("--config", config, "route", "ls", "--json")).json
    assert [(one["name"], one["open"], one["parked"], one["connections"]) for one in listed] == [
        ("main", True, 1, 20),
        ("bulk", True, 0, 0),
    ]
    settled = [(one["weight"], one["reserved"], one["most"]) for one in listed]  # as the table has them
    assert [settled[0], settled[1][1:]] == [(3, False, 20), (True, 5)]


async def test_what_its_server_takes(queue: Mailroom, config: str) -> None:
    queue.to(await now_ms(queue.spool))  # the commands ask the server for the time
    await queue.scripts.grant("w1", 4000, [GrantRow("main", 20, 100, 3, 5, 5)])
    learnt = (await streamq("route", "show", "main", "--json")).json["learnt"]
    assert learnt == {"connections": 6, "refused_ms": None, "tries_ms": None, "mails": None}
    assert (await streamq("route", "ls")).out.count("takes") == 0
    row = GrantRow("main", 20, 100, 9, 5, 5, refused=1, worked=5, bore=30)
    await queue.scripts.grant("w1", 4000, [row])
    shown = (await streamq("--config", config, "route", "show", "main")).out
    assert "learnt    5 stand, 5 may; its server takes 5 at once (refused " in shown
    assert re.search(r" ago, tries one more in (59|60)\.\d s\)", shown)
    assert shown.rstrip().endswith("open")
    assert "takes 30 mails over a connection" in shown
    listed = (await streamq("--config", config, "route", "ls")).out
    assert "open, takes 5 at once, 30 mails each" in listed


async def test_pause_show_resume(queue: Mailroom, config: str) -> None:
    await queue.parked(lane="main|example.net")
    said = await streamq("--config", config, "route", "pause", "main", "--reason", "moving house", "--for", "2h")
    assert (said.code, said.out) == (0, "main: paused; 1 mail parked for it\n")
    shown = await streamq("--config", config, "route", "show", "main")
    assert "smtp://relay.example:587" in shown.out
    assert "secret" not in shown.out
    assert "paused by an operator for 2.0 h: moving house" in shown.out
    [closed] = (await streamq("route", "show", "main", "--json")).json["closed"]
    assert (closed["why"], closed["text"], closed["hold"]) == ("operator", "moving house", False)
    assert "route main: paused by an operator for 2.0 h: moving house" in (await streamq("status")).out
    said = await streamq("route", "resume", "main", "--json")
    assert said.json == {"verb": "resume", "route": "main", "status": "resumed", "parked": 1, "dry_run": False}
    again = await streamq("--config", config, "route", "resume", "main")
    assert (again.code, again.out) == (1, "main: open; 1 mail parked for it\n")
    assert (await streamq("status", "--json")).json["closed"] == []


async def test_hold_and_no_end(queue: Mailroom, config: str) -> None:
    await streamq("--config", config, "route", "pause", "main", "--hold")
    shown = await streamq("route", "show", "main")
    assert "paused by an operator until `streamq route resume`, its mails wait" in shown.out
    assert (await streamq("status", "--json")).json["paused"] == {}


async def test_a_dry_run_changes_nothing(queue: Mailroom, config: str) -> None:
    for verb, status in (("pause", "paused"), ("resume", "open")):
        said = await streamq("--config", config, "route", verb, "main", "--dry-run")
        assert said.out == f"main: {status}; 0 mails parked for it (dry run: nothing was changed)\n"
        assert await queue.do("EXISTS", queue.keys.pauses) == 0
    assert await queue.kinds() == []


async def test_a_failure_and_the_breaker_say_why(queue: Mailroom) -> None:
    lease = await queue.lease(lane="main|example.net")
    said = {"down": True, "hint": 90_000, "reply": "535 5.7.8 no", "class": "authentication"}
    await queue.settled("park", lease, lane="main|example.net", **said)  # type: ignore[arg-type]
    rows = []
    for _ in range(51):
        each = await queue.lease(lane="bulk|example.net")
        known: dict[str, Any] = {"text": "policy no", "reply": "554 no", "class": "policy"}
        rows.append(queue.end("dead", each, lane="bulk|example.net", **known))
    await queue.scripts.settle("w1", rows)
    listed = {one["name"]: one for one in (await streamq("route", "ls", "--json")).json}
    assert {name: one["closed"][0]["why"] for name, one in listed.items() if one["closed"]} == {
        "main": "authentication",
        "bulk": "breaker",
    }
    assert ": authentication, probes in 1.5 m: 535 5.7.8 no" in (await streamq("route", "show", "main")).out
    shown = (await streamq("route", "show", "bulk")).out
    assert ": breaker of policy, probes in " in shown
    assert ": 554 no" in shown


async def test_what_is_wrong_is_named(queue: Mailroom, config: str) -> None:
    for words, code, says in (
        (("route", "show", "nowhere"), 1, "no route 'nowhere'"),
        (("route", "pause", "nowhere"), 1, "no route 'nowhere'"),
        (("--config", config, "route", "pause", "main", "--for", "soon"), 2, "--for: not a duration"),
        (("--config", config, "route", "pause", "main", "--for", "0"), 2, "--for: no time at all"),
        (("--config", config, "route", "pause", "main", "--reason", "x" * 400), 2, "--reason: at most 300"),
    ):
        said = await streamq(*words)
        assert (said.code, says in said.err, said.out) == (code, True, ""), said.err
    assert await queue.do("EXISTS", queue.keys.pauses) == 0


async def test_hostile_words_do_not_reach_the_terminal(queue: Mailroom) -> None:
    lease = await queue.lease(lane="main|example.net")
    reply = EVIL.decode("utf-8", "replace")
    said = {"down": True, "class": "quota", "reply": reply}
    await queue.settled("park", lease, lane="main|example.net", **said)  # type: ignore[arg-type]
    for words in (("route", "ls"), ("route", "show", "main"), ("status",)):
        out = (await streamq(*words)).out
        assert "\x1b" not in out
        assert "quota" in out

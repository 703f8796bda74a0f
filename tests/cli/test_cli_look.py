"""status, ls, show, check: on mails in every state, on hostile ones, for people and for programs."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mailroom import Mailroom

from cli.conftest import Fill, hostile
from cli.shell import steers, streamq
from streamq.keys import GREATEST
from streamq.queue.rows import MarkRow
from streamq.queue.steer import id_rule, set_rule
from streamq.queue.walk import STATES

pytestmark = pytest.mark.leaves_mail


# -- status ------------------------------------------------------------------------------------------------------


async def test_status_of_every_state(queue: Mailroom, fill: Fill) -> None:
    await fill()
    said = await streamq("status")
    assert (said.code, said.err) == (0, "")
    lines = said.out.split("\n")
    assert lines[0] == "queue streamq"
    assert lines[1].split() == ["priority", *STATES, "oldest"]
    for line, name in zip(lines[2:5], queue.spool.priorities, strict=True):
        assert line.split()[:6] == [name, *"11111"]
    assert max(map(len, lines)) <= 80
    assert "next due in" in said.out


async def test_status_as_json(queue: Mailroom, fill: Fill) -> None:
    await fill()
    await set_rule(queue.spool, "domain:example.net", "hold")
    known = (await streamq("status", "--json")).json
    assert known["queue"] == "streamq"
    assert known["live"] == 15
    assert known["depth"]["low"] == dict.fromkeys(STATES, 1)
    assert known["rules"] == {"domain:example.net": "hold"}
    assert {"now_ms", "oldest_ms", "next_due_ms", "totals", "classes", "dead", "events", "workers"} <= known.keys()


async def test_status_tells_rules_in_the_words_that_end_them(queue: Mailroom) -> None:
    for name in ("all", "domain:example.net", "tag:a:b", id_rule("a1"), id_rule("a1", "acme")):
        await set_rule(queue.spool, name, "hold")
    lines = [line.split(None, 1)[1] for line in (await streamq("status")).out.splitlines() if line[:4] == "rule"]
    expected = ["hold --all", "hold --domain example.net", "hold --tag a:b", "hold a1", "hold a1 --tenant acme"]
    assert sorted(lines) == sorted(expected)


async def test_status_tells_what_mails_are_held_for(queue: Mailroom) -> None:
    assert "held   " not in (await streamq("status")).out
    first, *_ = [await queue.held() for _ in range(3)]
    held = [line.split(None, 1) for line in (await streamq("status")).out.splitlines() if line.startswith("held ")]
    assert held == [["held", "3 unknown_field: colour"]]
    assert (await streamq("status", "--json")).json["held_for"] == {"colour": 3}
    await queue.moved("cancel", first)
    assert (await streamq("status", "--json")).json["held_for"] == {"colour": 2}


async def test_status_warns(queue: Mailroom) -> None:
    assert "no worker runs" not in (await streamq("status")).out
    await queue.add()
    assert "no worker runs" in (await streamq("status")).out
    await queue.spool.touch("w9")
    assert "no worker runs" not in (await streamq("status")).out
    await queue.do("CONFIG", "SET", "maxmemory", int(1.1 * (await streamq("status", "--json")).json["memory"]))
    said = await streamq("status")
    assert "nearly full" in said.out
    assert "throws mails away" not in said.out
    await queue.do("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    said = await streamq("status")
    await queue.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert "maxmemory-policy noeviction` (it is volatile-lru)" in said.out


async def test_status_says_how_many_keys_are_gone(queue: Mailroom) -> None:
    await queue.do("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    await queue.do("SET", "somebodys", "x" * 8_000_000, "EX", 600)
    used = (await streamq("status", "--json")).json["memory"]
    await queue.do("CONFIG", "SET", "maxmemory", used - 2_000_000)
    await queue.do("SET", "another", "x")
    known, said = (await streamq("status", "--json")).json, await streamq("status")
    await queue.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await queue.do("CONFIG", "SET", "maxmemory", 0)
    await queue.do("DEL", "somebodys", "another")
    gone = known["evicted"]
    assert gone >= 1
    assert f"(it is volatile-lru); since it started it threw {gone:,} key{'' if gone == 1 else 's'} away\n" in said.out


# -- ls ----------------------------------------------------------------------------------------------------------


async def test_ls_lists_every_state_in_eighty_columns(fill: Fill) -> None:
    entries = await fill()
    said = await streamq("ls")
    assert (said.code, said.err) == (0, "")
    lines = said.out.rstrip("\n").split("\n")
    assert lines[0].split()[:4] == ["entry", "state", "age", "to"]
    assert {line.split()[0]: line.split()[1] for line in lines[1:]} == {
        entry: name.split("-")[1] for name, entry in entries.items()
    }
    assert max(map(len, lines)) <= 80


async def test_ls_shows_more_where_there_is_room(fill: Fill) -> None:
    await fill()
    said = await streamq("ls", columns=200)
    assert said.out.split("\n")[0].split()[:6] == ["entry", "state", "age", "priority", "to", "subject"]
    assert "lane main|normal.example" in said.out


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--state", "held"], {"high-held", "normal-held", "low-held"}),
        (["--domain", "LOW.example", "--state", "parked"], {"low-parked"}),
        (["--priority", "high", "--state", "waiting"], {"high-waiting"}),
        (["--tenant", "nobody"], set()),
        (["--tag", "nothing"], set()),
    ],
)
async def test_ls_chooses(fill: Fill, words: list[str], names: set[str]) -> None:
    entries = await fill()
    said = await streamq("ls", *words, "--json")
    assert {one["entry"] for one in said.json} == {entries[name] for name in names}
    if not names:
        assert (await streamq("ls", *words)).out == "no mails\n"


async def test_ls_as_json_is_whole(fill: Fill) -> None:
    entries = await fill()
    listed = {one["fields"]["id"]: one for one in (await streamq("ls", "--json")).json}
    assert {name: one["entry"] for name, one in listed.items()} == entries
    assert listed["low-parked"]["lane"] == "main|low.example"
    assert listed["low-leased"]["holder"] == "w1"
    assert listed["low-held"]["notes"]["class"] == "unknown_field"
    assert listed["low-scheduled"]["due_ms"] > 0
    assert "text" not in listed["low-waiting"]["fields"]


async def test_ls_of_what_may_be_delivered_already(queue: Mailroom, fill: Fill) -> None:
    await fill()
    assert (await streamq("ls", "--ambiguous")).out == "no mails\n"
    past, later, kept = [await queue.lease("high", to=f"{name}@a.example") for name in ("past", "later", "kept")]
    await queue.scripts.mark("w1", [MarkRow("main.1", past.entry, past.token)])
    assert await queue.settled("defer", later, reply="", ambiguous=True, **{"class": "timeout"}) == "ok"
    assert await queue.settled("hold", kept, ambiguous=True, reason="ambiguous: the dot went out") == "ok"
    said = await streamq("ls", "--ambiguous", columns=200)
    lines = said.out.rstrip("\n").split("\n")[1:]
    assert lines[0].split()[:2] == [past.entry, "leased"]  # now comes first
    assert lines[0].endswith("past its dot, by w1")
    assert {line.split()[0]: line.split()[1] for line in lines[1:]} == {later.entry: "scheduled", kept.entry: "held"}
    assert any(line.endswith("ambiguous: the dot went out") for line in lines)
    known = {one["entry"]: one for one in (await streamq("ls", "--ambiguous", "--json")).json}
    assert known.keys() == {past.entry, later.entry, kept.entry}
    assert known[past.entry]["past_dot"] is True
    assert known[later.entry]["notes"]["ambiguous"] == 1
    for words, one in (
        (["--state", "held"], kept),
        (["--state", "leased"], past),
        (["--domain", "a.example", "--state", "scheduled"], later),
    ):
        chosen = (await streamq("ls", "--ambiguous", "--json", *words)).json
        assert [each["entry"] for each in chosen] == [one.entry]
    assert (await streamq("ls", "--ambiguous", "--priority", "low")).out == "no mails\n"
    assert (await streamq("ls", "--ambiguous", "--limit", "1")).out.endswith("… and more: --limit 10\n")


async def test_ls_says_that_there_are_more(fill: Fill) -> None:
    await fill()
    assert (await streamq("ls", "--limit", "3")).out.endswith("… and more: --limit 30\n")
    assert len((await streamq("ls", "--limit", "3", "--json")).json) == 3
    assert "more" not in (await streamq("ls", "--limit", "15")).out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--state", "lost"], "--state: one of waiting, leased, parked, scheduled, held (got 'lost')"),
        (["--priority", "urgent"], "--priority: one of high, normal, low (got 'urgent')"),
        (["--domain", "a b"], "--domain: not a domain name (got 'a b')"),
        (["--domain", ""], "--domain: empty (got '')"),
        (["--tag", " "], "--tag: empty (got ' ')"),
    ],
)
async def test_ls_refuses(queue: Mailroom, words: list[str], says: str) -> None:
    said = await streamq("ls", *words)
    assert (said.code, said.out, said.err) == (2, "", f"streamq: {says}\n")


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ls", "--limit", "0"], "--limit"),
        (["ls", "--limit", "x"], "--limit"),
        (["show"], "ID"),
        (["nothing"], "nothing"),
        (["status", "--nothing"], "--nothing"),
    ],
)
async def test_usage_errors_exit_2(words: list[str], says: str) -> None:
    said = await streamq(*words)
    assert (said.code, said.out) == (2, "")
    assert says in said.err


# -- show --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("waiting", "waiting"),
        ("leased", "leased by w1, token "),
        ("parked", "waits in lane main|low.example for a slot"),
        ("scheduled", "next attempt in "),
        ("held", "reason       unknown fields: colour"),
    ],
)
async def test_show_by_entry(fill: Fill, state: str, says: str) -> None:
    entry = (await fill())[f"low-{state}"]
    said = await streamq("show", entry)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"{entry}  low  {state}  ")
    assert says in said.out
    assert f"id               low-{state}\n" in said.out
    assert "text             (5 bytes: --raw)\n" in said.out
    assert "text             Hello\n" in (await streamq("show", entry, "--raw")).out
    known = (await streamq("show", entry, "--json")).json
    assert (known["entry"], known["state"], known["priority"]) == (entry, state, "low")
    assert "text" not in known["fields"]
    assert (await streamq("show", entry, "--json", "--raw")).json["fields"]["text"] == "Hello"


async def test_show_by_id_and_tenant(queue: Mailroom) -> None:
    entry = await queue.held(id="a1", tenant="acme", colour="red")
    assert (await streamq("show", "a1", "--tenant", "acme", "--json")).json["entry"] == entry
    assert (await streamq("show", "a1", "--json")).json["entry"] == entry  # nobody else has it
    said = await streamq("show", "a1", "--tenant", "other")
    assert (said.code, said.out) == (1, "")
    assert "'a1' of tenant 'other'" in said.err
    await queue.add(id="a1", tenant="other")
    said = await streamq("show", "a1")
    assert (said.code, said.out) == (1, "")
    assert "but one of a tenant: --tenant " in said.err


@pytest.mark.parametrize("name", ["nobody", "11700000000000-5", "2023-5", "\x1b[31mred", "[bold]x"])
async def test_show_of_nothing_exits_1(queue: Mailroom, name: str) -> None:
    said = await streamq("show", name)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("streamq: ")
    assert steers(said.err) == set()
    assert said.err.count("\n") == 1


# -- check -------------------------------------------------------------------------------------------------------


async def test_check_of_a_sound_queue(fill: Fill) -> None:
    await fill()
    said = await streamq("check")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("15 mails visited: 3 waiting, 3 leased, 3 parked, 3 scheduled, 3 held\n")
    assert "clean" in said.out
    known = (await streamq("check", "--json")).json
    assert (known["clean"], known["wrong"], known["repaired"]) == (True, [], 0)
    assert known["seen"]["low"] == dict.fromkeys(STATES, 1)


async def test_check_of_a_broken_queue_exits_1_until_it_is_repaired(queue: Mailroom, fill: Fill) -> None:
    entries = await fill()
    await queue.do("ZREM", queue.keys.schedule, entries["low-scheduled"])  # lost
    await queue.do("ZADD", queue.keys.held, 1, "11700000000000-99")  # an orphan
    said = await streamq("check")
    assert said.code == 1
    assert f"lost     {entries['low-scheduled']}\n" in said.out
    assert "streamq check --repair" in said.out
    said = await streamq("check", "--json")
    assert said.code == 1
    assert {one["wrong"] for one in said.json["wrong"]} >= {"lost", "orphan"}
    said = await streamq("check", "--repair")
    assert said.code == 0
    assert "repaired" in said.out
    assert (await streamq("check")).code == 0


# -- hostile mails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [40, 80, 200])
async def test_hostile_mails_steer_no_terminal(queue: Mailroom, columns: int) -> None:
    entries = await hostile(queue)
    await set_rule(queue.spool, "tag:\x1b[31m[bold]x", "hold")
    await queue.do("HINCRBY", queue.keys.counts, "total:\x1b[2J[red]x", 1)
    await queue.do("HINCRBY", queue.keys.counts, b"class:\xff\x9b", 1)
    commands = [["status"], ["ls"], ["check"], *(["show", entry] for entry in entries)]
    commands += [["show", "--raw", entry] for entry in entries]
    for words in commands:
        said = await streamq(*words, columns=columns)
        assert (said.code, said.err) == (0, "")
        assert steers(said.out) == set(), words
    shown = (await streamq("show", entries[0], "--raw")).out
    assert "[bold]x[/bold] [/]" in shown  # no markup to us
    assert ":smile:" in shown


async def test_hostile_mails_break_no_json(queue: Mailroom) -> None:
    entries = await hostile(queue)
    for words in (["ls"], ["status"], *(["show", entry] for entry in entries), ["show", "--raw", entries[-1]]):
        said = await streamq(*words, "--json")
        assert said.code == 0
        assert said.json
        assert steers(said.out) == set()
    fields = (await streamq("show", "--raw", entries[-1], "--json")).json["fields"]
    assert len(fields["subject"]) == 200_000
    assert fields["\x1b]0;pwned\x07"] == "1"


async def test_check_says_which_stream_takes_nothing_and_how_to_mend_it(queue: Mailroom) -> None:
    stream = queue.keys.stream("normal")
    await queue.do("XADD", stream, GREATEST, "to", "bob@example.net")
    said = await streamq("check", columns=400)
    assert said.code == 1
    assert f"normal: its last id is {GREATEST}, ahead of the clock: no XADD with * is taken. First" in said.out
    assert (await streamq("check", "--json")).json["ahead"] == [
        {"priority": "normal", "last": GREATEST, "entries": 1, "state": "ahead"}
    ]
    await streamq("cancel", f"1{GREATEST}", "--yes")
    assert "`streamq check --repair` makes the stream anew" in (await streamq("check", columns=400)).out
    said = await streamq("check", "--repair", columns=400)
    assert (said.code, f"made     normal: made anew, its last id was {GREATEST}" in said.out) == (0, True)
    assert await queue.do("XADD", stream, "*", "to", "bob@example.net")
    await queue.do("XTRIM", stream, "MAXLEN", 0)


@contextmanager
def silent(path: Path) -> Iterator[str]:
    """A server that takes connections, and answers nothing: its URL."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield f"unix://{path}"


async def test_a_server_that_hangs_is_said_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Frozen, it takes connections, and answers nothing; a worker waits half a minute for it."""
    monkeypatch.setattr(sys.modules["streamq.cli.app"], "ANSWER_SECONDS", 0.05)  # `app` is the application, too
    with silent(tmp_path / "s") as url:
        monkeypatch.setenv("STREAMQ_REDIS_URL", url)
        said = await streamq("status")
    assert (said.code, said.out) == (1, "")
    assert said.err == "streamq: redis: no answer within 0.05 s: does the server hang?\n"


async def test_who_runs_for_long_is_as_patient_as_a_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server that loads its data, or forks, may be silent for longer than somebody waits."""
    monkeypatch.setattr(sys.modules["streamq.cli.app"], "ANSWER_SECONDS", 0)
    monkeypatch.setattr("streamq.queue.connection.WRITE_SECONDS", 0.05)
    (tmp_path / "toml").write_text('[webhooks.a]\nurl = "https://a.example/"\nsecret = "whsec_' + "A" * 32 + '"')
    monkeypatch.setenv("STREAMQ_CONFIG", str(tmp_path / "toml"))
    with silent(tmp_path / "s") as url:
        monkeypatch.setenv("STREAMQ_REDIS_URL", url)
        said = await streamq("listen")
    assert (said.code, said.out) == (1, "")
    assert "streamq: redis: " in said.err
    assert "no answer within" not in said.err

"""log: one line for each event as it stands in Redis; filters; nothing steers a terminal; what is hidden."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from mailroom import Mailroom, texts

from cli.conftest import EVIL
from cli.shell import program, steers, streamq
from streamq.mail.event import hashed_address

pytestmark = pytest.mark.leaves_mail


async def outcome(queue: Mailroom, name: str, op: str = "sent", **data: Any) -> None:
    """One mail's outcome, by the script; its data has that."""
    lease = await queue.lease("low", id=name, to="bob@example.net")
    known = {"rcpt": "bob@example.net", "site": "example.net", **data}
    row = queue.end(op, lease, tail=orjson.dumps(known)[1:-1])._replace(id=name)
    assert (await queue.scripts.settle("w1", [row])).statuses == ["ok"]


async def raw_events(queue: Mailroom) -> list[tuple[str, dict[str, str]]]:
    rows = await queue.do("XRANGE", queue.keys.events, "-", "+")
    return [(id_.decode(), texts(dict(zip(flat[::2], flat[1::2], strict=True)))) for id_, flat in rows]


async def test_a_line_for_each_outcome(queue: Mailroom) -> None:
    await outcome(queue, "a1", code=250, reply="2.0.0 Ok: queued", tags=["vip", "news"])
    await outcome(queue, "b2", "dead", code=550, reply='no "such" user', **{"class": "bad_address"})
    said = await streamq("log")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    events = [fields for _, fields in await raw_events(queue)]
    assert len(lines) == len(events) == 2
    times = [datetime.fromtimestamp(orjson.loads(event["data"])["at"] / 1000, UTC) for event in events]
    entries = [orjson.loads(event["data"])["entry"] for event in events]
    assert lines[0] == (
        f"{times[0].isoformat(timespec='milliseconds')[:-6]}Z email.relayed id=a1 rcpt=bob@example.net code=250 "
        f'reply="2.0.0 Ok: queued" entry={entries[0]} priority=low tags=vip,news'
    )
    assert lines[1].split(" ", 1)[1] == (
        "email.bounced id=b2 rcpt=bob@example.net class=bad_address code=550 "
        f'reply="no \\"such\\" user" entry={entries[1]} priority=low'
    )


async def test_json_is_the_event(queue: Mailroom) -> None:
    await outcome(queue, "a1", code=250, metadata={"order": "7"})
    await outcome(queue, "b2", "defer")
    lines = [orjson.loads(line) for line in (await streamq("log", "--format", "json")).out.splitlines()]
    for line, (_, fields) in zip(lines, await raw_events(queue), strict=True):
        assert line.pop("time").endswith("Z")
        assert line == {"type": fields["type"], "id": fields["id"], **orjson.loads(fields["data"])}


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["b2"], ["b2"]),
        (["-n", "2"], ["c3", "d4"]),
        (["-n", "0"], []),
        (["--type", "email.b*"], ["b2"]),
        (["-n", "1", "--type", "email.b*"], ["b2"]),
        (["--type", "email.bounced", "--type", "email.deferred"], ["b2", "c3"]),
        (["--class", "bad_address"], ["b2"]),
        (["--tenant", "acme"], ["c3"]),
        (["--tag", "vip"], ["a1"]),
        (["--domain", "OTHER.example"], ["d4"]),
        (["--to", "ANN@other.example"], ["d4"]),
        (["--to", "ann@other.example", "--type", "email.bounced"], []),
        (["--from", "all"], ["a1", "b2", "c3", "d4"]),
        (["--from", "1h"], ["a1", "b2", "c3", "d4"]),
    ],
    ids=lambda each: " ".join(each),
)
async def test_filters(queue: Mailroom, words: list[str], ids: list[str]) -> None:
    await outcome(queue, "a1", tags=["vip"])
    await outcome(queue, "b2", "dead", **{"class": "bad_address"})
    await outcome(queue, "c3", "defer", tenant="acme")
    await outcome(queue, "d4", rcpt="Ann@other.example", site="other.example")
    said = await streamq("log", *words, "--format", "json")
    assert (said.code, [orjson.loads(line)["id"] for line in said.out.splitlines()]) == (0, ids)


async def test_a_type_that_is_none_is_said_to_be(queue: Mailroom) -> None:
    await outcome(queue, "a1")
    said = await streamq("log", "--type", "email.bounce", "--type", "route.*")
    assert (said.code, said.out) == (0, "")
    assert "--type email.bounce: of no type that this version writes" in said.err
    assert "--type route" not in said.err


async def test_from_an_event_on(queue: Mailroom) -> None:
    for name in ("a1", "b2", "c3"):
        await outcome(queue, name)
    second = (await raw_events(queue))[1][0]
    said = await streamq("log", "--from", second, "--format", "json")
    assert [orjson.loads(line)["id"] for line in said.out.splitlines()] == ["b2", "c3"]


async def test_no_address_stands_there_where_none_shall(queue: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the workers' setting was."""
    await outcome(queue, "a1", "dead", reply="550 <Bob@Example.net>: no such user, says ann@x.example")
    monkeypatch.setenv("STREAMQ_PII", "hash")
    for how in ("text", "json"):
        out = (await streamq("log", "--format", how)).out
        assert "@" not in out
        assert hashed_address("bob@example.net") in out
        assert hashed_address("ann@x.example") in out
    assert (await streamq("log", "--to", "bob@example.net")).out.count("\n") == 1


async def test_the_setting_says_the_form(queue: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    await outcome(queue, "a1")
    monkeypatch.setenv("STREAMQ_LOG", "json")
    assert orjson.loads((await streamq("log")).out)["id"] == "a1"
    monkeypatch.setenv("STREAMQ_LOG", "xml")
    assert (await streamq("log")).err.startswith("streamq: STREAMQ_LOG: ")
    monkeypatch.delenv("STREAMQ_LOG")


async def test_hostile_events_are_one_line_each_and_steer_nothing(queue: Mailroom) -> None:
    data = orjson.dumps({"at": 10**18, "reply": EVIL.decode("utf-8", "replace"), "x=\n": "y", "tags": [1]})
    await queue.do("XADD", queue.keys.events, "*", "type", EVIL, "id", EVIL, "data", data)
    await queue.do("XADD", queue.keys.events, "*", "type", "email.relayed", "data", b"[1]")
    await queue.do("XADD", queue.keys.events, "*", "what", b"\xff")
    for how in ("text", "json"):
        said = await streamq("log", "--format", how)
        assert (said.code, said.out.count("\n"), steers(said.out)) == (0, 3, set())


async def test_state_goes_on_where_it_ended(queue: Mailroom, tmp_path: Path) -> None:
    state = tmp_path / "log.state"
    await outcome(queue, "a1")
    assert (await streamq("log", "--state", str(state))).out.count("\n") == 1
    assert (await streamq("log", "--state", str(state))).out == ""
    await outcome(queue, "b2")
    said = await streamq("log", "--state", str(state), "--format", "json")
    assert orjson.loads(said.out)["id"] == "b2"
    await queue.do("XTRIM", queue.keys.events, "MAXLEN", 0)
    await outcome(queue, "c3")
    said = await streamq("log", "--state", str(state), "--format", "json")
    assert orjson.loads(said.out)["id"] == "c3"
    assert "may be gone already" in said.err
    assert os.listdir(tmp_path) == ["log.state"]


@pytest.mark.parametrize("text", ["", "x", "1-1\n2-2", "\x1b"])
async def test_a_state_that_is_none_is_refused(queue: Mailroom, tmp_path: Path, text: str) -> None:
    state = tmp_path / "log.state"
    state.write_text(text)
    said = await streamq("log", "--state", str(state))
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("streamq: --state: ")


@pytest.mark.parametrize(
    "words", [["--from", "soon"], ["--format", "xml"], ["--domain", "a b"], ["--state", "x", "--from", "1h"]]
)
async def test_what_is_wrong_is_named(queue: Mailroom, words: list[str]) -> None:
    said = await streamq("log", *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"streamq: {words[0]}: ")


async def test_it_follows_until_it_is_told_to_end(queue: Mailroom, server_url: str) -> None:
    await outcome(queue, "a1")
    process = await program("log", "-f", "--format", "json", environment={"STREAMQ_REDIS_URL": server_url})
    assert process.stdout is not None
    assert orjson.loads(await process.stdout.readline())["id"] == "a1"
    for name in ("b2", "c3"):
        await outcome(queue, name)
        assert orjson.loads(await process.stdout.readline())["id"] == name
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out, err) == (0, b"", b"")

"""listen and webhook: as programs and words, against a receiver on loopback; what they say against Redis read raw."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from mailroom import Mailroom
from webhooks.receiver import SECRET, Receiver, receiver

from cli.shell import program, streamq
from streamq.queue.webhooks import Feed

pytestmark = pytest.mark.leaves_mail


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as known:
        yield known
        assert known.unsigned == 0


@pytest.fixture
def config(tmp_path: Path, there: Receiver, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "streamq.toml"
    path.write_text(f'[webhooks.crm]\nurl = "{there.url}"\nsecret = "{SECRET}"\ntypes = ["email.*"]\n')
    monkeypatch.setenv("STREAMQ_CONFIG", str(path))
    return path


def change(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")


async def sent(queue: Mailroom, *names: str) -> None:
    """Real outcomes, by the script."""
    for name in names:
        lease = await queue.lease("low", id=name, to="bob@example.net")
        row = queue.end("sent", lease)._replace(id=name)
        assert (await queue.scripts.settle("w1", [row])).statuses == ["ok"]


async def raw_group(queue: Mailroom) -> dict[str, Any]:
    (flat,) = await queue.do("XINFO GROUPS", queue.keys.events)
    known = dict(zip(flat[::2], flat[1::2], strict=True))
    return {"last": known[b"last-delivered-id"].decode(), "pending": known[b"pending"]}


async def told(queue: Mailroom) -> int:
    state: dict[str, Any] = (await streamq("webhook", "ls", "--json")).json[0]["state"]
    return int(state.get("sent", 0))


async def test_a_listener_sends_what_happens_until_it_is_told_to_end(
    queue: Mailroom, there: Receiver, config: Path, server_url: str
) -> None:
    await sent(queue, "before")
    process = await program("listen", environment={"STREAMQ_REDIS_URL": server_url, "STREAMQ_CONFIG": str(config)})
    assert (await process.stdout.readline()).decode() == f"webhook   crm {there.url.partition('hook?')[0]}…\n"
    await sent(queue, "a", "b")
    await sent(queue, "c")
    async with asyncio.timeout(60):  # what it says of itself comes behind what it sends
        while await told(queue) < 3:  # noqa: ASYNC110 - what comes by another process' connection has no event of ours
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out, err) == (0, b"", b"")
    assert sorted(there.ids()) == ["a", "b", "c"]
    assert await queue.do("EXISTS", queue.keys.leader("webhook-crm")) == 0


async def test_ls_is_the_groups_place(queue: Mailroom, config: Path) -> None:
    assert "never used: `streamq listen`" in (await streamq("webhook", "ls", columns=160)).out
    feed = Feed(queue.spool, "crm")
    await feed.begin()
    await sent(queue, "a", "b", "c")
    await feed.read(1)
    (known,) = (await streamq("webhook", "ls", "--json")).json
    assert {name: known[name] for name in ("last", "pending")} == await raw_group(queue)
    assert (known["behind"], known["pending"]) == (2, 1)
    said = (await streamq("webhook", "ls", columns=120)).out.splitlines()
    assert said[1].split()[:6] == ["crm", "2", "1", "0", "0", "ok"]
    for words in ("failed 1 time in a row: no", "failed 2 times in a row: no"):
        await feed.took([], {"error": "no"}, failed=True)
        assert words in (await streamq("webhook", "ls", columns=160)).out
    assert SECRET not in (await streamq("webhook", "ls", "--json")).out


async def test_pause_resume_and_what_is_skipped(queue: Mailroom, config: Path) -> None:
    feed = Feed(queue.spool, "crm")
    await feed.begin()
    await sent(queue, "a", "b")
    await feed.read(10)
    assert (await streamq("webhook", "pause", "crm", "--reason", "moving", "--dry-run")).code == 0
    assert await feed.paused() == {}
    assert (await streamq("webhook", "pause", "crm", "--reason", "moving")).out == "crm: paused\n"
    assert "paused by operator" in (await streamq("webhook", "ls", columns=160)).out
    assert (await feed.paused())["reason"] == "moving"
    assert (await streamq("webhook", "resume", "crm")).out == "crm: resumed\n"
    assert (await feed.paused(), (await raw_group(queue))["pending"]) == ({}, 2)
    said = await streamq("webhook", "resume", "crm", "--skip")
    assert (said.out, said.err) == ("crm: resumed\n", "skipped: 2 events\n")
    assert (await raw_group(queue))["pending"] == 0


@pytest.mark.parametrize("how", ["stream id", "event_id", "all", "ago"])
async def test_replay_from(queue: Mailroom, config: Path, how: str) -> None:
    feed = Feed(queue.spool, "crm")
    await sent(queue, "a", "b", "c")
    await feed.begin()
    rows = await queue.do("XRANGE", queue.keys.events, "-", "+")
    event_id = orjson.loads(rows[1][1][5])["event_id"]
    since = {"stream id": rows[1][0].decode(), "event_id": event_id, "all": "all", "ago": "1h"}[how]
    many = 2 if how in {"stream id", "event_id"} else 3
    before = await raw_group(queue)
    said = await streamq("webhook", "replay", "crm", "--from", since)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"send {many} events to crm again? No terminal to ask")
    assert (await streamq("webhook", "replay", "crm", "--from", since, "--dry-run", "--json")).json["events"] == many
    assert await raw_group(queue) == before
    assert (await streamq("webhook", "replay", "crm", "--from", since, "--yes")).code == 0
    events, *_ = await feed.read(10)
    assert [event.id for event in events] == ["a", "b", "c"][-many:]


async def test_replay_asks_with_as_many_as_fit(queue: Mailroom, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(config, "email.*", "email.bounced")
    feed = Feed(queue.spool, "crm")
    await sent(queue, "a", "b", "c")
    for name in ("d", "e"):
        await queue.do("XADD", queue.keys.events, "*", "type", "email.bounced", "id", name, "data", "{}")
    await feed.begin()
    asked = ("webhook", "replay", "crm", "--from", "all")
    assert (await streamq(*asked)).err.startswith("send 2 events to crm again?")
    monkeypatch.setattr("streamq.cli.webhook.LOOKED_MOST", 4)
    assert (await streamq(*asked)).err.startswith("send more than 4 events, of which those that fit, to crm again?")
    known = (await streamq(*asked, "--dry-run", "--json")).json
    assert (known["events"], known["more"]) == (4, True)


@pytest.mark.parametrize("since", ["1ms", "stream id"])
async def test_replay_goes_back_and_never_forward(queue: Mailroom, config: Path, since: str) -> None:
    """Nothing since then: all that is kept came again; from what it had not had: what was before that never came."""
    feed = Feed(queue.spool, "crm")
    await feed.begin()
    await queue.do("XADD", queue.keys.events, "1000000000000-1", "type", "email.sent", "id", "a", "data", "{}")
    if since != "1ms":
        since = "1000000000000-2"
        await queue.do("XADD", queue.keys.events, since, "type", "email.sent", "id", "b", "data", "{}")
    before = await raw_group(queue)
    said = await streamq("webhook", "replay", "crm", "--from", since, "--yes")
    assert (said.code, said.out) == (0, "crm: it has had no event from there on\n")
    assert await raw_group(queue) == before
    events, *_ = await feed.read(1)
    assert [event.id for event in events] == ["a"]


async def test_test_says_what_it_answers(queue: Mailroom, there: Receiver, config: Path) -> None:
    there.answer(204, 500)
    said = await streamq("webhook", "test", "crm")
    assert (said.code, said.out) == (0, "crm: 204 No Content\n")
    assert there.got[0]["body"]["type"] == "webhook.test"
    said = await streamq("webhook", "test", "crm", "--json")
    assert (said.code, said.json["status"], said.json["taken"]) == (1, 500, False)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["listen", "other"], 2, "NAME: no such webhook: 'other' (there are crm)"),
        (["webhook", "pause", "other"], 2, "NAME: no such webhook"),
        (["webhook", "replay", "crm", "--from", "1170-0.9", "--yes"], 1, "no event that is kept has the event_id"),
    ],
)
async def test_what_is_wrong_is_named(queue: Mailroom, config: Path, words: list[str], code: int, says: str) -> None:
    said = await streamq(*words)
    assert (said.code, said.out) == (code, "")
    assert says in said.err


async def test_without_webhooks_it_says_how_to_make_one(queue: Mailroom) -> None:
    said = await streamq("listen")
    assert (said.code, said.out) == (2, "")
    assert "[webhooks.NAME] with url and secret" in said.err

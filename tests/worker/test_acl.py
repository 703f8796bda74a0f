"""deploy/acl: on real servers each role does its work and nothing of the others'; what scripts ask for stands in it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli.shell import Said, program, streamq
from crew import crew
from redis.exceptions import RedisError, ResponseError
from servers import Server
from webhooks.receiver import SECRET, receiver

from streamq import Client, Mail, Refused
from streamq.queue.connection import command, connect, denied
from streamq.queue.overview import Overviews
from streamq.queue.spool import Spool
from streamq.queue.webhooks import Feed
from streamq.settings import load_settings
from streamq.worker import Worker

ROOT = Path(__file__).parents[2]
ACL = ROOT / "deploy" / "acl" / "streamq.acl"
LUA = ROOT / "streamq" / "queue" / "lua"
ROLES = {line.split()[1]: line.split()[2:] for line in ACL.read_text().splitlines()}
OWN = {"producer", "reader", "listener", "worker", "operator"}


@pytest.fixture(params=["valkey-9.1", "redis-6.2"])
def guarded(request: pytest.FixtureRequest, own_server: Callable[..., Server]) -> Server:
    """A server whose users are those of the file; each one's password is its name."""
    server = own_server(kind=request.param)
    asyncio.run(_users(server))
    return server


async def _users(server: Server) -> None:
    admin = connect(server.url)
    for name, rules in ROLES.items():
        await command(admin, "ACL", "SETUSER", name, *rules, f">{name}")
    await admin.aclose()


def as_(role: str, server: Server) -> str:
    return f"unix://streamq-{role}:streamq-{role}@{server.socket}"


@pytest.fixture
def operator(guarded: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("STREAMQ_REDIS_URL", as_("operator", guarded))
    return guarded


async def refused(url: str, *parts: str | int) -> bool:
    client = connect(url)
    try:
        await command(client, *parts)
    except ResponseError as error:
        return denied(error) is not None
    finally:
        await client.aclose()
    return False


def test_nobody_gets_in_without_a_password_of_his_own() -> None:
    assert {name.removeprefix("streamq-") for name in ROLES} == OWN
    for rules in ROLES.values():
        assert rules[:5] == ["on", "resetpass", "resetchannels", "resetkeys", "-@all"]
        assert not [rule for rule in rules if rule.startswith((">", "<", "nopass", "+@", "allkeys", "~*"))]


def test_what_scripts_ask_for_stands_in_it() -> None:
    """All verbs that any script calls, by name or as the head of a list."""
    verbs: set[str] = set()
    for path in LUA.rglob("*.lua"):
        text = path.read_text("utf-8")
        verbs |= set(re.findall(r"redis\.p?call\('([A-Z]+)'", text))
        verbs |= set(re.findall(r"\{'([A-Z]{3,})', *(?:K\.|stream|due)", text))
        verbs |= set(re.findall(r"said_of_all\('([A-Z]+)'", text))
    assert {"XADD", "XCLAIM", "ZADD", "HMGET", "ZMSCORE"} <= verbs
    for role in ("worker", "operator"):
        allowed = {rule[1:].partition("|")[0].upper() for rule in ROLES[f"streamq-{role}"] if rule.startswith("+")}
        assert verbs <= allowed, verbs - allowed


async def test_a_producer_adds_and_a_worker_delivers(guarded: Server) -> None:
    async with crew(guarded.url) as c:
        c.url = as_("worker", guarded)
        await c.worker(retry="50ms")
        with Client(as_("producer", guarded), max_depth=100) as client:
            client.send(Mail(from_="shop@example.com", to="bob@example.net", subject="Hi", text="Hello", id="a1"))
        await c.until("email.relayed", "a1")
        await c.add(id="held", strange="1")  # held, dead, several: other scripts
        await c.until("email.held", "held")
        await c.add(id="bad", to="oops")
        await c.until("email.rejected", "bad")
        await c.add(id="many", to="ann@example.net, bob@example.net", envelope_from="shop@example.com")
        await c.until("email.relayed", many=2)
        assert not await _log(guarded)


async def _log(server: Server) -> list[Any]:
    """What the ACLs refused, but for the words about itself that redis-py says to servers that want them, and the look
    at the queue's priorities, which a producer does without."""
    admin = connect(server.url)
    try:
        rows = await command(admin, "ACL", "LOG")
        await command(admin, "ACL", "LOG", "RESET")
    finally:
        await admin.aclose()
    said = [dict(zip(row[::2], row[1::2], strict=True)) for row in rows]
    about_itself = (b"client|setinfo", b"client")  # 6.2 knows no SETINFO, and logs the command alone
    looked = (b"hget", b"streamq-producer")
    return [
        each for each in said if each[b"object"] not in about_itself and (each[b"object"], each[b"username"]) != looked
    ]


async def test_a_worker_that_was_killed_is_reclaimed_by_another(guarded: Server) -> None:
    async with crew(guarded.url) as c:
        await c.add(id="a1")
        spool = c.spool
        reading = await spool.read("gone", [("normal", 10)])
        assert len(reading.entries) == 1
        c.url = as_("worker", guarded)
        await c.worker(lease_seconds=0.5)
        await c.until("email.relayed", "a1")
        assert not await _log(guarded)


async def test_what_a_producer_may_not(guarded: Server) -> None:
    async with crew(guarded.url) as c:
        await c.add(id="a1", text="private")
        url = as_("producer", guarded)
        for parts in (
            ("XRANGE", c.spool.keys.stream("normal"), "-", "+"),
            ("XREAD", "STREAMS", c.spool.keys.stream("normal"), "0"),
            ("XREAD", "STREAMS", c.spool.keys.events, "0"),
            ("XADD", c.spool.keys.events, "*", "a", "b"),
            ("XADD", c.spool.keys.dead, "*", "a", "b"),
            ("XTRIM", c.spool.keys.stream("normal"), "MAXLEN", 0),
            ("XDEL", c.spool.keys.stream("normal"), "1-1"),
            ("DEL", c.spool.keys.stream("normal")),
            ("HGETALL", c.spool.keys.meta),
            *(
                ("FLUSHALL",),
                ("CONFIG", "GET", "*"),
                ("ACL", "LIST"),
                ("KEYS", "*"),
                ("EVAL", "return 1", 0),
                ("INFO",),
            ),
            *(("CLIENT", "LIST"), ("SCRIPT", "FLUSH"), ("MONITOR",), ("SHUTDOWN",)),
        ):
            assert await refused(url, *parts), parts
        await _log(guarded)


async def test_what_readers_listeners_workers_and_operators_may_not(guarded: Server) -> None:
    async with crew(guarded.url) as c:
        keys = c.spool.keys
        await c.add(id="a1", text="private")
        everybody = (
            *(("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "GET", "*"), ("CONFIG", "SET", "maxmemory", 1), ("ACL", "LIST")),
            *(("KEYS", "*"), ("SCRIPT", "FLUSH"), ("MONITOR",), ("SHUTDOWN",), ("SAVE",)),
            *(
                ("GET", "other"),
                ("SET", "other", "1"),
                ("XADD", "{other}:normal", "*", "a", "b"),
                ("REPLICAOF", "a", 1),
            ),
            ("CLIENT", "KILL", "TYPE", "normal"),
        )
        own = {
            "reader": (
                ("XADD", keys.events, "*", "a", "b"),
                ("XRANGE", keys.stream("normal"), "-", "+"),
                ("XRANGE", keys.dead, "-", "+"),
                ("EVAL", "return 1", 0),
                ("XDEL", keys.events, "1-1"),
            ),
            "listener": (
                ("XRANGE", keys.stream("normal"), "-", "+"),
                ("XADD", keys.stream("normal"), "*", "a", "b"),
                ("XRANGE", keys.dead, "-", "+"),
                ("XADD", keys.events, "*", "a", "b"),
                ("HGETALL", keys.notes),
                ("EVAL", "return redis.call('XRANGE', KEYS[1], '-', '+')", 1, keys.stream("normal")),
                ("EVAL", f"return redis.call('XRANGE', '{keys.stream('normal')}', '-', '+')", 0),
                ("EVAL", f"return redis.call('DEL', '{keys.stream('normal')}')", 0),
            ),
            "worker": (("CLIENT", "PAUSE", 1), ("MIGRATE", "a", 1, "b", 0, 1)),
            "operator": (("CLIENT", "LIST"),),
        }
        for role, more in own.items():
            for parts in (*everybody, *more):
                assert await refused(as_(role, guarded), *parts), (role, parts)


async def test_a_reader_follows_the_events(guarded: Server) -> None:
    async with crew(guarded.url) as c:
        await c.add(id="bad", to="oops")
        await c.worker()
        await c.until("email.rejected", "bad")
        client = connect(as_("reader", guarded))
        [[_, rows]] = await command(client, "XREAD", "STREAMS", c.spool.keys.events, "0")
        assert rows[0][1][1] == b"email.rejected"
        await client.aclose()


async def test_a_listener_sends_events(guarded: Server, tmp_path: Path) -> None:
    file = tmp_path / "streamq.toml"
    with receiver() as there:
        file.write_text(f'[webhooks.crm]\nurl = "{there.url}"\nsecret = "{SECRET}"\n')
        async with crew(guarded.url) as c:
            known = {"STREAMQ_CONFIG": str(file), "STREAMQ_REDIS_URL": as_("listener", guarded)}
            process = await program("listen", environment=known)
            assert b"webhook" in await process.stdout.readline()
            await c.add(id="bad", to="oops")
            await c.worker()
            await c.until("email.rejected", "bad")
            while "bad" not in there.ids():  # noqa: ASYNC110 (another thread hears of it)
                await asyncio.sleep(0.01)
            process.terminate()
            _, said = await process.communicate()
            assert process.returncode == 0, said
            assert not await _log(guarded)


async def _says(*words: str) -> Said:
    said = await streamq(*words)
    assert said.code == 0, (words, said.out, said.err)
    return said


async def test_an_operator_does_what_the_commands_do(operator: Server, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("Hello")
    async with crew(operator.url) as c:
        await c.worker()
        for name, fields in {
            "later": {"delay": "3000"},
            "held": {"strange": "1"},
            "bad": {"to": "oops"},
            "gone": {"delay": "3000", "to": "ann@example.net"},
        }.items():
            await c.add(id=name, **fields)
        await c.until("email.held", "held")
        await c.until_state(await c.add(id="more", delay="3000"), "scheduled")
        for words in (
            *(("status",), ("ls",), ("show", "later"), ("why", "later"), ("qshape",), ("log",), ("top", "-n", "1")),
            *(
                ("retry", "more", "--yes"),
                ("hold", "later"),
                ("unhold", "later", "--yes"),
                ("cancel", "later", "--yes"),
            ),
            *(("bounce", "held", "--yes"), ("erase", "ann@example.net", "--yes")),
            *(("dead", "ls"), ("dead", "requeue", "--all", "--yes"), ("dead", "rm", "--all", "--yes")),
            *(("site", "ls"), ("site", "limit", "example.net", "5/s"), ("site", "pause", "example.net", "--for", "1h")),
            *(
                ("site", "resume", "example.net"),
                ("route", "ls"),
                ("route", "pause", "relay"),
                ("route", "resume", "relay"),
            ),
            *(("template", "put", "hi", "--text", str(text)), ("template", "ls"), ("template", "rm", "hi", "--yes")),
            *(
                ("send", "--from", "a@example.com", "--to", "b@example.net", "--text", "Hi"),
                ("check",),
                ("check", "--repair"),
            ),
        ):
            await _says(*words)
        page = await Spool.connect(load_settings(), as_("operator", operator))
        assert (await Overviews(page).get()).status.workers == 1
        await page.close()
        assert not await _log(operator)


@pytest.mark.parametrize(("kind", "named"), [("valkey-9.1", True), ("redis-6.2", False)])
async def test_a_worker_without_one_permission_says_which_and_ends(
    own_server: Callable[..., Server], kind: str, named: bool
) -> None:
    """Exit 2: several processes under one parent end with it, too, and none is started again."""
    server = own_server(kind=kind)
    await _users(server)
    admin = connect(server.url)
    await command(admin, "ACL", "SETUSER", "streamq-worker", "-hincrby", "-xclaim", "-hmget")
    process = await program(
        *("worker", "--processes", "2"),
        environment={"STREAMQ_REDIS_URL": as_("worker", server), "STREAMQ_RELAY": "smtp://127.0.0.1:9"},
    )
    _, said = await process.communicate()
    assert process.returncode == 2, said
    assert b"redis: no permission: " in said
    assert b"deploy/acl/streamq.acl" in said
    assert not named or b"hmget" in said
    assert b"Traceback" not in said
    [row] = [dict(zip(row[::2], row[1::2], strict=True)) for row in await command(admin, "ACL", "LOG", 1)]
    assert row[b"object"] == b"hmget"
    await admin.aclose()


async def test_a_permission_that_is_taken_away_ends_a_worker(guarded: Server) -> None:
    async with crew(guarded.url) as c:
        one = Worker(load_settings(relay=c.sink.url), as_("worker", guarded))
        running = asyncio.create_task(one.run())
        await one.ready.wait()
        await command(c.spool.redis, "ACL", "SETUSER", "streamq-worker", "-set")
        with pytest.raises(RedisError) as failed:
            await running
        assert denied(failed.value) is not None
        await command(c.spool.redis, "ACL", "SETUSER", "streamq-worker", "+set")


def test_a_producer_is_told_when_it_may_not(guarded: Server) -> None:
    with Client(as_("reader", guarded)) as client, pytest.raises(Refused, match=r"no permission|NOPERM"):
        client.send(Mail(from_="shop@example.com", to="bob@example.net", subject="Hi"))


async def test_from_7_on_a_listener_may_be_kept_from_writing_settings(own_server: Callable[..., Server]) -> None:
    """As docs/security.md says it."""
    server = own_server(kind="valkey-9.1")
    await _users(server)
    async with crew(server.url) as c:
        rules = [rule.replace("~{streamq}:meta", "%R~{streamq}:meta") for rule in ROLES["streamq-listener"]]
        assert "%R~{streamq}:meta" in rules
        await command(c.spool.redis, "ACL", "SETUSER", "streamq-listener", "resetkeys", *rules, ">streamq-listener")
        url = as_("listener", server)
        assert await refused(url, "HSET", c.spool.keys.meta, "salt", "x")
        spool = await Spool.connect(load_settings(), url, join=True)
        feed = Feed(spool, "crm")
        await feed.begin()
        assert await spool.scripts.leader("webhook-crm", "l1", 1000)
        assert await feed.took([], {"error": ""}, failed=False) == 0
        assert await feed.read(10) == ([], 0, 0)
        await spool.close()
        assert [each[b"object"] for each in await _log(server)] == [c.spool.keys.meta.encode()]


@pytest.mark.parametrize("kind", ["valkey-9.1", "redis-6.2"])
def test_it_is_a_file_that_a_server_starts_with(own_server: Callable[..., Server], kind: str) -> None:
    server = own_server("--aclfile", str(ACL), kind=kind)

    async def names() -> list[str]:
        admin = connect(server.url)
        try:
            return [name.decode() for name in await command(admin, "ACL", "USERS")]
        finally:
            await admin.aclose()

    assert set(asyncio.run(names())) == {"default", *ROLES}

"""Passwords stand nowhere but where they were given: not in what programs print, log, raise, show in `ps`, store."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from servers import Server

from cli.shell import Said, program, streamq
from streamq import AsyncClient, Client, Mail, SendError
from streamq.queue.connection import command, connect
from streamq.sink import Auth, Rules, Sink, User

REDIS, RELAY = "r3d1s/s3cr3t@x", "r3l4y:s3cr3t/y"
MAIL: dict[str, Any] = {"from_": "shop@example.com", "to": "bob@example.net", "subject": "Hi", "text": "Hello"}


@pytest.fixture
def guarded(own_server: Callable[..., Server]) -> Server:
    server = own_server()

    async def protect() -> None:
        admin = connect(server.url)
        await command(admin, "ACL", "SETUSER", "shop", "on", f">{REDIS}", "~*", "&*", "+@all")
        await admin.aclose()

    asyncio.run(protect())
    return server


def url_of(server: Server, password: str = REDIS) -> str:
    return f"unix://shop:{quote(password, safe='')}@{server.socket}"


def found_in(text: str) -> list[str]:
    """Which secrets it shows, as they are, quoted, or as base64 of what AUTH PLAIN says."""
    return [one for one in (REDIS, RELAY) for shape in (one, quote(one, safe=""), quote(one)) if shape in text]


def command_lines(parent: int) -> list[str]:
    """Of that process and its children, as `ps` shows them."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status = (path / "status").read_text()
            if path.name == str(parent) or f"\nPPid:\t{parent}\n" in status:
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (OSError, UnicodeDecodeError):
            continue
    return found


async def kept(server: Server) -> str:
    """All that stands in Redis, and who is connected under which name."""
    admin = connect(server.url)
    read = {
        b"string": ("GET", ()), b"hash": ("HGETALL", ()), b"list": ("LRANGE", (0, -1)), b"set": ("SMEMBERS", ()),
        b"zset": ("ZRANGE", (0, -1)), b"stream": ("XRANGE", ("-", "+")),
    }  # fmt: skip
    said = [repr(await command(admin, "CLIENT", "LIST"))]
    for key in await command(admin, "KEYS", "*"):
        verb, rest = read[await command(admin, "TYPE", key)]
        said.append(repr((key, await command(admin, verb, key, *rest))))
    await admin.aclose()
    return "\n".join(said)


async def _as_program(*words: str) -> Said:
    """A worker listens to signals: no thread may."""
    process = await program(*words)
    out, errors = await process.communicate()
    return Said(process.returncode, out.decode(), errors.decode())


async def _event(server: Server, pattern: bytes) -> None:
    admin, last = connect(server.url), "0"
    async with asyncio.timeout(30):
        while True:
            reply = await command(admin, "XREAD", "BLOCK", 5000, "STREAMS", "{streamq}:events", last)
            for id_, flat in reply[0][1] if reply else ():
                last = id_.decode()
                if re.search(pattern, b" ".join(flat)):
                    await admin.aclose()
                    return


@pytest.mark.parametrize(("known", "pattern"), [(RELAY, rb"email\.relayed"), ("another", rb"route\.paused")])
async def test_a_worker_with_a_right_and_a_wrong_relay_password(
    guarded: Server, known: str, pattern: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = Rules(users=(User(name="user", password=known),), auth=Auth(mechanisms=("PLAIN",)))
    async with Sink(rules=rules) as sink:
        file = tmp_path / "streamq.toml"
        file.write_text(
            f'[routes.main]\nurl = "smtp://user:{quote(RELAY, safe="")}@{sink.host}:{sink.port}"\ntls = "none"\n'
        )
        environment = {"STREAMQ_REDIS_URL": url_of(guarded), "STREAMQ_CONFIG": str(file)}
        process = await program("worker", "--processes", "2", environment=environment)
        said = await process.stdout.readline()
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with Client() as client:
            assert not found_in(repr(client))
            client.send(Mail(**MAIL, id="a1"))
        await _event(guarded, pattern)
        lines = command_lines(process.pid)
        assert len(lines) >= 3
        looks = [
            await streamq(*words)
            for words in (
                *(["status"], ["status", "--json"], ["route", "ls"], ["route", "show", "main"], ["log"], ["url"]),
                *(["top", "-n", "1", "--json"], ["check"], ["why", "a1"], ["ls", "--json"], ["dead", "ls"]),
            )
        ]
        process.terminate()
        out, errors = await process.communicate()
        text = "\n".join([said.decode(), out.decode(), errors.decode(), *lines, await kept(guarded)])
        text += "\n".join(one.out + one.err for one in looks)
        assert "smtp://" in text
        assert not found_in(text)


async def test_a_wrong_redis_password(guarded: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = url_of(guarded, REDIS + RELAY)
    monkeypatch.setenv("STREAMQ_REDIS_URL", wrong)
    monkeypatch.setenv("STREAMQ_RELAY", f"smtp://user:{quote(RELAY, safe='')}@127.0.0.1:9")
    for words in (["status"], ["check"], ["send", "--from", "a@x.de", "--to", "b@x.de", "--text", "Hi"], ["worker"]):
        said = await _as_program(*words)
        assert said.code == 1
        assert said.err.startswith("streamq: ")
        assert not found_in(said.out + said.err)
    with Client() as client, pytest.raises(SendError) as one:
        client.send(Mail(**MAIL))
    async with AsyncClient() as other:
        with pytest.raises(SendError) as two:
            await other.send(Mail(**MAIL))
    assert not found_in(repr(one.value) + str(one.value) + repr(two.value) + str(two.value))
    assert not found_in(repr(client.__dict__) + repr(other.__dict__))


@pytest.mark.parametrize(
    "url",
    [
        f"redis://shop:{REDIS}@127.0.0.1:1",  # a slash that was not written as %2F
        f"redis://shop:{quote(REDIS, safe='')}@127.0.0.1:1",
        f"redis://:{quote(REDIS, safe='')}@127.0.0.1:notaport",
        f"http://shop:{quote(REDIS, safe='')}@127.0.0.1:1",
        f"rediss://shop:{quote(REDIS, safe='')}@127.0.0.1:1?ssl_ca_certs=/nowhere",
        f"redis://127.0.0.1:1?password={quote(REDIS, safe='')}&nonsense=1",
    ],
)
async def test_an_address_that_is_none_or_leads_nowhere(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMQ_REDIS_URL", url)
    monkeypatch.setenv("STREAMQ_RELAY", "smtp://127.0.0.1:9")
    said: Any = [await _as_program(*words) for words in (["status"], ["worker"])]
    try:
        with Client() as client:
            client.send(Mail(**MAIL))
    except Exception as error:  # noqa: BLE001 - whatever it is, it says no secret
        said.append(repr(error))
    assert len(said) == 3
    assert all(one.code in (1, 2) and one.err.count("\n") == 1 for one in said[:2]), said
    assert not found_in(repr(said))

"""`streamq up` and `streamq sink --web` as programs: a mail's way into the inbox, and that nothing is left."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import smtplib
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mailroom import Mailroom
from pids import gone, processes_of
from redis.asyncio import Redis

from cli.shell import program, streamq, told
from streamq.queue.connection import command

FREE = ("--port", "0", "--smtp-port", "0")


@pytest.fixture
def home(short: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the embedded server has its data; all that `up` starts has it in its words or its environment."""
    monkeypatch.setenv("XDG_STATE_HOME", str(short))
    yield short
    assert processes_of(short) == {}


async def _all_gone(folder: Path) -> None:
    """Each ends by itself: the embedded server and its keeper behind their last user."""
    while pids := processes_of(folder):
        assert [await asyncio.to_thread(gone, pid) for pid in pids] == [True] * len(pids)


@asynccontextmanager
async def running(*words: str) -> AsyncIterator[Any]:
    """A test that fails leaves nothing, either."""
    process = await program(*words)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def _xadd(said: dict[str, str], *, to: str) -> None:
    """As the printed line says it, by the same socket: not every machine has redis-cli."""
    words = shlex.split(said["send"].replace("bob@example.net", to))
    assert words[:2] == ["redis-cli", "-s"]
    client = Redis(unix_socket_path=words[2])
    await client.execute_command(*words[3:])  # type: ignore[no-untyped-call]
    await client.aclose()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_up_takes_a_mail_from_xadd_to_the_inbox_and_leaves_nothing(home: Path, number: signal.Signals) -> None:
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("PR_SET_PDEATHSIG is Linux's")
    async with running("up", *FREE) as process:
        said = await told(process)
        await _looked_at(said)
        pids = processes_of(home)
        assert len(pids) >= 4  # up, worker, keeper, server
        process.send_signal(number)
        _, err = await process.communicate()
    assert process.returncode == (0 if number == signal.SIGINT else -signal.SIGKILL), err
    assert b"Traceback" not in err
    await _all_gone(home)


async def _looked_at(said: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=said["page"].split()[0], timeout=60) as client:
        asked = asyncio.create_task(client.get("/api/mails/wait?to=ann@example.net&timeout=1m"))
        await _xadd(said, to="ann@example.net")
        mail = (await asked).json()
        assert (mail["subject"], mail["text"]) == ("Hi", "Hello\n")
        assert mail["envelope"]["from"] == "shop@example.com"
        host, _, port = said["smtp"].split()[0].removeprefix("smtp://").partition(":")
        await asyncio.to_thread(_send, host, int(port))  # not through the queue
        assert (await client.get("/api/mails/wait?to=direct@example.net")).json()["subject"] == "Direct"
        assert '<a href="/inbox" data-beside>Inbox</a>' in (await client.get("/")).text
        assert '<a href="/" data-beside>Queue</a>' in (await client.get("/inbox")).text
        async with client.stream("GET", "/api/stream") as stream:  # the page has it, too, when it is settled
            async for line in stream.aiter_lines():
                if line.startswith("data: ") and json.loads(line[6:])["totals"].get("relayed") == 1:
                    break
        for path in ("/", "/inbox", "/api/mails"):
            assert (await client.get(path, headers={"host": "evil.example"})).status_code == 421


def _send(host: str, port: int) -> None:
    with smtplib.SMTP(host, port, "shop.example.com", timeout=60) as client:
        client.sendmail("shop@example.com", ["direct@example.net"], "Subject: Direct\r\n\r\nHello\r\n")


async def test_its_help_says_what_stays() -> None:
    said = " ".join((await streamq("up", "--help")).out.split())
    assert "nothing of it stays" not in said
    assert "The mails of the inbox end with it, unless --maildir keeps them. The queue stays" in said


@pytest.mark.leaves_mail
async def test_up_with_a_redis_of_ones_own_answers_as_told(queue: Mailroom) -> None:
    async with running("up", *FREE, "--reply", "gone@*=550 5.1.1 no such user") as process:
        said = await told(process)
        assert said["queue"].startswith("redis-cli -")
        await queue.do(
            "XADD", "{streamq}:normal", "*", "from", "shop@example.com", "to", "gone@example.net", "text", "x"
        )
        last: Any = "0"
        kinds: list[bytes] = []
        while b"email.bounced" not in kinds:
            found = await command(queue.spool.reader, "XREAD", "BLOCK", 60_000, "STREAMS", "{streamq}:events", last)
            last, kinds = found[0][1][-1][0], [fields[1] for _, fields in found[0][1]]
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize("option", ["--port", "--smtp-port"])
async def test_a_port_that_is_taken_is_named_with_its_option(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await program("up", *FREE, option, str(port))
        out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert err.decode() == f"streamq: {option}: somebody listens there already (got '127.0.0.1:{port}')\n"


@pytest.mark.leaves_mail
async def test_a_queue_that_others_deliver_is_left_to_them(queue: Mailroom) -> None:
    await queue.add()
    await queue.lease(consumer="mail1-4711-9f3a01")
    process = await program("up", *FREE)
    out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert "worker of others delivers the queue 'streamq' already (mail1-4711-9f3a01)" in err.decode()


@pytest.mark.leaves_mail
async def test_what_waits_for_workers_that_are_down_is_left_to_them(queue: Mailroom) -> None:
    entry = await queue.add(to="customer@example.org")
    process = await program("up", *FREE)
    out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    said = err.decode()
    assert "the queue 'streamq' holds 1 (1 waiting; " in said
    assert "mails came while no `streamq up` had it" in said
    for way in ("Start a worker", "--queue dev", "--take"):
        assert way in said
    assert await queue.state(entry) == "waiting"


async def test_what_waits_is_taken_where_somebody_says_so(queue: Mailroom) -> None:
    await queue.add(**{"from": "shop@example.com", "to": "bob@example.net", "subject": "Hi", "text": "x"})
    async with running("up", *FREE, "--take") as process:
        said = await told(process)
        async with httpx.AsyncClient(base_url=said["page"].split()[0], timeout=60) as client:
            assert (await client.get("/api/mails/wait?to=bob@example.net&timeout=1m")).json()["subject"] == "Hi"
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0


@pytest.mark.usefixtures("queue")
async def test_whoever_is_refused_for_the_name_has_the_flag_that_the_answer_names() -> None:
    async with running("up", *FREE, "--name", "Shop.test") as process:
        page = (await told(process))["page"].split()[0]
        await _asked_by_name(page, "/", "/inbox", "/api/mails")
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    async with running("sink", "--port", "0", "--web", "0", "--name", "shop.test") as process:
        await process.stdout.readline()
        inbox = (await process.stdout.readline()).decode().split()[1].rstrip(",").removesuffix("inbox")
        await _asked_by_name(inbox, "/inbox", "/api/mails")
        process.send_signal(signal.SIGTERM)
        await process.communicate()


async def _asked_by_name(url: str, *paths: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        for path in paths:
            assert (await client.get(path, headers={"host": "shop.test:8470"})).status_code == 200
            refused = await client.get(path, headers={"host": "evil.example"})
            assert refused.status_code == 421
            assert refused.json() == {"error": "this is not evil.example: name it with --name"}


async def test_of_two_at_once_the_second_is_refused_and_so_is_a_worker(queue: Mailroom) -> None:
    async with running("up", *FREE) as process:
        await told(process)
        owner = (await queue.do("HGET", queue.keys.whose, "by")).decode()
        second = await program("up", *FREE)
        _, err = await second.communicate()
        assert second.returncode == 2
        assert f"another `streamq up` has the queue 'streamq' ({owner})" in err.decode()
        worker = await program("worker", "--relay", "smtp://127.0.0.1:9")
        _, err = await worker.communicate()
        assert worker.returncode == 1  # not 2: a service manager tries again, and has the queue when that has ended
        assert f"streamq: the queue 'streamq' is delivered by `streamq up` ({owner})" in err.decode()
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0
    async with running("up", *FREE) as process:  # what an up left is the next one's
        await told(process)
        process.send_signal(signal.SIGTERM)
        await process.communicate()


async def test_one_that_lost_its_queue_ends_and_says_to_whom(queue: Mailroom) -> None:
    async with running("up", *FREE) as process:
        await told(process)
        await queue.do("HSET", queue.keys.whose, "by", "up2")  # it slept for longer than its lease
        _, err = await process.communicate()
    assert process.returncode == 1
    assert "belongs to up2 by now" in err.decode()


@pytest.mark.usefixtures("queue")
async def test_what_would_send_mail_elsewhere_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "streamq.toml"
    file.write_text('[routes.main]\nurl = "smtp://relay.example:25"\n')
    said = await streamq("--config", str(file), "up", *FREE)
    assert (said.code, said.out) == (2, "")
    assert "the settings have routes (main)" in said.err


@pytest.mark.usefixtures("queue")
async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys.modules["streamq.cli.app"], "find_spec", lambda name: None if name == "starlette" else object()
    )
    for words in (["up", *FREE], ["sink", "--port", "0", "--web", "0"]):
        said = await streamq(*words)
        assert (said.code, said.out) == (2, "")
        assert said.err.endswith("needs starlette: install streamq with its extra `web`\n")


# -- streamq sink --web ----------------------------------------------------------------------------------------------


async def test_a_sink_shows_its_maildir_and_what_comes(tmp_path: Path) -> None:
    for many in (1, 2):  # the second one finds what the first one got
        async with running("sink", "--port", "0", "--web", "0", "--maildir", str(tmp_path), "--quiet") as process:
            smtp = (await process.stdout.readline()).decode().split("://")[1].strip()
            words = (await process.stdout.readline()).decode().split()
            assert words[0] == "inbox"
            await asyncio.to_thread(_send, "127.0.0.1", int(smtp.rpartition(":")[2]))
            async with httpx.AsyncClient(timeout=60, follow_redirects=True) as client:
                said = (await client.get(words[-1])).json()
                assert [mail["subject"] for mail in said["mails"]] == ["Direct"] * many
                assert "<title>inbox" in (await client.get(words[1].rstrip(",").removesuffix("inbox"))).text
            process.send_signal(signal.SIGTERM)
            _, err = await process.communicate()
            assert (process.returncode, err) == (0, b"")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--web", "x"], "--web: a port is 1 to 65535: 'x'"),
        (["--web", "mail.example:80"], "--web: not a port"),
        (["--web", "0.0.0.0:0"], "--web: mails are private: beyond loopback only with --allow-remote"),
        (["--web", "0.0.0.0:0", "--allow-remote"], "--web: set STREAMQ_WEB_TOKEN"),
        (["--web", "0", "--keep", "0"], "--keep, --keep-bytes: an inbox that keeps nothing"),
    ],
)
async def test_an_inbox_that_cannot_be_istold(words: list[str], says: str) -> None:
    said = await streamq("sink", "--port", "0", *words)
    assert (said.code, said.out) == (2, "")
    assert says in said.err


async def test_an_inboxs_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await program("sink", "--port", "0", "--web", str(port))
        out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert err.decode() == f"streamq: --web: somebody listens there already (got '127.0.0.1:{port}')\n"

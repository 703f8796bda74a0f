"""worker, sink, url as programs: their first words, their life under one parent, their end."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pids import gone

from cli.shell import GUARD_S, program, streamq
from streamq.cli import run
from streamq.queue.connection import command
from streamq.queue.look import consumers
from streamq.queue.spool import Spool
from streamq.server import lock
from streamq.settings import load_settings

LOOK_S = 0.02


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits for what another process does and nobody tells: it is looked at."""
    async with asyncio.timeout(GUARD_S):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def running(*words: str, **environment: str) -> AsyncIterator[Any]:
    """A program that a test ends."""
    process = await program(*words, environment={f"STREAMQ_{name}": value for name, value in environment.items()})
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def workers(spool: Spool) -> dict[str, int]:
    """Those that read: consumer → pid."""
    return {one.name: int(one.name.split("-")[-2]) for one in await consumers(spool)}


# -- worker ------------------------------------------------------------------------------------------------------


async def test_a_worker_without_a_route_exits_2_and_says_what_to_do() -> None:
    for words in (["worker"], ["worker", "--processes", "3"]):
        said = await streamq(*words)
        assert (said.code, said.out) == (2, "")
        assert "STREAMQ_RELAY" in said.err
        assert "`streamq sink`" in said.err
        assert said.err.count("\n") == 1


@pytest.mark.drained
async def test_a_worker_says_where_it_works_and_ends_in_order(server_url: str, make_spool: Any) -> None:
    spool = await make_spool()
    relay = "smtp://user:hunter2@127.0.0.1:9"
    async with running("worker", REDIS_URL=server_url, RELAY=relay) as process:
        lines = [(await process.stdout.readline()).decode() for _ in range(4)]
        assert lines[0] == f"queue     redis-cli -s {server_url.removeprefix('unix://')}\n"
        assert lines[1] == "streams   '{streamq}:high' '{streamq}:normal' '{streamq}:low'\n"
        assert lines[2] == "routes    relay smtp://127.0.0.1:9\n"
        name = lines[3].split()[1]
        await until(lambda: _is(workers(spool), {name: process.pid}))
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
        assert process.returncode == 0
        assert b"stopped: nothing was done" in err
        assert b"hunter2" not in out + err
        assert await workers(spool) == {}


async def _is(found: Awaitable[Any], what: Any) -> bool:
    return bool(await found == what)


@pytest.mark.drained
async def test_processes_are_started_again_and_end_in_order(server_url: str, make_spool: Any) -> None:
    spool = await make_spool()
    relay = "smtp://127.0.0.1:9"
    async with running("worker", "--processes", "2", "--relay", relay, REDIS_URL=server_url) as process:
        await until(lambda: _many(workers(spool), 2))
        first = await workers(spool)
        victim, pid = sorted(first.items())[0]
        assert pid != process.pid
        os.kill(pid, signal.SIGKILL)

        async def again() -> bool:
            return len((await workers(spool)).keys() - {victim}) == 2

        await until(again)
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
        assert process.returncode == 0
        assert f"worker {pid} ended with -9".encode() in err
        assert (await workers(spool)).keys() <= {victim}
        await spool.scripts.reap(0)


async def test_sighup_reads_the_files_again(server_url: str, make_spool: Any, tmp_path: Path) -> None:
    spool = await make_spool()
    config = tmp_path / "streamq.toml"

    def write(rate: str) -> None:
        config.write_text(f"[routes.main]\nurl = 'smtp://127.0.0.1:9'\n[sites.'*']\nrate = '{rate}'\n")

    async def holds(text: bytes) -> bool:
        return bool(await command(spool.redis, "HGET", spool.keys.limits, "*|*") == text)

    write("5/s")
    words = ("worker", "--processes", "2")
    async with running(*words, REDIS_URL=server_url, CONFIG=str(config)) as process:
        await until(lambda: _many(workers(spool), 2))
        before = await workers(spool)
        assert await holds(b"5:1000000")
        write("fast")
        process.send_signal(signal.SIGHUP)
        for _ in range(2):  # each of them says what is wrong, and goes on
            while b"not a rate" not in (said := await process.stderr.readline()):
                assert said
            assert f"{config}: sites.*.rate: ".encode() in said
            assert said.endswith(b"'fast' (line 4)\n")
        assert await holds(b"5:1000000")
        write("7/s")
        process.send_signal(signal.SIGHUP)
        await until(lambda: holds(b"7:1000000"))
        assert await workers(spool) == before
        process.send_signal(signal.SIGTERM)
        await process.communicate()
        assert process.returncode == 0


async def test_a_worker_whose_terminal_is_closed_ends_in_order(server_url: str, make_spool: Any) -> None:
    """There SIGHUP says that nobody is left, not that files are to be read."""
    spool = await make_spool()
    ours, theirs = os.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    relay = {"STREAMQ_REDIS_URL": server_url, "STREAMQ_RELAY": "smtp://127.0.0.1:9"}
    process = await program("worker", environment=relay, stdin=theirs, preexec_fn=take_terminal)
    os.close(theirs)
    try:
        await until(lambda: _many(workers(spool), 1))
        os.close(ours)
        _, err = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0
    assert b"stopped: nothing was done" in err


async def _many(found: Awaitable[dict[str, int]], many: int) -> bool:
    return len(await found) == many


@pytest.mark.drained
@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_processes_end_with_their_parent_however_it_ends(server_url: str, make_spool: Any) -> None:
    spool = await make_spool()
    async with running("worker", "--processes", "2", REDIS_URL=server_url, RELAY="smtp://127.0.0.1:9") as process:
        await until(lambda: _many(workers(spool), 2))
        pids = (await workers(spool)).values()
        process.kill()
        await process.wait()
        assert [await asyncio.to_thread(gone, pid) for pid in pids] == [True, True]
        assert await workers(spool) == {}  # in order: nothing of them is left


async def test_a_log_line_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 1, "the server said %s", ("\x1b[2J\r\x9b",), None)
    assert run._Lines(load_settings()).format(record).endswith(" x the server said �[2J��")


@pytest.mark.parametrize("pii", ["full", "hash"])
def test_a_log_line_may_be_json_and_hides_what_it_must(pii: str) -> None:
    record = logging.LogRecord("streamq.route", logging.ERROR, "", 1, "closed: %s", ("no <bob@x.example> \x9b",), None)
    shown = run._Lines(load_settings(log="json", pii=pii)).format(record)
    assert shown.isprintable()
    known = json.loads(shown)
    assert (known["level"], known["logger"]) == ("error", "streamq.route")
    assert ("bob@x.example" in known["message"]) == (pii == "full")
    assert ("sha256:" in known["message"]) == (pii == "hash")


# -- url ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "shown", "line"),
    [
        ("redis://h:1/2", "redis://h:1/2", "redis-cli -h h -p 1 -n 2"),
        ("redis://u:p%40@h", "redis://u:***@h", 'REDISCLI_AUTH="$PASSWORD" redis-cli -h h -p 6379 --user u'),
        ("rediss://:p@h", "rediss://:***@h", 'REDISCLI_AUTH="$PASSWORD" redis-cli -h h -p 6379 --tls'),
        ("unix:///a/b.sock?db=1&password=p", "unix:///a/b.sock?db=1&password=***", None),
    ],
)
async def test_url_says_what_is_set_without_its_password(
    given: str, shown: str, line: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMQ_REDIS_URL", given)
    said = await streamq("url")
    assert (said.code, said.out) == (0, f"{shown}\n")
    assert line is None or said.err == f"{line}\n"


async def test_url_leaves_a_server_up_that_programs_reach(short: Path) -> None:
    environment = {"XDG_STATE_HOME": str(short)}
    process = await program("url", environment=environment)
    out, err = (text.decode().strip() for text in await process.communicate())
    assert process.returncode == 0
    try:
        assert out.startswith("unix:///")
        assert err == f"redis-cli -s {short}/streamq/redis/redis.sock"
        spool = await Spool.connect(load_settings(redis_url=out), out)
        try:
            assert await command(spool.redis, "PING") == b"PONG"
            again = await program("url", environment=environment)
            assert (await again.communicate())[0].decode().strip() == out  # the same one
        finally:
            await spool.close()
    finally:
        _end_server(short)


def _end_server(state: Path) -> None:
    """Those that linger are told to end; the server ends with its last user, its locks are free then."""
    users = state / "streamq" / "redis" / "users.lock"
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            held = {os.readlink(each) for each in (process / "fd").iterdir()}
            if str(users) in held and b"time.sleep" in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGTERM)
    for name in ("keeper.lock", "server.lock"):
        descriptor = lock.open_lock(users.with_name(name))
        assert lock.take_lock(descriptor, fcntl.LOCK_EX, time.monotonic() + GUARD_S)
        lock.close_lock(descriptor)


# -- sink --------------------------------------------------------------------------------------------------------


async def test_a_sink_takes_mails_and_ends_in_order(tmp_path: Path) -> None:
    words = ["--port", "0", "--maildir", str(tmp_path / "mail"), "--reply", "*@gone.example=550 5.1.1 no"]
    async with running("sink", *words) as process:
        line = (await process.stdout.readline()).decode()
        found = re.fullmatch(r"listening on smtp://127\.0\.0\.1:(\d+)\n", line)
        assert found
        reader, writer = await asyncio.open_connection("127.0.0.1", int(found[1]))
        writer.write(
            b"EHLO me\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@gone.example>\r\nRCPT TO:<y@c.example>\r\nDATA\r\n"
        )
        await reader.readuntil(b"354 ")
        await reader.readline()
        writer.write(b"Subject: Hi\r\n\r\nHello\r\n.\r\nQUIT\r\n")
        assert (await reader.readline()).startswith(b"250 ")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        process.send_signal(signal.SIGTERM)
        out, _ = await process.communicate()
        assert process.returncode == 0
        assert b"y@c.example" in out
        assert len([*(tmp_path / "mail").rglob("new/*")]) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--port", "70000"], "--port"),
        (["--reply", "nonsense"], "nonsense"),
        (["--rules", "/nowhere/rules.toml"], "/nowhere/rules.toml"),
    ],
)
async def test_a_sink_refuses(words: list[str], says: str) -> None:
    said = await streamq("sink", *words)
    assert said.code == 2
    assert says in said.err


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_sink_ends_with_its_parent() -> None:
    text = (
        "import os, subprocess, sys, time\n"
        "words = [sys.executable, '-m', 'streamq', 'sink', '--port', '0', '--parent', str(os.getpid())]\n"
        "child = subprocess.Popen(words, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
    assert gone(pid)

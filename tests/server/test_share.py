"""Programs that share an embedded server: real processes, real kills; every wait is for an event."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pids import gone
from redis import Redis

from server.processes import UNTIL_TOLD, USER, User, ended, fake, keeper_of, redis_of, runs
from streamq.errors import ServerFailed
from streamq.server import probe, share, start
from streamq.settings import Settings, load_settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def test_every_server_starts_keeps_its_data_and_ends(binaries: dict[str, Path], tmp_path: Path) -> None:
    for number, (name, path) in enumerate(binaries.items()):
        own = load_settings(redis_bin=str(path))
        directory = tmp_path / str(number)
        with start(own, directory=directory) as server, redis_of(server) as redis:
            assert redis.ping()
            assert (server.version, server.binary) == (name, path)
            assert runs(server.pid)
            redis.xadd("mails", {"to": "bob@example.net"})
            asked: Any = redis.config_get("*")
            assert {key: asked[key] for key in ("port", "appendonly", "appendfsync", "maxmemory-policy")} == {
                "port": "0",
                "appendonly": "yes",
                "appendfsync": "everysec",
                "maxmemory-policy": "noeviction",
            }
            assert asked["save"] == ""
        ended(directory)
        assert not runs(server.pid)
        with start(own, directory=directory) as again, redis_of(again) as redis:
            assert again.pid != server.pid
            assert redis.xlen("mails") == 1
        ended(directory)


def test_the_url_is_one_that_redis_py_reads(settings: Settings, base: Path) -> None:
    odd = base / 'a b%20"\\'
    with start(settings, directory=odd) as server, closing(Redis.from_url(server.url)) as redis:
        assert redis.ping()
        assert server.socket == odd / "redis" / "redis.sock"
        reply = subprocess.run(
            ["sh", "-c", server.cli_line.replace("redis-cli", "printf '%s|'", 1)],
            capture_output=True,
            check=True,
        )
        assert reply.stdout.decode() == f"-s|{server.socket}|"
    ended(odd)


def test_closing_twice_is_closing_once(settings: Settings, base: Path) -> None:
    server = start(settings, directory=base)
    server.close()
    with open(os.devnull, "rb") as other:  # takes the descriptor's number
        server.close()
        assert other.read() == b""
    ended(base)


def test_it_ends_though_its_directory_is_gone(settings: Settings, base: Path) -> None:
    with start(settings, directory=base) as server:
        shutil.rmtree(base / "redis")
    assert gone(server.pid)


def test_two_programs_share_it_until_the_last_one_ends(settings: Settings, base: Path) -> None:
    first = start(settings, directory=base)
    second = start(settings, directory=base)
    assert first.pid == second.pid
    first.close()
    with redis_of(second) as redis:
        redis.set("a", 1)
    third = start(settings, directory=base)
    second.close()
    with redis_of(third) as redis:
        assert redis.get("a") == "1"
    assert third.pid == first.pid
    third.close()
    ended(base)
    assert not runs(first.pid)


def test_many_at_once_start_one(settings: Settings, base: Path) -> None:
    with User(settings, base) as a, User(settings, base) as b, start(settings, directory=base) as c:
        assert {a.server_pid, b.server_pid} == {c.pid}


def test_programs_that_come_while_it_ends_get_a_new_one(settings: Settings, base: Path) -> None:
    for number in range(6):
        with start(settings, directory=base) as server, redis_of(server) as redis:
            assert redis.incr("rounds") == number + 1


def test_it_outlives_the_program_that_started_it(settings: Settings, base: Path) -> None:
    with User(settings, base) as starter:
        with start(settings, directory=base) as server, redis_of(server) as redis:
            assert server.pid == starter.server_pid
            starter.process.kill()
            starter.process.wait()
            # The time limit is the server's: long enough for it to act on a signal, were there one.
            assert redis.blpop(["nothing"], timeout=0.3) is None
            assert runs(server.pid)
        ended(base)


def test_it_ends_with_its_last_user_killed(settings: Settings, base: Path) -> None:
    with User(settings, base) as user:
        assert runs(user.server_pid)
        user.process.kill()
        ended(base)
        assert not runs(user.server_pid)


def test_a_forked_child_does_not_hold_it(settings: Settings, base: Path) -> None:
    forks = USER + "if os.fork(): os._exit(0)\n" + UNTIL_TOLD
    with User(settings, base, forks) as user:
        user.process.wait()
        ended(base)
        assert not runs(user.server_pid)


def test_a_pipe_behind_the_program_ends_with_it(settings: Settings, base: Path) -> None:
    with User(settings, base) as user, start(settings, directory=base) as server:
        rest, _ = user.process.communicate()  # until every holder of the pipe has closed it
        assert rest == b""
        assert runs(server.pid)


def test_its_keeper_is_out_of_reach_of_the_terminal(settings: Settings, base: Path) -> None:
    with start(settings, directory=base) as server:
        assert os.getsid(keeper_of(server)) not in (0, os.getsid(0))
        assert Path(f"/proc/{keeper_of(server)}/cwd").resolve() == Path("/")


def test_its_keeper_inherits_no_secrets(settings: Settings, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMQ_RELAY", "smtp://user:hunter2@relay.example")
    monkeypatch.setenv("SHOP_DATABASE", "postgres://shop:hunter2@db")
    with start(settings, directory=base) as server:
        inherited = Path(f"/proc/{keeper_of(server)}/environ").read_bytes()
        assert inherited.startswith(b"PATH=") or b"\0PATH=" in inherited
        leaked = b"hunter2" in inherited  # so that a failure does not print a whole environment
        assert not leaked


class Clock:
    """Time for `share`: every look at it takes six seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 6.0
        return self.now

    def sleep(self, seconds: float) -> None:
        pass


def test_a_server_that_reads_its_file_has_the_time_it_takes(
    settings: Settings, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, real = Clock(), probe.ask

    def loading(path: Path, command: str) -> bytes:
        said = real(path, command)
        return said if said == b"+PONG" and clock.now > 600 else b"-LOADING the dataset in memory"

    monkeypatch.setattr(share, "ask", loading)
    monkeypatch.setattr(share, "time", clock)
    with start(settings, directory=base) as server, redis_of(server) as redis:
        assert redis.ping()


def test_a_server_that_says_nothing_has_ten_seconds(
    settings: Settings, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, "ask", lambda path, command: b"")
    monkeypatch.setattr(share, "time", Clock())
    with pytest.raises(ServerFailed, match="did not answer in 10 s"):
        start(settings, directory=base)


def test_a_server_that_does_not_come_up_shows_its_last_words(base: Path) -> None:
    broken = fake(base / "broken", "Redis server v=7.0.15 sha=0:0", "echo first; echo no disk >&2; exit 3")
    with pytest.raises(ServerFailed) as failed:
        start(load_settings(redis_bin=str(broken)), directory=base)
    told = str(failed.value)
    assert f"Redis 7.0.15 ({broken}) did not start on {base}/redis" in told
    for line in ("first", "no disk", "the server ended with code 3", "server.log"):
        assert line in told


def test_a_server_that_cannot_be_executed_is_told(base: Path) -> None:
    lost = fake(base / "lost", "Redis server v=7.0.15 sha=0:0")
    lost.write_text('#!/bin/sh\necho "Redis server v=7.0.15 sha=0:0"; rm "$0"\n')
    with pytest.raises(ServerFailed, match="No such file or directory"):
        start(load_settings(redis_bin=str(lost)), directory=base)


def test_data_that_the_server_cannot_read_name_the_one_that_can(binaries: dict[str, Path], base: Path) -> None:
    old = [path for name, path in binaries.items() if name.startswith("Redis 6.2")]
    new = [path for name, path in binaries.items() if not name.startswith("Redis 6.2")]
    if not old or not new:
        pytest.skip("needs Redis 6.2 and a newer server")
    with start(load_settings(redis_bin=str(new[0])), directory=base) as server:
        written_by = server.version
    ended(base)
    with pytest.raises(ServerFailed) as failed:
        start(load_settings(redis_bin=str(old[0])), directory=base)
    assert f"{written_by} wrote it last. Go on with that one (STREAMQ_REDIS_BIN={new[0]})" in str(failed.value)


def test_a_newer_format_is_a_clear_refusal(binaries: dict[str, Path], base: Path) -> None:
    new = [path for name, path in binaries.items() if name.startswith("Valkey 9")]
    old = [path for name, path in binaries.items() if name.startswith(("Redis 7.0", "Valkey 8"))]
    if not old or not new:
        pytest.skip("needs Valkey 9 and Redis 7.0 or Valkey 8")
    with start(load_settings(redis_bin=str(new[0])), directory=base) as server, redis_of(server) as redis:
        redis.set("a", 1)
    ended(base)
    with pytest.raises(ServerFailed) as failed:
        start(load_settings(redis_bin=str(old[0])), directory=base)
    assert f"STREAMQ_REDIS_BIN={new[0]}" in str(failed.value)
    assert re.search("Bad file format|RDB format version", str(failed.value))
    with start(load_settings(redis_bin=str(new[0])), directory=base) as server, redis_of(server) as redis:
        assert redis.get("a") == "1"

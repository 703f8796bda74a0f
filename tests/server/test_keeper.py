"""The keeper: what it brings back, what it takes along, what it does not listen to."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pids import gone
from redis.exceptions import ConnectionError as RedisGone

from server.processes import ended, keeper_of, kill_server, redis_of, runs
from streamq.server import start
from streamq.settings import Settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def test_a_killed_server_comes_back_with_its_data(settings: Settings, base: Path) -> None:
    with start(settings, directory=base) as server:
        with redis_of(server) as redis:
            redis.set("kept", "yes")
        kill_server(server, server.pid)
        with start(settings, directory=base) as again, redis_of(again) as redis:
            assert again.pid != server.pid
            assert keeper_of(again) > 1
            assert redis.get("kept") == "yes"


def test_a_server_that_is_told_to_shut_down_comes_back(settings: Settings, base: Path) -> None:
    with start(settings, directory=base) as server:
        with redis_of(server) as redis:
            redis.set("kept", "yes")
            redis.shutdown()
        with start(settings, directory=base) as again, redis_of(again) as redis:
            assert redis.get("kept") == "yes"


def test_a_server_that_dies_over_and_over_is_given_up(settings: Settings, base: Path) -> None:
    with start(settings, directory=base) as server:
        keeper, pid = keeper_of(server), server.pid
        for _ in range(5):
            kill_server(server, pid)
            with start(settings, directory=base) as again:
                pid = again.pid
                assert keeper_of(again) == keeper
        kill_server(server, pid)
        ended(base)
        assert "not started again" in (base / "redis" / "server.log").read_text()
        with start(settings, directory=base) as fresh:
            assert keeper_of(fresh) != keeper


def test_a_killed_keeper_takes_the_server_along_and_the_next_program_brings_both_back(
    settings: Settings, base: Path
) -> None:
    with start(settings, directory=base) as server:
        with redis_of(server) as redis:
            redis.set("kept", "yes")
        os.kill(keeper_of(server), signal.SIGKILL)
        ended(base)
        with start(settings, directory=base) as again:
            assert again.pid != server.pid
            with redis_of(server) as redis:  # the first program's address is good again
                assert redis.get("kept") == "yes"
            again.close()
            with redis_of(server) as redis:  # and it counts as a user still
                assert redis.blpop(["nothing"], timeout=0.3) is None
                assert redis.ping()


def test_no_second_server_on_the_files_while_the_first_one_lives(settings: Settings, base: Path) -> None:
    with start(settings, directory=base) as server:
        keeper = keeper_of(server)
        os.kill(server.pid, signal.SIGSTOP)  # it can't end when its keeper does
        os.kill(keeper, signal.SIGKILL)
        assert gone(keeper)
        with (base / "redis" / "server.lock").open("a") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(server.pid, signal.SIGCONT)
        ended(base)
        assert not runs(server.pid)


def test_a_killed_watcher_is_replaced(settings: Settings, base: Path) -> None:
    with start(settings, directory=base) as server:
        keeper = keeper_of(server)
        children = Path(f"/proc/{keeper}/task/{keeper}/children")
        if not children.exists():
            pytest.skip("this kernel does not list a process's children")
        (watcher,) = {int(pid) for pid in children.read_text().split()} - {server.pid}
        os.kill(watcher, signal.SIGKILL)
    ended(base)
    assert not runs(server.pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_service_manager_that_ends_all_at_once_leaves_it_to_its_users(
    settings: Settings, base: Path, number: signal.Signals
) -> None:
    with start(settings, directory=base) as server, redis_of(server) as redis:
        os.kill(keeper_of(server), number)
        os.kill(server.pid, number)
        assert redis.blpop(["nothing"], timeout=0.3) is None
        assert redis.info("server")["process_id"] == server.pid


def test_an_interrupt_of_the_keeper_ends_both_now(settings: Settings, base: Path) -> None:
    with start(settings, directory=base) as server, redis_of(server) as redis:
        os.kill(keeper_of(server), signal.SIGINT)
        ended(base)
        with pytest.raises(RedisGone):
            redis.ping()


def test_a_server_left_without_a_keeper_is_ended_first(settings: Settings, base: Path) -> None:
    """What systems other than Linux leave behind when a keeper is killed."""
    data = base / "redis"
    data.mkdir(mode=0o700)
    (data / "server.lock").touch()
    with (data / "server.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        orphan = subprocess.Popen(
            [
                str(settings.redis_bin),
                "--port",
                "0",
                "--unixsocket",
                str(data / "redis.sock"),
                "--dir",
                str(data),
            ],
            stdout=subprocess.PIPE,
            pass_fds=[file.fileno()],
        )
    with orphan:
        assert orphan.stdout
        while b"ready to accept" not in orphan.stdout.readline().lower():  # Redis 6.2 and Valkey word it differently
            assert orphan.poll() is None
        with start(settings, directory=base) as server:
            assert server.pid != orphan.pid
            assert orphan.wait() == 0

"""Where the embedded server's data, socket and log are, and who may have made the directories."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from server.processes import ended, redis_of
from streamq.errors import ServerFailed
from streamq.server import place, start
from streamq.settings import Settings


def test_nobody_else_can_read_it(settings: Settings, base: Path) -> None:
    with start(settings, directory=base) as server:
        assert server.socket.stat().st_mode & 0o777 == 0o600
        assert server.socket.parent.stat().st_mode & 0o777 == 0o700


def test_the_default_place_is_the_state_directory(
    settings: Settings, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(base))
    with start(settings) as server:
        assert server.socket == base / "streamq" / "redis" / "redis.sock"
    ended(base / "streamq")
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(base / "home"))
    assert place.open_place().data == base / "home" / ".local" / "state" / "streamq" / "redis"


def test_a_path_too_long_for_a_socket_uses_the_runtime_directory(
    settings: Settings, base: Path, deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (base / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base / "run"))
    with start(settings, directory=deep) as server, redis_of(server) as redis:
        assert redis.ping()
        assert server.socket.parent == base / "run" / "streamq"
        assert server.socket.parent.stat().st_mode & 0o777 == 0o700
        monkeypatch.delenv("XDG_RUNTIME_DIR")  # as in cron: the same server nevertheless
        with start(settings, directory=deep) as same:
            assert (same.pid, same.socket) == (server.pid, server.socket)


def test_without_one_it_is_a_private_directory_under_the_temporary_one(
    settings: Settings, base: Path, deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    with start(settings, directory=deep) as server, redis_of(server) as redis:
        assert redis.ping()
        assert server.socket.parent == base / f"streamq-{os.geteuid()}"
        assert server.socket.parent.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_can_write_is_refused(
    settings: Settings, base: Path, deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    laid = base / f"streamq-{os.geteuid()}"
    laid.mkdir()
    laid.chmod(0o777)
    with pytest.raises(ServerFailed, match="open to others"):
        start(settings, directory=deep)


def test_a_directory_of_another_user_is_refused(
    settings: Settings, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (base / "redis").mkdir(mode=0o700)
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(ServerFailed, match=f"belongs to user {other - 1}, not to {other}"):
        start(settings, directory=base)


def test_a_link_in_place_of_the_directory_is_refused(settings: Settings, base: Path) -> None:
    (base / "mine").mkdir(mode=0o700)
    (base / "redis").symlink_to(base / "mine")
    with pytest.raises(ServerFailed, match="not a directory"):
        start(settings, directory=base)
    (base / "redis").unlink()


def test_a_place_that_cannot_be_made_is_named(settings: Settings, base: Path) -> None:
    (base / "file").touch()
    with pytest.raises(ServerFailed, match=f"{base}/file/redis: Not a directory; set XDG_STATE_HOME"):
        start(settings, directory=base / "file")


def test_a_long_log_is_set_aside(settings: Settings, base: Path) -> None:
    log = base / "redis" / "server.log"
    log.parent.mkdir(mode=0o700)
    log.write_bytes(b"." * (1024 * 1024 + 1))
    with start(settings, directory=base):
        assert log.with_name("server.log.1").stat().st_size > 1024 * 1024
        assert 0 < log.stat().st_size < 64 * 1024

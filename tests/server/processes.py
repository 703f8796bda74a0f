"""Programs, servers and keepers as processes: start them, look at them, kill them, wait for their end."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from pids import GUARD_S
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from streamq.server import Server, lock
from streamq.settings import Settings

USER = """
import os, sys
from pathlib import Path
from streamq.server import start
from streamq.settings import load_settings
server = start(load_settings(redis_bin=sys.argv[2]), directory=Path(sys.argv[1]))
print(server.pid, flush=True)
"""
UNTIL_TOLD = "sys.stdin.read()\n"


def commands() -> Iterator[tuple[int, str]]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield int(process.name), (process / "cmdline").read_bytes().decode("utf-8", "replace")


def ended(base: Path) -> None:
    """Wait until neither keeper nor server is there: the kernel gives us their locks."""
    for name in ("keeper.lock", "server.lock"):
        held = lock.open_lock(base / "redis" / name)
        free = lock.take_lock(held, fcntl.LOCK_EX, time.monotonic() + GUARD_S)
        lock.close_lock(held)
        assert free, f"{name} is still held"


def runs(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def keeper_of(server: Server) -> int:
    return int(Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


@contextmanager
def redis_of(server: Server) -> Iterator[Redis]:
    never = Retry(NoBackoff(), 0)
    with closing(Redis(unix_socket_path=str(server.socket), decode_responses=True, retry=never)) as redis:
        yield redis


def kill_server(server: Server, pid: int) -> None:
    """Kill it and wait until it is gone: its end of a connection closes."""
    with closing(socket.socket(socket.AF_UNIX)) as wire:
        wire.connect(str(server.socket))
        os.kill(pid, signal.SIGKILL)
        with suppress(ConnectionResetError):
            assert wire.recv(1) == b""


class User:
    """Another program that uses the server, until `tell` or `kill`."""

    def __init__(self, settings: Settings, base: Path, program: str = USER + UNTIL_TOLD) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(base), str(settings.redis_bin)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout
        self.server_pid = int(self.process.stdout.readline())

    def __enter__(self) -> User:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def fake(path: Path, says: str, then: str = "") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{says}" && exit 0\n{then}\n')
    path.chmod(0o755)
    return path

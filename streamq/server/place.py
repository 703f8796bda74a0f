"""The place of an embedded server: its data directory, its socket, its locks, its log.

    <base>/redis/            0700; base is $XDG_STATE_HOME/streamq, or ~/.local/state/streamq
        appendonly…          the queue
        users.lock keeper.lock server.lock
        server.json          socket of the server that runs, executable that wrote the data
        server.log           what keeper and server say (and server.log.1)
        redis.sock           0600

The socket stands beside the data: a shell, cron and a service of one user find the same one, and it is
still there when the last session's log-out empties $XDG_RUNTIME_DIR under a worker that was left running.
$XDG_RUNTIME_DIR/streamq, then a private directory under the temporary one, stand in where the path
is too long for a socket or the file system has none.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streamq.errors import ServerFailed

__all__ = ["Place", "open_place"]

LOG_BYTES = 1024 * 1024
TAIL_BYTES, TAIL_LINES, LINE_CHARS = 4096, 8, 240


@dataclass(frozen=True)
class Place:
    data: Path

    @property
    def users(self) -> Path:
        return self.data / "users.lock"

    @property
    def keeper(self) -> Path:
        return self.data / "keeper.lock"

    @property
    def server(self) -> Path:
        return self.data / "server.lock"

    @property
    def log(self) -> Path:
        return self.data / "server.log"

    @property
    def needs_redis_7(self) -> bool:
        """Redis 7 writes its AOF here; an older server would pass it by and start empty."""
        return (self.data / "appendonlydir").exists()

    def recorded(self) -> dict[str, str]:
        """What `record` wrote last; empty where nobody did."""
        try:
            with (self.data / "server.json").open(encoding="utf-8") as file:
                found = json.loads(file.read(16_384))
        except (FileNotFoundError, ValueError):
            return {}
        return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}

    def record(self, **changes: str) -> None:
        """Remember `socket`, `binary` (a path), `version` for the next one."""
        fresh = self.data / f"server.json.{os.getpid()}"
        fresh.write_text(json.dumps(self.recorded() | changes), "utf-8")
        fresh.replace(self.data / "server.json")

    def socket(self) -> Path:
        """The socket of the server that runs, if one does."""
        return Path(self.recorded().get("socket", self.data / "redis.sock"))

    def choose_socket(self) -> Path:
        """A path that a socket can be bound to, with nothing there. Only for who holds `server.lock`."""
        for path in self._sockets():
            if _takes_sockets(path):
                return path
        raise ServerFailed(
            f"no place for a socket: {self.data} and {tempfile.gettempdir()} are too long or take none; "
            "set XDG_RUNTIME_DIR or TMPDIR to a short path"
        )

    def _sockets(self) -> Iterator[Path]:
        yield self.data / "redis.sock"
        name = f"{hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]}.sock"
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        # after `su` it is the other user's
        if os.path.isabs(runtime) and os.path.isdir(runtime) and os.stat(runtime).st_uid == os.geteuid():
            yield _private(Path(runtime, "streamq")) / name
        yield _private(Path(tempfile.gettempdir(), f"streamq-{os.geteuid()}")) / name

    def open_log(self) -> int:
        """A descriptor to append to; a long log is set aside first, so that there are never more than two."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_name("server.log.1"))
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def log_tail(self, start: int) -> list[str]:
        """The last lines after byte `start`, cut to what a person reads."""
        try:
            with self.log.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(min(start, end), end - TAIL_BYTES))
                text = file.read(TAIL_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        lines = ("".join(c for c in line if c.isprintable())[:LINE_CHARS] for line in text.splitlines())
        return [line for line in lines if line.strip()][-TAIL_LINES:]


def open_place(directory: Path | None = None) -> Place:
    """The place under `directory`, or under the user's state directory; made where it is not there.

    Raises `ServerFailed` where it can't be made, belongs to someone else or is open to others.
    """
    base = directory if directory is not None else _state_home() / "streamq"
    return Place(_private(Path(os.path.abspath(base), "redis")))


def _state_home() -> Path:
    named = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(named):  # others are to be ignored: XDG Base Directory Specification
        return Path(named)
    try:
        return Path.home() / ".local" / "state"
    except RuntimeError:
        raise ServerFailed("no home directory for the queue: set XDG_STATE_HOME or STREAMQ_REDIS_URL") from None


def _private(path: Path) -> Path:
    """Make it for this user alone, or see that it is so."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as wrong:
        raise ServerFailed(
            f"{path}: {wrong.strerror}; set XDG_STATE_HOME to a directory that can be written, or STREAMQ_REDIS_URL"
        ) from None
    if not stat.S_ISDIR(found.st_mode):
        raise ServerFailed(f"{path}: not a directory")
    if found.st_uid != os.geteuid():
        raise ServerFailed(f"{path} belongs to user {found.st_uid}, not to {os.geteuid()}: remove it, or use another")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise ServerFailed(f"{path} is open to others (mode {mode:04o}): chmod 700, if what is in it can be trusted")
    return path


def _takes_sockets(path: Path) -> bool:
    """Long paths don't (sun_path is 107 bytes), nor some file systems of virtual machines and containers."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(str(path))
        except OSError:
            return False
    path.unlink()
    return True

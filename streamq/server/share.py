"""One program's share of the embedded server: come, start it where nobody has, go."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import sysconfig
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from streamq.errors import ServerFailed
from streamq.server.address import redis_cli_line
from streamq.server.binary import Binary, choose_binary
from streamq.server.lock import close_lock, open_lock, take_lock
from streamq.server.place import Place, open_place
from streamq.server.probe import ask, server_facts

if TYPE_CHECKING:  # the keeper has no use for the settings and starts sooner without them
    from streamq.settings import Settings

__all__ = ["Server", "start"]

START_S = 10.0
PAUSE_S = 0.005
INHERITED = {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH"}
INHERITED_KINDS = ("LC_", "PYTHON", "MALLOC_")
PACKAGES = Path(__file__).parents[2]


@dataclass(eq=False)
class Server:
    """A running server that this program uses, until `close` or its own end, whichever way that comes.

    A forked child has no part in it: one that needs the server calls `start` for itself.
    """

    url: str  # unix:///path?db=0, as redis-py reads it
    socket: Path
    binary: Path
    version: str  # "Valkey 9.1.2"
    pid: int  # of the server when this program came; a server that was killed comes back with another
    _users: int = field(repr=False)

    @property
    def cli_line(self) -> str:
        """The redis-cli line that reaches it."""
        return redis_cli_line(self.url)

    @property
    def users(self) -> int:
        """The descriptor of `users.lock`: a process that inherits it uses the server, too."""
        return self._users

    def close(self) -> None:
        """Stop using it; the server ends with its last user. Twice is as good as once."""
        if self._users >= 0:
            close_lock(self._users)
            self._users = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start(settings: Settings, *, directory: Path | None = None) -> Server:
    """Share this user's server, or start it. Blocks until it answers.

    `directory` stands in for the user's state directory: another queue, thrown away with the directory.
    A server that says nothing has 10 s; one that says that it reads its file has as long as that takes.
    Raises `NoServer` (nothing to start) and `ServerFailed` (with the last lines of its log).
    """
    place = open_place(directory)
    until = time.monotonic() + START_S
    with ExitStack() as undo:
        try:
            users = open_lock(place.users)
            undo.callback(close_lock, users)
            if not take_lock(users, fcntl.LOCK_SH, until):
                raise ServerFailed(f"the server in {place.data} does not end; see {place.log}")
            facts = _reach(place, settings, until)
        except OSError as wrong:  # the disk is full, the directory was taken away, a share has no locks
            raise ServerFailed(f"{place.data}: {wrong}") from None
        undo.pop_all()
    socket = place.socket()
    return Server(
        url=f"unix://{quote(os.fsencode(socket))}?db=0",
        socket=socket,
        binary=Path(facts["executable"]),
        version=_version(facts),
        pid=int(facts["process_id"]),
        _users=users,
    )


@dataclass(frozen=True)
class _Attempt:
    """A keeper that this call started."""

    binary: Binary
    log_start: int


def _reach(place: Place, settings: Settings, until: float) -> dict[str, str]:
    """Wait for the server; start a keeper if there is none. Returns INFO's section `server`."""
    attempt: _Attempt | None = None
    while True:
        # The keeper first: a server that answers and has no keeper is about to end.
        keeper = open_lock(place.keeper)
        try:
            if take_lock(keeper, fcntl.LOCK_EX):
                if attempt:
                    raise _failed(place, attempt, "did not start")
                attempt = _start_keeper(place, settings, keeper, until)
        finally:
            close_lock(keeper)
        said = ask(place.socket(), "PING")
        if said == b"+PONG":
            facts = server_facts(place.socket())
            if facts:
                if attempt:
                    place.record(binary=str(attempt.binary.path), version=str(attempt.binary))
                return facts
        elif said.startswith(b"-LOADING"):
            until = time.monotonic() + START_S
        if time.monotonic() >= until:
            raise _failed(place, attempt, f"did not answer in {START_S:.0f} s")
        time.sleep(PAUSE_S)


def _start_keeper(place: Place, settings: Settings, keeper: int, until: float) -> _Attempt:
    """Start a process that has `keeper.lock` and `server.lock` from its first moment."""
    with ExitStack() as undo:
        server = open_lock(place.server)
        undo.callback(close_lock, server)
        if not take_lock(server, fcntl.LOCK_EX):
            # Its keeper was killed; where the kernel does not tell it (it does on Linux) we do.
            ask(place.socket(), "SHUTDOWN")
            if not take_lock(server, fcntl.LOCK_EX, until):
                raise ServerFailed(f"another server still has the data in {place.data}; see {place.log}")
        last = place.recorded().get("binary")
        binary = choose_binary(settings, Path(last) if last else None)
        if place.needs_redis_7 and binary.version < (7, 0, 0):
            raise ServerFailed(f"{binary} ({binary.path}) can't read {place.data}{_remedy(place, binary)}")
        socket = place.choose_socket()
        place.record(socket=str(socket))
        log = place.open_log()
        undo.callback(os.close, log)
        attempt = _Attempt(binary, os.fstat(log).st_size)
        words = [str(place.data), str(socket), str(binary.path), str(keeper), str(server)]
        try:
            code = subprocess.run(
                [sys.executable, "-P", "-m", "streamq.server", *words],
                pass_fds=(keeper, server),
                stdin=subprocess.DEVNULL,
                stdout=log,  # nothing of ours: a pipe behind this program must end with it
                stderr=log,
                start_new_session=True,  # no Ctrl-C of this terminal, no hang-up
                cwd="/",
                env=_environment(),
                timeout=START_S,
                check=False,
            ).returncode
        except (OSError, subprocess.TimeoutExpired) as wrong:
            raise ServerFailed(f"{sys.executable} -m streamq.server: {wrong}") from None
        if code:
            raise _failed(place, attempt, "has no keeper")
    return attempt


def _environment() -> dict[str, str]:
    """What Python and the server run with, and nothing else: the keeper may outlive this program, and
    should not keep its passwords."""
    kept = {name: value for name, value in os.environ.items() if name in INHERITED or name.startswith(INHERITED_KINDS)}
    # A source tree has to be named. Site-packages must not be: it would come before the standard library.
    if str(PACKAGES) not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        inherited = kept.get("PYTHONPATH")
        kept["PYTHONPATH"] = os.pathsep.join([str(PACKAGES), inherited] if inherited else [str(PACKAGES)])
    return kept


def _version(facts: dict[str, str]) -> str:
    if "valkey_version" in facts:
        return f"Valkey {facts['valkey_version']}"
    return f"Redis {facts['redis_version']}"


def _failed(place: Place, attempt: _Attempt | None, what: str) -> ServerFailed:
    lines = place.log_tail(attempt.log_start if attempt else 0)
    who = f"{attempt.binary} ({attempt.binary.path})" if attempt else "the server"
    text = f"{who} {what} on {place.data}{_remedy(place, attempt.binary) if attempt else ''}"
    return ServerFailed("\n  ".join([text, *lines, f"(the last lines of {place.log})"]))


def _remedy(place: Place, binary: Binary) -> str:
    """What to do about a server that finds another one's data."""
    written = place.recorded()
    last = written.get("binary")
    if not last or last == str(binary.path):
        return ""
    return (
        f": {written.get('version')} wrote it last. Go on with that one (STREAMQ_REDIS_BIN={last}), "
        "or move the directory away"
    )

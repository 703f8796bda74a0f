"""A real server in a directory of its own, which may be stopped, killed and started again on what it left.

It listens on a unix socket in a short temporary directory, without persistence unless asked for, and dies with the
process that started it, even when that one is killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from streamq.server.probe import ask, server_facts

__all__ = ["Server"]

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

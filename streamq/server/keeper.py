"""The keeper: the process that owns an embedded server, and ends it when nobody uses it any more.

    program ──starts──► (first process, gone at once) ──► keeper ──┬──► server    dies with the keeper
                                                                  └──► watcher   waits for `users.lock`

It has one thread and waits in one place, for signals: no timer, no polling. flock can't be waited for beside
signals, so a forked watcher waits and ends as soon as it has the lock; the lock belongs to the open file that
both have, so the keeper then holds it. A thread lost: a process with threads should not fork, and the server
is forked anew whenever it was killed.

Signals: SIGTERM and SIGHUP to the keeper change nothing while the server is used, and the server's SIGTERM
is blocked: a service manager sends SIGTERM to all processes of a worker's unit at once, and the worker must
still hand its mails back. SIGINT to the keeper ends both now.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from streamq.server.place import Place

__all__ = ["main"]

SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT}
RESTARTS, RESTARTS_S = 5, 60.0
STOP_S = 8.0  # less than a program waits for the lock, so that one that comes now gets a new server
PAUSE_S = 0.005
PR_SET_PDEATHSIG = 1
CANNOT_START = 127

CONFIG = """\
port 0
unixsocket {socket}
unixsocketperm 600
daemonize no
dir {data}
appendonly yes
appendfsync everysec
aof-load-truncated yes
save ""
stop-writes-on-bgsave-error no
maxmemory-policy noeviction
loglevel notice
logfile ""
"""


def main(arguments: Sequence[str]) -> NoReturn:
    """Keep a server: data directory, socket, executable, descriptors of `keeper.lock` and `server.lock`.

    Both locks are held already by whoever starts this. Returns to it at once, as a process of its own.
    """
    data, socket, binary, keeper_lock, server_lock = arguments
    if os.fork():
        os._exit(0)
    keeper = Keeper(Place(Path(data)), Path(socket), Path(binary), int(keeper_lock), int(server_lock))
    sys.exit(keeper.run())


class Keeper:
    def __init__(self, place: Place, socket: Path, binary: Path, keeper_lock: int, server_lock: int) -> None:
        self._place = place
        self._socket = socket
        self._binary = binary
        self._locks = (keeper_lock, server_lock)
        self._server = 0  # process ids; 0: there is none
        self._watcher = 0
        self._restarts: deque[float] = deque(maxlen=RESTARTS)

    def run(self) -> int:
        """Until the last user is gone (0), or the server can't be kept up (1)."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for number in SIGNALS:  # some systems drop a blocked signal that is ignored, and ignoring is inherited
            signal.signal(number, lambda *_: None)
        os.umask(0o077)
        for lock in self._locks:
            os.set_inheritable(lock, False)
        self._users = os.open(self._place.users, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._watcher = self._fork(self._become_watcher, signal.SIGKILL)
            self._server = self._fork(self._become_server, signal.SIGINT)
            return self._wait()
        finally:
            self._stop()

    def _wait(self) -> int:
        while True:
            number = signal.sigwait(SIGNALS)
            if number == signal.SIGINT:
                self._say("told to end now")
                return 0
            if number != signal.SIGCHLD:
                self._say(f"{signal.Signals(number).name}: the server ends with its last user")
            result = self._look_after_children()
            if result is not None:
                return result

    def _look_after_children(self) -> int | None:
        """Reap; the code to end with, if it is time to."""
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return None
            code = os.waitstatus_to_exitcode(status)
            result = self._after_server(code) if pid == self._server else self._after_watcher(code)
            if result is not None:
                return result

    def _after_server(self, code: int) -> int | None:
        self._server = 0
        # What ends with a code of its own (a wrong file, no socket) would do so again.
        if code > 0:
            self._say(f"the server ended with code {code}")
            return 1
        now = time.monotonic()
        if len(self._restarts) == RESTARTS and now - self._restarts[0] < RESTARTS_S:
            self._say(f"the server ended {RESTARTS + 1} times in {RESTARTS_S:.0f} s: not started again")
            return 1
        self._restarts.append(now)
        self._say(f"the server ended ({signal.strsignal(-code) if code else 'shut down'}) while it is used: again")
        self._server = self._fork(self._become_server, signal.SIGINT)
        return None

    def _after_watcher(self, code: int) -> int | None:
        self._watcher = 0
        if code == 0:
            return 0
        if code > 0:
            self._say("no lock can be had on the file of users")
            return 1
        self._watcher = self._fork(self._become_watcher, signal.SIGKILL)
        return None

    def _stop(self) -> None:
        """End both children and wait until they are gone: the locks are free after that, not before."""
        if self._watcher:
            os.kill(self._watcher, signal.SIGKILL)
            os.waitpid(self._watcher, 0)
        if not self._server:
            return
        os.kill(self._server, signal.SIGINT)
        until = time.monotonic() + STOP_S
        while os.waitpid(self._server, os.WNOHANG)[0] == 0:
            if time.monotonic() >= until:
                self._say(f"the server did not end in {STOP_S:.0f} s: killed")  # what it confirmed is in its file
                os.kill(self._server, signal.SIGKILL)
                os.waitpid(self._server, 0)
                return
            time.sleep(PAUSE_S)

    def _fork(self, become: Callable[[], NoReturn], when_orphan: int) -> int:
        keeper = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, when_orphan)
            if os.getppid() == keeper:
                become()
        except OSError as wrong:
            self._say(f"{self._binary}: {wrong.strerror}")
        finally:
            os._exit(CANNOT_START)

    def _become_server(self) -> NoReturn:
        text = CONFIG.format(socket=_quoted(self._socket), data=_quoted(self._place.data))
        configuration, end = os.pipe()  # not a file: none to leave behind. A pipe holds 64 KB unread
        os.write(end, os.fsencode(text))
        os.close(end)
        os.dup2(configuration, 0)
        os.set_inheritable(self._locks[1], True)
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGTERM})
        os.execv(self._binary, [str(self._binary), "-"])

    def _become_watcher(self) -> NoReturn:
        for lock in self._locks:
            os.close(lock)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        fcntl.flock(self._users, fcntl.LOCK_EX)
        os._exit(0)

    def _say(self, text: str) -> None:
        when = time.strftime("%d %b %Y %H:%M:%S")
        print(f"{os.getpid()}:keeper {when} * {text}", file=sys.stderr, flush=True)


def _quoted(path: Path) -> str:
    """A word of a configuration file: in double quotes, with C's escapes."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{text}"'

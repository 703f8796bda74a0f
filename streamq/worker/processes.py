"""Several worker processes under one parent, which starts one again that died and passes signals on.

SIGHUP means "read your files again", but for one case: who was started in a terminal and finds it gone was hung up on,
and ends in order.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import sys

__all__ = [
    "collect_seldom",
    "follow_parent",
    "has_terminal",
    "hold_hangup",
    "run_processes",
    "take_hangup",
    "take_turns_soon",
]

PR_SET_PDEATHSIG = 1
COLLECT_AFTER = 20_000  # objects, of some hundred octets each
SWITCH_SECONDS = 0.001
CALM_SECONDS = 10.0  # a process that lived for so long had no trouble starting
FIRST_SECONDS, MOST_SECONDS = 0.5, 30.0  # before another one starts
SETTINGS_CODE = 2
log = logging.getLogger("streamq.processes")


def follow_parent(parent: int) -> None:
    """End (by SIGTERM: in order) when the parent does, however it does. Linux only; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it was gone before we asked
            os.kill(os.getpid(), signal.SIGTERM)


def collect_seldom() -> None:
    """A mail is some hundred objects that live for a second and hold no cycles: looking for those every 700 objects
    takes a twelfth of a worker's time. What there is now stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)


def take_turns_soon() -> None:
    """Where a thread reads what takes long (aside.py) the loop waits for its turn each time that it has looked at its
    sockets, many times a mail: five milliseconds by Python's own setting."""
    sys.setswitchinterval(SWITCH_SECONDS)


def has_terminal() -> bool:
    """Whether people started it and are there still: standard input is a terminal that nobody has closed."""
    return os.isatty(0)


def hold_hangup() -> None:
    """A SIGHUP waits from now on: who is about to read its files, and does not listen yet, must neither die of one nor
    miss it. Processes that are made now inherit that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def take_hangup() -> None:
    """It is listened to."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def run_processes(arguments: list[str], environment: dict[str, str], many: int) -> int:
    """Run `python -m streamq ARGUMENTS --parent PID` so many times until SIGTERM or SIGINT; at a second one they
    end now. Returns the exit code: 0 where all ended in order, 2 where one found its settings wrong, else 1.
    Secrets belong in the environment: `ps` shows arguments."""
    return asyncio.run(_Parent(arguments, environment, many).run())


class _Parent:
    def __init__(self, arguments: list[str], environment: dict[str, str], many: int) -> None:
        self.command = [sys.executable, "-m", "streamq", *arguments, "--parent", str(os.getpid())]
        self.environment = {**os.environ, **environment}
        self.many = many
        self.stopping = asyncio.Event()
        self.running: set[asyncio.subprocess.Process] = set()
        self.born = 0
        self.in_terminal = has_terminal()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        take_hangup()
        codes = await asyncio.gather(*(self._keep() for _ in range(self.many)))
        return max(codes)

    def _stop(self) -> None:
        # SIGTERM, however often, is "in order" to a child: a service manager may tell the whole group, too.
        number = signal.SIGINT if self.stopping.is_set() else signal.SIGTERM
        self.stopping.set()
        for process in self.running:
            if process.returncode is None:
                process.send_signal(number)

    def _reload(self) -> None:
        if self.in_terminal and not has_terminal():
            return self._stop()
        for process in self.running:
            if process.returncode is None:
                process.send_signal(signal.SIGHUP)
        return None

    async def _keep(self) -> int:
        """One of the processes, and its successors."""
        loop = asyncio.get_running_loop()
        wait = FIRST_SECONDS
        while not self.stopping.is_set():
            started = loop.time()
            code = await self._one()
            if self.stopping.is_set():
                # Killed by our signal before it could listen to it, it held nothing yet.
                return 0 if code in {0, -signal.SIGTERM, -signal.SIGINT} else 1
            if code == SETTINGS_CODE:
                self._stop()
                return code
            if loop.time() - started > CALM_SECONDS:
                wait = FIRST_SECONDS
            log.error("another worker starts in %.1f s", wait)
            try:
                async with asyncio.timeout(wait):
                    await self.stopping.wait()
            except TimeoutError:
                wait = min(wait * 2, MOST_SECONDS)
        return 0

    async def _one(self) -> int:
        try:
            # A session of its own: Ctrl-C reaches the parent alone, which then says SIGTERM once.
            process = await asyncio.create_subprocess_exec(
                *self.command, env=self.environment, start_new_session=True, preexec_fn=hold_hangup
            )
        except OSError as wrong:  # no process, no memory: for a while
            log.error("no worker could be started: %s", wrong)
            return 1
        self.running.add(process)
        self.born += 1
        if self.stopping.is_set():
            process.send_signal(signal.SIGTERM)
        code = await process.wait()
        self.running.discard(process)
        if not self.stopping.is_set():
            log.error("worker %d ended with %d", process.pid, code)
        return code

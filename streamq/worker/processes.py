"""Several worker processes under one parent, which starts one again that died and passes signals on."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys

__all__ = ["follow_parent", "run_processes"]

PR_SET_PDEATHSIG = 1
CALM_SECONDS = 10.0  # a process that lived for so long had no trouble starting
SETTINGS_CODE = 2
log = logging.getLogger("streamq.processes")


def follow_parent(parent: int) -> None:
    """End (by SIGTERM: in order) when the parent does, however it does. Linux only; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it was gone before we asked
            os.kill(os.getpid(), signal.SIGTERM)


def run_processes(arguments: list[str], environment: dict[str, str], many: int) -> int:
    """Run `python -m streamq ARGUMENTS --parent PID` so many times until SIGTERM or SIGINT. Returns the exit
    code: 0 where all ended in order, else the first other one. Secrets belong in the environment: `ps` shows
    arguments."""
    return asyncio.run(_Parent(arguments, environment, many).run())


class _Parent:
    def __init__(self, arguments: list[str], environment: dict[str, str], many: int) -> None:
        self.command = [sys.executable, "-m", "streamq", *arguments, "--parent", str(os.getpid())]
        self.environment = {**os.environ, **environment}
        self.many = many
        self.stopping = asyncio.Event()
        self.running: set[asyncio.subprocess.Process] = set()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        codes = await asyncio.gather(*(self._keep() for _ in range(self.many)))
        return next((code for code in codes if code), 0)

    def _stop(self) -> None:
        self.stopping.set()
        for process in self.running:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)

    async def _keep(self) -> int:
        """One of the processes, and its successors."""
        loop = asyncio.get_running_loop()
        wait = 0.5
        while True:
            started = loop.time()
            # A session of its own: Ctrl-C reaches the parent alone, which then says SIGTERM once.
            process = await asyncio.create_subprocess_exec(*self.command, env=self.environment, start_new_session=True)
            self.running.add(process)
            if self.stopping.is_set():
                process.send_signal(signal.SIGTERM)
            code = await process.wait()
            self.running.discard(process)
            if self.stopping.is_set():
                return code
            if code == SETTINGS_CODE:
                self._stop()
                return code
            log.error("worker %d ended with %d: another one starts", process.pid, code)
            wait = 0.5 if loop.time() - started > CALM_SECONDS else min(wait * 2, 30.0)
            try:
                async with asyncio.timeout(wait):
                    await self.stopping.wait()
                return code
            except TimeoutError:
                pass

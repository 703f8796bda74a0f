"""`python -m bench.faults.nursery`: forks workers that are imported already.

A run that kills five hundred of them would spend most of its time importing five hundred more. What is forked runs
`streamq worker` from its first line on, in an environment of its own: another process in every respect.

An order is a line of JSON on standard input: {"log": path, "environment": {…}}; the answer a line, the process id. A
line `PID CODE` follows when that one has ended. All end with this process.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import signal
import sys
from pathlib import Path
from typing import NoReturn, Self

import orjson

__all__ = ["Nursery", "Nursling"]

PR_SET_PDEATHSIG = 1


class Nursling:
    """A process of the nursery, with what asyncio's have."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.ended = asyncio.Event()

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        await self.ended.wait()
        assert self.returncode is not None
        return self.returncode


class Nursery:
    """`async with Nursery() as nursery`."""

    def __init__(self) -> None:
        self._born: asyncio.Queue[int] = asyncio.Queue()
        self._there: dict[int, Nursling] = {}

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.faults.nursery", stdin=pipe, stdout=pipe
        )
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._listening

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            pid, *code = map(int, line.split())
            if not code:
                self._there[pid] = Nursling(pid)
                self._born.put_nowait(pid)
            else:
                one = self._there.pop(pid)
                one.returncode = code[0]
                one.ended.set()

    async def worker(self, log: Path, environment: dict[str, str]) -> Nursling:
        assert self._process.stdin is not None
        self._process.stdin.write(orjson.dumps({"log": str(log), "environment": environment}) + b"\n")
        return self._there[await self._born.get()]


def _become(order: dict[str, dict[str, str]], log: str) -> NoReturn:
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for descriptor, number in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(descriptor, number)
        os.closerange(3, 64)
        os.environ.update(order["environment"])
        sys.argv = ["streamq", "worker"]
        from streamq.cli import main as run

        run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(code)


def _import() -> None:
    import streamq.cli.run
    import streamq.client
    import streamq.server
    import streamq.worker.worker  # noqa: F401


def main() -> None:
    _import()
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    orders = b""
    while True:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            _reap()
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                return
            *lines, orders = (orders + data).split(b"\n")
            for line in lines:
                order = orjson.loads(line)
                pid = os.fork()
                if not pid:
                    _become(order, order["log"])
                _say(f"{pid}")


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _say(f"{pid} {os.waitstatus_to_exitcode(status)}")


def _say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


if __name__ == "__main__":
    main()

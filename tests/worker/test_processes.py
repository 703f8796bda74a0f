"""Several processes under one parent: started again when they die, ended in order, never left alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from streamq.worker import processes
from streamq.worker.processes import run_processes

# A child says its pid, and how it is told to end; then it waits.
CHILD = """
import os, signal, socket, sys
wire = socket.socket(socket.AF_UNIX)
wire.connect(sys.argv[1])
def told(number, _):
    wire.sendall(b"told %d %d\\n" % (os.getpid(), number))
    if number == signal.SIGINT or MODE != "deaf":
        os._exit(CODE)
MODE, CODE = sys.argv[2], int(sys.argv[3])
def heard(number, _):
    wire.sendall(b"told %d %d\\n" % (os.getpid(), number))
if MODE == "late":
    wire.sendall(b"up %d\\n" % os.getpid())
    if signal.sigtimedwait([signal.SIGHUP], 60) is None:
        os._exit(1)
    os.kill(os.getpid(), signal.SIGHUP)  # it waited, and waits again
signal.signal(signal.SIGHUP, heard)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, told)
wire.sendall(b"up %d\\n" % os.getpid())
if MODE == "quits":
    os._exit(CODE)
while True:
    signal.pause()
"""


class Family:
    """A parent in this process, and what its children say."""

    def __init__(self, parent: processes._Parent, said: asyncio.Queue[list[str]]) -> None:
        self.parent = parent
        self.said = said
        self.pids: list[int] = []
        self.task = asyncio.create_task(parent.run())

    async def up(self) -> int:
        word, pid = await self.said.get()
        assert word == "up"
        self.pids.append(int(pid))
        return int(pid)

    async def told(self) -> tuple[int, int]:
        word, pid, number = await self.said.get()
        assert word == "told"
        return int(pid), int(number)

    def gone(self) -> bool:
        """Children are reaped when the parent's run returns."""
        for pid in self.pids:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                continue
            return False
        return True


@asynccontextmanager
async def family(folder: Path, many: int, mode: str = "waits", code: int = 0) -> AsyncIterator[Family]:
    said: asyncio.Queue[list[str]] = asyncio.Queue()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            said.put_nowait(line.decode().split())
        writer.close()

    address = str(folder / "said")
    server = await asyncio.start_unix_server(hear, address)
    parent = processes._Parent([], {}, many)
    parent.command = [sys.executable, "-I", "-S", "-c", CHILD, address, mode, str(code)]
    one = Family(parent, said)
    try:
        yield one
    finally:
        for pid in one.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        parent.stopping.set()
        await one.task
        server.close()
        await server.wait_closed()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(processes, "has_terminal", lambda: False)


async def test_all_are_told_once_and_end_in_order(tmp_path: Path) -> None:
    async with family(tmp_path, 3) as f:
        pids = {await f.up() for _ in range(3)}
        f.parent._stop()
        assert {await f.told() for _ in range(3)} == {(pid, signal.SIGTERM) for pid in pids}
        assert await f.task == 0
        assert f.gone()
        assert f.said.empty()


async def test_signals_reach_the_parent_and_are_passed_on(tmp_path: Path) -> None:
    async with family(tmp_path, 1) as f:
        await f.up()
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await f.told())[1] == signal.SIGTERM
        assert await f.task == 0


async def test_all_are_told_to_read_again_and_go_on(tmp_path: Path) -> None:
    async with family(tmp_path, 2) as f:
        pids = {await f.up() for _ in range(2)}
        os.kill(os.getpid(), signal.SIGHUP)
        assert {await f.told() for _ in range(2)} == {(pid, signal.SIGHUP) for pid in pids}
        f.parent._stop()
        assert {await f.told() for _ in range(2)} == {(pid, signal.SIGTERM) for pid in pids}
        assert await f.task == 0


async def test_one_that_does_not_listen_yet_is_told_when_it_does(tmp_path: Path) -> None:
    async with family(tmp_path, 1, "late") as f:
        pid = await f.up()
        f.parent._reload()
        assert await f.told() == (pid, signal.SIGHUP)


async def test_who_is_hung_up_on_ends_in_order(tmp_path: Path) -> None:
    async with family(tmp_path, 1) as f:
        f.parent.in_terminal = True  # and standard input is none now
        pid = await f.up()
        f.parent._reload()
        assert await f.told() == (pid, signal.SIGTERM)
        assert await f.task == 0


async def test_one_that_is_killed_is_started_again(tmp_path: Path) -> None:
    async with family(tmp_path, 2) as f:
        first, second = await f.up(), await f.up()
        os.kill(first, signal.SIGKILL)
        third = await f.up()
        assert third not in {first, second}
        f.parent._stop()
        assert {(await f.told())[0] for _ in range(2)} == {second, third}
        assert await f.task == 0


async def test_one_that_ends_by_itself_is_started_again_each_time(tmp_path: Path) -> None:
    async with family(tmp_path, 1, "quits", 1) as f:
        assert len({await f.up() for _ in range(3)}) == 3


async def test_wrong_settings_end_all(tmp_path: Path) -> None:
    async with family(tmp_path, 2, "quits", 2) as f:
        assert await f.task == 2


async def test_a_second_signal_says_now(tmp_path: Path) -> None:
    """SIGTERM may come twice to a child whose service manager tells the whole group; SIGINT comes from us."""
    async with family(tmp_path, 1, "deaf") as f:
        pid = await f.up()
        f.parent._stop()
        assert await f.told() == (pid, signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)
        assert await f.told() == (pid, signal.SIGTERM)
        assert not f.task.done()
        f.parent._stop()
        assert await f.told() == (pid, signal.SIGINT)
        assert await f.task == 0


async def test_one_that_fails_while_it_ends_is_told(tmp_path: Path) -> None:
    async with family(tmp_path, 2, "waits", 3) as f:
        await f.up()
        await f.up()
        f.parent._stop()
        assert await f.task == 1


async def test_stopping_between_two_lives_starts_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "FIRST_SECONDS", 3600.0)
    async with family(tmp_path, 1, "quits", 1) as f:
        await f.up()
        while f.parent.running or not f.parent.born:  # noqa: ASYNC110
            await asyncio.sleep(0)
        f.parent._stop()
        assert await f.task == 0
        assert f.said.empty()


async def test_no_process_for_a_while(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with family(tmp_path, 1) as f:
        command, f.parent.command = f.parent.command, [str(tmp_path / "none")]
        while "no worker could be started" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0)
        f.parent.command = command
        await f.up()
        f.parent._stop()
        assert await f.task == 0


def test_secrets_are_in_the_environment_not_in_the_arguments() -> None:
    parent = processes._Parent(["worker"], {"STREAMQ_RELAY": "smtp://u:hunter2@h"}, 1)
    assert "hunter2" not in " ".join(parent.command)
    assert parent.environment["STREAMQ_RELAY"] == "smtp://u:hunter2@h"
    assert parent.command[-2:] == ["--parent", str(os.getpid())]
    assert run_processes.__doc__ is not None


FOLLOWER = (
    "import sys; from streamq.worker.processes import follow_parent; follow_parent(int(sys.argv[1])); print('up')"
)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_who_finds_its_parent_gone_ends_at_once() -> None:
    for parent, code, said in ((os.getpid(), 0, b"up\n"), (1, -signal.SIGTERM, b"")):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FOLLOWER, str(parent), stdout=asyncio.subprocess.PIPE
        )
        assert (await process.communicate())[0] == said
        assert process.returncode == code

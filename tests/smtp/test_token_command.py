"""Access tokens that a command prints."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from scripted_relay import on_both_loops, until
from tidy import tidy
from token_asking import Clock, failed, tokens


def printed(*words: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; sys.stdout.write({' '.join(words)!r})"]


@on_both_loops
async def test_a_command_says_it() -> None:
    clock = Clock()
    async with tidy():
        asked = tokens(clock, command=printed('{"access_token": "by.command", "expires_in": 3600}'))
        token = await asked.get()
        assert token.value == "by.command"
        clock.now += 3539
        assert await asked.get() is token
        assert asked._fetches == 1
        clock.now += 2
        assert (await asked.get()).serial == 1  # asked anew, the same value
        assert asked._fetches == 2


@on_both_loops
async def test_a_command_is_split_without_a_shell(tmp_path: Path) -> None:
    async with tidy():
        asked = tokens(command=f"{sys.executable} -c 'print(\"$HOME\"[1:])'")
        assert (await asked.get()).value == "HOME"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; print('s3cret'); print('s3cret', file=sys.stderr); sys.exit(3)", "token command: exit status 3"),
        ("print('not a token, s3cret')", "token command: no token"),
        ("pass", "token command: empty"),
        ("while True: print('s3cret' * 1000)", "token command: its output is too long"),
        ("import os; os.kill(os.getpid(), 9)", "token command: exit status -9"),
    ],
)
@on_both_loops
async def test_a_command_that_fails(code: str, says: str, capfd: pytest.CaptureFixture[str]) -> None:
    async with tidy():
        text = await failed(tokens(command=[sys.executable, "-c", code]))
    assert text.startswith(says)
    assert "s3cret" not in text + "".join(capfd.readouterr())


@on_both_loops
async def test_a_command_that_never_ends_ends_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(3600)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    async with tidy():
        asked = asyncio.create_task(tokens(command=[sys.executable, "-c", code]).get())
        await until(lambda: note.exists() and bool(note.read_text()))
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await until(lambda: not alive(int(note.read_text())))
        assert (await failed(tokens(command=["sleep", "3600"], timeout="0.05s"))).startswith("token command: no end")


def alive(pid: int) -> bool:
    """A zombie that init has yet to collect is dead."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False

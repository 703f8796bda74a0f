"""Completion: what each shell's own protocol is answered, without a server; bash takes it for real."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

import pytest

from cli.shell import program

# Nothing listens there: a key's press must not wait for Redis.
NOWHERE = {"STREAMQ_REDIS_URL": "redis://127.0.0.1:1"}


async def completed(shell: str, line: str, environment: dict[str, str]) -> list[str]:
    """What is offered behind that line."""
    words = line.split(" ")
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    process = await program(environment=NOWHERE | environment | asked | {"_STREAMQ_COMPLETE": f"complete_{shell}"})
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    text = out.decode()
    if shell == "zsh":
        return [part.split('"')[1] for part in text.split("\n") if part.count('"') >= 2]
    return [row.split("\t")[0] for row in text.split("\n") if row]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_each_shell_is_told_commands_and_values(shell: str) -> None:
    assert {"qshape"} == set(await completed(shell, "streamq q", {}))
    assert await completed(shell, "streamq ls --state pa", {}) == ["parked"]
    assert "greylisted" in await completed(shell, "streamq retry --class gre", {})


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("streamq ls --priority ", ["urgent", "bulk"]),
        ("streamq dead ls --class po", ["poison", "policy"]),
        ("streamq qshape --by s", ["sender", "state"]),
        ("streamq route show r", ["relay"]),
        ("streamq site pause x --route ", ["relay"]),
    ],
)
async def test_values_are_those_of_the_settings(line: str, offered: list[str]) -> None:
    known = {"STREAMQ_PRIORITIES": "urgent,bulk", "STREAMQ_RELAY": "smtp://127.0.0.1:1"}
    assert await completed("bash", line, known) == offered


async def test_wrong_settings_are_not_the_completions_to_tell() -> None:
    assert await completed("bash", "streamq ls --priority ", {"STREAMQ_IN_HAND": "x"}) == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
async def test_bash_completes(tmp_path: Path) -> None:
    """By the script that it is given, with the program under its own name."""
    shown = await program(environment=NOWHERE | {"_STREAMQ_COMPLETE": "source_bash"})
    script, _ = await shown.communicate()
    there = tmp_path / "streamq"
    there.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m streamq "$@"\n')
    there.chmod(0o755)
    typed = "COMP_WORDS=(streamq qs)\nCOMP_CWORD=1\n_streamq_completion streamq\necho ${COMPREPLY[@]}\n"
    test = f"{script.decode()}\n{typed}"
    bash = await asyncio.create_subprocess_exec(
        "bash", "-c", test, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await bash.communicate()
    assert out == b"qshape\n"

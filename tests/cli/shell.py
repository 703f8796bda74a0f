"""The command line in tests: in this process where only its words matter, as a program where its life does."""

from __future__ import annotations

import asyncio
import functools
import io
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import orjson
import typer.main

from streamq.cli import main, terminal

__all__ = ["ALLOWED", "GUARD_S", "Said", "program", "steers", "streamq", "told"]

# Typer builds all commands anew for each call: most of what a short one takes in this process.
typer.main.get_command = functools.cache(typer.main.get_command)

ALLOWED = {"\n"}
GUARD_S = 30.0


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)


def _run(words: tuple[str, ...], stdin: bytes | None, columns: int) -> Said:
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    source = None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
    code = 0
    terminal.console.width = columns
    with (
        patch.object(sys, "argv", ["streamq", *words]),
        patch.object(sys, "stdin", source),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Said(code, _text(out), _text(err))


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    raw = stream.detach()
    assert isinstance(raw, io.BytesIO)
    return raw.getvalue().decode()


async def streamq(*words: str, stdin: bytes | None = b"", columns: int = 80) -> Said:
    """`streamq WORDS`, in a thread: it has a loop of its own."""
    return await asyncio.to_thread(_run, words, stdin, columns)


async def program(*words: str, environment: Mapping[str, str] | None = None, stdin: Any = None, **how: Any) -> Any:
    """`python -m streamq WORDS` as a process; its output is piped."""
    known = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "FORCE_COLOR"}}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamq", *words,
        env=known | dict(environment or {}), stdin=stdin if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, **how,
    )  # fmt: skip


def steers(text: str) -> set[str]:
    """What in it could steer a terminal."""
    return {sign for sign in text if not sign.isprintable()} - ALLOWED


async def told(process: Any) -> dict[str, str]:
    """What `streamq up` prints, by name, up to its last line."""
    found: dict[str, str] = {}
    while "send" not in found:
        line = (await process.stdout.readline()).decode()
        assert line, (await process.stderr.read()).decode()
        name, _, words = line.strip().partition(" ")
        found[name] = words.strip()
    return found

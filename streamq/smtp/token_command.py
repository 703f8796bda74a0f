"""A token from a command's standard output.

No shell; standard input is empty; standard error is thrown away, since some programs print there what they were
given: who wants to see it runs the command by hand. Beyond its time, or its output's bound, the command is
killed with all that it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence

from streamq.smtp.token_reply import MAX_REPLY, TokenError, TokenReply, read_token

__all__ = ["token_of_command"]


async def token_of_command(words: Sequence[str], seconds: float) -> TokenReply:
    """Raises `TokenError`."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, start_new_session=True
        )
    except OSError as wrong:
        raise TokenError(wrong.strerror or "cannot be started") from None
    try:
        async with asyncio.timeout(seconds):
            text = await _read(process)
            code = await process.wait()
    except TimeoutError:
        _kill(process)
        raise TokenError(f"no end within {seconds:g} s") from None
    except BaseException:
        _kill(process)
        raise
    finally:
        process._transport.close()  # type: ignore[attr-defined]  # else nobody does where a grandchild holds the pipe
        await process.wait()
    if code:
        raise TokenError(f"exit status {code}")
    return read_token(text)


async def _read(process: Process) -> bytes:
    assert process.stdout is not None
    text = b""
    while part := await process.stdout.read(MAX_REPLY):
        text += part
        if len(text) > MAX_REPLY:
            raise TokenError("its output is too long")
    return text


def _kill(process: Process) -> None:
    """With its group. Not where it ended well: what it started then (gpg-agent) is meant to live on."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)

"""The command line: `streamq --help`. One file per group of commands."""

from __future__ import annotations

import io
import os
import sys

from streamq.cli.app import app
from streamq.errors import StreamqError

__all__ = ["main"]


def main() -> None:
    """Exit 0: done; 1: failed; 2: bad arguments or settings."""
    from redis.exceptions import RedisError

    from streamq.cli import (  # noqa: F401  (each adds its commands)
        dead,
        demo,
        erase,
        export,
        log,
        look,
        qshape,
        reply,
        route,
        rules,
        run,
        send,
        serve,
        simulate,
        site,
        steer,
        template,
        top,
        up,
        webhook,
        why,
    )
    from streamq.errors import SettingsError
    from streamq.queue.connection import denied

    _fill_gaps()
    for stream in (sys.stdout, sys.stderr):  # a terminal that has no … must not be the end of a command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        _refuse_bytes(sys.argv[1:])
        app(prog_name="streamq")  # also for `python -m`: completion goes by it
    except SettingsError as wrong:
        _end(2, str(wrong))
    except StreamqError as wrong:
        _end(1, str(wrong))
    except RedisError as wrong:
        no = denied(wrong)
        _end(2 if no else 1, str(no or f"redis: {wrong}"))
    except BrokenPipeError:  # `| head` has seen enough; Python's own flush at the end must not complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as wrong:
        _end(1, f"{wrong.filename}: {wrong.strerror}" if wrong.filename else str(wrong))
    except KeyboardInterrupt:
        sys.exit(130)


def _fill_gaps() -> None:
    """A program started with a standard descriptor closed gives its number to the next socket, and uvloop aborts."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _refuse_bytes(words: list[str]) -> None:
    from streamq.errors import SettingsError

    for at, text in enumerate(words, 1):
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise SettingsError(f"argument {at} is not UTF-8 (got {text[:80]!r})")


def _end(code: int, text: str) -> None:
    from streamq.cli.terminal import clip

    print(f"streamq: {clip(text, 2000)}", file=sys.stderr)
    sys.exit(code)

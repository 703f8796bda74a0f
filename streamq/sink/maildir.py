"""Accepted mails as files of a Maildir: written in tmp, then renamed into new, one file a transaction."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path

__all__ = ["Maildir"]

NUMBERS = count(1)  # one sequence for the process: two Maildir objects may share a directory


class Maildir:
    """A directory with tmp, new and cur; made where it is missing.

    With `envelope_headers`, Return-Path and Delivered-To lines stand in front of the content; without, a file
    is the content byte for byte. No fsync: a crash of the sink loses nothing, one of the machine may.
    """

    def __init__(self, path: Path, *, envelope_headers: bool = False) -> None:
        """Raises `OSError`."""
        self._path = path
        self._envelope_headers = envelope_headers
        host = socket.gethostname().replace("/", "\\057").replace(":", "\\072")
        self._tail = f"P{os.getpid()}Q%d.{host}"
        for part in ("tmp", "new", "cur"):
            (path / part).mkdir(mode=0o700, parents=True, exist_ok=True)

    def add(self, sender: str, recipients: Iterable[str], content: bytes) -> Path:
        """Write one mail; returns its file. Raises `OSError`, and leaves nothing behind then."""
        seconds, rest = divmod(time.time_ns(), 1_000_000_000)
        name = f"{seconds}.M{rest // 1000:06d}{self._tail % next(NUMBERS)}"
        made, kept = self._path / "tmp" / name, self._path / "new" / name
        front = b""
        if self._envelope_headers:
            lines = [f"Return-Path: <{sender}>", *(f"Delivered-To: {name}" for name in recipients)]
            front = "".join(f"{line}\r\n" for line in lines).encode()
        try:
            with made.open("xb", buffering=0) as file:
                for part in (front, content):
                    _write_all(file.fileno(), part)
            made.rename(kept)
        except OSError:
            made.unlink(missing_ok=True)
            raise
        return kept


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]

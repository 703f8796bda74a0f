"""smtp-sink of Debian's package postfix, as a receiver to be measured against: it counts and keeps nothing."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.package import Missing
from bench.programs import until

__all__ = ["DebianSink", "debian_sink", "read_count"]

SHOWN = re.compile(rb"mesg=(\d+)")  # sess=20 quit=0 mesg=1234, and a carriage return
TAIL = 400
BACKLOG = 1024


def read_count(text: bytes) -> int:
    """Mails, by the last whole line of its running counters."""
    found = SHOWN.findall(text[: text.rfind(b"\r") + 1])
    return int(found[-1]) if found else 0


class DebianSink:
    """As `programs.SinkProcess`, but for the journal."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, out: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"smtp://127.0.0.1:{port}"
        self._out = out

    def hold(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def count(self) -> int:
        with self._out.open("rb") as out:
            out.seek(max(0, out.seek(0, 2) - TAIL))
            return read_count(out.read())


@asynccontextmanager
async def debian_sink(folder: Path) -> AsyncIterator[DebianSink]:
    """Raises `Missing`."""
    found = shutil.which("smtp-sink", path="/usr/sbin:/usr/bin:/var/cache/streamq/peers/usr/sbin")
    if found is None:
        raise Missing("smtp-sink is not installed (Debian's package postfix)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    path = folder / "smtp-sink"
    who = ["-u", "nobody"] if os.geteuid() == 0 else []
    with path.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            found, *who, "-c", "-m", "1000", f"127.0.0.1:{port}", str(BACKLOG), stdout=out, stderr=out
        )
    sink = DebianSink(process, port, path)

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if process.returncode is not None:
                raise Missing(f"smtp-sink: {path.read_text('utf-8', 'replace').strip()[-300:]}") from None
            return False
        writer.close()
        return True

    try:
        await until(listens, 30)
        yield sink
    finally:
        if process.returncode is None:
            sink.go()
            process.terminate()
        await process.wait()

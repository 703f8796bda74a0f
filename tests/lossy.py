"""A line to a server that loses replies: it cuts a client's connection after the server has answered its XADDs.

What goes to the server is let through; what comes back is, too, until a cut is due. So a test knows that the
commands were carried out and that nobody was told.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

__all__ = ["Cut", "Lossy"]

XADD = re.compile(rb"\r\nXADD\r\n", re.IGNORECASE)
REPLY = re.compile(rb"\$[0-9]+\r\n[0-9]+-[0-9]+\r\n")  # to an XADD


@dataclass(frozen=True, slots=True)
class Cut:
    """Of a connection's first `of` replies to XADDs `let` come through, at once; then it is cut."""

    let: int = 0
    of: int = 1


class Lossy:
    """`async with Lossy(server_url, [Cut(), …]) as line`: on loopback; each cut (None: none) is for one connection
    that adds. `xadds` and `made` count commands and connections; while `closed_door` new ones are hung up on, while
    `keep_back` no reply comes through."""

    def __init__(self, url: str, cuts: Iterable[Cut | None] = (), *, tls: ssl.SSLContext | None = None) -> None:
        self._socket = unquote(urlsplit(url).path)
        self.cuts = list(cuts)
        self.xadds = 0
        self.made = 0
        self.closed_door = False
        self.keep_back = False
        self.answered = asyncio.Event()  # a reply was kept back
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    @property
    def url(self) -> str:
        return f"redis{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            if not self.closed_door:
                self.made += 1
                await self._join(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(self._socket)
        self._writers.add(up_writer)
        seen = _Seen()
        there = asyncio.create_task(self._there(reader, up_writer, seen))
        back = asyncio.create_task(self._back(up_reader, writer, seen))
        try:
            await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers.discard(up_writer)
            up_writer.close()
            writer.close()
            await asyncio.wait((there, back))
            with suppress(OSError):
                await up_writer.wait_closed()

    async def _there(self, reader: asyncio.StreamReader, up: asyncio.StreamWriter, seen: _Seen) -> None:
        with suppress(OSError):
            tail = b""
            while data := await reader.read(65536):
                many = len(XADD.findall(tail + data))
                tail = (tail + data)[-7:]  # one octet less than the pattern has
                self.xadds += many
                if many and not seen.added:
                    seen.added = True
                    seen.cut = self.cuts.pop(0) if self.cuts else None
                up.write(data)
                await up.drain()

    async def _back(self, up: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: _Seen) -> None:
        with suppress(OSError):
            kept, told = b"", 0
            while data := await up.read(65536):
                if self.keep_back:
                    self.answered.set()
                    continue
                if seen.cut is None:
                    writer.write(data)
                    await writer.drain()
                    continue
                kept += data
                ends = [found.end() for found in REPLY.finditer(kept)]
                if until := min(seen.cut.let, len(ends)):
                    writer.write(kept[told : ends[until - 1]])
                    told = ends[until - 1]
                    await writer.drain()
                if len(ends) >= seen.cut.of:
                    return


@dataclass(slots=True)
class _Seen:
    added: bool = False
    cut: Cut | None = None

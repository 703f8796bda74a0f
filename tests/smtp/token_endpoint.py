"""A token endpoint on this machine that answers as told."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

__all__ = ["HANGS", "Endpoint", "answer", "token"]

HANGS = b"<hangs>"


def answer(body: bytes | str, *, status: str = "200 OK", head: str = "") -> bytes:
    data = body.encode() if isinstance(body, str) else body
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n{head}\r\n".encode() + data


def token(value: str, **more: Any) -> bytes:
    return answer(json.dumps({"access_token": value, "token_type": "Bearer", **more}))


class Endpoint:
    """Request n gets answer n, further ones the last; each connection carries one and stays open afterwards
    (`closes`: is closed). `asked`: the forms; `gate`: answers wait for it."""

    def __init__(self, *answers: bytes, context: ssl.SSLContext | None = None, closes: bool = True) -> None:
        self.answers: Sequence[bytes] = answers
        self.context = context
        self.closes = closes
        self.asked: list[dict[str, str]] = []
        self.heads: list[str] = []
        self.came = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Endpoint:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}/token?tenant=1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
            form = parse_qs((await reader.readexactly(length)).decode(), strict_parsing=True)
            self.heads.append(head)
            self.asked.append({name: values[0] for name, values in form.items()})
            self.came.set()
            await self.gate.wait()
            said = self.answers[min(len(self.asked), len(self.answers)) - 1]
            if said != HANGS:
                writer.write(said)
            if said == HANGS or not self.closes:
                await reader.read(-1)
            else:
                writer.close()
                await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

"""A sink with its inbox behind a real port, in a test's hands."""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from streamq.inbox import Inbox
from streamq.settings import Place
from streamq.sink import Received, Sink
from streamq.web.inbox import inbox_app
from streamq.web.inbox_api import Desk
from streamq.web.listener import listening

__all__ = ["Inboxed", "inboxing", "received"]


def received(content: bytes = b"", to: tuple[str, ...] = ("bob@example.net",), **known: Any) -> Received:
    """As the sink hands it on; `at_ns` 1, 2, … make tests' mails tell their order."""
    usual: dict[str, Any] = {
        "envelope_from": "shop@example.com",
        "envelope_to": to,
        "content": content,
        "message_id": b"",
        "at_ns": 0,
        "monotonic_ns": 0,
        "mail_ns": 0,
        "peer": "127.0.0.1:50312",
        "helo": "client.example",
        "eight_bit": False,
        "smtputf8": False,
    }
    return Received(**usual | known)


class Watched(Inbox):
    """Tells who waits for a change."""

    def __init__(self, most: int, most_bytes: int) -> None:
        super().__init__(most, most_bytes)
        self._waiting = 0
        self._moved = asyncio.Event()

    def _move(self, by: int) -> None:
        self._waiting += by
        self._moved.set()
        self._moved = asyncio.Event()

    async def changed(self, version: int) -> None:
        self._move(1)
        try:
            await super().changed(version)
        finally:
            self._move(-1)

    async def until_waiting(self, many: int) -> None:
        """Returns when so many wait."""
        while self._waiting != many:
            await self._moved.wait()


@dataclass
class Inboxed:
    sink: Sink
    desk: Desk
    url: str
    client: httpx.AsyncClient

    @property
    def inbox(self) -> Watched:
        assert isinstance(self.desk.inbox, Watched)
        return self.desk.inbox

    def put(self, content: bytes, to: str = "bob@example.net", **known: Any) -> str:
        """Past SMTP; its id."""
        return self.inbox.add(received(content, (to,), **known)).id

    async def send(self, content: bytes, *to: str, mail: tuple[str, ...] = (), rcpt: tuple[str, ...] = ()) -> None:
        """By SMTP."""

        def run() -> None:
            with smtplib.SMTP(self.sink.host, self.sink.port, "shop.example.com", timeout=60) as client:
                client.sendmail("shop@example.com", list(to), content, list(mail), list(rcpt))

        await asyncio.to_thread(run)

    async def get(self, path: str, status: int = 200, **query: str) -> Any:
        said = await self.client.get(path, params=query or None)
        assert said.status_code == status, said.text
        return said.json()


@asynccontextmanager
async def inboxing(
    *,
    most: int = 1000,
    most_bytes: int = 64 * 1024 * 1024,
    maildir: Path | None = None,
    token: str | None = None,
    hosts: tuple[str, ...] | None = (),
    **how: Any,
) -> AsyncIterator[Inboxed]:
    stopping = asyncio.Event()
    desk = Desk(Watched(most, most_bytes), stopping)
    async with AsyncExitStack() as stack:
        sink = Sink(keep=0, on_mail=desk.inbox.add, maildir=maildir, **how)
        await sink.start()
        stack.push_async_callback(sink.close)
        app = inbox_app(desk, token=token, hosts=hosts)
        place = await stack.enter_async_context(listening(app, Place("127.0.0.1", 0), "--web", stopping))
        url = f"http://{place}"
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60))
        yield Inboxed(sink, desk, url, client)

"""Both clients behind one face, so that each test is of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from mailroom import Mailroom

from streamq import AsyncClient, Client, Mail, NotSent, Result, Sent

__all__ = ["Clock", "Face", "Opener", "Threaded", "calls", "error_of", "ids", "letter", "opener", "rows"]


@dataclass
class Clock:
    """Time that stands still but for pauses; `meanwhile` is called in each."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None

    def read(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        self.meanwhile()

    async def pause_async(self, seconds: float) -> None:
        await asyncio.to_thread(self.pause, seconds)


class Face(Protocol):
    async def send(self, mail: Mail) -> Sent: ...
    async def send_many(self, mails: Iterable[Mail]) -> list[Result]: ...


class Threaded:
    def __init__(self, client: Client) -> None:
        self.client = client

    async def send(self, mail: Mail) -> Sent:
        return await asyncio.to_thread(self.client.send, mail)

    async def send_many(self, mails: Iterable[Mail]) -> list[Result]:
        return await asyncio.to_thread(self.client.send_many, mails)


class Opener(Protocol):
    def __call__(self, url: str, clock: Clock | None = None, **options: Any) -> Any: ...


def opener(face: str) -> Opener:
    """`async with open(url, clock, tries=2) as client`."""

    @asynccontextmanager
    async def opened(url: str, clock: Clock | None = None, **options: Any) -> AsyncIterator[Face]:
        clock = clock or Clock()
        if face == "sync":
            with Client(url, clock=clock.read, sleep=clock.pause, **options) as client:
                yield Threaded(client)
        else:
            async with AsyncClient(url, clock=clock.read, sleep=clock.pause_async, **options) as client:
                yield client

    return opened


def letter(name: str = "a1", **known: Any) -> Mail:
    given: dict[str, Any] = {"id": name, "from_": "shop@example.com", "to": "bob@example.net", "text": "Hello"}
    return Mail(**(given | known))


def error_of(result: Result) -> Any:
    assert isinstance(result, NotSent), result
    return result.error


async def rows(room: Mailroom, priority: str = "normal") -> list[tuple[str, dict[bytes, bytes]]]:
    found = await room.do("XRANGE", room.keys.stream(priority), "-", "+")
    return [(id_.decode(), dict(zip(flat[::2], flat[1::2], strict=True))) for id_, flat in found]


async def ids(room: Mailroom, priority: str = "normal") -> list[str]:
    return [fields[b"id"].decode() for _, fields in await rows(room, priority)]


async def calls(room: Mailroom, command: str, kind: str = "calls") -> int:
    """How often the server carried it out, or did not (`rejected_calls`)."""
    text: str = (await room.do("INFO", "commandstats")).decode()
    for line in text.splitlines():
        name, _, facts = line.partition(":")
        if name == f"cmdstat_{command}":
            return int(dict(fact.split("=") for fact in facts.split(","))[kind])
    return 0

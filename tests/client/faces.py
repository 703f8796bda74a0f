"""Both clients behind one face, so that each test is of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from streamq import AsyncClient, Client, Mail, NotSent, Result, Sent

__all__ = ["Clock", "Face", "Opener", "error_of", "letter", "opener"]


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

"""The door of a web server: who says nothing keeps nobody out.

A connection that sends no request holds a descriptor, and of a worker's those are what SMTP needs. So:

DEADLINE    A request is here, head and body, so many seconds after its connection, or the end of the answer before it;
            else the connection goes.
ROOM        Of more connections than there is room for the one goes that has been without a request for longest; where
            each has one, the new one. Requests beyond `REQUESTS` at once get 503.
HEALTH      Probes are answered whatever else is under way: an orchestrator would end a worker that delivers well.

Nobody counts connections by peer: behind a proxy or an ingress all have one address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HEALTH", "REQUESTS", "REQUEST_SECONDS", "ROOM", "Bounded", "CallLater", "Door", "protocol_of"]

REQUESTS = 200
ROOM = 256
REQUEST_SECONDS = 10.0
HEALTH = frozenset({"/livez", "/readyz"})

CallLater = Callable[[float, Callable[[], None]], asyncio.Handle]


class Bounded:
    """The application, for so many requests at once, and for probes beyond them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.running >= REQUESTS and scope["path"] not in HEALTH:
            said = PlainTextResponse(f"{REQUESTS} requests at once are all\n", 503, {"connection": "close"})
            await said(scope, receive, send)
            return
        self.running += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.running -= 1


class Door:
    """Who is in, and who of them has yet to say what for, the first one first."""

    def __init__(self, call_later: CallLater) -> None:
        self.call_later = call_later
        self.inside: set[Visitor] = set()
        self.waiting: dict[Visitor, asyncio.Handle] = {}

    def came(self, visitor: Visitor) -> None:
        self.inside.add(visitor)
        if len(self.inside) > ROOM:
            self.show_out(next(iter(self.waiting), visitor))

    def waits(self, visitor: Visitor) -> None:
        if visitor in self.inside and visitor not in self.waiting:
            self.waiting[visitor] = self.call_later(REQUEST_SECONDS, lambda: self.show_out(visitor))

    def speaks(self, visitor: Visitor) -> None:
        """Its request is here."""
        timer = self.waiting.pop(visitor, None)
        if timer is not None:
            timer.cancel()

    def show_out(self, visitor: Visitor) -> None:
        self.left(visitor)
        visitor.transport.abort()  # a `close` would wait until the other end has read what it was sent

    def left(self, visitor: Visitor) -> None:
        self.speaks(visitor)
        self.inside.discard(visitor)


class Visitor(H11Protocol):
    """One connection, as uvicorn has it."""

    door: Door

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own
        super().connection_made(transport)
        self.door.came(self)
        self.door.waits(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.left(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def _look(self) -> None:
        if self.conn.their_state in {h11.IDLE, h11.SEND_BODY}:
            self.door.waits(self)
        else:
            self.door.speaks(self)


def protocol_of(door: Door) -> Any:
    """What uvicorn makes of each connection there. (It passes nothing of ours on.)"""
    return type("Visitor", (Visitor,), {"door": door})

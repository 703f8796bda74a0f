"""A line on loopback that can be cut: a TCP proxy whose connections break when and how they are told.

Each direction by itself can stall, be late or end; a connection can be cut (FIN) or reset (RST). `there` is from the
client to the server, `back` the other way. Where SMTP is spoken, the line knows how far each connection's mail is.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Self, cast

from bench.faults.stages import Stages
from bench.proxy import Later
from streamq.sink.hostile import reset

__all__ = ["Direction", "Joint", "Line"]

Direction = Literal["there", "back"]
WINDOW = 16_384  # octets that the kernel takes for us: a long body is not out before some of it was seen
FULL = 262_144  # octets that a stalled direction takes before its source is not read any more


def _close(transport: asyncio.Transport) -> None:
    transport.close()


def _abort(transport: asyncio.Transport) -> None:
    transport.abort()


class _Side(asyncio.Protocol):
    """One end of a joint: the client's or the server's."""

    def __init__(self, joint: Joint, direction: Direction) -> None:
        self.joint = joint
        self.direction = direction  # of what it hears
        self.transport: asyncio.Transport | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        for data in self._early:
            self.write(data)
        self._early.clear()
        self.joint.opened(self)

    def data_received(self, data: bytes) -> None:
        self.joint.heard(self.direction, data)

    def eof_received(self) -> bool:
        self.joint.heard(self.direction, b"")
        return True  # the other direction goes on

    def connection_lost(self, exc: Exception | None) -> None:
        self.joint.lost(self, exc)

    def write(self, data: bytes) -> None:
        """Empty: the end of that direction."""
        if self.transport is None:
            self._early.append(data)
        elif data:
            self.transport.write(data)
        elif self.transport.can_write_eof() and not self.transport.is_closing():
            with suppress(OSError):
                self.transport.write_eof()

    def end(self, how: Callable[[asyncio.Transport], object]) -> None:
        if self.transport is not None and not self.transport.is_closing():
            how(self.transport)


class _Flow:
    """One direction."""

    def __init__(self) -> None:
        self.held: list[bytes] | None = None  # while it stalls
        self.later: Later | None = None
        self.over = False

    def give(self, data: bytes, target: _Side) -> None:
        if self.over:
            return
        self.over = not data
        if self.held is not None:
            self.held.append(data)
        elif self.later is not None:
            self.later.give(data)
        else:
            target.write(data)


class Joint:
    """One connection, both halves of it. `smtp`: how far its mail is."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.smtp = Stages(line.seen)
        self.near, self.far = _Side(self, "there"), _Side(self, "back")
        self.gone = asyncio.Event()  # the client's end is
        self.refused = False  # nobody is at the other end
        self.deaf = False  # the client was killed: what comes back reaches nobody
        self._flows = {"there": _Flow(), "back": _Flow()}

    def _target(self, direction: str) -> _Side:
        return self.far if direction == "there" else self.near

    def opened(self, side: _Side) -> None:
        if side is self.far and self.gone.is_set():
            side.end(_abort)
        elif side is self.near and self.refused:
            side.end(reset)

    def heard(self, direction: Direction, data: bytes) -> None:
        if not data and direction == "there":
            self.gone.set()  # our clients end a direction only with the whole connection
        flow = self._flows[direction]
        turned = False
        if data and not (direction == "back" and (self.deaf or self.gone.is_set())):
            turned = self.smtp.there(data) if direction == "there" else self.smtp.back(data)
        if turned and self.line.when is not None:
            self.line.when(self)
        flow.give(data, self._target(direction))
        source = self.near if direction == "there" else self.far
        if flow.held is not None and sum(map(len, flow.held)) > FULL and source.transport is not None:
            source.transport.pause_reading()
        if all(each.over for each in self._flows.values()):
            self.cut()

    def lost(self, side: _Side, exc: Exception | None) -> None:
        """One half is gone: so is the other, in the same way, behind what is on its way to it."""
        if side is self.near:
            self.gone.set()
            self.line.joints.discard(self)
        other = self.far if side is self.near else self.near
        other.end(reset if exc is not None else _close)

    # -- faults --------------------------------------------------------------------------------------

    def cut(self) -> None:
        for side in (self.near, self.far):
            side.end(_close)

    def reset(self) -> None:
        for side in (self.near, self.far):
            side.end(reset)

    def half_close(self, direction: Direction) -> None:
        """That direction ends; what comes the other way still does."""
        self._flows[direction].give(b"", self._target(direction))

    def stall(self, direction: Direction) -> None:
        flow = self._flows[direction]
        if flow.held is None:
            flow.held = []

    def flow(self, direction: Direction) -> None:
        """The end of a stall: all that was held comes at once."""
        flow, target = self._flows[direction], self._target(direction)
        held, flow.held = flow.held or [], None
        for data in held:
            target.write(data)
        source = self.near if direction == "there" else self.far
        if source.transport is not None and not source.transport.is_closing():
            source.transport.resume_reading()

    def delay(self, direction: Direction, seconds: float) -> None:
        """From here on all of that direction comes so much later."""
        flow = self._flows[direction]
        if flow.later is None:
            flow.later = Later(asyncio.get_running_loop(), seconds, self._target(direction).write)


class Line:
    """`async with Line("127.0.0.1:2525") as line`, or the path of a unix socket. `when` is called with a joint whose
    mail is a stage further, before the bytes that say so go on. `closed_door`: who comes is hung up on."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.joints: set[Joint] = set()
        self.seen: Counter[str] = Counter()  # of SMTP (`Stages`)
        self.when: Callable[[Joint], None] | None = None
        self.closed_door = False
        self._opening: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)  # what it accepts has it, too
        self._server = await loop.create_server(self._accept, sock=listening)
        self.port: int = listening.getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._opening):
            task.cancel()
        for joint in list(self.joints):
            for side in (joint.near, joint.far):
                side.end(_abort)
        while self.joints:  # noqa: ASYNC110 (their ends are the loop's next steps)
            await asyncio.sleep(0)
        await self._server.wait_closed()

    def _accept(self) -> _Side:
        joint = Joint(self)
        self.joints.add(joint)
        task = asyncio.get_running_loop().create_task(self._open(joint))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return joint.near

    async def _open(self, joint: Joint) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self.closed_door:
                raise ConnectionRefusedError
            if self.target.startswith("/"):
                await loop.create_unix_connection(lambda: joint.far, self.target)
            else:
                host, _, port = self.target.rpartition(":")
                await loop.create_connection(lambda: joint.far, host, int(port))
        except OSError:
            joint.refused = True  # its own end may not be made yet
            joint.near.end(reset)

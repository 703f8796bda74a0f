"""A relay that follows a script, and what the tests of smtp/ share.

A script is a list of steps for one connection, done in order:

  "text"            send it as a line (b"bytes" as they are)
  Expect("MAIL")    read a line that begins so
  Body()            read up to the lone dot, keep what came (dot-stuffing still on it)
  Gets(n)           read exactly n bytes
  Wait(event)       until the test sets the event
  Say(event)        set the event
  DEAF              read no more; wait for the end
  CLOSE, RESET      hang up, in that way
  NOTHING           no byte of the client waits to be read
  mails(...)        answer mails until the client quits

When the script ends the server waits for the client's end. What it read stands in `Relay.heard`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from serving import Serving

from streamq.settings import RouteSettings
from streamq.smtp.courier import Courier, Mark, RouteState
from streamq.smtp.letter import Letter, Report
from streamq.smtp.outbox import Outbox

LOOPS = [pytest.param(asyncio.new_event_loop, id="asyncio"), pytest.param(uvloop.new_event_loop, id="uvloop")]
CONTENT = b"Subject: Hi\r\n\r\nHello\r\n"


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on asyncio's own loop and on uvloop."""

    @functools.wraps(test)
    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], **values: Any) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(_bounded(test(**values)))

    known = inspect.signature(test)
    extra = inspect.Parameter("loop_factory", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = known.replace(parameters=[*known.parameters.values(), extra])  # type: ignore[attr-defined]
    both: Callable[..., None] = pytest.mark.parametrize("loop_factory", LOOPS)(run)
    return both


async def _bounded(test: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(30):
        await test


async def until(true: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    while True:
        if true():
            return
        await asyncio.sleep(0)


@dataclass(frozen=True)
class Expect:
    start: str


@dataclass(frozen=True)
class Body:
    pass


@dataclass(frozen=True)
class Gets:
    count: int


@dataclass(frozen=True)
class Wait:
    event: asyncio.Event


@dataclass(frozen=True)
class Say:
    event: asyncio.Event


@dataclass(frozen=True)
class StartTls:
    context: ssl.SSLContext


@dataclass(frozen=True)
class Mails:
    most: int | None = None


DEAF, CLOSE, RESET, NOTHING = "<deaf>", "<close>", "<reset>", "<nothing>"
Step = str | bytes | Expect | Body | Gets | Wait | Say | StartTls | Mails
Script = Sequence[Step]

PIPELINING = ["250-relay.example", "250-PIPELINING", "250-8BITMIME", "250 SMTPUTF8"]
PLAIN = ["250 relay.example"]


def hello(*ehlo: str) -> list[Step]:
    """Greeting and EHLO."""
    return ["220 relay.example ESMTP", Expect("EHLO "), *(ehlo or PIPELINING)]


ENVELOPE: list[Step] = [Expect("MAIL FROM:<"), Expect("RCPT TO:<"), Expect("DATA")]
GOES: list[Step] = [*ENVELOPE, "250 2.1.0 ok", "250 2.1.5 ok", "354 go", Body(), "250 2.0.0 queued"]
QUITS: list[Step] = [Expect("QUIT"), "221 bye"]


@dataclass
class Heard:
    """What one connection said: its lines, its bodies, its number of bytes. `clear`: lines before STARTTLS."""

    lines: list[str] = field(default_factory=list)
    clear: list[str] = field(default_factory=list)
    source: str = ""
    bodies: list[bytes] = field(default_factory=list)
    rest: bytes = b""
    wrong: str = ""


class Relay(Serving):
    """Connection n follows script n; further ones follow the last."""

    def __init__(self, *scripts: Script, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        super().__init__(host, context)
        self.scripts = list(scripts)
        self.heard: list[Heard] = []

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        wrong = [heard.wrong for heard in self.heard if heard.wrong]
        assert not wrong, wrong

    @property
    def bodies(self) -> list[bytes]:
        return [body for heard in self.heard for body in heard.bodies]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = Heard(source=writer.get_extra_info("peername")[0])
        self.heard.append(heard)
        script = self.scripts[min(len(self.heard), len(self.scripts)) - 1]
        try:
            for step in script:
                if not await self._do(step, reader, writer, heard):
                    break
            else:
                heard.rest += await reader.read(-1)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client hung up: the test sees that in its report
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.transport.abort()

    async def _do(self, step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: Heard) -> bool:
        if step == CLOSE:
            writer.close()
            await writer.wait_closed()
            return False
        if step == RESET:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        if step == NOTHING:
            waits: bytearray = reader._buffer  # type: ignore[attr-defined]
            heard.wrong = f"not asked for yet: {bytes(waits)!r}" if waits else ""
            return not waits
        if step == DEAF:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.get_running_loop().create_future()
        match step:
            case str():
                writer.write(f"{step}\r\n".encode())
            case bytes():
                writer.write(step)
            case Expect(start):
                line = (await reader.readuntil(b"\n")).decode("utf-8")
                heard.lines.append(line.rstrip("\r\n"))
                if not line.startswith(start):
                    heard.wrong = f"expected {start!r}, got {line!r}"
                    return False
            case Body():
                heard.bodies.append(await _body(reader))
            case Gets(count):
                heard.rest += await reader.readexactly(count)
            case Wait(event):
                await event.wait()
            case Say(event):
                event.set()
            case StartTls(context):
                heard.clear = heard.lines.copy()
                await writer.start_tls(context)
            case Mails(most):
                await self._mails(most, reader, writer, heard)
        return True

    async def _mails(
        self, most: int | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: Heard
    ) -> None:
        """A sane server: until QUIT, the end, or `most` mails."""
        while line := await reader.readline():
            verb = line[:4].upper()
            heard.lines.append(line.decode("utf-8").rstrip("\r\n"))
            if verb == b"DATA":
                writer.write(b"354 go\r\n")
                heard.bodies.append(await _body(reader))
                writer.write(b"250 2.0.0 queued\r\n")
                if len(heard.bodies) == most:
                    return
            elif verb == b"QUIT":
                writer.write(b"221 bye\r\n")
                return
            else:
                writer.write(b"250 ok\r\n")


async def _body(reader: asyncio.StreamReader) -> bytes:
    lines: list[bytes] = []
    while (line := await reader.readuntil(b"\n")) != b".\r\n":
        lines.append(line)
    return b"".join(lines)


def letter(to: str = "bob@example.net", content: bytes = CONTENT, **more: Any) -> Letter:
    return Letter(
        envelope_from=more.pop("envelope_from", "shop@example.com"),
        envelope_to=to,
        content=content,
        site="example.net",
        **more,
    )


def route(port: int, *, scheme: str = "smtp", login: str = "", host: str = "127.0.0.1", **more: Any) -> RouteSettings:
    values = {
        "url": f"{scheme}://{login}{host}:{port}",
        "ehlo": "client.example",
        "tls": "none",
        "connections": 1,
        **more,
    }
    return RouteSettings.model_validate(values)


class Office:
    """A courier at work, and what it reported."""

    def __init__(self, way: RouteSettings, mark: Mark | None = None, **more: Any) -> None:
        self.outbox = Outbox()
        self.reports: list[tuple[Letter, Report]] = []
        self.states: list[RouteState] = []
        self._changed = asyncio.Event()
        self.courier = Courier(
            "main", way, self.outbox, self._done, mark, on_state=self.states.append, rand=lambda: 0.0, **more
        )
        self.running = asyncio.create_task(self.courier.run())

    def _done(self, done: Letter, report: Report) -> None:
        self.reports.append((done, report))
        self._changed.set()

    async def reported(self, count: int) -> list[Report]:
        """Wait until that many letters were reported, and not more."""
        while len(self.reports) < count:
            self._changed.clear()
            await self._changed.wait()
        assert len(self.reports) == count
        return [report for _, report in self.reports]

    async def send(self, *letters: Letter) -> list[Report]:
        """Put them, wait for all; the reports in the order of the letters."""
        for one in letters:
            self.outbox.put(one)
        await self.reported(len(self.reports) + len(letters) if self.reports else len(letters))
        by_letter = {id(done): report for done, report in self.reports}
        return [by_letter[id(one)] for one in letters]


@contextlib.asynccontextmanager
async def office(way: RouteSettings, mark: Mark | None = None, **more: Any) -> AsyncIterator[Office]:
    at_work = Office(way, mark, **more)
    try:
        yield at_work
        await at_work.courier.close(5)
        await at_work.running
    finally:
        at_work.running.cancel()
        await asyncio.wait([at_work.running])
        letters = [id(done) for done, _ in at_work.reports]
        assert len(letters) == len(set(letters)), "a letter was reported twice"

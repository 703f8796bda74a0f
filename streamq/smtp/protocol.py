"""The wire: replies in, bytes out, one timer.

NAME     Wire, an asyncio.Protocol for the client's side of SMTP (RFC 5321)
USE      `Wire.attach` takes over a transport that somebody else opened (aiosmtplib), on asyncio or uvloop, in
         the clear or over TLS. Then `ask` writes commands and says how many replies they earn; `read` gives
         the replies one by one, in order, also those that came before the connection broke.
LIMITS   A line of at most MAX_LINE bytes, a reply of at most MAX_LINES lines and MAX_REPLY bytes, no reply
         that nobody asked for. Whatever breaks them ends the connection with the fault `protocol`: after a
         reply too many, nobody could tell which reply belongs to which command.
FAULTS   `fault` is empty while all is well, else `disconnected`, `timeout`, `slow` or `protocol`; `why` is a
         sentence. They never raise: a broken connection is an outcome that each stage judges for itself.
LAST     A reply that has come is read, also behind a write that failed: where a server closes with our bytes
         unread, TCP's reset makes the next write fail while its last 250 still lies in the socket.
TIMER    One handle for the whole connection, moved by rewriting `_deadline`: a timer per command (`wait_for`)
         took 7 % of aiosmtplib's time. No deadline is later than `limit`, the end of the mail's own time; what
         that cuts short is `slow`.
ONE USER Exactly one task works on a wire at a time, so a single waiter serves reading, draining and resting.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import NamedTuple

from streamq.smtp.words import one_line

__all__ = ["FOREVER", "MAX_LINE", "MAX_LINES", "MAX_REPLY", "Reply", "Wire"]

MAX_LINE = 4096  # RFC 5321, 4.5.3.1.5 says 512; some servers say more, none says this much
MAX_LINES = 128
MAX_REPLY = 65_536
MAX_HANDSHAKE = 16  # replies to one command of aiosmtplib: LOGIN has three

FOREVER = float("inf")
CODES = {b"%d" % code: code for code in range(200, 600)}
MARKS = frozenset({b" ", b"-", b""})


class Reply(NamedTuple):
    """One reply: its code, and the text of its lines, joined by a newline."""

    code: int
    text: bytes

    @property
    def positive(self) -> bool:
        return 200 <= self.code < 300


class Wire(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.transport: asyncio.Transport | None = None
        self.replies: deque[Reply] = deque()
        self.due = 0  # replies that our commands have earned and that did not come yet
        self.fault = ""
        self.why = ""
        self.farewell: Reply | None = None  # a 421 that nobody asked for
        self.expired = False
        self.limit = FOREVER  # loop time
        self.closed: asyncio.Future[None] = loop.create_future()
        self._relay: asyncio.Protocol | None = None
        self._rest = b""
        self._lines: list[bytes] = []
        self._code = b""
        self._length = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = FOREVER
        self._timer: asyncio.TimerHandle | None = None

    # -- taking over -----------------------------------------------------------------------------------------

    def attach(self, transport: asyncio.Transport, relay: asyncio.Protocol | None = None) -> None:
        """Become the protocol of `transport`.

        With a `relay` every event goes on to it as well and replies are only recorded: the handshake is
        aiosmtplib's, and `overheard` shows whether the server said more than aiosmtplib noticed (it drops
        what comes between two commands).
        """
        self.transport = transport
        self._relay = relay
        transport.set_protocol(self)
        if relay is None:
            # So that `drain` means: the system has it all. Not 0: asyncio's TLS pauses an empty buffer then.
            transport.set_write_buffer_limits(high=1, low=0)

    def overheard(self) -> list[Reply]:
        """The replies since the last call, during the handshake."""
        replies = list(self.replies)
        self.replies.clear()
        return replies

    @property
    def between_replies(self) -> bool:
        """No part of a further reply has come."""
        return not (self._rest or self._lines or self.replies)

    # -- what the transport calls ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self.fault:
            self._parse(data)
        if self._relay is not None:
            self._relay.data_received(data)
        self._wake()

    def eof_received(self) -> bool:
        self._break("disconnected", "the server closed the connection")
        if self._relay is not None:
            self._relay.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self.due and not self.fault:
            self._read_last()
        self._break("disconnected", f"the connection was lost: {exc}" if exc else "the connection was closed")
        if not self.closed.done():
            self.closed.set_result(None)
        self._stop_timer()
        if self._relay is not None:
            self._relay.connection_lost(exc)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()

    # -- commands and replies --------------------------------------------------------------------------------

    def ask(self, data: bytes, replies: int, seconds: float) -> None:
        """Write commands that earn `replies` replies, the next of which has `seconds` to come."""
        self.due += replies
        self.arm(seconds)
        self.write(data)

    def write(self, data: bytes | memoryview) -> None:
        if self.transport is not None and not self.fault:
            self.transport.write(data)

    async def read(self) -> Reply | None:
        """The next reply that was asked for, or None: see `fault`."""
        while not self.replies:
            if self.fault:
                return None
            if self.expired:
                self._late("no reply in time")
                return None
            await self._wait()
        return self.replies.popleft()

    async def drain(self) -> bool:
        """Wait until the system has all that was written. False: broken, or the server spoke meanwhile."""
        while self._paused and not self.replies and not self.fault:
            if self.expired:
                self._late("the server stopped reading")
                break
            await self._wait()
        return not self.fault and not self.replies

    def rest(self, waiter: asyncio.Future[None], seconds: float) -> None:
        """Wake `waiter` when something happens or `seconds` are over (`expired`); ends with `rise`."""
        self._waiter = waiter
        self.arm(seconds)
        if self.fault:
            self._wake()

    def rise(self) -> None:
        self._waiter = None
        self._deadline = FOREVER
        self.expired = False

    def breach(self, why: str) -> None:
        """A reply that makes no sense where it stands: nothing after it can be trusted."""
        self._break("protocol", why)

    def arm(self, seconds: float) -> None:
        self.expired = False
        deadline = self._loop.time() + seconds
        if deadline > self.limit:
            deadline = self.limit
        self._deadline = deadline
        timer = self._timer
        if timer is None or deadline < timer.when():
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(deadline, self._tick)

    def disarm(self) -> None:
        """Nothing is expected of the server; the handle stays for the next `arm`."""
        self._deadline = FOREVER

    async def close(self, seconds: float) -> None:
        """Close politely: TLS waits up to `seconds` for the peer's close_notify. `abort` must follow."""
        if self.transport is not None:
            self.transport.close()
            await self.gone(seconds)

    async def gone(self, seconds: float) -> None:
        """Until the transport is closed, at most `seconds`."""
        if not self.closed.done():
            await asyncio.wait([self.closed], timeout=seconds)

    def abort(self) -> None:
        self._break("disconnected", "closed by this side")
        self._stop_timer()
        if self.transport is not None:
            self.transport.abort()

    # -- inside ----------------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            if end - start > MAX_LINE:
                return self._break("protocol", "a reply's line is too long")
            line = data[start:end].rstrip(b"\r")
            start = end + 1
            self._take_line(line)
            if self.fault:
                return None
        if start < len(data):
            self._rest = data[start:]
            if len(self._rest) > MAX_LINE:
                self._rest = b""
                self._break("protocol", "a reply's line is too long")
        return None

    def _take_line(self, line: bytes) -> None:
        code, mark = line[:3], line[3:4]
        known = CODES.get(code)
        if known is None or mark not in MARKS:
            shown = one_line(line[:80].decode("ascii", "backslashreplace"))
            return self._break("protocol", f"not a reply: {shown}")
        if mark != b"-" and not self._lines:  # nearly all replies have one line
            return self._take_reply(Reply(known, line[4:]))
        if self._lines and code != self._code:  # RFC 5321, 4.2.1: the code is the same on every line
            return self._break("protocol", "the lines of a reply differ in their code")
        self._code = code
        self._lines.append(line[4:])
        self._length += len(line)
        if len(self._lines) > MAX_LINES or self._length > MAX_REPLY:
            self._lines.clear()
            return self._break("protocol", "a reply is too long")
        if mark != b"-":
            reply = Reply(known, b"\n".join(self._lines))
            self._lines.clear()
            self._length = 0
            self._take_reply(reply)
        return None

    def _take_reply(self, reply: Reply) -> None:
        if self.due and self._relay is None:
            self.due -= 1
            return self.replies.append(reply)
        if self._relay is not None:
            if len(self.replies) < MAX_HANDSHAKE:
                return self.replies.append(reply)
        elif reply.code == 421:  # RFC 5321, 3.8: may come at any time; a server says so before it hangs up
            self.farewell = reply
            return self._break("disconnected", "the server said goodbye")
        return self._break("protocol", f"a reply that nobody asked for: {reply.code}")

    def _read_last(self) -> None:
        """What the system had received when a write failed. Both loops call `connection_lost` before they close the
        socket. Not over TLS, whose layer is gone with the connection: there a 250 that is lost so is ambiguous."""
        if self.transport is None or self.transport.get_extra_info("sslcontext") is not None:
            return
        sock = self.transport.get_extra_info("socket")
        try:
            while not self.fault and (data := os.read(sock.fileno(), MAX_REPLY)):
                self._parse(data)
        except (OSError, AttributeError):  # nothing more, or no socket any more
            return

    def _late(self, why: str) -> None:
        if self.limit <= self._deadline < FOREVER:
            self._break("slow", f"the mail's time is over: {why}")
        else:
            self._break("timeout", why)

    def _break(self, fault: str, why: str) -> None:
        if not self.fault:
            self.fault = fault
            self.why = why
        self._wake()

    async def _wait(self) -> None:
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _tick(self) -> None:
        self._timer = None
        if self._deadline == FOREVER:
            return
        if self._deadline - self._loop.time() > 0.001:
            self._timer = self._loop.call_at(self._deadline, self._tick)
        else:
            self.expired = True
            self._wake()

    def _stop_timer(self) -> None:
        self._deadline = FOREVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

"""The wire of one SMTP connection, the server's side: packets in, lines and content out; replies in, packets out.

A protocol of its own, not a stream reader: what one packet brings is served in one turn and answered in one
write; asyncio's readline costs more than the whole transaction here. A line ends with CRLF and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import cast

from streamq.sink.content import Content
from streamq.sink.reception import Reception
from streamq.sink.rules import Stage

__all__ = ["LINE", "LINE_TOO_LONG", "NAME", "Connection"]

CRLF = b"\r\n"
LINE = 512  # bytes of a command with its CRLF, RFC 5321 section 4.5.3.1.4
MAIL_LINE = LINE + 26 + 17 + 10  # what SIZE, BODY and SMTPUTF8 add to MAIL
MOST_REPLIES = 256  # gathered before they are written
NAME = b"localhost"

LINE_TOO_LONG = b"500 5.5.2 Line too long\r\n"


class Connection(asyncio.Protocol):
    """The wire: what comes is cut into lines and content, replies are gathered and written.

    What a command does, a subclass says in `_command`, and in `_take_content` where `_content` is set.
    """

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._buffer = b""  # read and not yet served; at most a line and what came while halted
        self._replies: list[bytes] = []
        self._halted = False  # nothing is served and nothing read (not even EOF), for one of the next four
        self._delay: asyncio.TimerHandle | None = None
        self._blocked = False  # the client does not read its replies
        self._ending = False  # closes after the replies
        self._lost = False
        self._skipping = False  # the rest of a line that was too long
        self._turned_away = False  # the greeting was not 220
        self._peer = ""
        self._content: Content | None = None  # between 354 and the dot

    # -- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        peer = transport.get_extra_info("peername")
        self._peer = f"{peer[0]}:{peer[1]}" if peer else ""
        self._reception.opened(self)
        greeted = self._answer("greeting", (self._address,), b"220 %b ESMTP streamq sink\r\n" % NAME)
        self._turned_away = not greeted
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        self._serve()

    def pause_writing(self) -> None:
        self._blocked = True
        self._halt()

    def resume_writing(self) -> None:
        self._blocked = False
        self._resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = self._halted = True
        if self._delay is not None:
            self._delay.cancel()
            self._delay = None
        self._buffer = b""
        self._replies.clear()
        self._reception.closed(self, cut=self._content is not None)
        self._content = None

    def shut_down(self) -> None:
        """The sink ends: say so where a reply may stand, and close."""
        if self._content is None and not self._ending and self._delay is None:
            self._replies.append(b"421 4.3.2 The sink is shutting down\r\n")
        self._ending = self._halted = True
        if self._delay is not None:
            self._delay.cancel()
            self._delay = None
        self._flush()

    def abort(self) -> None:
        self._transport.abort()

    # -- serving

    def _serve(self) -> None:
        buffer, at = self._buffer, 0
        while not self._halted and at < len(buffer):
            if self._content is not None:
                at = self._take_content(self._content, buffer, at)
                continue
            end = buffer.find(CRLF, at)
            if end < 0:
                if len(buffer) - at > MAIL_LINE:  # keep what may be half of a CRLF
                    self._skipping = True
                    at = len(buffer) - 1
                break
            if self._skipping or end - at > MAIL_LINE - 2:
                self._skipping = False
                self._reception.counters.commands += 1
                self._replies.append(LINE_TOO_LONG)
            else:
                self._command(buffer[at:end])
            at = end + 2
            if len(self._replies) >= MOST_REPLIES:
                self._flush()
        self._buffer = buffer[at:]
        self._flush()
        self._reception.tell()

    def _flush(self) -> None:
        if self._lost:
            return
        if not self._reception.settle():
            self._replies.clear()  # a 250 that no journal backs must not go out
            self._halted = True
            self._transport.abort()
            return
        if self._replies:
            data = b"".join(self._replies)
            self._replies.clear()
            self._transport.write(data)
        if self._ending and self._delay is None:
            self._transport.close()

    def _halt(self) -> None:
        self._halted = True
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._lost or self._ending or self._blocked or self._delay is not None:
            return
        self._halted = False
        if not self._transport.is_closing():
            self._transport.resume_reading()
        self._serve()

    def _later(self, reply: bytes, delay_ms: int) -> None:
        """Give `reply` after a time, and serve nothing else until then."""
        self._delay = self._loop.call_later(delay_ms / 1000, self._after_delay, reply)
        self._flush()
        self._halt()

    def _after_delay(self, reply: bytes) -> None:
        self._delay = None
        self._replies.append(reply)
        self._flush()
        self._resume()

    # -- judging

    @property
    def _address(self) -> str:
        return self._peer.rpartition(":")[0]

    def _answer(self, stage: Stage, subjects: Iterable[str], usual: bytes | Callable[[], bytes]) -> bool:
        """Reply as a rule says, or with `usual`; true if the stage is passed.

        `usual` as a function is work that is done only if no rule refuses; its reply decides then. The work
        is done before a delay, not after: a server that answers late has the mail all the same (RFC 1047).
        """
        verdict = self._reception.judge.verdict(stage, subjects)
        if verdict is not None and verdict.code >= 400:
            reply = verdict.reply
        else:
            reply = usual if isinstance(usual, bytes) else usual()
            if verdict is not None and verdict.code and int(reply[:3]) < 400:
                reply = verdict.reply
        code = int(reply[:3])
        if code >= 400:
            self._reception.refused(stage, code)
            if code == 421:
                self._ending = self._halted = True
        if verdict and verdict.delay_ms:
            self._later(reply, verdict.delay_ms)
        else:
            self._replies.append(reply)
        return code < 400

    def _refuse(self, stage: Stage, reply: bytes) -> None:
        self._reception.refused(stage, int(reply[:3]))
        self._replies.append(reply)

    # -- what a subclass does

    def _command(self, line: bytes) -> None:
        """Obey a line, which comes without its CRLF."""
        raise NotImplementedError

    def _take_content(self, content: Content, buffer: bytes, at: int) -> int:
        """Take content from `at` on; returns where commands go on, or the buffer's length."""
        raise NotImplementedError

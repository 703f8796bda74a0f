"""The wire of one SMTP connection, the server's side: packets in, lines and content out; replies in, packets out.

A protocol of its own, not a stream reader: what one packet brings is served in one turn and answered in one
write; asyncio's readline costs more than the whole transaction here. A line ends with CRLF and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import cast

from streamq.sink.chunks import Chunk
from streamq.sink.content import Content
from streamq.sink.hostile import Piece, peer_is_gone, pieces, reset
from streamq.sink.limits import Visitor
from streamq.sink.reception import Reception
from streamq.sink.rules import Action, Rule, Stage, Verdict

__all__ = [
    "AUTH_LINE",
    "BAD_SEQUENCE",
    "LINE",
    "LINE_TOO_LONG",
    "MAIL_LINE",
    "NAME",
    "NO_ARGUMENTS",
    "RCPT_LINE",
    "Connection",
]

CRLF = b"\r\n"
LINE = 512  # bytes of a command with its CRLF, RFC 5321 section 4.5.3.1.4
# What MAIL may be longer by: SIZE, BODY, SMTPUTF8; AUTH= (RFC 4954 section 3); RET and ENVID of 100 (RFC 3461
# section 4); REQUIRETLS (RFC 8689 section 2). RCPT: NOTIFY, and ORCPT of 500 (RFC 3461 section 4).
MAIL_LINE = LINE + 26 + 17 + 10 + 500 + 9 + 107 + 11
RCPT_LINE = LINE + 29 + 507
AUTH_LINE = 12_288  # RFC 4954 section 4: no response in base64 is longer
MOST_REPLIES = 256  # gathered before they are written
NAME = b"localhost"
LINGER = 5.0  # seconds that a client has to close after our EOF
LOOK = 0.5  # seconds between two looks whether the client of a stalled connection is still there

LINE_TOO_LONG = b"500 5.5.2 Line too long\r\n"
BAD_SEQUENCE = b"503 5.5.1 Bad sequence of commands\r\n"
NO_ARGUMENTS = b"501 5.5.4 This command takes no arguments\r\n"


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
        self._halted = False  # nothing is served and nothing read (not even EOF), for one of the next six
        self._delay: asyncio.TimerHandle | None = None
        self._pieces: Iterator[Piece] | None = None  # being played: nothing else goes out
        self._blocked = False  # the client does not read its replies
        self._ending = False  # closes after the replies
        self._lost = False
        self._handshaking = False
        self._between = False  # a piece is out, the next one waits for the client to read
        self._played: Callable[[], None] = self._resume  # what comes after the last piece
        self._deaf = False  # what comes is thrown away
        self._resets = False  # what comes is answered with RST
        self._begun = 0  # transactions
        self._number = next(reception.numbers)
        self._trap: Verdict | None = None  # springs in the middle of this content,
        self._trap_bytes = 0  # after so many bytes more
        self._skipping = False  # the rest of a line that was too long
        self._turned_away = False  # the greeting was not 220
        self._peer = ""
        self._content: Content | Chunk | None = None  # between 354 and the dot, or in a chunk of BDAT
        self._obey: Callable[[bytes], None] = self._command  # or takes a line of AUTH's dialogue
        self._encrypted = False

    # -- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        peer = transport.get_extra_info("peername")
        self._peer = f"{peer[0]}:{peer[1]}" if peer else ""
        self._encrypted = transport.get_extra_info("ssl_object") is not None
        self._reception.counters.handshakes += self._encrypted
        self._reception.opened(self)
        greeted = self._answer("greeting", (self._address,), b"220 %b ESMTP streamq sink\r\n" % NAME)
        self._turned_away = not greeted
        self._reception.greeted(self, self._address, welcome=greeted)
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self._halted and (self._deaf or self._resets):
            if self._resets:
                reset(self._transport)
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._serve()

    def pause_writing(self) -> None:
        self._blocked = True
        self._halt()

    def resume_writing(self) -> None:
        self._blocked = False
        if self._between:
            self._between = False
            self._next_piece()
        else:
            self._resume()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lost:  # in the middle of a handshake both layers say so: it is counted out once
            return
        self._lost = self._halted = True
        self._stop_playing()
        self._buffer = b""
        self._replies.clear()
        self._reception.closed(self, cut=self._content is not None)
        self._content = None

    def shut_down(self) -> None:
        """The sink ends: say so where a reply may stand, and close."""
        if self._handshaking:
            self.abort()
            return
        idle = self._delay is None and self._pieces is None
        if self._content is None and not self._ending and idle and not self._deaf and not self._resets:
            self._replies.append(b"421 4.3.2 The sink is shutting down\r\n")
        self._ending = self._halted = True
        self._stop_playing()
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
                if len(buffer) - at > AUTH_LINE:  # keep what may be half of a CRLF
                    self._skipping = True
                    at = len(buffer) - 1
                break
            if self._skipping or end - at > AUTH_LINE - 2:
                self._skipping = False
                self._reception.counters.commands += 1
                self._replies.append(LINE_TOO_LONG)
            else:
                self._obey(buffer[at:end])
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
        if self._ending and self._pieces is None:
            self._transport.close()

    def _halt(self) -> None:
        self._halted = True
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._lost or self._blocked or self._deaf or self._resets or self._handshaking:
            return
        if self._delay is not None or self._pieces is not None:
            return
        if self._ending:
            self._flush()
            return
        self._halted = False
        if not self._transport.is_closing():
            self._transport.resume_reading()
        self._serve()

    # -- playing: replies that are late, in pieces, or none

    def _play(self, played: Iterator[Piece], then: Callable[[], None]) -> None:
        """Write pieces one after another, each when its time has come; serve nothing until `then`."""
        self._pieces, self._played = played, then
        self._flush()
        self._halt()
        self._next_piece()

    def _next_piece(self) -> None:
        if self._pieces is None or self._transport.is_closing():
            return
        piece = next(self._pieces, None)
        if piece is None:
            self._pieces = None
            self._played()
            if self._handshaking and not self._ending and not self._deaf and not self._resets:
                self._shake_hands()
        else:
            self._delay = self._loop.call_later(piece[0], self._write_piece, piece[1])

    def _write_piece(self, data: bytes) -> None:
        self._delay = None
        if data:
            self._transport.write(data)
        if self._blocked:
            self._between = True
        else:
            self._next_piece()

    def _stop_playing(self) -> None:
        if self._delay is not None:
            self._delay.cancel()
            self._delay = None
        self._pieces = None
        self._between = False

    def _close(self) -> None:
        self._ending = True
        self._flush()

    def _leave(self, stage: Stage, action: Action) -> None:
        """Close, or go on without a word, as a rule says."""
        self._reception.dropped(stage, action)
        if action == "rst" or (action == "unread" and self._buffer):
            reset(self._transport)
        elif action == "eof":
            self._deaf = self._ending = True
            if self._transport.can_write_eof():
                # close() alone would be RST if one byte of the client's is unread: then it is no EOF
                self._transport.write_eof()
                self._transport.resume_reading()
                self._delay = self._loop.call_later(LINGER, self._transport.abort)
            else:
                self._transport.close()
        elif action == "stall":
            self._deaf = True
            self._look()
        else:
            self._deaf, self._resets = action == "silent", action == "unread"
            self._transport.resume_reading()
        self._buffer = b""
        self._reception.tell()

    def _look(self) -> None:
        if peer_is_gone(self._transport):
            self._transport.abort()
        else:
            self._delay = self._loop.call_later(LOOK, self._look)

    # -- judging

    @property
    def _address(self) -> str:
        return self._peer.rpartition(":")[0]

    @property
    def _visitor(self) -> Visitor:
        return Visitor(self._address, connection=self._number)

    def _answer(
        self, stage: Stage, subjects: Iterable[str], usual: bytes | Callable[[], bytes], *, forced: bytes = b""
    ) -> bool:
        """Reply as a rule or a limit says, or with `usual`; true if the stage is passed.

        `usual` as a function is work that is done only if nobody refuses; its reply decides then. The work
        is done before a delay, not after: a server that answers late has the mail all the same (RFC 1047).
        `forced` is what is usual where `usual` refuses and a rule accepts nevertheless.
        """
        reception = self._reception
        if stage in reception.judged:
            return self._judged(stage, tuple(subjects), usual, forced)
        reply = usual if isinstance(usual, bytes) else usual()
        if reply >= b"4":
            self._say(stage, reply)
            return False
        reception.usual[stage] += 1
        self._replies.append(reply)
        return True

    def _judged(
        self, stage: Stage, subjects: tuple[str, ...], usual: bytes | Callable[[], bytes], forced: bytes
    ) -> bool:
        reception = self._reception
        verdict = reception.judge.verdict(stage, subjects, self._begun, reception.counters.accepted)
        refusal = verdict.reply if verdict is not None and verdict.code >= 400 else b""
        if not refusal and not (verdict is not None and verdict.rule.instead):
            refusal = reception.guard.refusal(stage, self._visitor, subjects)
        accept = verdict.rule.accept if verdict is not None else None
        passed = not refusal if accept is None else accept
        if accept and forced:
            usual = forced
        told = verdict.reply if verdict is not None else b""
        if passed:
            done = usual if isinstance(usual, bytes) else usual()
            if done >= b"4":  # it was to be kept and could not be
                passed, refusal = False, done
            reply = refusal or told or done
        else:
            reply = refusal or told or (usual if isinstance(usual, bytes) else b"250 2.0.0 Ok: queued as 0\r\n")
        if verdict is None or verdict.rule.plain:
            self._say(stage, reply)
        else:
            self._perform(stage, verdict, reply)
        return passed

    def _say(self, stage: Stage, reply: bytes) -> None:
        self._count(stage, reply)
        if reply.startswith(b"421"):
            self._ending = self._halted = True
        self._replies.append(reply)

    def _count(self, stage: Stage, reply: bytes) -> None:
        reception = self._reception
        reception.replies[stage, reply[:3]] += 1
        if reply >= b"4":
            reception.refused(stage, int(reply[:3]))

    def _refuse(self, stage: Stage, reply: bytes) -> None:
        self._count(stage, reply)
        self._replies.append(reply)

    def _perform(self, stage: Stage, verdict: Verdict, reply: bytes) -> None:
        rule = verdict.rule
        if reply and not rule.instead and not rule.garbage:
            self._count(stage, reply)
        self._play(pieces(rule, reply), self._ending_of(stage, rule, reply))

    def _ending_of(self, stage: Stage, rule: Rule, reply: bytes) -> Callable[[], None]:
        if rule.action != "reply":
            return partial(self._leave, stage, rule.action)
        if rule.garbage.startswith("endless"):  # nothing can follow a reply that has no end
            return partial(self._leave, stage, "eof")
        if rule.stray.startswith("421") or (reply.startswith(b"421") and not rule.garbage):
            return self._close
        return self._resume

    # -- in the middle of a body

    def _set_trap(self, recipients: Iterable[str]) -> None:
        reception = self._reception
        self._trap = reception.judge.verdict("body", recipients, self._begun, reception.counters.accepted)
        if self._trap is not None:
            self._trap_bytes = self._trap.rule.after_bytes

    def _take_as_far_as_the_trap(self, content: Content | Chunk, buffer: bytes, at: int) -> int:
        taken = content.take(buffer[: at + self._trap_bytes], at)
        self._trap_bytes -= taken - at
        if isinstance(content, Chunk) and not content.left:
            self._trap = None if content.last else self._trap  # else it springs in the next chunk
        elif isinstance(content, Content) and content.text is not None:
            self._trap = None
        elif not self._trap_bytes:
            self._spring()
        return taken

    def _spring(self) -> None:
        verdict, self._trap = self._trap, None
        if verdict is not None:
            self._perform("body", verdict, verdict.reply)

    # -- what a subclass does

    def _shake_hands(self) -> None:
        """The 220 to STARTTLS is out."""
        raise NotImplementedError

    def _command(self, line: bytes) -> None:
        """Obey a line, which comes without its CRLF."""
        raise NotImplementedError

    def _take_content(self, content: Content | Chunk, buffer: bytes, at: int) -> int:
        """Take content from `at` on; returns where commands go on, or the buffer's length."""
        raise NotImplementedError

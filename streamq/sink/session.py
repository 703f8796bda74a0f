"""One SMTP connection, the server's side: RFC 5321, with PIPELINING (RFC 2920), SIZE (1870), 8BITMIME (6152),
SMTPUTF8 (6531) and enhanced status codes (2034).

A protocol of its own, not a stream reader: what one packet brings is served in one turn and answered in one
write; asyncio's readline costs more than the whole transaction here. A line ends with CRLF and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar, cast

from streamq.sink.content import Content
from streamq.sink.grammar import Refusal, host_argument, mail_arguments, rcpt_arguments
from streamq.sink.reception import Envelope, Reception
from streamq.sink.rules import Stage

__all__ = ["Session"]

CRLF = b"\r\n"
LINE = 512  # bytes of a command with its CRLF, RFC 5321 section 4.5.3.1.4
MAIL_LINE = LINE + 26 + 17 + 10  # what SIZE, BODY and SMTPUTF8 add to MAIL
MOST_RECIPIENTS = 1000  # of a transaction; section 4.5.3.1.8 asks for 100 at least
MOST_REPLIES = 256  # gathered before they are written
NAME = b"localhost"

BAD_SEQUENCE = b"503 5.5.1 Bad sequence of commands\r\n"
NO_ARGUMENTS = b"501 5.5.4 This command takes no arguments\r\n"
LINE_TOO_LONG = b"500 5.5.2 Line too long\r\n"
TOO_BIG = b"552 5.3.4 Message too big\r\n"
NEEDS_SMTPUTF8 = b"553 5.6.7 This address needs SMTPUTF8\r\n"
BAD_PARAMETER = b"555 5.5.4 A parameter that was not offered\r\n"


class Session(asyncio.Protocol):
    """Reads commands, keeps the transaction's state; everything of lasting effect is the reception's."""

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
        self._client = ""
        self._extended = False  # it said EHLO
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._tried_recipients = False
        self._mail_ns = 0
        self._eight_bit = False
        self._smtputf8 = False
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

    # -- commands

    def _command(self, line: bytes) -> None:
        self._reception.counters.commands += 1
        verb, _, rest = line.partition(b" ")
        verb = verb.upper()
        if len(line) > LINE - 2 and verb != b"MAIL":
            self._replies.append(LINE_TOO_LONG)
            return
        if self._turned_away and verb != b"QUIT":  # RFC 5321 section 3.1
            self._replies.append(BAD_SEQUENCE)
            return
        handle = self._handlers.get(verb.rstrip(b" \t"))
        if handle is None:
            self._replies.append(b"500 5.5.1 Command unrecognized\r\n")
        else:
            handle(self, rest.rstrip(b" \t"))

    def _ehlo(self, rest: bytes) -> None:
        if self._hello("ehlo", rest, self._offer()):
            self._extended = True

    def _helo(self, rest: bytes) -> None:
        if self._hello("helo", rest, b"250 %b\r\n" % NAME):
            self._extended = False

    def _hello(self, stage: Stage, rest: bytes, usual: bytes) -> bool:
        try:
            name = host_argument(rest, literals=stage == "ehlo")
        except Refusal as wrong:
            self._refuse(stage, wrong.reply)
            return False
        if not self._answer(stage, (name,), usual):
            return False
        self._client = name
        self._reset()
        return True

    def _offer(self) -> bytes:
        lines = [NAME]
        for extension in self._reception.extensions:
            text = f"SIZE {self._reception.max_size}" if extension == "SIZE" else extension
            lines.append(text.encode())
        return b"".join([*(b"250-%b\r\n" % line for line in lines[:-1]), b"250 %b\r\n" % lines[-1]])

    def _mail(self, rest: bytes) -> None:
        if not self._client or self._sender is not None:
            self._refuse("mail", BAD_SEQUENCE)
            return
        mail_ns = time.monotonic_ns()
        try:
            given = mail_arguments(rest)
        except Refusal as wrong:
            self._refuse("mail", wrong.reply)
            return
        if not all(self._offered(name) for name in given.parameters):
            self._refuse("mail", BAD_PARAMETER)
        elif given.size > self._reception.max_size:
            self._refuse("mail", TOO_BIG)
        elif not given.smtputf8 and not given.sender.isascii():
            self._refuse("mail", NEEDS_SMTPUTF8)
        elif self._answer("mail", (given.sender,), b"250 2.1.0 Ok\r\n"):
            self._sender = given.sender
            self._mail_ns = mail_ns
            self._eight_bit = given.body == "8BITMIME"
            self._smtputf8 = given.smtputf8

    def _offered(self, parameter: str) -> bool:
        keyword = "8BITMIME" if parameter == "BODY" else parameter
        takes = keyword in {"SIZE", "8BITMIME", "SMTPUTF8"}
        return takes and self._extended and keyword in self._reception.extensions

    def _rcpt(self, rest: bytes) -> None:
        if self._sender is None:
            self._refuse("rcpt", BAD_SEQUENCE)
            return
        self._tried_recipients = True
        try:
            recipient, parameters = rcpt_arguments(rest)
        except Refusal as wrong:
            self._refuse("rcpt", wrong.reply)
            return
        if parameters:
            self._refuse("rcpt", BAD_PARAMETER)
        elif not self._smtputf8 and not recipient.isascii():
            self._refuse("rcpt", NEEDS_SMTPUTF8)
        elif len(self._recipients) >= MOST_RECIPIENTS:
            self._refuse("rcpt", b"452 4.5.3 Too many recipients\r\n")
        elif self._answer("rcpt", (recipient,), b"250 2.1.5 Ok\r\n"):
            self._recipients.append(recipient)

    def _data(self, rest: bytes) -> None:
        if rest:
            self._refuse("data", NO_ARGUMENTS)
        elif not self._recipients:  # section 3.3: 503 or 554
            none_left = b"554 5.5.1 No valid recipients\r\n"
            self._refuse("data", none_left if self._tried_recipients else BAD_SEQUENCE)
        elif self._answer("data", self._recipients, b"354 End data with <CR><LF>.<CR><LF>\r\n"):
            self._content = Content(self._reception.max_size)

    def _rset(self, rest: bytes) -> None:
        if rest:
            self._replies.append(NO_ARGUMENTS)
        elif self._answer("rset", (self._address,), b"250 2.0.0 Ok\r\n"):
            self._reset()

    def _quit(self, rest: bytes) -> None:
        if rest:
            self._replies.append(NO_ARGUMENTS)
            return
        self._answer("quit", (self._address,), b"221 2.0.0 Bye\r\n")
        self._ending = self._halted = True

    def _noop(self, _rest: bytes) -> None:
        self._replies.append(b"250 2.0.0 Ok\r\n")

    def _vrfy(self, rest: bytes) -> None:
        known = b"252 2.1.5 Send it and see\r\n"
        self._replies.append(known if rest else b"501 5.5.4 Syntax: VRFY address\r\n")

    def _help(self, _rest: bytes) -> None:
        self._replies.append(b"214 2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT\r\n")

    def _not_yet(self, _rest: bytes) -> None:
        self._replies.append(b"502 5.5.1 Command not implemented\r\n")

    _handlers: ClassVar[dict[bytes, Callable[[Session, bytes], None]]] = {
        b"EHLO": _ehlo,
        b"HELO": _helo,
        b"MAIL": _mail,
        b"RCPT": _rcpt,
        b"DATA": _data,
        b"RSET": _rset,
        b"NOOP": _noop,
        b"QUIT": _quit,
        b"VRFY": _vrfy,
        b"HELP": _help,
        b"EXPN": _not_yet,
        b"STARTTLS": _not_yet,
        b"AUTH": _not_yet,
        b"BDAT": _not_yet,
    }

    def _reset(self) -> None:
        self._sender = None
        self._recipients = []
        self._tried_recipients = False
        self._eight_bit = False
        self._smtputf8 = False

    # -- content

    def _take_content(self, content: Content, buffer: bytes, at: int) -> int:
        at = content.take(buffer, at)
        if content.text is not None:
            self._content = None
            if content.too_big:
                self._refuse("dot", TOO_BIG)
            else:
                self._answer("dot", self._recipients, partial(self._accept, content.text))
            self._reset()
        return at

    def _accept(self, text: bytes) -> bytes:
        envelope = Envelope(
            sender=self._sender or "",
            recipients=tuple(self._recipients),
            mail_ns=self._mail_ns,
            peer=self._peer,
            helo=self._client,
            eight_bit=self._eight_bit,
            smtputf8=self._smtputf8,
        )
        return self._reception.accept(envelope, text)

"""One SMTP session, the server's side: RFC 5321, with PIPELINING (RFC 2920), SIZE (1870), 8BITMIME (6152),
SMTPUTF8 (6531) and enhanced status codes (2034)."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from streamq.sink.connection import LINE, LINE_TOO_LONG, NAME, Connection
from streamq.sink.content import Content
from streamq.sink.grammar import Refusal, host_argument, mail_arguments, rcpt_arguments
from streamq.sink.reception import Envelope, Reception
from streamq.sink.rules import Stage

__all__ = ["Session"]

MOST_RECIPIENTS = 1000  # of a transaction; section 4.5.3.1.8 asks for 100 at least

BAD_SEQUENCE = b"503 5.5.1 Bad sequence of commands\r\n"
NO_ARGUMENTS = b"501 5.5.4 This command takes no arguments\r\n"
NONE_LEFT = b"554 5.5.1 No valid recipients\r\n"
GO_ON = b"354 End data with <CR><LF>.<CR><LF>\r\n"
TOO_BIG = b"552 5.3.4 Message too big\r\n"
NEEDS_SMTPUTF8 = b"553 5.6.7 This address needs SMTPUTF8\r\n"
BAD_PARAMETER = b"555 5.5.4 A parameter that was not offered\r\n"


class Session(Connection):
    """Obeys commands, keeps the transaction's state; everything of lasting effect is the reception's."""

    def __init__(self, reception: Reception) -> None:
        super().__init__(reception)
        self._client = ""
        self._extended = False  # it said EHLO
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._tried = ""  # the last recipient that was asked for
        self._mail_ns = 0
        self._eight_bit = False
        self._smtputf8 = False

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
        elif self._begin(given.sender):
            self._reception.counters.transactions += 1
            self._sender = given.sender
            self._mail_ns = mail_ns
            self._eight_bit = given.body == "8BITMIME"
            self._smtputf8 = given.smtputf8

    def _begin(self, sender: str) -> bool:
        self._begun += 1
        return self._answer("mail", (sender,), b"250 2.1.0 Ok\r\n")

    def _offered(self, parameter: str) -> bool:
        keyword = "8BITMIME" if parameter == "BODY" else parameter
        takes = keyword in {"SIZE", "8BITMIME", "SMTPUTF8"}
        return takes and self._extended and keyword in self._reception.extensions

    def _rcpt(self, rest: bytes) -> None:
        if self._sender is None:
            self._refuse("rcpt", BAD_SEQUENCE)
            return
        self._tried = "?"
        try:
            recipient, parameters = rcpt_arguments(rest)
        except Refusal as wrong:
            self._refuse("rcpt", wrong.reply)
            return
        self._tried = recipient
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
        elif not self._recipients and not self._reception.judge.forces_data:  # section 3.3: 503 or 554
            self._refuse("data", NONE_LEFT if self._tried else BAD_SEQUENCE)
        elif self._recipients:
            self._begin_content(self._answer("data", self._recipients, GO_ON))
        else:  # "354 although nobody is left" is for those only whom a rule with `accept` names
            self._begin_content(self._answer("data", (self._tried,), NONE_LEFT, forced=GO_ON))

    def _begin_content(self, passed: bool) -> None:
        if passed:
            self._content = Content(self._reception.max_size)
            if "body" in self._reception.judge.stages:
                self._set_trap(self._recipients or (self._tried,))

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
        self._answer("noop", (self._address,), b"250 2.0.0 Ok\r\n")

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
        self._tried = ""
        self._eight_bit = False
        self._smtputf8 = False

    # -- content

    def _take_content(self, content: Content, buffer: bytes, at: int) -> int:
        at = content.take(buffer, at) if self._trap is None else self._take_as_far_as_the_trap(content, buffer, at)
        if content.text is not None:
            self._content = None
            if not self._recipients:  # it was told 354 all the same; RFC 2920 section 3.1: then it sends a dot alone
                self._reception.counters.orphans += len(content.text) > 2 or content.too_big
                self._refuse("dot", NONE_LEFT)
            elif content.too_big:
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

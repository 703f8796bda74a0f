"""One SMTP session, the server's side: RFC 5321, with PIPELINING (RFC 2920), SIZE (1870), 8BITMIME (6152), SMTPUTF8
(6531), enhanced status codes (2034), CHUNKING (3030), DSN (3461), REQUIRETLS (8689), STARTTLS and AUTH."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

from streamq.sink.chunks import Chunk, chunk_of
from streamq.sink.connection import (
    AUTH_LINE,
    BAD_SEQUENCE,
    LINE,
    LINE_TOO_LONG,
    MAIL_LINE,
    NAME,
    NO_ARGUMENTS,
    RCPT_LINE,
)
from streamq.sink.content import Content
from streamq.sink.grammar import NONE, MailArguments, Refusal, host_argument, mail_arguments, rcpt_arguments
from streamq.sink.limits import Visitor
from streamq.sink.reception import Envelope, Reception
from streamq.sink.rules import Stage
from streamq.sink.secured import NOT_OFFERED, Secured

__all__ = ["Session"]

MOST_RECIPIENTS = 1000  # of a transaction; section 4.5.3.1.8 asks for 100 at least
LONGER = {b"MAIL": MAIL_LINE, b"RCPT": RCPT_LINE, b"AUTH": AUTH_LINE}  # than LINE, by what extensions add
KEYWORD_OF = {
    "SIZE": "SIZE",
    "BODY": "8BITMIME",
    "SMTPUTF8": "SMTPUTF8",
    "RET": "DSN",
    "ENVID": "DSN",
    "NOTIFY": "DSN",
    "ORCPT": "DSN",
    "AUTH": "AUTH",
    "REQUIRETLS": "REQUIRETLS",
}
OF_RCPT = ("NOTIFY", "ORCPT")

NONE_LEFT = b"554 5.5.1 No valid recipients\r\n"
GO_ON = b"354 End data with <CR><LF>.<CR><LF>\r\n"
TOO_BIG = b"552 5.3.4 Message too big\r\n"
NEEDS_SMTPUTF8 = b"553 5.6.7 This address needs SMTPUTF8\r\n"
NEEDS_AUTH = b"530 5.7.0 Authentication required\r\n"
BAD_PARAMETER = b"555 5.5.4 A parameter that was not offered\r\n"


class Session(Secured):
    """Obeys commands, keeps the transaction's state; everything of lasting effect is the reception's."""

    def __init__(self, reception: Reception) -> None:
        super().__init__(reception)
        self._client = ""
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._rcpt_parameters: list[Mapping[str, str | None]] = []
        self._parameters: Mapping[str, str | None] = NONE
        self._tried = ""  # the last recipient that was asked for
        self._mail_ns = 0
        self._eight_bit = False
        self._smtputf8 = False
        self._chunks: bytearray | None = None  # what BDAT brought so far
        self._broken = False  # a chunk was refused: RSET must come

    @property
    def _visitor(self) -> Visitor:
        return Visitor(self._address, self._sender or "", self._user, self._number)

    def _in_transaction(self) -> bool:
        return self._sender is not None

    def _forget(self) -> None:
        self._client = self._user = ""
        self._keywords = frozenset()
        self._begun = 0
        self._reset()

    # -- commands

    def _command(self, line: bytes) -> None:
        self._reception.counters.commands += 1
        verb, _, rest = line.partition(b" ")
        verb = verb.upper()
        if len(line) > LINE - 2 and len(line) > LONGER.get(verb, LINE) - 2:
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
        offers = self._offers()
        lines = [NAME, *(f"{keyword} {value}".rstrip().encode() for keyword, value in offers.items())]
        usual = b"".join([*(b"250-%b\r\n" % line for line in lines[:-1]), b"250 %b\r\n" % lines[-1]])
        if self._hello("ehlo", rest, usual):
            self._keywords = frozenset(offers)

    def _helo(self, rest: bytes) -> None:
        if self._hello("helo", rest, b"250 %b\r\n" % NAME):
            self._keywords = frozenset()

    def _offers(self) -> dict[str, str]:
        """Keywords that this session is offered now, with what stands behind them."""
        reception = self._reception
        directory = reception.directory
        offers = dict.fromkeys(reception.extensions, "")
        if "SIZE" in offers:
            offers["SIZE"] = str(reception.said_size)
        if "AUTH" in offers:
            offers["AUTH"] = " ".join(directory.mechanisms)
        absent = {
            "STARTTLS": reception.tls is None or self._encrypted,
            "REQUIRETLS": not self._encrypted,
            "AUTH": not directory.mechanisms or (directory.tls_only and not self._encrypted),
        }
        return {keyword: value for keyword, value in offers.items() if not absent.get(keyword)}

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
        if given.parameters or self._reception.needs_auth or not given.sender.isascii():
            wrong_with = self._wrong_with(given)
            if wrong_with:
                self._refuse("mail", wrong_with)
                return
        self._begun += 1
        if not self._answer("mail", (given.sender,), b"250 2.1.0 Ok\r\n"):
            return
        self._reception.begun()
        self._sender = given.sender
        self._parameters = given.parameters
        self._mail_ns = mail_ns
        self._eight_bit = given.body == "8BITMIME"
        self._smtputf8 = given.smtputf8

    def _wrong_with(self, given: MailArguments) -> bytes:
        reception = self._reception
        if reception.needs_auth and not self._user:
            return NEEDS_AUTH
        if given.parameters and not all(
            KEYWORD_OF.get(name) in self._keywords and name not in OF_RCPT for name in given.parameters
        ):
            return BAD_PARAMETER
        if given.size > reception.max_size:
            return TOO_BIG
        return b"" if given.smtputf8 or given.sender.isascii() else NEEDS_SMTPUTF8

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
        if parameters and not ("DSN" in self._keywords and all(name in OF_RCPT for name in parameters)):
            self._refuse("rcpt", BAD_PARAMETER)
        elif not self._smtputf8 and not recipient.isascii():
            self._refuse("rcpt", NEEDS_SMTPUTF8)
        elif len(self._recipients) >= MOST_RECIPIENTS:
            self._refuse("rcpt", b"452 4.5.3 Too many recipients\r\n")
        elif self._answer("rcpt", (recipient,), b"250 2.1.5 Ok\r\n"):
            self._recipients.append(recipient)
            self._rcpt_parameters.append(parameters)
            if self._reception.windows is not None:
                self._reception.windows.recipient(recipient)

    def _data(self, rest: bytes) -> None:
        if rest:
            self._refuse("data", NO_ARGUMENTS)
        elif self._chunks is not None or self._broken:  # RFC 3030 section 3
            self._refuse("data", BAD_SEQUENCE)
        elif not self._recipients and not self._reception.judge.forces_data:  # RFC 5321 section 3.3: 503 or 554
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

    def _bdat(self, rest: bytes) -> None:
        if "CHUNKING" not in self._keywords:
            self._replies.append(NOT_OFFERED)
            return
        try:
            size, last = chunk_of(rest)
        except Refusal as wrong:  # the bytes that follow would be obeyed as commands
            self._refuse("bdat", wrong.reply)
            self._ending = self._halted = True
            return
        refusal = b""
        if self._broken or not self._recipients:
            refusal = NONE_LEFT if self._tried and not self._broken else BAD_SEQUENCE
        elif len(self._chunks or b"") + size > self._reception.max_size:
            refusal = TOO_BIG
        if self._chunks is None and not refusal:
            self._chunks = bytearray()
            if "body" in self._reception.judge.stages:
                self._set_trap(self._recipients)
        held = self._chunks if self._chunks is not None else bytearray()
        self._content = Chunk(size, last=last, held=held, refusal=refusal)
        if not size:
            self._chunk_came(self._content)

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
        self._replies.append(b"214 2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP STARTTLS AUTH QUIT\r\n")

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
        b"STARTTLS": Secured._starttls,
        b"AUTH": Secured._auth,
        b"BDAT": _bdat,
    }

    def _reset(self) -> None:
        self._sender = None
        self._recipients = []
        self._rcpt_parameters = []
        self._tried = ""
        self._eight_bit = False
        self._smtputf8 = False
        self._chunks = None
        self._broken = False
        self._trap = None

    # -- content

    def _take_content(self, content: Content | Chunk, buffer: bytes, at: int) -> int:
        at = content.take(buffer, at) if self._trap is None else self._take_as_far_as_the_trap(content, buffer, at)
        if isinstance(content, Chunk):
            if not content.left:
                self._chunk_came(content)
        elif content.text is not None:
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

    def _chunk_came(self, chunk: Chunk) -> None:
        self._content = None
        stage: Stage = "dot" if chunk.last else "bdat"
        if chunk.refusal:
            self._refuse(stage, chunk.refusal)
            self._broken = self._sender is not None
            self._chunks = None
        elif chunk.last:
            text = b"\r\n" + bytes(self._chunks or b"")
            self._answer("dot", self._recipients, partial(self._accept, text))
            self._reset()
        elif not self._answer("bdat", self._recipients, b"250 2.0.0 %d octets\r\n" % chunk.size):
            self._broken = True
            self._chunks = None

    def _accept(self, text: bytes) -> bytes:
        envelope = Envelope(
            sender=self._sender or "",
            recipients=tuple(self._recipients),
            mail_ns=self._mail_ns,
            peer=self._peer,
            helo=self._client,
            eight_bit=self._eight_bit,
            smtputf8=self._smtputf8,
            parameters=self._parameters,
            rcpt_parameters=tuple(self._rcpt_parameters),
            tls=self._encrypted,
            user=self._user,
        )
        return self._reception.accept(envelope, text)

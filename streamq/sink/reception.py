"""What all connections of a sink share: the judge, the books, and where accepted mails go."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from streamq.sink.auth import Directory
from streamq.sink.journal import Journal
from streamq.sink.ledger import Counters, Ledger, header_of, message_id_of
from streamq.sink.limits import Guard
from streamq.sink.mailbox import Mailbox, Received
from streamq.sink.maildir import Maildir
from streamq.sink.rules import Judge, Rules
from streamq.sink.windows import Windows

if TYPE_CHECKING:
    from streamq.sink.connection import Connection

__all__ = ["EXTENSIONS", "Envelope", "Reception"]

# In the order of the reply to EHLO. STARTTLS is offered where there is a certificate and no TLS yet, REQUIRETLS within
# TLS (RFC 8689 section 2), AUTH where there are users.
NO_LIMIT = 2**31  # bytes of a mail, where SIZE 0 says that there is none
EXTENSIONS = (
    "PIPELINING",
    "8BITMIME",
    "SMTPUTF8",
    "SIZE",
    "ENHANCEDSTATUSCODES",
    "CHUNKING",
    "DSN",
    "REQUIRETLS",
    "STARTTLS",
    "AUTH",
)


class Envelope(NamedTuple):
    """A transaction before its content; the fields are those of `Received`."""

    sender: str
    recipients: tuple[str, ...]
    mail_ns: int
    peer: str
    helo: str
    eight_bit: bool
    smtputf8: bool
    parameters: Mapping[str, str | None]
    rcpt_parameters: tuple[Mapping[str, str | None], ...]
    tls: bool
    user: str


class Reception:
    """Takes mails in and counts them. Without `keeps`, the mailbox gets none."""

    def __init__(
        self,
        *,
        rules: Rules,
        mailbox: Mailbox,
        keeps: bool,
        ledger: Ledger,
        on_mail: Callable[[Received], object] | None,
        max_size: int,
        extensions: tuple[str, ...],
        clock: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
        windows: tuple[float, ...] = (),
        id_header: str = "",
    ) -> None:
        self.clock = clock
        self.started = clock()
        self._judge_by(rules, None)
        self.tls = tls
        self.counters = Counters()
        self.replies = self.counters.by_stage
        self.usual = self.counters.usual
        self.ledger = ledger
        self.mailbox = mailbox
        self.said_size = max_size  # 0: no limit is said
        self.max_size = max_size or NO_LIMIT
        self.windows = Windows(windows, clock) if windows else None
        self.extensions = extensions
        self.sessions: set[Connection] = set()
        self.numbers = count(1)  # one for each connection
        self.maildir: Maildir | None = None
        self.journal: Journal | None = None
        self.failed: OSError | None = None  # why the journal could not be written
        self._keeps = keeps
        self._on_mail = on_mail
        self._id_header = id_header.encode().lower()
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def opened(self, session: Connection) -> None:
        counters = self.counters
        self.sessions.add(session)
        counters.connections += 1
        counters.open += 1
        counters.most_open = max(counters.most_open, counters.open)
        self.tell()

    def closed(self, session: Connection, *, cut: bool) -> None:
        self.sessions.discard(session)
        self.guard.left(session)
        self.counters.open -= 1
        self.counters.cut += cut
        self.tell()

    def follow(self, rules: Rules) -> None:
        """Judge by other rules from now on."""
        self._judge_by(rules, self.guard)

    def _judge_by(self, rules: Rules, before: Guard | None) -> None:
        self.judge = Judge(rules)
        self.guard = Guard(rules.limits, self.clock, before)
        self.judged = self.judge.stages | self.guard.stages  # at all others a reply costs no thought
        self.directory = Directory(rules.users, rules.auth, self.clock, self.started)
        self.needs_auth = bool(self.directory.mechanisms) and self.directory.required

    def begun(self) -> None:
        """A transaction: MAIL was accepted."""
        self.counters.transactions += 1
        if self.windows is not None:
            self.windows.mail()

    def greeted(self, session: Connection, address: str, *, welcome: bool) -> None:
        if welcome:
            self.guard.entered(session, address)
        else:
            self.counters.connections_refused += 1

    def dropped(self, stage: str, action: str) -> None:
        self.counters.dropped += 1
        self.counters.drops[f"{stage} {action}"] += 1

    def refused(self, stage: str, code: int) -> None:
        self.counters.refused += 1
        self.counters.refused_by[f"{stage} {code}"] += 1

    def accept(self, envelope: Envelope, text: bytes) -> bytes:
        """Take a mail in: files, books, memory. Returns the reply; not a 250 if it could not be stored.

        `text` is the content, dot-unstuffed, with a CRLF in front.
        """
        at_ns, monotonic_ns = time.time_ns(), time.monotonic_ns()
        message_id = message_id_of(text)
        file = None
        if self.maildir is not None:
            try:
                file = self.maildir.add(envelope.sender, envelope.recipients, text[2:])
            except OSError:
                return b"452 4.3.1 Cannot write to the Maildir\r\n"
        if self.journal is not None:
            self.journal.add(at_ns, envelope.recipients, message_id)
        self.ledger.add(envelope.recipients, message_id)
        if self._id_header:
            self.ledger.add_id(header_of(text, self._id_header))
        counters = self.counters
        counters.accepted += 1
        counters.recipients += len(envelope.recipients)
        counters.content_bytes += len(text) - 2
        if self._keeps or self._on_mail is not None:
            self._hand_on(envelope, text[2:], message_id, at_ns, monotonic_ns, file)
        return b"250 2.0.0 Ok: queued as %X\r\n" % counters.accepted

    def _hand_on(
        self,
        envelope: Envelope,
        content: bytes,
        message_id: bytes,
        at_ns: int,
        monotonic_ns: int,
        file: Path | None,
    ) -> None:
        mail = Received(
            envelope_from=envelope.sender,
            envelope_to=envelope.recipients,
            content=content,
            message_id=message_id,
            at_ns=at_ns,
            monotonic_ns=monotonic_ns,
            mail_ns=envelope.mail_ns,
            peer=envelope.peer,
            helo=envelope.helo,
            eight_bit=envelope.eight_bit,
            smtputf8=envelope.smtputf8,
            parameters=envelope.parameters,
            rcpt_parameters=envelope.rcpt_parameters,
            tls=envelope.tls,
            user=envelope.user,
            file=file,
        )
        if self._keeps:
            self.mailbox.add(mail)
        if self._on_mail is not None:
            self._on_mail(mail)

    def settle(self) -> bool:
        """Before replies go out: what they acknowledge goes to the journal. False: it could not."""
        if self.journal is None or self.failed is not None:
            return self.failed is None
        try:
            self.journal.flush()
        except OSError as wrong:
            self.failed = wrong
            self.tell()
            return False
        return True

    def tell(self) -> None:
        """Something was counted: wake whoever waits for it."""
        for done, future in self._waiting:
            if not future.done() and done():
                future.set_result(None)  # its waiter takes the entry out

    async def wait_until(self, done: Callable[[], bool]) -> None:
        """Return when `done` is true of the books. Raises `ConnectionAbortedError` if the sink ends first."""
        if done():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (done, future)
        self._waiting.append(entry)
        try:
            await future
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    def end(self) -> None:
        """No more will come. Raises `OSError` if the journal's last lines cannot be written."""
        for _done, future in self._waiting:
            if not future.done():
                future.set_exception(ConnectionAbortedError("the sink was closed"))
        self._waiting.clear()
        if self.journal is not None:
            self.journal.close()
            self.journal = None

"""The other end, without a wire: a relay that speaks SMTP to the real courier, and asks models what to say.

TIME     What is written is heard at once and answered a round trip later, plus `service` seconds where the mail ends.
         (The way there and the way back are one delay: what a model sees is shifted by half a round trip, the same for
         all.) Answers of a connection never overtake each other.
MAILS    The model of the relay is asked first, then the recipient's site's. One that is taken is under way until its
         dot has been answered.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamq.simulate.models import LOST, Answer, Asked, Model
from streamq.simulate.record import Record
from streamq.smtp.access import Access
from streamq.smtp.connection import Connection, NotConnected, Offer
from streamq.smtp.letter import Stage
from streamq.smtp.protocol import Wire
from streamq.smtp.replies import Replies

__all__ = ["Change", "Receiver", "VirtualRelay"]

RCPT = re.compile(rb"RCPT TO:<([^>]*)>", re.IGNORECASE)
OFFER = Offer(pipelining=True, eight_bit=True, smtputf8=True, dsn=True)
DOT = b"\r\n.\r\n"


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """From `at` seconds on the model's fields are these."""

    at: float
    fields: tuple[tuple[str, float], ...]


@dataclass(slots=True)
class Receiver:
    """A model and its changes to come, in their order."""

    model: Model
    changes: list[Change] = field(default_factory=list)
    under_way: int = 0

    def at(self, now: float) -> Model:
        while self.changes and self.changes[0].at <= now:
            for name, value in self.changes.pop(0).fields:
                setattr(self.model, name, value)
        return self.model


class VirtualRelay:
    """One of several routes. `rtt` and `service` are seconds; `sites` may be those of other relays, too."""

    def __init__(
        self, name: str, own: Receiver, sites: Mapping[str, Receiver], record: Record, *, rtt: float, service: float
    ) -> None:
        self.name = name
        self.own = own
        self.sites = sites
        self.record = record
        self.rtt = rtt
        self.service = service
        self.lines: set[_Transport] = set()
        self.opened = 0
        self._none = Receiver(Model())

    async def connect(self, access: Access, number: int, rules: Replies) -> Connection:
        """As `smtp.handshake.connect`. TCP, greeting, EHLO are three round trips."""
        loop = asyncio.get_running_loop()
        peer = f"{access.route.host}[192.0.2.1]:{access.route.port}"
        now = loop.time()
        answer = self.own.at(now).opens(now, len(self.lines))
        self.record.opens(self.name, now, refused=answer is not None)
        if answer is not None:
            await asyncio.sleep(2 * self.rtt)
            if not answer.code:
                failure = NotConnected(Stage.CONNECT, "disconnected", "connection refused")
            else:
                verdict = rules.classify(Stage.GREETING, answer.code, answer.text, True)
                failure = NotConnected(
                    Stage.GREETING,
                    verdict.klass,
                    answer.text,
                    code=answer.code,
                    enhanced=verdict.enhanced,
                    hint_ms=verdict.hint_ms,
                )
            failure.peer = peer
            raise failure
        wire = Wire(loop)
        transport = _Transport(self, wire, loop, self.opened)
        self.opened += 1
        self.lines.add(transport)
        try:
            await asyncio.sleep(3 * self.rtt)
        except BaseException:
            transport.abort()
            raise
        wire.attach(transport)
        return Connection(number, wire, OFFER, peer, "")

    def receiver(self, site: str) -> Receiver:
        return self.sites.get(site, self._none)

    def judge(self, recipient: str, line: int) -> tuple[str, Answer | None]:
        """The site, and what is said of the mail; one that is taken is under way from here on."""
        now = asyncio.get_running_loop().time()
        site = recipient.rpartition("@")[2]
        there = self.receiver(site)
        answer = None
        for receiver in (self.own, there):
            answer = answer or receiver.at(now).takes(Asked(now, recipient, receiver.under_way, line))
        if answer is None:
            self.own.under_way += 1
            there.under_way += 1
        else:
            self.record.refuses(site, recipient, now, answer)
        return site, answer

    def has(self, site: str, recipient: str) -> None:
        """Its dot is answered with 250 now."""
        self.leaves(site)
        self.record.takes(site, recipient, asyncio.get_running_loop().time())

    def leaves(self, site: str) -> None:
        """A mail is under way no more."""
        self.own.under_way -= 1
        self.receiver(site).under_way -= 1


class _Transport(asyncio.Transport):
    """The server's side of a connection, behind what the courier's wire takes for its transport."""

    def __init__(self, relay: VirtualRelay, protocol: asyncio.Protocol, loop: Any, number: int) -> None:
        super().__init__()
        self._relay = relay
        self._protocol: asyncio.BaseProtocol = protocol
        self._loop = loop
        self._number = number
        self._buffer = b""
        self._in_body = False
        self._mail: tuple[str, str] | None = None  # site, recipient of the mail that is under way
        self._free_at = 0.0
        self._closing = False

    # -- what the courier calls ------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        self._buffer += bytes(data)
        said: list[bytes] = []
        seconds, hangs_up = 0.0, False
        while not hangs_up and (heard := self._next()) is not None:
            answer, spent, hangs_up = heard
            seconds += spent
            said.append(answer)
        if said:
            now = self._loop.time()
            self._free_at = max(self._free_at, now) + seconds
            self._loop.call_at(max(now + self._relay.rtt, self._free_at + self._relay.rtt), self._say, said, hangs_up)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Everything that is written is gone at once."""

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._relay.lines.discard(self)
        self._ended()
        self._loop.call_soon(self._lost)

    # -- the server ------------------------------------------------------------------------------------------

    def _lost(self) -> None:
        if isinstance(self._protocol, asyncio.Protocol):
            self._protocol.connection_lost(None)

    def _say(self, said: list[bytes], hangs_up: bool) -> None:
        if self._closing:
            return
        text = b"".join(said)
        if text and isinstance(self._protocol, asyncio.Protocol):
            self._protocol.data_received(text)
        if hangs_up:
            self.abort()

    def _ended(self) -> None:
        """Nothing came of it."""
        if self._mail is not None:
            self._relay.leaves(self._mail[0])
            self._mail = None

    def _next(self) -> tuple[bytes, float, bool] | None:
        """The answer to the next whole command, or body; what it takes; whether the server hangs up behind it."""
        end = DOT if self._in_body else b"\r\n"
        if self._in_body and self._buffer.startswith(b".\r\n"):  # a mail of nothing
            at, width = 0, 3
        else:
            at, width = self._buffer.find(end), len(end)
        if at < 0:
            return None
        line, self._buffer = self._buffer[:at], self._buffer[at + width :]
        return self._body() if self._in_body else self._command(line)

    def _body(self) -> tuple[bytes, float, bool]:
        """Whoever sent it may go away now: it is the server's."""
        self._in_body = False
        assert self._mail is not None
        ends = max(self._free_at, self._loop.time()) + self._relay.service
        self._loop.call_at(ends, self._relay.has, *self._mail)
        self._mail = None
        return b"250 2.0.0 queued\r\n", self._relay.service, False

    def _command(self, line: bytes) -> tuple[bytes, float, bool]:
        verb = line[:4].upper()
        if verb == b"RCPT":
            found = RCPT.match(line)
            recipient = found[1].decode("utf-8", "replace") if found else ""
            site, answer = self._relay.judge(recipient, self._number)
            if answer is None:
                self._mail = site, recipient
                return b"250 2.1.5 ok\r\n", 0.0, False
            if answer is LOST:
                return b"", 0.0, True
            return f"{answer.code} {answer.text}\r\n".encode(), 0.0, answer.closes or answer.code == 421
        if verb == b"DATA":
            self._in_body = self._mail is not None
            return (b"354 go on\r\n" if self._in_body else b"503 5.5.1 no recipient\r\n"), 0.0, False
        if verb == b"RSET":
            self._ended()
        return (b"221 2.0.0 bye\r\n", 0.0, True) if verb == b"QUIT" else (b"250 2.0.0 ok\r\n", 0.0, False)

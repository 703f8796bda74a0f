"""A connection to the relay, ready for mail, and what stands in its place when none came about.

NAME     Connection: what `handshake.connect` gives; Offer: what its server's EHLO offers
FAILS    `NotConnected`, with stage, class and the server's words. A connection that fails before MAIL judges
         no mail (RFC 5321, 3.1: also a 554 greeting is about us, not about a mail).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from streamq.errors import StreamqError
from streamq.smtp.letter import Action, Report, Scope, Stage
from streamq.smtp.protocol import Wire
from streamq.smtp.words import one_line

__all__ = ["CUT", "QUIT_WAIT", "Connection", "NotConnected", "Offer"]

QUIT_WAIT = 2.0  # seconds for the reply to QUIT, and for the close
CUT = 500  # characters of a reply that are kept


class NotConnected(StreamqError):
    """No connection came about; never leaves smtp/. `code` 0: no reply; `again`: another one is worth a try now;
    `hung_up`: the server closed it, or refused it, before a word."""

    def __init__(
        self, stage: Stage, klass: str, said: str, *, code: int = 0, enhanced: str = "", hint_ms: int = 0
    ) -> None:
        super().__init__()
        self.stage = stage
        self.klass = klass
        self.reword(said)
        self.code = code
        self.enhanced = enhanced
        self.hint_ms = hint_ms
        self.peer = ""
        self.tls = ""
        self.again = False
        self.hung_up = False

    def reword(self, said: str) -> None:
        self.said = one_line(said)[:CUT]
        self.args = (f"{self.stage}: {self.klass}: {self.said}",)

    def report(self) -> Report:
        """Of the letters for whose sake it was tried."""
        return Report(
            action=Action.PARK,
            stage=self.stage,
            scope=Scope.ROUTE,
            klass=self.klass,
            code=self.code,
            enhanced=self.enhanced,
            reply=self.said,
            peer=self.peer,
            tls=self.tls,
            hint_ms=self.hint_ms,
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """What the server's EHLO offers. `size` is the largest mail in bytes, 0: no limit (RFC 1870, 4)."""

    pipelining: bool = False
    sizes: bool = False
    size: int = 0
    eight_bit: bool = False
    smtputf8: bool = False
    chunking: bool = False
    dsn: bool = False
    require_tls: bool = False

    @classmethod
    def of(cls, extensions: dict[str, str]) -> Offer:
        size = extensions.get("size", "").strip()
        return cls(
            pipelining="pipelining" in extensions,
            sizes="size" in extensions,
            size=int(size) if size.isascii() and size.isdigit() and len(size) <= 20 else 0,
            eight_bit="8bitmime" in extensions,
            smtputf8="smtputf8" in extensions,
            chunking="chunking" in extensions,
            dsn="dsn" in extensions,
            require_tls="requiretls" in extensions,
        )


class Connection:
    """`number` is 0 .. n-1 within its courier; `peer` and `tls` as reports show them; `verified`: it is over TLS, and
    whose it is was proved, by the certificate's signers or by a pin; `serial` is that of the token that opened it
    (0: none); `since` when it was opened, by the loop's clock."""

    __slots__ = ("dirty", "ended", "mails", "number", "offer", "peer", "serial", "since", "tls", "verified", "wire")

    def __init__(
        self, number: int, wire: Wire, offer: Offer, peer: str, tls: str, *, verified: bool = False, serial: int = 0
    ) -> None:
        self.number = number
        self.wire = wire
        self.offer = offer
        self.peer = peer
        self.tls = tls
        self.verified = verified
        self.serial = serial
        self.since = asyncio.get_running_loop().time()
        self.mails = 0  # transactions begun
        self.dirty = False  # the server still has a transaction open: RSET comes first
        self.ended = False  # 421, or we would rather not go on

    def life_left(self, lifetime: int) -> float:
        """Seconds, of a lifetime in ms."""
        return self.since + lifetime / 1000 - asyncio.get_running_loop().time()

    @property
    def usable(self) -> bool:
        return not self.ended and not self.wire.fault

    async def quit(self, seconds: float = QUIT_WAIT) -> None:
        """Say QUIT where that still makes sense, and close."""
        try:
            if self.usable:
                self.wire.ask(b"QUIT\r\n", 1, seconds)
                await self.wire.read()
                await self.wire.close(seconds)
        finally:
            self.wire.abort()
        await self.wire.gone(seconds)

    def abort(self) -> None:
        """Close without another byte: nothing that was begun becomes a mail."""
        self.ended = True
        self.wire.abort()

"""A relay that is sane but for one fault: at one stage of one mail of its first connection.

It reads commands one by one, whatever way they came, and answers when nothing more waits to be read, as RFC 2920
(3.2) asks of servers; so one description of a fault serves every pipelining mode, and BDAT.

A fault is one of CASES. What the relay took is in `taken`, by recipient: a mail of which it had every byte and whose
recipient stood, unless it refused it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from serving import Serving

from streamq.smtp.letter import Stage

EHLO = ("relay.example", "PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "SIZE 0")
REFUSALS = {
    "4xx": "451 4.3.0 later",
    "5xx": "554 5.0.0 never",
    "421": "421 4.7.0 [TSS04] temporarily deferred",
    "421 leaving": "421 4.3.2 shutting down",
    "multi-line": "550-5.1.1 no\r\n550-5.1.1 such\r\n550 5.1.1 user",
    "no enhanced code": "554 never",
    "wrong enhanced code": "451 5.1.1 later",
    "believed by nobody": "554 5.0.0 never",  # and the relay goes on as if it had said 250
}
BREAKS = {
    "close": "",
    "reset": "",
    "silence": "",
    "garbage": "no reply at all",
    "335": "335 out of place",
    "two codes": "250-one\r\n550 other",
}
GOOD = {  # the usual reply, and what follows it
    "drip": "",
    "stray 250": "250 2.0.0 stray",
    "stray 550": "550 5.7.1 stray",
    "goodbye": "421 4.3.2 shutting down",
}
CASES = [*REFUSALS, *BREAKS, *GOOD]


@dataclass(frozen=True)
class Fault:
    mail: int  # 1: the connection's first
    stage: Stage
    case: str


@dataclass
class Session:
    """One connection: what it said, and how many mails began."""

    lines: list[str] = field(default_factory=list)
    mails: int = 0
    recipient: str = ""
    sender: bool = False


class Hangs(Exception):
    """The relay says no more on this connection; it waits for the client's end."""


class FaultyRelay(Serving):
    def __init__(self, fault: Fault | None = None, *, closes_after: int = 0, ehlo: Sequence[str] = EHLO) -> None:
        super().__init__()
        self.fault = fault
        self.closes_after = closes_after  # mails: right after the last 250, what came behind it unread
        self.ehlo = ehlo
        self.sessions: list[Session] = []
        self.taken: list[tuple[str, bytes]] = []
        self.hangs = asyncio.Event()  # a fault came up after which the relay says no more

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session()
        self.sessions.append(session)
        fault = self.fault if len(self.sessions) == 1 else None
        closes_after = self.closes_after
        try:
            await Dialogue(self, reader, writer, session, fault, closes_after).run()
        except Hangs:
            await reader.read(-1)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client hung up, or the test is over
        finally:
            writer.transport.abort()


class Dialogue:
    def __init__(
        self,
        relay: FaultyRelay,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        session: Session,
        fault: Fault | None,
        closes_after: int,
    ) -> None:
        self.relay = relay
        self.reader = reader
        self.writer = writer
        self.session = session
        self.fault = fault
        self.closes_after = closes_after
        self.unsaid = b""
        self.took = 0

    async def run(self) -> None:
        self.say("220 relay.example ESMTP")
        while line := await self.line():
            verb, _, rest = line.partition(" ")
            self.session.lines.append(line)
            match verb:
                case "EHLO":
                    *words, last = self.relay.ehlo
                    self.say("".join(f"250-{word}\r\n" for word in words) + f"250 {last}")
                case "MAIL":
                    self.session.mails += 1
                    self.session.recipient = ""
                    self.session.sender = await self.answers(Stage.MAIL, "250 2.1.0 ok")
                case "RCPT":
                    if not self.session.sender:
                        self.say("503 5.5.1 MAIL first")
                    elif await self.answers(Stage.RCPT, "250 2.1.5 ok"):
                        self.session.recipient = rest[4:].partition(">")[0]
                case "DATA":
                    if not self.may_send():
                        self.say("503 5.5.1 RCPT first")
                    elif await self.answers(Stage.DATA, "354 go"):
                        await self.flush()
                        body = b""
                        while (part := await self.reader.readuntil(b"\n")) != b".\r\n":
                            body += part
                        await self.takes(body)
                case "BDAT":
                    await self.chunk(int(rest.split()[0]))
                case "RSET":
                    self.session.sender, self.session.recipient = False, ""
                    self.say("250 2.0.0 reset")
                case "QUIT":
                    self.say("221 bye")
                    await self.flush()
                    return
                case _:
                    self.say("500 5.5.2 what")

    def may_send(self) -> bool:
        return bool(self.session.recipient) or self.is_at(Stage.MAIL, Stage.RCPT, case="believed by nobody")

    def is_at(self, *stages: Stage, case: str = "") -> bool:
        fault = self.fault
        return (
            fault is not None
            and fault.mail == self.session.mails
            and fault.stage in stages
            and case in {"", fault.case}
        )

    async def chunk(self, size: int) -> None:
        at_line = self.is_at(Stage.DATA) and self.fault is not None and self.fault.case not in GOOD
        if at_line and self.may_send():
            await self.answers(Stage.DATA, "")  # it says so, and throws the chunk away
            await self.flush()
            await self.reader.readexactly(size)
            self.session.sender, self.session.recipient = False, ""
            return
        await self.flush()
        body = await self.reader.readexactly(size)
        if self.may_send():
            await self.takes(body)
        else:
            self.say("503 5.5.1 RCPT first")

    async def takes(self, body: bytes) -> None:
        """The whole of a mail is here."""
        recipient = self.session.recipient
        self.session.sender, self.session.recipient = False, ""
        refuses = self.is_at(Stage.DOT) and self.fault is not None and self.fault.case in REFUSALS
        if recipient and not refuses:
            self.relay.taken.append((recipient, body))
            self.took += 1
        stage = Stage.DATA if self.is_at(Stage.DATA) and self.session.lines[-1].startswith("BDAT") else Stage.DOT
        await self.answers(stage, "250 2.0.0 queued")
        if self.took == self.closes_after:
            await self.hang_up()

    async def answers(self, stage: Stage, usual: str) -> bool:
        """The usual reply, or the fault's; whether the mail goes on."""
        if not self.is_at(stage):
            self.say(usual)
            return True
        assert self.fault is not None
        case = self.fault.case
        if case == "drip":
            await self.flush()
            for byte in f"{usual}\r\n".encode():
                self.writer.write(bytes([byte]))
                await asyncio.sleep(0)
            return True
        if case in GOOD:
            self.say(usual)
            self.say(GOOD[case])
            if case == "goodbye":
                await self.hang_up()
            return True
        if case in REFUSALS:
            self.say(REFUSALS[case])
            if case.startswith("421"):
                await self.hang_up()
            return case == "believed by nobody" and stage is Stage.MAIL
        if BREAKS[case]:
            self.say(BREAKS[case])
        await self.flush()
        if case == "close":
            self.writer.close()
            await self.writer.wait_closed()
            raise ConnectionAbortedError
        if case == "reset":
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
            raise ConnectionAbortedError
        self.relay.hangs.set()
        raise Hangs

    async def hang_up(self) -> None:
        """While bytes of the client are unread, the system makes a reset of it."""
        await self.flush()
        self.writer.transport.abort()
        raise ConnectionAbortedError

    def say(self, text: str) -> None:
        self.unsaid += f"{text}\r\n".encode()

    async def flush(self) -> None:
        if self.unsaid:
            self.writer.write(self.unsaid)
            self.unsaid = b""
            await self.writer.drain()

    async def line(self) -> str:
        waits: bytearray = self.reader._buffer  # type: ignore[attr-defined]
        if b"\n" not in waits:
            await self.flush()
        return (await self.reader.readline()).decode("utf-8").rstrip("\r\n")

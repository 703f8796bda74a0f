"""A client that says exactly what a test tells it to, and reads whole replies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from streamq.sink import Sink

CONTENT = b"From: shop@example.com\r\nMessage-ID: <%d@example.com>\r\nSubject: hi\r\n\r\nHello\r\n"


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self) -> str:
        """One reply, its lines joined as they came, without the last CRLF."""
        lines = [await self.reader.readuntil(b"\r\n")]
        while lines[-1][3:4] == b"-":
            lines.append(await self.reader.readuntil(b"\r\n"))
        return b"".join(lines)[:-2].decode()

    async def codes(self, count: int) -> list[str]:
        """The next replies, each as far as its enhanced code goes: "250 2.1.0", or "354"."""
        return [_short(await self.reply()) for _ in range(count)]

    async def ask(self, line: str | bytes) -> str:
        await self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return _short(await self.reply())

    async def asked(self, *lines: str) -> list[str]:
        return [await self.ask(line) for line in lines]

    async def mail(self, to: str = "bob@example.net", content: bytes = CONTENT % 1) -> str:
        """One transaction with one recipient; the code of the reply that decided it."""
        for line, good in (("MAIL FROM:<shop@example.com>", "2"), (f"RCPT TO:<{to}>", "2"), ("DATA", "3")):
            answer = await self.ask(line)
            if not answer.startswith(good):
                return answer
        return await self.ask(content + b".")

    async def end(self) -> bytes:
        """What is left until the server closes."""
        return await self.reader.read()


def _short(reply: str) -> str:
    code, _, text = reply.rpartition("\r\n")[2].partition(" ")
    enhanced = text.split(" ")[0]
    return f"{code} {enhanced}" if enhanced.count(".") == 2 else code


def envelope(*to: str, sender: str = "shop@example.com") -> bytes:
    """MAIL, every RCPT and DATA, as one write."""
    lines = [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{name}>" for name in to), "DATA", ""]
    return "\r\n".join(lines).encode()


@asynccontextmanager
async def dial(sink: Sink, *, hello: bool = True) -> AsyncIterator[Client]:
    """Connect, read the greeting, say EHLO."""
    reader, writer = await asyncio.open_connection(sink.host, sink.port)
    client = Client(reader, writer)
    try:
        if hello:
            assert await client.codes(1) == ["220"]
            assert await client.ask("EHLO client.example") == "250"
        yield client
    except BaseException:
        writer.transport.abort()  # or closing would wait for a server that a failed test left deaf
        raise
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

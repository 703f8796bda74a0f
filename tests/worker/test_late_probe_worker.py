"""A route with a limit that was down, and whose connections take longer to open than a slot lasts, comes back."""

from __future__ import annotations

import asyncio

from crew import crew


async def _greets_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await asyncio.sleep(0.1)  # a slot of 50/s lasts for 17 ms
        writer.write(b"220 relay.example\r\n")
        while line := await reader.readline():
            if line[:4].upper() == b"DATA":
                writer.write(b"354 go on\r\n")
                await reader.readuntil(b"\r\n.\r\n")
            writer.write(b"250 relay.example\r\n")
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def test_it_comes_back(server_url: str) -> None:
    server = await asyncio.start_server(_greets_late, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with crew(server_url) as c:
        route = {"url": f"smtp://127.0.0.1:{port}", "rate": ["50/s"], "idle": "10ms"}
        await c.add()
        await c.worker(relay=None, routes={"main": route})
        await c.until("route.paused")
        server = await asyncio.start_server(_greets_late, "127.0.0.1", port)
        await c.until("email.relayed")
        server.close()

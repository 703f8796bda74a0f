"""Reaching a relay: its addresses, a connected socket, the name that we give ourselves."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from streamq.settings import RouteSettings
from streamq.smtp.connection import NotConnected
from streamq.smtp.letter import Stage

__all__ = ["own_name", "reach"]


async def reach(route: RouteSettings) -> socket.socket:
    """A connected socket, so that reaching the server and its greeting have a time each."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + route.connect_timeout / 1000
    try:
        async with asyncio.timeout_at(ends):
            found = await _addresses(route.host, route.port)
    except OSError as wrong:  # gaierror and TimeoutError are OSErrors
        raise NotConnected(Stage.CONNECT, "unreachable", f"no address: {wrong.strerror or 'no answer'}") from wrong
    why = "no address"
    for left, (family, kind, protocol, _, address) in zip(range(len(found), 0, -1), found, strict=True):
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        reached = False
        now = loop.time()
        try:  # a dead address must not eat the time of the living ones
            async with asyncio.timeout_at(now + max(ends - now, 0) / left):
                await loop.sock_connect(sock, address)
            reached = True
        except OSError as wrong:
            why = f"{address[0]}: {wrong.strerror or 'no answer'}"
        finally:
            if not reached:
                sock.close()
        if reached:
            return sock
    raise NotConnected(Stage.CONNECT, "unreachable", why)


async def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    """A literal address costs no thread; a name is the resolver's business."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return cast(list[tuple[int, int, int, str, tuple[str, int]]], found)


def own_name(sock: socket.socket) -> str:
    """RFC 5321, 4.1.1.1, 4.1.3: a name with a dot, else the address as a literal; never asks the DNS."""
    name = socket.gethostname()
    if "." in name and name.isascii():
        return name
    address = sock.getsockname()[0].partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"

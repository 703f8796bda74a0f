"""What a hostile server puts on the wire, and how it leaves.

Bytes go out as pieces: seconds to wait, then bytes that are written at once. The session plays them and serves
nothing meanwhile.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator

from streamq.sink.rules import Rule, wire

__all__ = ["Piece", "peer_is_gone", "pieces", "reset"]

Piece = tuple[float, bytes]

CHUNK = 16_384  # bytes of an endless reply that are written at once
GARBAGE = {
    "text": b"Good morning, what can I do for you?\r\n",
    "binary": bytes(range(128, 256)) + b"\r\n",
    "nul": b"250\0 2.0.0 O\0k\r\n",
}
LINE = b"250-And another thing\r\n"
TCP_CLOSE, TCP_CLOSE_WAIT = 7, 8  # linux/tcp_states.h


def pieces(rule: Rule, reply: bytes) -> Iterator[Piece]:
    """All that goes out where `rule` applies and `reply` is due (empty: none is, as in the middle of a body)."""
    wait = rule.delay_ms / 1000
    if rule.instead:
        yield wait, b""
        return
    parts = _garbage(rule) if rule.garbage else iter((reply,))
    if rule.stray and not rule.garbage and not rule.drip_bytes:
        parts = iter((reply + wire(rule.stray),))
    elif rule.stray:
        parts = (part for some in (parts, (wire(rule.stray),)) for part in some)
    for part in parts:
        for piece in _cut(part, rule.drip_bytes):
            yield wait, piece
            wait = rule.drip_ms / 1000


def _cut(data: bytes, length: int) -> Iterator[bytes]:
    if not length:
        yield data
        return
    for at in range(0, max(len(data), 1), length):
        yield data[at : at + length]


def _garbage(rule: Rule) -> Iterator[bytes]:
    if rule.garbage in GARBAGE:
        yield GARBAGE[rule.garbage]
        return
    if rule.garbage == "endless_line":
        yield b"250 "
        pattern = b"x" * CHUNK
    else:
        pattern = LINE * (CHUNK // len(LINE))
    left = rule.garbage_bytes
    while left > 0:
        yield pattern[:left]
        left -= len(pattern)


def reset(transport: asyncio.Transport) -> None:
    """Close with RST. What was written and did not leave yet is lost; on loopback all has left."""
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def peer_is_gone(transport: asyncio.Transport) -> bool:
    """The client closed or reset, told by the kernel without reading what it sent before."""
    raw = transport.get_extra_info("socket")
    if raw is None:
        return False
    state = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state in (TCP_CLOSE, TCP_CLOSE_WAIT)

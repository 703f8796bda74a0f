"""A mail's content on its way out: dot-stuffing, and the pieces that are written at once."""

from __future__ import annotations

__all__ = ["PIECE", "ahead_of_last", "stuffed"]

PIECE = 65_536  # bytes of a body that are written at once


def stuffed(content: bytes) -> bytes:
    """RFC 5321, 4.5.2: a line that begins with a dot gets another one. Without the lone dot that ends it."""
    if not content.endswith(b"\r\n"):  # else the dot would not stand alone
        content += b"\r\n"
    if b"\n." in content:
        content = content.replace(b"\r\n.", b"\r\n..")
    return b"." + content if content.startswith(b".") else content


def ahead_of_last(body: bytes) -> int:
    """How many bytes of a body go out, and are drained, before its last piece. The last piece is never empty."""
    return (len(body) - 1) // PIECE * PIECE

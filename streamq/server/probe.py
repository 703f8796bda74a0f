"""A question to a server on a socket: is it up, and who is it.

By hand, because it is asked a hundred times a second while a server starts, before there is a client.
"""

from __future__ import annotations

import socket
from pathlib import Path

__all__ = ["ask", "server_facts"]

ANSWER_S = 1.0
ANSWER_BYTES = 64 * 1024


def ask(path: Path, command: str) -> bytes:
    """Send an inline command; the reply without its end of line, the text of a bulk reply, or nothing when
    the server is not there, does not answer in a second or says too much."""
    try:
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(ANSWER_S)
            wire.connect(str(path))
            wire.sendall(command.encode() + b"\r\n")
            return _reply(wire)
    except OSError:
        return b""


def server_facts(path: Path) -> dict[str, str]:
    """The section `server` of INFO; empty when there is no answer."""
    lines = ask(path, "INFO server").decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("-"))


def _reply(wire: socket.socket) -> bytes:
    got = b""
    while len(got) < ANSWER_BYTES:
        head, end, rest = got.partition(b"\r\n")
        if end and not head.startswith(b"$"):
            return head
        if end and head[1:].isdigit() and len(rest) >= int(head[1:]):
            return rest[: int(head[1:])]
        more = wire.recv(ANSWER_BYTES)
        if not more:
            break
        got += more
    return b""

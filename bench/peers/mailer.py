"""smtplib as one would use it in a thread of a task queue: a connection that is kept, made anew where it was lost."""

from __future__ import annotations

import os
import smtplib
import threading

__all__ = ["SENDER", "relay", "send"]

SENDER = "shop@example.com"
_kept = threading.local()


def relay() -> tuple[str, int]:
    host, _, port = os.environ["PEER_RELAY"].rpartition(":")
    return host, int(port)


def send(rcpt: str, body: str) -> None:
    """`body`: ASCII, lines end with CRLF. Raises smtplib's errors, which the task queue tries again."""
    content = body.encode("ascii")
    client: smtplib.SMTP | None = getattr(_kept, "client", None)
    if client is not None:
        try:
            client.sendmail(SENDER, [rcpt], content)
        except smtplib.SMTPServerDisconnected:
            client = None
        else:
            return
    host, port = relay()
    client = _kept.client = smtplib.SMTP(host, port)
    client.sendmail(SENDER, [rcpt], content)

"""Other people's mail servers, each a private instance: Debian's Postfix and Exim.

WHAT      An own configuration, spool and log below a temporary folder, listening on loopback alone. It takes mail
          for every domain, and delivers all of it into one Maildir.
          `busy@`: 4xx 4.2.1 at RCPT; `unknown@`: the server's own refusal of a recipient that it does not know;
          sender `refused@`, header `X-Refuse`: 550 5.7.1. A mail above `SIZE` bytes is refused.
WHERE     Installed, or unpacked by `deploy/peers.sh` (bench/package.py). An instance that runs already is not touched.
WHO       Root: both change users between their processes.
TUNED     What keeps strangers from hurting a server that is open to the world is lifted: connections and mails per
          client, and with Postfix the waits after errors and when mail comes faster than it leaves. Exim would
          deliver each mail at once in a process of its own, hundreds of them: it queues, and two runners deliver.
          What they do to mail is as Debian has it, but that Postfix adds no header fields to mail from this
          machine (local_header_rewrite_clients), and that Exim offers DSN.
FAILS     `Missing`, with the reason in words; `RuntimeError` where a server does not come up.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.exim import prepare_exim
from bench.package import Missing, Prepared, must_be_open
from bench.postfix import prepare_postfix

__all__ = ["KINDS", "QUEUE_ID", "SIZE", "Mta", "Stored", "mta"]

SIZE = 2_000_000  # bytes of a mail at most
START_S = 60.0  # of a machine that has other work, too
LEASH = Path(__file__).with_name("leash.py")

# The lines that these servers put in front of a mail. The first Received of a file ends them: it is what a server
# writes on taking the mail in, the others come with the delivery.
DELIVERY = re.compile(rb"(?:(?:Return-Path|X-Original-To|Delivered-To|Envelope-To|Delivery-Date):[^\n]*\n)*", re.I)
RECEIVED = re.compile(rb"Received:[^\n]*\n(?:[ \t][^\n]*\n)*")
# Files of a spool, one a mail
WAITING = {"postfix": ("incoming/*", "active/*", "deferred/**/*[0-9A-F]"), "exim": ("input/*-H",)}
SENDER = re.compile(rb"^Return-Path: <([^\n]*)>$", re.I | re.M)
RECIPIENT = re.compile(rb"^(?:Delivered-To|Envelope-To): ([^\n]*)$", re.I | re.M)
# As these servers, and our sink, say it in the reply to the dot
QUEUE_ID = re.compile(r"(?:queued as |\bid=)([0-9A-Za-z-]+)")
OWN_ID = re.compile(rb"\sid\s+([0-9A-Za-z-]+)")


@dataclass(frozen=True)
class Stored:
    """A mail in a Maildir: its envelope, the server's queue id, and what follows the lines that the server put in
    front. Lines end with "\\n", as both servers store them."""

    envelope_from: str
    rcpt: str
    queue_id: str
    content: bytes

    @classmethod
    def of(cls, file: bytes) -> Stored:
        """Raises `ValueError`."""
        delivery = DELIVERY.match(file)
        received = RECEIVED.match(file, delivery.end() if delivery else 0)
        if delivery is None or received is None:
            raise ValueError(f"not what a server writes in front of a mail: {file[:500]!r}")
        sender, rcpt = SENDER.search(delivery[0]), RECIPIENT.search(delivery[0])
        own = OWN_ID.search(received[0])
        if sender is None or rcpt is None or own is None:
            raise ValueError(f"no sender, recipient or id in front of a mail: {file[:500]!r}")
        return cls(sender[1].decode(), rcpt[1].decode(), own[1].decode(), file[received.end() :])


@dataclass
class Mta:
    """A running server, in its folder `place`."""

    kind: str
    version: str
    port: int
    place: Path
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)
    environment: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def count(self) -> int:
        """Mails delivered so far."""
        new = self.place / "mail/new"
        return len(os.listdir(new)) if new.is_dir() else 0

    def queued(self) -> int:
        """Mails that it took and that are still on their way through it."""
        return sum(1 for folder in WAITING[self.kind] for _ in self.place.glob(f"queue/{folder}"))

    def stored(self) -> Iterator[Stored]:
        """The mails delivered so far, in no order. Raises `ValueError` for a file that is no mail of ours."""
        for file in self.place.glob("mail/new/*"):
            yield Stored.of(file.read_bytes())

    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""


KINDS = {"postfix": prepare_postfix, "exim": prepare_exim}


@contextmanager
def mta(kind: str, prepare: Callable[[Path, int, int], Prepared] | None = None) -> Iterator[Mta]:
    """A running one of `KINDS`, made ready by its own function or by `prepare`; it and its folder are gone afterwards.
    Raises `Missing`, `RuntimeError`."""
    if sys.platform != "linux":
        raise Missing(f"{kind}: runs here on Linux only")
    if os.geteuid():
        raise Missing(f"{kind}: only root can start it")
    # Not below a test's own folder: that is closed to the users that the server's processes become.
    place = Path(tempfile.mkdtemp(prefix=f"sq-{kind}-"))
    try:
        place.chmod(0o755)
        must_be_open(place)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        ready = (prepare or KINDS[kind])(place, port, SIZE)
        with (place / "out").open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LEASH), *ready.command],
                stdin=subprocess.PIPE, stdout=out, stderr=out, env=ready.environment, cwd=place, start_new_session=True,
            )  # fmt: skip
        one = Mta(kind, ready.version, port, place, ready.log, process, ready.environment)
        try:
            _await_greeting(one)
            yield one
        finally:
            process.communicate()  # the end of its input is the leash's word to end all of it
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _await_greeting(one: Mta) -> None:
    ends = time.monotonic() + START_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", one.port), 5) as sock:
                if sock.recv(4) == b"220 ":
                    sock.sendall(b"QUIT\r\n")
                    return
        except OSError:
            pass
        if one.process.poll() is not None or time.monotonic() > ends:
            out = (one.place / "out").read_text("utf-8", "replace")
            raise RuntimeError(f"{one.kind} did not come up: {(out + one.said())[-2000:]}")
        time.sleep(0.02)

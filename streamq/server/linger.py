"""A server that stays up for a while after the program that asked for it: for `streamq url`."""

from __future__ import annotations

import subprocess
import sys

from streamq.server.share import start
from streamq.settings import Settings

__all__ = ["SECONDS", "linger"]

SECONDS = 60
REST = "import sys, time; time.sleep(float(sys.argv[1]))"


def linger(settings: Settings) -> str:
    """Share or start the server and return its URL; it has a user for `SECONDS` more, a process that rests with
    a lock of its own and then ends. Whoever connects by then does not hold the server: a worker does."""
    server = start(settings)
    subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", REST, str(SECONDS)],
        pass_fds=(server.users,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    return server.url

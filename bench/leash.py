"""`python leash.py COMMAND ...`: runs a server of many processes, and ends with all of them.

It is over when the command ends, when this program gets SIGTERM, or when its standard input ends: so also when
whoever started it was killed. Mail servers fork, and change user, session and parent while they do: neither a
process group nor PR_SET_PDEATHSIG (forgotten at a change of user) holds all of them. A subreaper does: whatever
loses its parent becomes our child (prctl(2), PR_SET_CHILD_SUBREAPER), so nothing is left when we have no child.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
TERM_S, KILL_S = 0.5, 2.0  # after the command got its SIGTERM: every other process gets one; gets SIGKILL
LOOK_S = 0.02


def reaped(server: int) -> tuple[bool, bool]:
    """Take the status of every child that ended. Is the server among them? Is there no child left?"""
    ended = False
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, True
        if pid == 0:
            return ended, False
        ended |= pid == server


def descendants() -> list[int]:
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = place.read_text("utf-8", "replace")
        except OSError:  # ended meanwhile
            continue
        parents[int(place.parent.name)] = int(text.rpartition(")")[2].split()[1])
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def main() -> int:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        return 1
    # Who interrupts the program that holds the leash does not mean us: its end does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    # Not by subprocess: a Popen takes a child's status for itself when it is asked, or thrown away.
    server = os.posix_spawnp(
        sys.argv[1],
        sys.argv[1:],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
        setsigdef=[signal.SIGINT],
    )
    ended, alone = reaped(server)
    while not ended:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
        if told or (0 in ready and not os.read(0, 4096)):
            os.kill(server, signal.SIGTERM)
            break
        ended, alone = reaped(server)
    begun, termed = time.monotonic(), False
    while not alone:
        past = time.monotonic() - begun
        if past > KILL_S or (past > TERM_S and not termed):
            for pid in descendants():
                try:
                    os.kill(pid, signal.SIGKILL if past > KILL_S else signal.SIGTERM)
                except ProcessLookupError:
                    continue
            termed = True
        time.sleep(LOOK_S)
        _, alone = reaped(server)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What processes used, by the kernel's own books: /proc on Linux.

CPU is that of a process and of those children of it that ended and were waited for (proc_pid_stat(5): utime, stime,
cutime, cstime), so a tree of processes is the sum over who lives: nobody is counted twice, and who ended is not lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Stat", "connected", "cpu", "peak", "resident", "stat_of", "tree", "used"]

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
ESTABLISHED = "01"


@dataclass(frozen=True, slots=True)
class Stat:
    """Of /proc/PID/stat. `cpu`: seconds of its own, `reaped`: of children that ended."""

    pid: int
    parent: int
    cpu: float
    reaped: float


def stat_of(text: str, ticks: int = TICKS) -> Stat:
    """The name, in brackets, may hold anything: blanks and brackets, too."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()  # the first is field 3, the state
    utime, stime, cutime, cstime = (int(fields[at]) / ticks for at in (11, 12, 13, 14))
    return Stat(int(head.split(" ", 1)[0]), int(fields[1]), utime + stime, cutime + cstime)


def _stats() -> list[Stat]:
    found = []
    for place in PROC.glob("[0-9]*/stat"):
        try:
            found.append(stat_of(place.read_text("utf-8", "replace")))
        except OSError:  # ended meanwhile
            continue
    return found


def tree(stats: Sequence[Stat], roots: Iterable[int]) -> list[Stat]:
    """Those processes and all that descend from them."""
    of: dict[int, list[Stat]] = {}
    for stat in stats:
        of.setdefault(stat.parent, []).append(stat)
    roots = set(roots)
    found = [stat for stat in stats if stat.pid in roots]
    seen = {stat.pid for stat in found}
    for stat in found:
        for child in of.get(stat.pid, ()):
            if child.pid not in seen:
                seen.add(child.pid)
                found.append(child)
    return found


def cpu(stats: Iterable[Stat]) -> float:
    """CPU seconds of all of them, and of what they waited for."""
    return sum(stat.cpu + stat.reaped for stat in stats)


def used(*roots: int) -> float:
    """CPU seconds so far of those processes and all below them."""
    return cpu(tree(_stats(), roots))


def _memory(pid: int, name: str) -> int:
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{pid}: no {name}")


def resident(pid: int) -> int:
    """Bytes of memory that a process has now. Raises `OSError` where there is none."""
    return _memory(pid, "VmRSS:")


def peak(pid: int) -> int:
    """The most that it ever had."""
    return _memory(pid, "VmHWM:")


def connected(port: int, table: str | None = None) -> int:
    """Connections of this machine to that port on loopback or elsewhere, by IPv4, as their clients see them; accepted
    by the server or still in its backlog."""
    text = (PROC / "net/tcp").read_text() if table is None else table
    rows = [line.split() for line in text.splitlines()[1:]]
    return sum(row[3] == ESTABLISHED and int(row[2].rpartition(":")[2], 16) == port for row in rows if len(row) > 3)

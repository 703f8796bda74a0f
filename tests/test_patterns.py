"""Python 3.11 before 3.11.4, Debian 12's among them, matches possessive groups wrongly: `(?:\\.[a-z]++)*+` takes
`a.` of `a.@x`. Atomic groups, `(?>(?:…)*)`, are the same thing and right everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import streamq

SOURCES = sorted(Path(streamq.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_pattern_has_a_possessive_group(source: Path) -> None:
    code = "\n".join(line.partition("# ")[0] for line in source.read_text("utf-8").splitlines())
    assert not re.search(r"\)[*+?]\+", code)


def test_this_python_matches_atomic_groups_as_it_should() -> None:
    assert re.compile(r"[a-z]++(?>(?:\.[a-z]++)*)@x").fullmatch("a.@x") is None
    assert re.compile(r"[a-z]++(?>(?:\.[a-z]++)*)@x").fullmatch("a.b@x")

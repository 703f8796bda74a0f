"""settings/places.py: every key of a TOML text has its line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.settings.places import Path as KeyPath
from streamq.settings.places import line_of, lines_of

ROOT = Path(__file__).parents[1]
FILES = [
    ROOT / "pyproject.toml",
    ROOT / "streamq" / "smtp" / "replies.toml",
    ROOT / "tests" / "smtp" / "replies_corpus.toml",
    ROOT / "tests" / "model" / "mutations.toml",
]

ODD = r'''# a comment = "no key"
title = "a # b" # c
"quoted.key" = 1
'lit"eral' = 2
dotted . "in" = { x = 1, y = ["a",
  "b"], z.w = 3 }
when = 1979-05-27 07:32:32
text = """
[no.header]
no = "key" \""" still
"""
more = """a"""""
raw = \'\'\'
[[no]]
\'\'\'

rate = [ # here
  "50/s", "60/m",

  "x", # there
  [1, [2,
   3]],
  { deep = """
"""}, ]
flag = true

[[a]]
x = 1
[a.b]
y = 2
[[a.c]]
z = 3
[[a.c]]
z = 4
[[a]]
x = 5
[[a.c]]
z = 6
[ a . d ]
"é" = 7
'''.replace("\\'", "'")


def paths(value: Any, path: KeyPath = ()) -> list[KeyPath]:
    inner: list[tuple[str | int, Any]]
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return ([path] if path else []) + [found for name, each in inner for found in paths(each, (*path, name))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_key_of_a_file_is_found_where_it_stands(file: Path) -> None:
    text = file.read_text("utf-8")
    found, rows = lines_of(text), text.splitlines()
    for path in paths(tomllib.loads(text)):
        name = path[-1]
        assert path in found, path
        if isinstance(name, str):
            assert name in rows[found[path] - 1], path


def test_every_key_of_an_odd_text() -> None:
    found = lines_of(ODD)
    assert set(paths(tomllib.loads(ODD))) <= set(found)
    line = {text.strip(): number for number, text in enumerate(ODD.splitlines(), 1)}
    assert {path: found[path] for path in found if path[:1] == ("dotted",) or path[-1] == "z"} == {
        ("dotted",): 5,
        ("dotted", "in"): 5,
        ("dotted", "in", "x"): 5,
        ("dotted", "in", "y"): 5,
        ("dotted", "in", "y", 0): 5,
        ("dotted", "in", "y", 1): 6,
        ("dotted", "in", "z"): 6,
        ("dotted", "in", "z", "w"): 6,
        ("a", 0, "c", 0, "z"): line["z = 3"],
        ("a", 0, "c", 1, "z"): line["z = 4"],
        ("a", 1, "c", 0, "z"): line["z = 6"],
    }
    assert found["rate", 2] == line['"x", # there']
    assert found["rate", 3, 1, 1] == line["3]],"]
    assert found["flag",] == line["flag = true"]
    assert found["a", 1, "d", "é"] == line['"é" = 7']
    assert not {path for path in found if "no" in path}


def test_the_nearest_thing_around_it() -> None:
    found = lines_of("[[a]]\n\n[[a]]\nx = 1\n")
    assert line_of(found, ("a", 1, "x")) == 4
    assert line_of(found, ("a", 1, "missing")) == 3
    assert line_of(found, ("a", 1, "x", 7)) == 4
    assert line_of(found, ("b",)) == 0
    assert line_of(found, ()) == 0


def test_what_is_no_toml_is_known_up_to_there() -> None:
    assert lines_of("a = 1\nb = , 2\nc = 3") == {("a",): 1, ("b",): 2}
    assert lines_of("a = [1, 2\n") == {("a",): 1, ("a", 0): 1, ("a", 1): 1}
    assert lines_of('"\\q" = 1') == {}
    assert lines_of("a = " + "[" * 100_000)["a",] == 1


@given(st.text(alphabet="ab=.,\"'[]{}#\n\\ 1", max_size=40))
def test_no_text_is_an_error(text: str) -> None:
    found = lines_of(text)
    try:
        known = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(paths(known)) <= set(found)
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())

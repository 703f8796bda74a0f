"""keys.py: one table, three readers: Python, the scripts, and people."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lupa import lua51

from streamq.keys import TABLE, Keys, lua_names

WIRE = Path(__file__).parents[2] / "docs" / "wire-protocol.md"
# What stands between <…> in a shape, as examples.
PARTS = {
    "name": "welcome",
    "priority": "high",
    "bucket": "7",
    "what": "main|example.net",
    "role": "keeper",
    "generation": "3",
    "route": "main",
    "layer": "operator",
}
PARTS["sender"] = "0f" * 10
PARTS["entry"] = "11700000000000-1"


def rendered(shape: str) -> str:
    return re.sub(r"<(\w+)>", lambda found: PARTS[found[1]], shape)


@pytest.mark.parametrize("key", TABLE, ids=lambda key: key.name)
def test_the_scripts_names_are_the_table_s(key: object) -> None:
    lua = lua51.LuaRuntime()  # as fakeredis: two of lupa's Luas in one process do not get along
    lua.execute("KEYS = {'{shop}:'}\n" + lua_names().replace("local K", "K"))
    for row in TABLE:
        if row is key:
            made = lua.globals().K[row.name]
            parts = [PARTS[name] for name in re.findall(r"<(\w+)>", row.shape)]
            assert (made(*parts) if parts else made) == "{shop}:" + rendered(row.shape)


def test_python_s_names_are_the_table_s() -> None:
    keys = Keys("shop")
    calls = {
        "stream": "high",
        "due": "high",
        "limit": "main|example.net",
        "slots": "main|example.net",
        "leader": "keeper",
        "lane": "7",
        "grants": "main",
        "layer": "operator",
    }
    assert keys.turns("high", "main|example.net") == "{shop}:" + rendered("turns:<priority>:<what>")
    for key in TABLE:
        if "<" not in key.shape:
            assert getattr(keys, key.name) == "{shop}:" + key.shape
        elif key.name in calls:
            assert getattr(keys, key.name)(calls[key.name]) == "{shop}:" + rendered(key.shape)


def test_what_is_in_no_table_is_no_key() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = Keys("streamq").nonsense
    with pytest.raises(AttributeError, match="seen"):
        _ = Keys("streamq").seen  # it has parts


def test_names_and_shapes_are_different() -> None:
    assert len({key.name for key in TABLE}) == len(TABLE)
    assert len({key.shape for key in TABLE}) == len(TABLE)


def test_the_wire_protocol_s_table_has_every_key() -> None:
    rows = {
        (name.removeprefix("{streamq}:"), kind.strip())
        for line in WIRE.read_text("utf-8").splitlines()
        if line.startswith("| `{streamq}:")
        for cell, kind in [line.strip("| ").split(" | ")[:2]]
        for name in re.findall(r"`([^`]+)`", cell)
    }
    assert rows == {(key.shape, key.type) for key in TABLE if key.name != "absent"}

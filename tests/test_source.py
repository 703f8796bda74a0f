"""The source: nothing in it runs what others wrote, and what listens does so on loopback or a socket."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import streamq
from streamq.cli.run import sink
from streamq.cli.serve import serve
from streamq.server import keeper
from streamq.settings import load_settings

HOME = Path(streamq.__file__).parent
SOURCES = sorted(HOME.rglob("*.py"))
MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "yaml", "code", "runpy"}
CALLS = {"eval", "exec", "compile", "__import__", "input"}
SHELLS = {("os", "system"), ("os", "popen"), ("subprocess", "getoutput"), ("asyncio", "create_subprocess_shell")}


def wrong_in(tree: ast.AST) -> list[str]:
    """What runs, or unpacks into, code."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [each.name for each in node.names if each.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            found.append(node.module or "")
        elif isinstance(node, ast.Attribute) and node.attr == "Fragment":  # of orjson: numbers.py says why
            found.append(node.attr)
        elif isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in CALLS:
                found.append(called.id)
            if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
                found += [called.attr] if (called.value.id, called.attr) in SHELLS else []
            found += ["shell" for word in node.keywords if word.arg == "shell"]
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(HOME)))
def test_nothing_runs_what_others_wrote(source: Path) -> None:
    assert wrong_in(ast.parse(source.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from marshal import loads",
        "eval('1')",
        "import os; os.system('x')",
        "run('x', shell=True)",
        "orjson.Fragment(b'1')",
    ],
)
def test_it_would_be_found(text: str) -> None:
    assert len(wrong_in(ast.parse(text))) == 1


def test_what_listens_does_so_on_loopback_or_a_socket() -> None:
    for command in (serve, sink):
        assert inspect.signature(command).parameters["host"].default == "127.0.0.1"
    assert load_settings().metrics is None
    assert load_settings(metrics="9469").metrics == ("127.0.0.1", 9469)
    text = inspect.getsource(keeper)
    assert "\nport 0\n" in text
    assert "\nunixsocketperm 600\n" in text

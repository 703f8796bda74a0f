""".ci/run on machines without promtool or a browser: green, and says by name what it did not run and why.

On one that has them, where their tests are skipped all the same: not green.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from test_deploy import promtool

HOME = Path(__file__).parents[2]
NEEDED = ("bash", "cat", "cut", "dirname", "env", "mkdir", "mktemp", "rm", "sh", "tail", "timeout", "grep")
[NO_BROWSER] = re.findall(r'^WHY_NOT = "(.+)"$', (HOME / "tests" / "web" / "chromium.py").read_text(), re.M)
REASONS = {"promtool": promtool.mark.kwargs["reason"], "chromium": NO_BROWSER}


def _program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project with a venv whose programs are all content, on a machine that has no tools and no network."""
    home = tmp_path / "home"
    (home / ".ci").mkdir(parents=True)
    shutil.copy(HOME / ".ci" / "run", home / ".ci" / "run")
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    _program(home / ".venv/bin/pip", f'echo "pip 1 from {home}/.venv/lib (python {minor})"')
    _program(home / ".venv/bin/ruff", "exit 0")
    _program(home / ".venv/bin/mypy", "exit 0")
    _program(home / "deploy/peers.sh", "exit 0")
    _program(home / ".ci/tools", "echo 'a mirror says much' >&2; echo 'only root can fetch packages' >&2; exit 1")
    for name in NEEDED:
        found = shutil.which(name)
        assert found is not None, name
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to(found)
    _program(tmp_path / "bin/python3", f'exec {sys.executable} "$@"')
    (home / "README.md").write_text(f"```bash\n{sys.executable} -m pytest -p no:cacheprovider\n```\n")
    (home / "pytest.ini").write_text("[pytest]\ntestpaths = tests\n")
    (home / "tests").mkdir()
    return home


def _ran(home: Path, *, skipped: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    lines = ["import pytest", "def test_that_passes(): pass"]
    for name in skipped:
        lines += [f"@pytest.mark.skipif(True, reason={REASONS[name]!r})", f"def test_{name}(): pass"]
    (home / "tests" / "test_some.py").write_text("\n".join(lines))
    given = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    given |= {"PATH": str(home.parent / "bin"), "TOOLS_FOLDER": str(home / "tools"), "TMPDIR": str(home.parent)}
    run = home / ".ci" / "run"
    return subprocess.run(["bash", run], env=given, capture_output=True, text=True, timeout=100, check=False)


def _last(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What is said when all has run."""
    return re.findall(r"^--- (.+)", done.stdout.partition("types: exit ")[2], re.M)


def test_what_could_not_be_had_is_named_at_the_end_and_why(checkout: Path) -> None:
    _program(checkout / "deploy/peers.sh", "echo 'peers.sh: no network' >&2; exit 1")
    done = _ran(checkout, skipped=("promtool", "chromium"))
    assert done.returncode == 0, done.stdout + done.stderr
    oracle, rules, pages, end = _last(done)
    assert re.fullmatch(r"NOT RUN: tests/oracle.* \(.*peers.sh: no network\)", oracle)
    assert re.fullmatch(r"NOT RUN: .*tests/deploy.* \(no promtool: only root can fetch packages\)", rules)
    assert re.fullmatch(r"NOT RUN: .*tests/web.* \(no Chromium: only root can fetch packages\)", pages)
    assert re.fullmatch(r"all that was run passed in \d+ s, but NOT ALL WAS RUN \(3, above\)", end)


def test_where_all_was_run_nothing_else_is_said(checkout: Path) -> None:
    _program(checkout / "tools/usr/bin/promtool", "exit 0")
    _program(checkout.parent / "bin/chromium", "exit 0")
    done = _ran(checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    [end] = _last(done)
    assert re.fullmatch(r"all that was run passed in \d+ s", end)


@pytest.mark.parametrize("name", list(REASONS))
def test_who_has_the_tool_and_skips_its_tests_fails(checkout: Path, name: str) -> None:
    _program(checkout / "tools/usr/bin/promtool", "exit 0")
    _program(checkout.parent / "bin/chromium", "exit 0")
    done = _ran(checkout, skipped=(name,))
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.fullmatch(rf"failed: tests that need {name}, which is here, were skipped", _last(done)[-1], re.I)


def test_tests_that_leave_no_report_are_no_tests(checkout: Path) -> None:
    """A README line that no longer starts pytest would be green."""
    (checkout / "README.md").write_text("```bash\ntrue pytest\n```\n")
    done = _ran(checkout)
    assert done.returncode == 1
    assert _last(done)[-1] == "failed: tests (no report)"


def test_skips_are_said_with_their_reason() -> None:
    assert "-rs" in tomllib.loads((HOME / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["addopts"]

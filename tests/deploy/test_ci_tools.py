""".ci/tools with an apt-get that has not all of it: what can be had is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / ".ci" / "tools"
NEEDED = ("chmod", "cp", "date", "find", "head", "mkdir", "mktemp", "rm", "sh", "timeout", "touch")

APT = """#!/bin/sh
echo "$@" >> "$LOG"
case "$*" in
*update*) exit 0 ;;
*"$GONE"*) exit 100 ;;
*--download-only*prometheus*) touch "$(echo "$*" | sed 's/.*archives=//; s/ .*//')/prometheus_1_all.deb" ;;
esac
"""
DPKG = """#!/bin/sh
mkdir -p "$3/usr/bin" && touch "$3/usr/bin/promtool"
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The PATH of a machine that has none of it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in (*NEEDED, "sed"):
        found = shutil.which(name)
        assert found is not None, name
        (folder / name).symlink_to(found)
    for name, text in (("apt-get", APT), ("dpkg-deb", DPKG), ("id", "#!/bin/sh\necho 0\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("gone", "has_promtool", "has_browser", "code"),
    [("prometheus", False, True, 1), ("chromium", True, False, 1), ("none of them", True, True, 0)],
)
def test_each_is_tried_by_itself(
    machine: Path, tmp_path: Path, gone: str, *, has_promtool: bool, has_browser: bool, code: int
) -> None:
    log = tmp_path / "log"
    environment = os.environ | {"PATH": str(machine), "LOG": str(log), "GONE": gone, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["sh", TOOLS, tmp_path / "tools"], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == code, done.stderr
    assert (tmp_path / "tools" / "usr" / "bin" / "promtool").exists() == has_promtool
    installed = [line for line in log.read_text().splitlines() if "--no-download" in line and line.endswith("chromium")]
    assert bool(installed) == has_browser
    assert (f"could not be had: {gone}" in done.stderr) == bool(code)

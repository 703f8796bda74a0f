"""streamq simulate: a table for people, JSON for programs, a picture; on a server of its own."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cli.shell import program, streamq

SITES = """\
mails = 30
[[sites]]
name = "a.example"
share = 2
[[sites]]
name = "b.example"
model = "greylisting"
"""


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    file = tmp_path / "sites.toml"
    file.write_text(SITES)
    return file


async def test_a_table_for_people_and_a_picture(sites: Path, tmp_path: Path) -> None:
    svg = tmp_path / "rates.svg"
    said = await streamq("simulate", "--sites", str(sites), "--svg", str(svg))
    assert (said.code, said.err) == (0, "")
    rows = [line.split() for line in said.out.splitlines()]
    assert rows[1][:3] == ["a.example", "open", "20"]
    assert rows[2][:6] == ["b.example", "greylisting", "10", "5.0", "m", "100.0%"]
    assert rows[3][:2] == ["all", "30"]
    assert "0 failed, 0 left" in said.out
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")


async def test_what_is_left_is_said_instead_of_when_it_was_over(sites: Path) -> None:
    out = (await streamq("simulate", "--sites", str(sites), "--until", "1m")).out
    assert "10 left" in out.splitlines()[2]
    assert "0 failed, 10 left" in out


def _is_served(folder: Path) -> bool:
    return any(folder.rglob("*.sock"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_one_leaves_nothing(number: signal.Signals, sites: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="sq-") as folder:
        words = ("simulate", "--sites", str(sites), "--mails", "100000", "--scale", "10")
        process = await program(*words, environment={"TMPDIR": folder})
        while not _is_served(Path(folder)):
            pass
        process.send_signal(number)
        out, err = await process.communicate()
        assert (process.returncode, out, err) == (130, b"", b"")
        assert os.listdir(folder) == []


async def test_json_for_programs(sites: Path) -> None:
    found = (await streamq("simulate", "--sites", str(sites), "--json", "--workers", "1", "--scale", "0.5")).json
    assert [(row["site"], row["mails"], row["taken"], row["met"]) for row in found["sites"]] == [
        ("a.example", 10, 10, 0),
        ("b.example", 5, 5, 5),
    ]
    assert (found["all"]["taken"], found["failed"], found["left"]) == (15, 0, 0)
    assert found["connections"]["opened"] > 0


async def test_your_queue_is_not_asked(sites: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMQ_REDIS_URL", "redis://127.0.0.1:1/0")
    assert (await streamq("simulate", "--sites", str(sites), "--until", "1m", "--json")).code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "rain"], "--model: one of"),
        (["--scale", "0"], "--scale: from 0.001 to 1000 (got 0.0)"),
        (["--until", "soon"], "--until: not a duration"),
        (["--sites", "none.toml"], "none.toml: No such file"),
        (["--svg", "none/such.svg"], "--svg: no such directory: 'none'"),
    ],
)
async def test_a_mistake_is_one_line_and_exit_2(words: list[str], says: str) -> None:
    said = await streamq("simulate", *words)
    assert said.code == 2
    assert said.out == ""
    assert says in said.err
    assert said.err.count("\n") == 1

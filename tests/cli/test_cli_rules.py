"""streamq site check: a file of provider rules, right or wrong; the worker's SIGHUP."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from cli.shell import steers, streamq

SHIPPED = files("streamq.limits").joinpath("providers.toml").read_text("utf-8")
WRONG = '[[provider]]\nname = "x"\nrelays = ["h"]\n[[provider.limit]]\nconnections = "many\\u001b[2J"\ncolour = 1\n'


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


async def test_a_right_file(mine: Path) -> None:
    said = await streamq("site", "check", write(mine, SHIPPED), columns=140)
    assert said.code == 0
    assert said.err == f"{mine}: no mistake\n"
    [row] = [line.split() for line in said.out.splitlines() if line.startswith("smtp.office365.com")]
    assert row[-5:] == ["30/m,", "10000/d", "3", "–", "–"]


async def test_a_right_file_for_programs(mine: Path) -> None:
    said = await streamq("site", "check", write(mine, SHIPPED), "--json")
    assert (said.code, said.err) == (0, "")
    assert said.json["file"] == str(mine)
    assert said.json["mistakes"] == []
    assert said.json["providers"][0] == {
        "name": "Exchange Online, authenticated submission",
        "domains": [],
        "relays": ["smtp.office365.com"],
        "rate": ["30/m", "10000/d"],
        "connections": 3,
        "mails_per_connection": None,
        "texts": 0,
    }


async def test_a_wrong_file(mine: Path) -> None:
    said = await streamq("site", "check", write(mine, WRONG))
    assert (said.code, said.out) == (1, "")
    lines = said.err.splitlines()
    assert lines[0].startswith(f"{mine}:5: connections: Input should be a valid integer: 'many")
    assert lines[1] == f"{mine}:6: colour: no such key: 1"
    assert len(lines) == 2
    assert not steers(said.err)


async def test_a_wrong_file_for_programs(mine: Path) -> None:
    said = await streamq("site", "check", write(mine, WRONG.replace("\\u001b", "")), "--json")
    assert said.code == 1
    assert said.json["mistakes"][0] == {
        "line": 5,
        "key": "connections",
        "what": "Input should be a valid integer",
        "value": "'many[2J'",
    }
    assert said.json["providers"] == []


async def test_the_file_of_the_settings(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = await streamq("site", "check")
    assert (said.code, said.out) == (2, "")
    assert "STREAMQ_PROVIDER_RULES" in said.err
    monkeypatch.setenv("STREAMQ_PROVIDER_RULES", write(mine, SHIPPED))
    assert (await streamq("site", "check")).code == 0


async def test_no_such_file(mine: Path) -> None:
    said = await streamq("site", "check", str(mine))
    assert (said.code, said.err) == (2, f"streamq: {mine}: No such file or directory\n")


async def test_what_a_reply_means_counts_the_rules_in(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "553 Mail from 192.0.2.1 not allowed - VS98-IP0 deferred"
    assert (await streamq("reply", text, "--stage", "mail", "--json")).json["class"] == "bad_sender"
    monkeypatch.setenv("STREAMQ_PROVIDERS", "relays")
    known = (await streamq("reply", text, "--stage", "mail", "--json")).json
    assert (known["class"], known["entry"]["table"]) == ("site_rate", "providers.toml")

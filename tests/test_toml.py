"""toml.py: whatever the text, a table or one error; what tomllib alone makes of it stands beside each."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from streamq.errors import SettingsError
from streamq.limits.rules_file import check_rules
from streamq.settings import load_settings
from streamq.simulate.scenario import read_scenario
from streamq.sink.rules_file import read_rules
from streamq.smtp.reply_entry import read_entries
from streamq.toml import MOST_LEVELS, MOST_PARTS, NotToml, read_toml

BOMBS = {
    "a = " + "9" * 5000: "a whole number that 64 bits do not hold",  # ValueError of int()
    "a = 0x" + "f" * 5000: "a whole number that 64 bits do not hold",  # a number that nothing can show
    "a = 9223372036854775808": "a whole number that 64 bits do not hold",
    "a = [[-9223372036854775809]]": "a whole number that 64 bits do not hold",
    "a = " + "[" * 5000: "nested too deep",  # RecursionError
    "a = " + "[" * 40 + "]" * 40: "nested too deep",
    "\n".join("[" + ".".join("a" * depth) + "]" for depth in (20, 40)): "nested too deep",
    "a." * 100_000 + "a = 1": "a key of more than 64 parts",  # minutes
    "[" + "a . " * 100 + "a]": "a key of more than 64 parts",
    'x = { "a".' + "'b'." * 100 + "c = 1 }": "a key of more than 64 parts",
    "a = '''" + "x" * 1_000_000 + "'''": "longer than 1,000,000 characters",
    "a = ": "Invalid value",
    '"""' * 100_000: "Expected",
}


@pytest.mark.parametrize(("text", "why"), BOMBS.items(), ids=list(BOMBS.values()))
def test_a_bomb_is_one_error(text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(NotToml, match=why):
        read_toml(text)
    file = tmp_path / "own.toml"
    file.write_text(text, "utf-8")
    for read in (load_settings, read_scenario):
        with pytest.raises(SettingsError, match=r"own\.toml: "):
            read(file)
    with pytest.raises(SettingsError, match=f"sink.toml: .*{why}"):
        read_rules(text, "sink.toml")
    with pytest.raises(SettingsError, match=f"replies.toml: .*{why}"):
        read_entries(text, "replies.toml")
    assert why in check_rules(text, "rules.toml")[1][0].what


@pytest.mark.parametrize(
    "text",
    [
        "a = 9223372036854775807\nb = -9223372036854775808",
        "a = " + "[" * (MOST_LEVELS - 1) + "]" * (MOST_LEVELS - 1),
        ".".join("a" * 20) + " = 1",
        'a = "' + "x." * 100 + '"  # ' + "y." * 100,
        "a = '''\n" + "x." * 100 + "\n''' # " + "it's " * 3 + '\nb = """' + 'y.\\"' * 100 + '"""',
        "a = [" + "1.5, " * 100 + "]",
        "a = [" + '"example.net", ' * 100 + "]",
        "a = 1.5\n" * 1 + "\n".join(f"b{n}.c = 2" for n in range(100)),
    ],
)
def test_what_people_write_is_read_as_tomllib_reads_it(text: str) -> None:
    assert read_toml(text) == tomllib.loads(text)


def test_no_file_of_the_project_meets_a_bound() -> None:
    for path in Path(__file__).parents[1].rglob("*.toml"):
        if ".venv" not in path.parts:
            assert read_toml(path.read_text("utf-8")) == tomllib.loads(path.read_text("utf-8"))
    assert MOST_PARTS > MOST_LEVELS

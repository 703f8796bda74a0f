"""Provider rules from TOML: the package's own are sourced line by line; every kind of mistake has its line."""

from __future__ import annotations

import tomllib
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from streamq.errors import SettingsError
from streamq.limits import rules_file
from streamq.limits.rules import Cap
from streamq.limits.rules_file import Mistake, check_rules, load_rules, own_rules
from streamq.settings import window

TEXT = files("streamq.limits").joinpath("providers.toml").read_text("utf-8")
SHIPPED: list[dict[str, Any]] = tomllib.loads(TEXT)["provider"]
PARTS = [
    pytest.param(part, id=f"{provider['name']}-{kind}-{at}")
    for provider in SHIPPED
    for kind, parts in (("names", [provider]), *((kind, provider.get(kind, [])) for kind in ("limit", "reply")))
    for at, part in enumerate(parts)
]


# -- the package's own ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
def test_no_line_without_a_public_source_and_the_day_it_was_read(part: dict[str, Any]) -> None:
    for source in part["source"].split("; "):
        place, _, words = source.partition(": ")
        assert place.startswith("https://")
        assert len(words) > 3, "what it says there"
    assert date(2026, 11, 1) <= part["read"] <= date.today()


def test_every_number_is_in_the_words_of_its_source() -> None:
    """Digits at least: 4600000 is "4.6 million", 5000 "5k", three "three"."""
    words = {1: "one", 2: "two", 3: "three", 5000: "5k", 10_000: "10k", 4_600_000: "4.6 million"}
    for provider in SHIPPED:
        for limit in provider.get("limit", ()):
            said = limit["source"].replace(",", "")
            numbers = [limit[key] for key in ("connections", "mails_per_connection") if key in limit]
            numbers += [window(text).count for text in limit.get("rate", ())]
            for number in numbers:
                assert str(number) in said or words.get(number, "?") in limit["source"], (provider["name"], number)


def test_the_package_s_own_rules_are_read() -> None:
    rules = own_rules()
    assert [provider.name for provider in rules.providers] == [provider["name"] for provider in SHIPPED]
    assert rules.of_site()["hotmail.com"] == Cap(None, 5, 50)
    assert rules.of_relay("SMTP.office365.com") == Cap((window("30/m"), window("10000/d")), 3, None)
    assert rules.of_relay("relay.example") == Cap()
    assert all(entry.table == "providers.toml" for entry in rules.entries)
    rows = TEXT.splitlines()
    assert {rows[entry.number - 1] for entry in rules.entries} == {"[[provider.reply]]"}


# -- mistakes ---------------------------------------------------------------------------------------------------------

HEAD = '[[provider]]\nname = "x"\n'
SITE = HEAD + 'domains = ["a.example"]\n'
LIMIT = SITE + "[[provider.limit]]\n"
REPLY = SITE + '[[provider.reply]]\nclass = "x"\nscope = "site"\naction = "retry"\ncode = "421"\n'


@pytest.mark.parametrize(
    ("text", "line", "key", "what", "value"),
    [
        ("x = 1\ny = \n", 2, "", "not TOML", ""),
        ('[[provider]]\nname = "x', 2, "", "not TOML", ""),
        ("\n\ncolour = 1\n", 3, "colour", "no such key", "1"),
        ("\nprovider = 1\n", 2, "provider", "tables: [[provider]]", "1"),
        ("\n[provider]\nname = 1\n", 2, "provider", "tables: [[provider]]", ""),
        ("[[provider]]\n\ndomains = 'a.example'\n", 1, "name", "missing", ""),
        (
            HEAD.replace('"x"', "7") + "domains = 'a.example'\n[[provider.limit]]\nrate = '1/s'",
            2,
            "name",
            "string",
            "7",
        ),
        (SITE + "colour = 'red'\n", 4, "colour", "no such key", "'red'"),
        (HEAD + "[[provider.limit]]\nrate = '1/s'\n", 1, "provider", "domains, or relays", ""),
        (SITE + 'relays = "h"\n[[provider.limit]]\nrate = "1/s"\n', 1, "provider", "one of the two", ""),
        (SITE, 1, "provider", "says nothing", ""),
        (SITE + "limit = 5\n", 4, "limit", "tables: [[provider.limit]]", "5"),
        (LIMIT, 4, "limit", "limits nothing", ""),
        (LIMIT + "rate = []\n", 4, "limit", "at least one window", ""),
        (LIMIT + "rate = 'fast'\n", 5, "rate", "not a rate", "'fast'"),
        (LIMIT + "rate = [\n  '1/s',\n  'fast',\n]\n", 5, "rate", "not a rate", "'fast'"),
        (LIMIT + "rate = '0/s'\n", 5, "rate", "a rate is", "'0/s'"),
        (LIMIT + "connections = 0\n", 5, "connections", "greater than or equal to 1", "0"),
        (LIMIT + "connections = '5'\n", 5, "connections", "integer", "'5'"),
        (LIMIT + "connections = true\n", 5, "connections", "integer", "True"),
        (LIMIT + "\n# here\nmails_per_connection = -1\n", 7, "mails_per_connection", "greater", "-1"),
        (LIMIT + "connection = 5\n", 5, "connection", "no such key", "5"),
        (LIMIT + "connections = 5\nsource = ' '\n", 6, "source", "pattern", "' '"),
        (LIMIT + "connections = 5\nread = 'today'\n", 6, "read", "date", "'today'"),
        (LIMIT + "connections = 5\n[[provider.limit]]\nconnections = 6\n", 7, "connections", "of 'x' already", ""),
        (LIMIT.replace("a.example", "A.example") + "rate = '1/s'", 3, "domains", "a domain", "'A.example'"),
        (LIMIT.replace("a.example", "b@a.example") + "rate = '1/s'", 3, "domains", "a domain", "'b@a.example'"),
        (LIMIT.replace("a.example", "a|b") + "rate = '1/s'", 3, "domains", "a domain", "'a|b'"),
        (LIMIT.replace("a.example", "*") + "rate = '1/s'", 3, "domains", "a domain", "'*'"),
        (LIMIT.replace("a.example", "bücher.example") + "rate = '1/s'", 3, "domains", "xn--", "'bücher.example'"),
        (LIMIT.replace("a.example", f"{'a' * 64}.example") + "rate = '1/s'", 3, "domains", "a domain", "aaaa"),
        (HEAD + 'relays = ["H"]\n[[provider.limit]]\nrate = "1/s"', 3, "relays", "a host", "'H'"),
        (HEAD + 'relays = ["a.*.b"]\n[[provider.limit]]\nrate = "1/s"', 3, "relays", "a host", "'a.*.b'"),
        (HEAD + 'relays = ["a b"]\n[[provider.limit]]\nrate = "1/s"', 3, "relays", "a host", ""),
        (REPLY + "hint = 'soon'\n", 9, "hint", "not a duration", "'soon'"),
        (REPLY + "text = '(a+)+'\n", 9, "text", "", "'(a+)+'"),
        (REPLY.replace("421", "9"), 8, "code", "three digits", "'9'"),
        (REPLY.replace('"retry"', '"shrug"'), 7, "action", "one of", "'shrug'"),
        (REPLY.replace('scope = "site"\n', ""), 4, "", "missing: scope", ""),
        (REPLY + "colour = 1\n", 9, "colour", "unknown: colour", "1"),
        (REPLY + "read = 'today'\n", 9, "read", "a date", "'today'"),
        (SITE + "reply = [7]\n", 4, "", "not a table", ""),
        ("a = " + "[" * 100_000, 0, "", "too deep", ""),
    ],
)
def test_a_mistake_has_its_line_key_and_value(text: str, line: int, key: str, what: str, value: str) -> None:
    rules, mistakes = check_rules(text, "mine.toml")
    assert rules.providers == ()
    found = mistakes[0]
    assert (found.line, found.key) == (line, key)
    assert what in found.what
    assert value in found.value
    assert found.of("mine.toml").startswith(f"mine.toml:{line}: " if line else "mine.toml: ")
    assert "\n" not in found.of("mine.toml")


def test_a_domain_stands_there_once() -> None:
    text = LIMIT + 'rate = "1/s"\n\n[[provider]]\nname = "y"\ndomains = [\n  "b.example",\n  "a.example",\n]\n'
    text += "[[provider.limit]]\nconnections = 1\n"
    assert check_rules(text, "f")[1] == [Mistake(11, "domains", "stands in line 3 already", "'a.example'")]


def test_all_mistakes_are_told_in_the_order_of_their_lines() -> None:
    text = LIMIT + "rate = 'fast'\nconnections = 0\n[[provider]]\nname = ''\n"
    assert [(each.line, each.key) for each in check_rules(text, "f")[1]] == [
        (5, "rate"),
        (6, "connections"),
        (8, "name"),
    ]
    text = LIMIT.replace("a.example", "A") + "rate = '1/s'\n[[provider.reply]]\n[[provider.reply]]\nread = 7\n"
    assert [each.line for each in check_rules(text, "f")[1]] == [3, 6, 7, 8]


def test_mistakes_have_an_end() -> None:
    text = "".join(f"k{number} = 1\n" for number in range(1000))
    assert len(check_rules(text, "f")[1]) == rules_file.MISTAKES


def test_domains_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_file, "MOST_DOMAINS", 3)
    domains = ", ".join(f'"d{number}.example"' for number in range(4))
    text = f"{HEAD}domains = [{domains}]\n[[provider.limit]]\nrate = '1/s'\n"
    assert check_rules(text, "f")[1] == [Mistake(0, "domains", "more than 3 names", "4")]


@pytest.mark.parametrize(
    "without",
    ["source", "read"],
)
def test_the_package_s_own_form_needs_sources(without: str) -> None:
    line = {"source": 'source = "RFC 5321: x"\n', "read": "read = 2026-11-27\n"}
    both = "".join(line.values())
    one = both.replace(line[without], "")
    known = SITE + both + "[[provider.limit]]\nrate = '1/s'\n" + both
    reply = REPLY.removeprefix(SITE)
    assert check_rules(known + reply + both, "f", sourced=True)[1] == []
    for text, at in (
        (SITE + one + "[[provider.limit]]\nrate = '1/s'\n" + both, 1),
        (SITE + both + "[[provider.limit]]\nrate = '1/s'\n" + one, 6),
        (known + reply + one, 10),
    ):
        assert check_rules(text, "f")[1] == []
        [mistake] = check_rules(text, "f", sourced=True)[1]
        assert mistake.line == at
        assert "source" in mistake.what


# -- a user's own file ------------------------------------------------------------------------------------------------


def test_a_file_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        LIMIT + 'rate = ["5/s", "100/h"]\n[[provider.limit]]\nconnections = 2\n'
        '[[provider]]\nname = "y"\nrelays = ["*.relay.example", "[::1]", "127.0.0.1", "localhost"]\n'
        "[[provider.limit]]\nmails_per_connection = 7\n" + REPLY.replace("a.example", "b.example") + "text = 'slow'\n"
    )
    rules = load_rules(path)
    assert rules.of_site() == {
        "a.example": Cap((window("5/s"), window("100/h")), 2, None),
        "b.example": Cap(),
    }
    assert rules.of_relay("eu.relay.example") == rules.of_relay("localhost") == Cap(None, None, 7)
    assert rules.of_relay("relay.example") == Cap()
    assert [(entry.table, entry.klass) for entry in rules.entries] == [(str(path), "x")]
    assert load_rules(None).providers == ()


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: No such file"):
        load_rules(tmp_path / "none.toml")
    path = tmp_path / "mine.toml"
    path.write_bytes(b"# \xff\n")
    with pytest.raises(SettingsError, match=r"mine\.toml: not UTF-8"):
        load_rules(path)
    path.write_text("#" * 100)
    monkeypatch.setattr(rules_file, "LARGEST", 99)
    with pytest.raises(SettingsError, match="more than 99 bytes"):
        load_rules(path)
    monkeypatch.setattr(rules_file, "LARGEST", 10_000)
    path.write_text(LIMIT + "rate = 'fast'\nconnections = 0\n")
    with pytest.raises(SettingsError, match=r"mine\.toml:5: rate: .*'fast'; .*mine\.toml:6: connections: .*0"):
        load_rules(path)


def test_an_empty_file_says_nothing() -> None:
    rules, mistakes = check_rules("# nothing\n", "f")
    assert (rules.providers, mistakes) == ((), [])

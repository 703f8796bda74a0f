"""What settings and rules say together: layers, routes' ceilings, the order in which texts are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamq.errors import SettingsError
from streamq.limits.rulebook import Rulebook
from streamq.limits.rules import Cap
from streamq.settings import load_settings, window
from streamq.smtp.letter import Action, Scope, Stage

OFFICE = "smtp://u:p@smtp.office365.com:587"

OWN = """
[[provider]]
name = "mine"
domains = ["gmail.com", "mine.example"]
[[provider.limit]]
rate = "7/s"
[[provider.reply]]
class = "site_rate"
scope = "site"
action = "retry"
code = "550"
text = 'slow down'

[[provider]]
name = "our relay"
relays = ["smtp.office365.com"]
[[provider.limit]]
connections = 2
"""


def book(tmp_path: Path, **known: Any) -> Rulebook:
    file = tmp_path / "mine.toml"
    file.write_text(OWN)
    if known.pop("own", False):
        known["provider_rules"] = str(file)
    return Rulebook.read(load_settings(relay=OFFICE, **known))


def test_nothing_is_on_until_somebody_says_so(tmp_path: Path) -> None:
    found = book(tmp_path)
    assert found.layers() == {"providers": None, "own": None}
    assert found.routes()["relay"].connections == 20
    assert found.replies.classify(Stage.MAIL, 421, "[TSS04] deferred", True).hint_ms == 900_000
    assert book(tmp_path, providers="off").layers() == {"providers": {}, "own": None}


def test_relays_alone(tmp_path: Path) -> None:
    found = book(tmp_path, providers="relays")
    assert found.layers()["providers"] == {"relay": Cap((window("30/m"), window("10000/d")))}
    assert found.routes()["relay"].connections == 3
    assert found.replies.classify(Stage.MAIL, 421, "[TSS04] deferred", True).hint_ms == 7_200_000


def test_all(tmp_path: Path) -> None:
    layer = book(tmp_path, providers="all").layers()["providers"]
    assert layer is not None
    assert layer["*|gmail.com"] == Cap(None, 5, 50)
    assert layer["*|yahoo.co.jp"].rate == (window("10/s"),)
    assert "relay" in layer


def test_a_file_of_one_s_own_needs_no_word_and_stands_in_front(tmp_path: Path) -> None:
    found = book(tmp_path, own=True)
    assert found.layers() == {
        "providers": None,
        "own": {"relay": Cap(), "*|gmail.com": Cap((window("7/s"),)), "*|mine.example": Cap((window("7/s"),))},
    }
    assert found.routes()["relay"].connections == 2
    verdict = found.replies.classify(Stage.RCPT, 550, "please slow down", True)
    assert (verdict.klass, verdict.scope, verdict.action) == ("site_rate", Scope.SITE, Action.RETRY)
    assert verdict.entry is not None
    assert verdict.entry.table.endswith("mine.toml")
    assert book(tmp_path, own=True, providers="relays").routes()["relay"].connections == 2


def test_a_table_of_replies_is_asked_before_any_rules(tmp_path: Path) -> None:
    table = tmp_path / "replies.toml"
    table.write_text('[[reply]]\nclass = "mine"\nscope = "mail"\naction = "fail"\ncode = "550"\n')
    found = book(tmp_path, own=True, replies=str(table))
    assert found.replies.classify(Stage.RCPT, 550, "please slow down", True).klass == "mine"


def test_a_ceiling_raises_nothing_and_the_settings_know_better(tmp_path: Path) -> None:
    file = tmp_path / "streamq.toml"
    file.write_text(
        '[routes.many]\nurl = "smtp://smtp.sendgrid.net"\n'
        '[routes.few]\nurl = "smtp://smtp.socketlabs.com"\nconnections = 15\n'
    )
    found = Rulebook.read(load_settings(config=file, providers="relays")).routes()
    assert (found["many"].connections, found["many"].mails_per_connection) == (20, 100)
    assert (found["few"].connections, found["few"].mails_per_connection) == (15, 50)


@pytest.mark.parametrize(
    ("stage", "code", "text", "klass", "scope", "action", "hint_ms"),
    [
        ("mail", 421, "4.7.0 [TSS04] Messages from 192.0.2.1 deferred", "site_rate", "site", "retry", 7_200_000),
        ("mail", 421, "4.7.0 [TSS05] Messages from 192.0.2.1 deferred", "site_rate", "site", "retry", 14_400_000),
        ("mail", 421, "4.7.0 [TS02] unusual traffic", "site_rate", "site", "retry", 900_000),
        ("mail", 553, "Mail from 192.0.2.1 not allowed - VS98-IP0 deferred", "site_rate", "site", "retry", 3_600_000),
        (
            "rcpt",
            452,
            "4.3.1 Server busy. Please try again later from 192.0.2.1",
            "site_rate",
            "site",
            "retry",
            900_000,
        ),
        ("rcpt", 451, "[BS02] Temporary server error. Please try again later.", "overloaded", "site", "retry", 900_000),
    ],
)
def test_known_texts_through_a_relay(
    tmp_path: Path, stage: str, code: int, text: str, klass: str, scope: str, action: str, hint_ms: int
) -> None:
    verdict = book(tmp_path, providers="all").replies.classify(Stage(stage), code, text, True, "example.org")
    assert (verdict.klass, verdict.scope, verdict.action, verdict.hint_ms) == (klass, scope, action, hint_ms)


def test_a_mistake_is_told_by_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(OWN.replace('"7/s"', '"fast"'))
    with pytest.raises(SettingsError, match=r"mine\.toml:6: rate: not a rate .*'fast'"):
        Rulebook.read(load_settings(provider_rules=str(file)))


def test_a_mistake_of_the_settings_file_has_its_line(tmp_path: Path) -> None:
    file = tmp_path / "streamq.toml"
    file.write_text('in_hand = 5\n\n[sites."gmail.com"]\nconnections = 3\nrate = [\n  "50/s", "fast"\n]\n')
    with pytest.raises(SettingsError, match=r"streamq\.toml: sites\.gmail\.com\.rate: .*'fast' \(line 5\)$"):
        load_settings(config=file)
    with pytest.raises(SettingsError, match=r"--providers: Input should be 'off', 'relays' or 'all' \(got 'some'\)$"):
        load_settings(providers="some")

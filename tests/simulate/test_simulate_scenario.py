"""scenario.py: a file becomes sites, shares and models; a mistake says where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamq.errors import SettingsError
from streamq.simulate import MODELS, Scenario, read_scenario
from streamq.simulate.scenario import Spec

GOOD = """\
mails = 100
add_over = "10m"
rtt = 0.1
service = "200ms"

[relay]
model = "connections"
most = 5

[relays.second]
model = "outage"
begins = "1m"

[[sites]]
name = "a.example"
share = 3
model = "rate"
rate = 50
changes = [{ at = "30m", rate = 25 }, { at = 600, rate = 100 }]

[[sites]]
name = "b.example"
"""


def read(tmp_path: Path, text: str) -> Scenario:
    file = tmp_path / "scenario.toml"
    file.write_text(text, "utf-8")
    return read_scenario(file)


def test_a_file_says_all_of_it(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    assert (found.mails, found.adding_s, found.rtt, found.service) == (100, 600.0, 0.1, 0.2)
    first, second = found.sites
    assert (first.name, first.model, first.share, first.given) == ("a.example", "rate", 3.0, {"rate": 50})
    assert (second.name, second.model, second.share) == ("b.example", "open", 1.0)
    assert found.relay("first").given == {"most": 5}
    assert found.relay("second").given == {"begins": 60.0}


def test_changes_come_in_their_order(tmp_path: Path) -> None:
    receiver = read(tmp_path, GOOD).sites[0].twin()
    assert [receiver.at(second).capacity(second) for second in (0, 599, 600, 1799, 1800)] == [50, 50, 100, 100, 25]


def test_the_mix_that_comes_along_has_a_site_of_nearly_each_model() -> None:
    found = read_scenario(None)
    assert set(MODELS) - {site.model for site in found.sites} == {"open", "quota"}
    assert sum(found.shared_out().values()) == found.mails == 20_000


def test_shares_are_whole_mails_and_lose_none() -> None:
    sites = tuple(Spec(f"s{at}.example", share=share) for at, share in enumerate((1.0, 1.0, 1.0, 0.0)))
    assert list(Scenario(sites, mails=10).shared_out().values()) == [4, 3, 3, 0]


def test_only_sites_of_a_model() -> None:
    found = read_scenario(None).of(["storm", "quota"])
    assert [(site.name, site.model) for site in found.sites] == [("bank.example", "storm"), ("quota.example", "quota")]
    with pytest.raises(SettingsError, match=r"--model: one of .*'rain'"):
        found.of(["rain"])


def test_a_scaled_one_has_fewer_mails_and_lower_rates(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD).scaled(0.1)
    assert found.mails == 10
    assert found.relay("first").given == {"most": 5}
    receiver = found.sites[0].twin()
    assert [receiver.at(second).capacity(second) for second in (0, 600, 1800)] == [5, 10, 2.5]
    usual = Scenario((Spec("a.example", "quota", 1.0),), mails=1).scaled(0.1)
    assert usual.sites[0].given == {"mails": 1000}
    assert usual.mails == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mails = 1", r"sites: at least one"),
        ("[[sites]]\nshare = 1", r"sites\[1\]: name: a domain in lower case and ASCII \(got ''\)"),
        ("[[sites]]\nname = 'bücher.example'", r"name: a domain in lower case and ASCII"),
        ("[[sites]]\nname = 'a@b.example'", r"name: a domain in lower case and ASCII"),
        ("[[sites]]\nname = 'A.example'", r"name: a domain in lower case"),
        ("[[sites]]\nname = 'a.example'\n[[sites]]\nname = 'a.example'", r"'a.example' stands there twice"),
        ("[[sites]]\nname = 'a.example'\nshare = 0", r"no site has a share"),
        ("[[sites]]\nname = 'a.example'\nshare = -1", r"share: a number from 0 on, of a site \(got -1\)"),
        ("[[sites]]\nname = 'a.example'\nmodel = 'rain'", r"model: one of open, rate.*'rain'"),
        ("[[sites]]\nname = 'a.example'\nmodel = 'rate'\nspeed = 5", r"speed: model 'rate' knows rate, burst"),
        ("[[sites]]\nname = 'a.example'\nmodel = 'rate'\nchanges = [{ rate = 5 }]", r"changes\[1\]: a table with `at`"),
        ("[[sites]]\nname = 'a.example'\nmodel = 'rate'\nchanges = [{ at = 1, x = 5 }]", r"changes\[1\]: x: model"),
        ("[[sites]]\nname = 'a.example'\nmodel = 'rate'\nchanges = 5", r"changes: a list of tables \(got 5\)"),
        ("mails = 0\n[[sites]]\nname = 'a.example'", r"mails: from 1 to 1,000,000 \(got 0\)"),
        ("rtt = 'soon'\n[[sites]]\nname = 'a.example'", r"rtt: not a duration"),
        ("rtt = -1\n[[sites]]\nname = 'a.example'", r"rtt: seconds, or a time like '10m' \(got -1\)"),
        ("hurry = 1\n[[sites]]\nname = 'a.example'", r"'hurry': a scenario has"),
        ("relay = 5\n[[sites]]\nname = 'a.example'", r"relay: a table \(got 5\)"),
        ("relays = 5\n[[sites]]\nname = 'a.example'", r"relays: a table \[relays"),
        ("relay = { share = 1 }\n[[sites]]\nname = 'a.example'", r"relay: share"),
        ("[[sites]", r"scenario.toml: "),
    ],
)
def test_a_mistake_says_where_it_is(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as wrong:
        read(tmp_path, text)
    assert "scenario.toml" in str(wrong.value)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_scenario(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=r"bytes\.toml"):
        read_scenario(tmp_path / "bytes.toml")

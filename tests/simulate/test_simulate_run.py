"""run.py: the same seed, the same outcome; every mail is accounted for; nothing stays; time is the loop's alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from redis import Redis

from streamq.settings import Settings, load_settings
from streamq.simulate import MODELS, Result, Scenario, Terms, simulate
from streamq.simulate.clock import VirtualLoop
from streamq.simulate.relay import Change
from streamq.simulate.scenario import Spec

FEW = 60


def site(name: str, **given: float) -> Spec:
    return Spec(f"{name}.example", name, 1.0, given)


def outcome(found: Result) -> tuple[object, ...]:
    times = {name: (list(each.taken), list(each.refused)) for name, each in found.record.sites.items()}
    return found.plain(), times, found.seconds


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def run(scenario: Scenario, settings: Settings, url: str, **terms: float) -> Result:
    found = simulate(scenario, settings, url, Terms(**terms))  # type: ignore[arg-type]
    with Redis.from_url(url) as redis:
        assert redis.dbsize() == 0
    return found


def test_the_same_seed_gives_the_same_outcome(server_url: str, settings: Settings) -> None:
    scenario = Scenario((site("rate", rate=5), site("storm", every=20, lasts=20), site("one-bad")), mails=FEW)
    first, again = (outcome(run(scenario, settings, server_url, seed=7, until_s=200)) for _ in range(2))
    assert first == again
    assert outcome(run(scenario, settings, server_url, seed=8, until_s=200)) != first


def test_the_outcome_hangs_on_no_hash_seed() -> None:
    """Sets of texts have another order in each process."""
    program = (
        "import sys; from pathlib import Path; import tempfile\n"
        "from streamq.cli.own import own_server\n"
        "from streamq.settings import load_settings\n"
        "from streamq.simulate import Terms, read_scenario, simulate\n"
        "from dataclasses import replace\n"
        "known = load_settings()\n"
        "with own_server(known, 'test') as server:\n"
        "    found = simulate(replace(read_scenario(None), mails=40), known, server.url, Terms(until_s=400.0))\n"
        "print(found.plain(), [list(each.taken) for each in found.record.sites.values()])\n"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1] != ""


def test_the_outcome_hangs_on_no_clock_of_this_machine(
    server_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a receiver took a second when it first refused is by the simulation's time: a pace begins with it."""
    scenario = Scenario((site("penalty", rate=5, box=10),), mails=FEW)
    first = outcome(run(scenario, settings, server_url, until_s=300))
    clock = count(time.time_ns(), 5_000_000_000)
    monkeypatch.setattr("time.time_ns", lambda: next(clock))
    assert outcome(run(scenario, settings, server_url, until_s=300)) == first


@pytest.mark.parametrize("name", list(MODELS))
def test_every_mail_is_accounted_for_behind_each_model(name: str, server_url: str, settings: Settings) -> None:
    """`simulate` proves the law and the sum, or raises."""
    given = {"quota": {"mails": 30, "seconds": 120}, "storm": {"every": 10, "lasts": 30}}.get(name, {})
    found = run(Scenario((site(name, **given),), mails=FEW), settings, server_url)
    assert (found.whole.taken, found.failed, found.left) == (FEW, 0, 0)
    assert found.whole.doubles == 0


@pytest.mark.parametrize("name", ["rate", "penalty", "connections", "quota", "outage", "one-bad"])
def test_and_behind_a_relay_of_each_model(name: str, server_url: str, settings: Settings) -> None:
    given = {"quota": {"mails": 30, "seconds": 120}, "outage": {"begins": 0}, "connections": {"most": 2}}.get(name, {})
    scenario = Scenario((Spec("a.example", share=1.0),), {"": Spec("", name, 0.0, given)}, mails=FEW)
    found = run(scenario, settings, server_url)
    assert (found.whole.taken, found.left) == (FEW, 0)


def test_it_ends_when_it_is_told_to_and_says_what_is_left(server_url: str, settings: Settings) -> None:
    scenario = Scenario((site("outage", begins=0, ends=1e6),), mails=FEW)
    found = run(scenario, settings, server_url, until_s=30)
    assert (found.whole.taken, found.left, found.whole.met) == (0, FEW, FEW)
    assert 30 <= found.seconds < 90


def test_the_age_of_mails_is_virtual(server_url: str) -> None:
    scenario = Scenario((site("outage", begins=0, ends=1e6),), mails=FEW)
    found = run(scenario, load_settings(max_age="20m"), server_url)
    assert (found.failed, found.left) == (FEW, 0)
    assert 1200 <= found.seconds < 1900


def test_limits_of_the_settings_hold_as_in_life(server_url: str, tmp_path: Path) -> None:
    """At the receiver, and on average: what waits between admission and RCPT comes in its own time."""
    file = tmp_path / "streamq.toml"
    file.write_text('[sites."*"]\nrate = ["2/s"]\n')
    found = run(Scenario((site("rate", rate=4),), mails=FEW), load_settings(file), server_url)
    assert found.whole.refusals == 0
    assert 1.8 <= found.whole.steady <= 2.0


def test_routes_of_the_settings_are_the_relays(server_url: str, tmp_path: Path) -> None:
    file = tmp_path / "streamq.toml"
    file.write_text(
        '[routes.First]\nurl = "smtps://user:secret@one.test"\n[routes.second]\nurl = "smtp://two.test"\nweight = 0\n'
    )
    away = Spec("", "outage", 0.0, {"begins": 0, "ends": 1e6})
    scenario = Scenario((Spec("a.example", share=1.0),), {"First": away}, mails=FEW)
    found = run(scenario, load_settings(file), server_url)
    assert found.whole.taken == FEW
    assert set(found.record.turned_away) == {"First"}
    assert found.record.opened["second"]


def test_the_courier_speaks_as_its_route_says(server_url: str, tmp_path: Path) -> None:
    """`overlap` has the next mail's commands behind a body, and the answer to the first before that to the second."""
    scenario = Scenario((site("open"), site("greylisting", delay=5)), mails=FEW, rtt=0.1, service=0.1)
    took = []
    for mode in ("off", "transaction", "overlap"):
        file = tmp_path / f"{mode}.toml"
        file.write_text(f'[routes.main]\nurl = "smtp://one.test"\nconnections = 1\npipelining = "{mode}"\n')
        found = run(scenario, load_settings(file), server_url)
        assert (found.whole.taken, found.whole.doubles, found.left) == (FEW, 0, 0)
        took.append(found.record.site("open.example").taken[-1])
    assert took == sorted(took, reverse=True)
    assert took[0] > 1.3 * took[1] > 1.3 * 1.1 * took[2]


def test_mails_may_come_over_time(server_url: str, settings: Settings) -> None:
    found = run(Scenario((site("open"),), mails=FEW, adding_s=600), settings, server_url)
    assert 590 <= found.whole.seconds <= 601
    assert found.whole.peak <= 2


def test_a_change_of_the_model_is_seen(server_url: str, settings: Settings) -> None:
    shut = replace(site("rate", rate=1000), changes=(Change(0.0, (("rate", 0.0),)), Change(50.0, (("rate", 1000.0),))))
    found = run(Scenario((shut,), mails=FEW), settings, server_url)
    known = found.record.site("rate.example")
    assert min(known.refused) < 50 <= sorted(known.taken)[1]


def test_where_everybody_waits_time_stands_still() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, pytest.raises(RuntimeError, match="stands still"):
        runner.run(asyncio.Event().wait())


def test_a_year_is_as_long_as_nothing() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        runner.run(asyncio.sleep(31_536_000))
        assert loop.time() == pytest.approx(31_536_000)

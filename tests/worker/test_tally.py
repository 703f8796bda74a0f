"""What a worker counts, against the events of the same mails."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from crew import crew, rules_of

from streamq.limits.rulebook import Rulebook
from streamq.settings import load_settings
from streamq.smtp.letter import Action, Report, Scope, Stage
from streamq.worker.tally import LABELS_MOST, Buckets, Tally

RULES = """
[[rule]]
match = "*@slow.example"
stage = "rcpt"
reply = "450 4.2.1 Mailbox busy"
times = 1
[[rule]]
match = "*@yahoo.com"
stage = "rcpt"
reply = "550 5.1.1 no such user"
"""


def _report(action: Action, klass: str = "sent", **known: Any) -> Report:
    made = {"stage": Stage.DOT, "scope": Scope.MAIL, "duration_ms": 20, **known}
    return Report(action=action, klass=klass, **made)


def _delivery(site: str, entry: str = "11000-0", attempts: int = 0, send_at: int | None = None) -> Any:
    mail = SimpleNamespace(send_at_ms=send_at)
    return SimpleNamespace(site=site, entry=entry, way="main", attempts=attempts, mail=mail)


def _tally(**providers: str) -> Tally:
    return Tally({"gmail.com": "google", **providers}, ["main"], ["high", "normal"])


def test_a_bound_is_inclusive_and_the_last_has_no_end() -> None:
    found = Buckets((0.01, 1))
    for ms in (0, 10, 11, 1000, 1001, 10**9):
        found.add(ms)
    assert (found.counts, found.sum_ms) == ([2, 2, 2], 10**9 + 2022)


@pytest.mark.parametrize(
    ("action", "klass", "outcome"),
    [
        (Action.SENT, "sent", "relayed"),
        (Action.FAIL, "bad_address", "bounced"),
        (Action.RETRY, "greylisted", "deferred"),
        (Action.RETRY, "site_rate", "throttled"),
        (Action.RETRY, "recipient_rate", "throttled"),
        (Action.AMBIGUOUS, "timeout", "ambiguous"),
        (Action.PARK, "unreachable", "unjudged"),
        (Action.ABANDON, "abandoned", "abandoned"),
    ],
)
def test_an_attempt_counts_by_outcome_class_provider_and_route(action: Action, klass: str, outcome: str) -> None:
    tally = _tally()
    tally.report(_delivery("gmail.com"), _report(action, klass), 2000)
    tally.report(_delivery("somewhere.example"), _report(action, klass), 2000)
    assert tally.attempts == {(outcome, klass, "google", "main"): 1, (outcome, klass, "other", "main"): 1}
    judged = action not in {Action.PARK, Action.ABANDON}
    assert sum(tally.took["main"].counts) == 2 * judged


def test_what_was_parked_unseen_is_no_attempt() -> None:
    tally = _tally()
    tally.report(_delivery("gmail.com"), _report(Action.PARK, "unreachable", tried=False), 2000)
    assert tally.attempts == {}


def test_times_run_from_send_at_and_only_a_first_attempt_waited() -> None:
    tally = _tally()
    tally.report(_delivery("a.example", "11000-0"), _report(Action.RETRY, "greylisted"), 1500)
    tally.report(_delivery("a.example", "11000-0", attempts=1), _report(Action.SENT), 9000)
    tally.report(_delivery("a.example", "01000-0", send_at=3000), _report(Action.SENT), 3100)
    tally.report(_delivery("a.example", "01000-0", send_at=9000), _report(Action.SENT), 3100)  # a clock that is behind
    assert (tally.waited["normal"].sum_ms, sum(tally.waited["normal"].counts)) == (480, 1)
    assert (tally.delivered["normal"].sum_ms, sum(tally.delivered["normal"].counts)) == (8000, 1)
    assert (tally.waited["high"].sum_ms, tally.delivered["high"].sum_ms) == (80, 100)


def test_labels_have_an_end() -> None:
    tally = _tally()
    for n in range(LABELS_MOST + 50):
        tally.report(_delivery("gmail.com"), _report(Action.FAIL, f"made-up-{n}"), 2000)
    assert len(tally.attempts) == LABELS_MOST + 1
    assert tally.attempts["bounced", "other", "other", "main"] == 50


def test_providers_are_those_of_the_rules_whether_they_limit_or_not(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[[provider]]\nname = "Our Intranet"\ndomains = ["corp.example"]\n[[provider.limit]]\nrate = ["1/s"]\n'
    )
    groups = Rulebook.read(load_settings(provider_rules=str(own))).groups()
    assert groups["corp.example"] == "our intranet"
    assert (groups["gmail.com"], groups["hotmail.de"], groups["aol.com"]) == ("google", "microsoft", "yahoo")
    assert all("," not in name and name == name.lower() for name in groups.values())


async def test_a_worker_that_is_not_asked_counts_nothing(server_url: str) -> None:
    async with crew(server_url) as c:
        worker = await c.worker()
        await c.add(id="a1")
        await c.until("email.relayed", "a1")
        assert worker.tally is None


async def test_a_workers_numbers_are_those_of_its_events(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url, rules=rules_of(tmp_path, RULES)) as c:
        worker = await c.worker(metrics="9469")
        for n in range(4):
            await c.add("high", id=f"g{n}", to=f"b{n}@gmail.com")
        await c.add(id="s", to="b@slow.example")
        await c.add(id="y", to="b@yahoo.com")
        events: Counter[tuple[str, str, str]] = Counter()
        async for kind, _, data in c.events():
            if kind in {"email.relayed", "email.deferred", "email.bounced"}:
                events[kind.removeprefix("email."), data["class"], data["site"]] += 1
            if events.total() == 7:
                break
        tally = worker.tally
        assert tally is not None
        provider = {"gmail.com": "google", "slow.example": "other", "yahoo.com": "yahoo"}
        expected = {(kind, klass, provider[site], "relay"): many for (kind, klass, site), many in events.items()}
        assert tally.attempts == expected
        assert sum(tally.took["relay"].counts) == 7
        assert (sum(tally.waited["high"].counts), sum(tally.waited["normal"].counts)) == (4, 2)
        assert (sum(tally.delivered["high"].counts), sum(tally.delivered["normal"].counts)) == (4, 1)

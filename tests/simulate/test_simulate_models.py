"""models.py: what each model takes and refuses, by itself and by the time it is handed."""

from __future__ import annotations

from itertools import count, pairwise
from math import inf

import pytest

from streamq.simulate.models import (
    LOST,
    MODELS,
    Answer,
    Asked,
    ConnectionCap,
    FixedRate,
    Greylisting,
    Model,
    OneBad,
    Outage,
    PenaltyBox,
    Quota,
    Storm,
    model,
    parameters,
)
from streamq.smtp.letter import Action, Scope, Stage
from streamq.smtp.replies import default_replies

SITE = "site.example"
numbers = count()


def mail(at: float, *, under_way: int = 0, line: int = 0, recipient: str = "") -> Asked:
    return Asked(at, recipient or f"u{next(numbers)}@{SITE}", under_way, line)


def taken(one: Model, times: list[float]) -> list[bool]:
    return [one.takes(mail(at)) is None for at in times]


def classes(answer: Answer | None, site: str = SITE) -> tuple[str, Scope]:
    assert answer is not None
    verdict = default_replies().classify(Stage.RCPT, answer.code, answer.text, False, site)
    return verdict.klass, verdict.scope


def test_open_takes_all() -> None:
    one = Model()
    assert all(taken(one, [0.0] * 1000))
    assert one.opens(0.0, 10_000) is None
    assert (one.capacity(0), one.connections(0)) == (inf, inf)


def test_a_rate_takes_its_burst_and_then_its_rate() -> None:
    one = FixedRate(rate=10, whose=SITE)
    assert sum(taken(one, [0.0] * 50)) == 10
    assert sum(taken(one, [1 + at / 100 for at in range(1000)])) == pytest.approx(10 * 10 + 10, abs=1)


def test_what_a_rate_refuses_costs_nothing() -> None:
    one = FixedRate(rate=1, whose=SITE)
    assert taken(one, [0.0, 0.1, 0.2, 0.9, 1.0]) == [True, False, False, False, True]


def test_a_rate_below_one_a_second_takes_one_at_a_time() -> None:
    assert taken(FixedRate(rate=0.1), [0.0, 5.0, 10.0, 15.0, 20.0]) == [True, False, True, False, True]


def test_a_penalty_box_serves_nobody_who_goes_on_knocking() -> None:
    one = PenaltyBox(rate=1, box=30, whose=SITE)
    assert taken(one, [0.0, 0.5]) == [True, False]
    assert taken(one, [20.0, 40.0, 60.0]) == [False, False, False]  # each begins the thirty seconds anew
    assert taken(one, [90.0]) == [True]


def test_a_relays_connections_are_refused_in_the_greeting() -> None:
    one = ConnectionCap(most=5)
    assert [one.opens(0.0, others) is None for others in range(7)] == [True] * 5 + [False] * 2
    assert one.takes(mail(0.0, under_way=99)) is None


def test_a_sites_mails_at_once_are_refused_by_mail() -> None:
    one = ConnectionCap(most=5, whose=SITE)
    assert one.opens(0.0, 99) is None
    assert [one.takes(mail(0.0, under_way=others)) is None for others in range(7)] == [True] * 5 + [False] * 2


def test_a_connection_too_many_may_end_in_the_box() -> None:
    one = ConnectionCap(most=1, box=10)
    assert one.opens(0.0, 1) is not None
    assert one.opens(5.0, 0) is not None
    assert one.opens(14.0, 0) is not None
    assert one.opens(24.0, 0) is None


def test_a_quota_begins_anew_with_each_window() -> None:
    one = Quota(mails=2, seconds=100, whose=SITE)
    assert taken(one, [0.0, 1.0, 2.0, 99.0, 100.0, 101.0, 102.0]) == [True, True, False, False, True, True, False]


def test_greylisting_takes_the_second_try_of_each_recipient_after_a_while() -> None:
    one = Greylisting(delay=300, whose=SITE)
    tried = [(0.0, "a"), (10.0, "b"), (299.0, "a"), (300.0, "a"), (301.0, "a"), (305.0, "b"), (310.0, "b")]
    answers = [one.takes(mail(at, recipient=f"{name}@{SITE}")) is None for at, name in tried]
    assert answers == [False, False, False, True, True, False, True]


def test_a_storm_comes_and_goes_by_its_seed() -> None:
    times = [at / 2 for at in range(7200)]
    one, same, other = (Storm(every=300, lasts=60, share=1, seed=seed, whose=SITE) for seed in (1, 1, 2))
    seen = taken(one, times)
    assert seen == taken(same, times)
    assert seen != taken(other, times)
    assert seen[0]
    spells = sum(before and not now for before, now in pairwise(seen))
    assert 6 <= spells <= 14  # in an hour
    assert 0.08 < seen.count(False) / len(seen) < 0.3


def test_most_of_a_storm_is_refused_and_not_all() -> None:
    one = Storm(every=0, lasts=1000, share=0.9)
    refused = taken(one, [at / 10 for at in range(1000)]).count(False)
    assert 850 <= refused <= 950


def test_an_outage_has_a_begin_and_an_end() -> None:
    one = Outage(begins=60, ends=120, whose=SITE)
    assert taken(one, [59.0, 60.0, 119.0, 120.0]) == [True, False, False, True]
    relay = Outage(begins=60, ends=120)
    assert [relay.opens(at, 0) for at in (59.0, 60.0, 120.0)] == [None, LOST, None]
    assert relay.takes(mail(61.0)) is LOST


def test_of_several_servers_one_is_bad_for_each_connection_of_a_relay() -> None:
    one = OneBad(servers=4, bad=1)
    by_line = [{one.takes(mail(at, line=line)) is None for at in (0.0, 1.0, 2.0)} for line in range(200)]
    assert all(len(seen) == 1 for seen in by_line)
    assert 25 <= sum(seen == {False} for seen in by_line) <= 75


def test_of_several_servers_one_is_bad_for_a_part_of_a_sites_mails() -> None:
    refused = taken(OneBad(servers=4, bad=1, whose=SITE), [float(at) for at in range(1000)]).count(False)
    assert 200 <= refused <= 300


@pytest.mark.parametrize("name", list(MODELS))
def test_nothing_breaks_a_model_whose_numbers_are_all_nought(name: str) -> None:
    for whose in ("", SITE):
        one = model(name, whose, **dict.fromkeys(parameters(MODELS[name]), 0))
        for at in (0.0, 0.0, 1e6):
            one.opens(at, 0)
            one.takes(mail(at))
        assert one.capacity(0) >= 0 <= one.connections(0)


# -- words: what the courier makes of them ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "at"),
    [
        (FixedRate(rate=0, whose=SITE), mail(0.0)),
        (PenaltyBox(rate=0, whose=SITE), mail(0.0)),
        (ConnectionCap(most=0, whose=SITE), mail(0.0)),
        (Quota(mails=0, whose=SITE), mail(0.0)),
        (Storm(every=0, share=1, whose=SITE), mail(1.0)),
    ],
    ids=lambda value: value.name if isinstance(value, Model) else "",
)
def test_a_sites_words_are_about_its_pace(one: Model, at: Asked) -> None:
    if isinstance(one, FixedRate):
        assert one.takes(mail(0.0)) is None  # the first always goes
    assert classes(one.takes(at)) == ("site_rate", Scope.SITE)


def test_a_relays_words_are_about_our_account() -> None:
    one = FixedRate(rate=0)
    one.takes(mail(0.0))
    assert classes(one.takes(mail(0.0))) == ("route_rate", Scope.ROUTE)
    assert classes(Quota(mails=0).takes(mail(0.0))) == ("quota", Scope.ROUTE)
    greeting = ConnectionCap(most=0).opens(0.0, 0)
    assert greeting is not None
    assert default_replies().classify(Stage.GREETING, greeting.code, greeting.text, True).klass == "connection_limit"


def test_greylisting_says_for_how_long() -> None:
    answer = Greylisting(delay=300, whose=SITE).takes(mail(0.0))
    assert answer is not None
    verdict = default_replies().classify(Stage.RCPT, answer.code, answer.text, False, SITE)
    assert (verdict.klass, verdict.hint_ms) == ("greylisted", 300_000)


def test_what_is_broken_is_not_about_pace() -> None:
    for one in (Outage(begins=0, whose=SITE), OneBad(servers=1, bad=1, whose=SITE)):
        answer = one.takes(mail(0.0))
        assert answer is not None
        verdict = default_replies().classify(Stage.RCPT, answer.code, answer.text, False, SITE)
        assert verdict.action is Action.RETRY
        assert "rate" not in verdict.klass


# -- by name ---------------------------------------------------------------------------------------------


def test_every_model_is_made_by_its_name() -> None:
    for name, kind in MODELS.items():
        one = model(name, SITE, 3, **dict.fromkeys(parameters(kind), 2))
        assert type(one) is kind
        assert (one.whose, one.seed) == (SITE, 3)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("rain", {}, "model: one of"),
        ("rate", {"speed": 1}, "speed: model 'rate' knows rate, burst"),
        ("rate", {"rate": -1}, "rate: a number from 0 on: -1"),
        ("rate", {"rate": "fast"}, "rate: a number from 0 on: 'fast'"),
        ("rate", {"rate": True}, "rate: a number from 0 on: True"),
        ("connections", {"most": 2.5}, "most: a whole number from 0 on: 2.5"),
        ("open", {"rate": 1}, "rate: model 'open' knows no parameters"),
    ],
)
def test_a_mistake_is_named(name: str, given: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        model(name, **given)  # type: ignore[arg-type]

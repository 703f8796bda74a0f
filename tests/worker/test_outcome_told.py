"""Which ends a sender is told of: what was asked for, whose fault it is, what may have come."""

from __future__ import annotations

from typing import Any

import pytest
from ended import ADDED, NOW, arg, delivery, mail, outcomes, report, row, tail

from streamq.smtp.letter import Action, Report, Scope


def told(said: Report, *, notes: dict[str, Any] | None = None, now_ms: int = NOW, **known: Any) -> bool:
    settings = {name: known.pop(name) for name in ("reports", "delay_warning") if name in known}
    one = delivery(mail(**{"envelope_from": "bounces@example.com", **known}), notes=notes or {})
    made = outcomes(**settings).row(one, said, now_ms)
    assert made is not None
    return arg(made).get("report") is True


@pytest.mark.parametrize("scope", list(Scope))
def test_a_sender_is_told_of_what_is_final_unless_it_is_ours(scope: Scope) -> None:
    assert told(report(Action.FAIL, scope=scope)) == (scope not in {Scope.ROUTE, Scope.SESSION})


@pytest.mark.parametrize(
    ("fields", "is_told"),
    [
        ({}, True),
        ({"envelope_from": ""}, False),
        ({"envelope_from": "<>"}, False),
        ({"dsn_notify": "never"}, False),
        ({"dsn_notify": "success,delay"}, False),
        ({"dsn_notify": "failure"}, True),
        ({"dsn_envid": "a"}, True),
        ({"reports": False}, False),
    ],
)
def test_who_is_told_of_a_failure(fields: dict[str, Any], is_told: bool) -> None:
    assert told(report(Action.FAIL), **fields) == is_told


@pytest.mark.parametrize(
    ("fields", "is_told"),
    [
        ({}, True),
        ({"now_ms": ADDED + 3_599_999}, False),
        ({"delay_warning": None}, False),
        ({"notes": {"warned": 1}}, False),
        ({"envelope_from": ""}, False),
        ({"dsn_notify": "failure"}, False),
        ({"dsn_notify": "delay"}, True),
        ({"reports": False}, False),
        ({"send_at": str(ADDED + 1000)}, False),  # it waits from then
    ],
)
def test_who_is_told_of_a_delay(fields: dict[str, Any], is_told: bool) -> None:
    known: dict[str, Any] = {"delay_warning": "1h", "now_ms": ADDED + 3_600_000, **fields}
    known = {name: value for name, value in known.items() if value is not None}
    assert told(report(Action.RETRY), **known) == is_told


def test_no_delay_of_what_may_have_come_or_is_our_own() -> None:
    late: dict[str, Any] = {"delay_warning": "1h", "now_ms": ADDED + 7_200_000}
    assert told(report(Action.RETRY, scope=Scope.SESSION), **late)
    assert not told(report(Action.AMBIGUOUS), **late)
    assert not told(report(Action.RETRY, scope=Scope.ROUTE), **late)


@pytest.mark.parametrize("status", ["bouncing", "expiring"])
def test_the_end_that_settle_asks_for(status: str) -> None:
    one = delivery(mail(envelope_from="bounces@example.com"))
    before = row(one, report(Action.RETRY))
    made = outcomes().ended(before, one, status)
    assert (made.op, made.lane, made.token, made.way) == ("dead", "", 17, "relay")
    assert arg(made)["report"] is True
    assert "judged" not in arg(made)  # the attempt is counted already
    if status == "bouncing":
        assert (made.kind, arg(made)["class"], tail(made)["asked"]) == ("email.bounced", "operator", "bounce")
    else:
        assert (made.kind, arg(made)["class"], arg(made)["reply"]) == ("email.expired", "expired", "451 4.7.1 later")
    parked = outcomes().ended(row(one, report(Action.PARK)), one, status)
    assert tail(parked)["rcpt"] == "bob@example.net"

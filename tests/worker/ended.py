"""An attempt that has ended, in a test's hands: mail, report, row."""

from __future__ import annotations

import random
from typing import Any

import orjson

from streamq.mail import Mail, parse
from streamq.queue.rows import SettleRow
from streamq.settings import load_settings
from streamq.smtp.letter import Action, Report, Scope, Stage
from streamq.worker.hand import Delivery
from streamq.worker.outcome import Outcomes

__all__ = ["ADDED", "DEADLINE", "ENTRY", "NOW", "SALT", "arg", "delivery", "mail", "outcomes", "report", "row", "tail"]

ADDED = 1_700_000_000_000
NOW = ADDED + 5_000
DEADLINE = ADDED + 86_400_000
ENTRY = f"1{ADDED}-7"
SALT = bytes(16)


def mail(**fields: str) -> Mail:
    known = {"from": "shop@example.com", "to": "bob@example.net", "subject": "Hi", "id": "a1", **fields}
    raw = {name.encode(): value.encode() for name, value in known.items() if value}
    return parse(raw, entry=ENTRY, at_ms=ADDED, salt=SALT, max_bytes=10**6)


def delivery(one: Mail | None = None, **known: Any) -> Delivery:
    one = one or mail()
    made: dict[str, Any] = {
        "entry": ENTRY,
        "token": 17,
        "lane": "relay|example.net",
        "way": "relay",
        "deadline_ms": DEADLINE,
    }
    return Delivery(
        envelope_from=one.envelope_from,
        envelope_to=one.envelope_to,
        content=one.content(),
        site=one.site,
        mail=one,
        **(made | known),
    )


def report(action: Action, **known: Any) -> Report:
    usual: dict[Action, tuple[Stage, Scope, str, int, str]] = {
        Action.SENT: (Stage.DOT, Scope.MAIL, "sent", 250, "250 2.0.0 queued"),
        Action.RETRY: (Stage.RCPT, Scope.RECIPIENT, "greylisted", 451, "451 4.7.1 later"),
        Action.FAIL: (Stage.RCPT, Scope.RECIPIENT, "bad_address", 550, "550 5.1.1 nobody"),
        Action.PARK: (Stage.CONNECT, Scope.ROUTE, "unreachable", 0, ""),
        Action.AMBIGUOUS: (Stage.DOT, Scope.SESSION, "timeout", 0, ""),
        Action.ABANDON: (Stage.DOT, Scope.MAIL, "lost", 0, ""),
    }
    stage, scope, klass, code, reply = usual[action]
    made: dict[str, Any] = {"stage": stage, "scope": scope, "klass": klass, "code": code, "reply": reply}
    return Report(action=action, **(made | known))


def outcomes(**settings: Any) -> Outcomes:
    return Outcomes(load_settings(**settings), random.Random(1))


def row(given: Delivery, said: Report, **settings: Any) -> SettleRow:
    made = outcomes(**settings).row(given, said, NOW)
    assert made is not None
    assert (made.entry, made.token, made.lane) == (given.entry, given.token, given.lane)
    return made


def arg(made: SettleRow) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(made.arg)
    return found


def tail(made: SettleRow) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(b"{%b}" % made.tail)
    return found

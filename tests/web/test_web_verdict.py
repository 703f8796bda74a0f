"""What the page says first: each sentence of docs/operations.md, The page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streamq.queue.gauge import Gauge, LaneGauge, Meter, Rule
from streamq.queue.lately import Lately
from streamq.queue.look import Status
from streamq.queue.overview import Overview
from streamq.queue.routes import Closure, RouteView
from streamq.queue.sites import SiteView
from streamq.queue.walk import STATES
from streamq.web.verdict import verdict

NOW = 1_800_000_000_000


def seen(live: dict[str, int] | None = None, lately: dict[str, int] | None = None, **more: Any) -> Overview:
    """`live`: state → mails of priority low; a worker that leads, unless `more` says otherwise."""
    routes, rules = more.pop("routes", [RouteView("relay", 0, {})]), more.pop("rules", {})
    classes, replies = more.pop("classes", {}), more.pop("replies", {})
    states = dict.fromkeys(STATES, 0)
    known: dict[str, Any] = {
        "now_ms": NOW,
        "depth": {"high": dict(states), "normal": dict(states), "low": states | (live or {})},
        **{name: {} for name in ("oldest_ms", "totals", "classes")},
        **dict.fromkeys(("next_due_ms", "dead", "events", "memory", "memory_max"), 0),
        "workers": 1,
        "swept": True,
    }
    found = Overview(Status(**known | more), routes, rules=rules)
    found.lately = Lately(300_000, lately or {}, classes, replies)
    return found


def told(overview: Overview) -> tuple[str, str, list[str], str]:
    found = verdict(overview)
    return found.level, found.words, [each.words for each in found.troubles], found.lately


@pytest.mark.parametrize(
    ("live", "lately", "level", "words", "troubles"),
    [
        ({}, {}, "idle", "Nothing waits", []),
        ({"scheduled": 2, "held": 1}, {}, "idle", "Nothing is due", []),
        ({"waiting": 1}, {}, "idle", "Mail waits, none has gone lately", []),
        ({"parked": 1, "held": 1}, {}, "idle", "Mail waits, none has gone lately", []),
        ({}, {"relayed": 1}, "good", "Mail flows", []),
        ({"parked": 9}, {"delivered": 1}, "good", "Mail flows", []),
        # outcomes of which none is a delivery
        ({}, {"bounced": 200}, "bad", "Mail does not flow", ["None of 200 attempts delivered"]),
        ({"scheduled": 5}, {"deferred": 5}, "bad", "Mail does not flow", ["None of 5 attempts delivered"]),
        ({"parked": 5}, {"throttled": 5}, "bad", "Mail does not flow", ["None of 5 attempts delivered"]),
        ({}, {"rejected": 2, "failed": 2, "expired": 2}, "bad", "Mail does not flow", ["None of 6 attempts delivered"]),
        ({"scheduled": 1}, {"deferred": 1}, "warn", "Nothing was delivered lately", ["None of 1 attempt delivered"]),
        # shares, from twenty attempts on
        (
            *({}, {"relayed": 9, "deferred": 8, "bounced": 3}, "bad", "Most mail does not get through"),
            ["9 of 20 attempts delivered (45 %)"],
        ),
        ({}, {"relayed": 16, "bounced": 3}, "good", "Mail flows", []),
        ({}, {"relayed": 13, "deferred": 7}, "warn", "Mail flows, with trouble", ["7 of 20 attempts deferred (35 %)"]),
        ({}, {"relayed": 14, "deferred": 6}, "good", "Mail flows", []),
        ({}, {"relayed": 18, "bounced": 2}, "warn", "Mail flows, with trouble", ["2 of 20 attempts bounced (10 %)"]),
        ({}, {"relayed": 19, "bounced": 1}, "good", "Mail flows", []),
        # and of fewer attempts from five failures on
        (
            *({}, {"relayed": 6, "deferred": 8, "bounced": 2}, "bad", "Most mail does not get through"),
            ["6 of 16 attempts delivered (38 %)"],
        ),
        ({}, {"relayed": 2, "bounced": 3}, "warn", "Mail flows, with trouble", ["2 of 5 attempts delivered (40 %)"]),
        ({}, {"relayed": 8, "deferred": 7}, "warn", "Mail flows, with trouble", ["7 of 15 attempts deferred (47 %)"]),
        ({}, {"relayed": 9, "bounced": 5}, "warn", "Mail flows, with trouble", ["5 of 14 attempts bounced (36 %)"]),
        ({}, {"relayed": 2, "bounced": 1}, "good", "Mail flows", []),
        ({}, {"relayed": 1, "bounced": 1}, "good", "Mail flows", []),
        ({}, {"relayed": 6, "deferred": 4}, "good", "Mail flows", []),
        # neither a delivery nor a failure
        ({}, {"cancelled": 50, "duplicate": 50, "expanded": 3}, "idle", "Nothing waits", []),
    ],
)
def test_outcomes_decide(
    live: dict[str, int], lately: dict[str, int], level: str, words: str, troubles: list[str]
) -> None:
    assert told(seen(live, lately))[:3] == (level, words, troubles)


@pytest.mark.parametrize(
    ("live", "lately", "klass", "level", "words"),
    [
        (
            {"scheduled": 6},
            {"deferred": 6},
            "mailbox_full",
            "warn",
            "Nothing was delivered lately: all failures are of",
        ),
        ({"scheduled": 9}, {"relayed": 3, "deferred": 300}, "temporary", "warn", "Mail flows, with trouble"),
        ({}, {"bounced": 6}, "bad_address", "warn", "Nothing was delivered lately: all failures are of slow.example"),
        # of what we are, of our relay; other mail is there, and nothing gets through
        ({"scheduled": 6}, {"bounced": 6}, "blocked", "bad", "Mail does not flow"),
        ({"scheduled": 6}, {"deferred": 6}, "disconnected", "bad", "Mail does not flow"),
        ({"scheduled": 6, "waiting": 5}, {"deferred": 6}, "mailbox_full", "bad", "Mail does not flow"),
    ],
)
def test_one_site_is_not_all_mail(
    live: dict[str, int], lately: dict[str, int], klass: str, level: str, words: str
) -> None:
    found = seen(live, lately, classes={klass: 6})
    found.lately = replace(found.lately, site="slow.example")
    said = told(found)
    assert (said[0], said[1][: len(words)]) == (level, words)
    assert said[2][1] == f"All {found.lately.failed} failures are of slow.example"
    found.lately = replace(found.lately, sampled=True)
    said = told(found)
    assert said[2][1] == "The newest failures are all of slow.example"
    assert "all failures" not in said[1]


def test_what_it_mostly_dies_of() -> None:
    classes, replies = {"greylisted": 3, "bad_address": 1200}, {"bad_address": "550 5.1.1 no such user"}
    found = told(seen({}, {"bounced": 1200, "deferred": 3}, classes=classes, replies=replies))
    assert found[2] == [
        "None of 1,203 attempts delivered",
        "Most often bad address, 1,200 times; the last reply: 550 5.1.1 no such user",
    ]
    assert told(seen({}, {"deferred": 1}, classes={"dns": 1}))[2][-1] == "Most often dns, 1 time"
    assert told(seen({}, {"relayed": 100, "deferred": 1}, classes={"dns": 1}))[2] == []  # that is every day's


@pytest.mark.parametrize(
    ("lately", "says"),
    [
        ({}, ""),
        ({"cancelled": 4}, ""),
        ({"relayed": 3, "delivered": 1}, "Last 5 min: 4 delivered (100 %), 0 deferred (0 %), 0 bounced (0 %)"),
        (
            {"relayed": 9990, "deferred": 9, "bounced": 1},
            "Last 5 min: 9,990 delivered (over 99 %), 9 deferred (under 1 %), 1 bounced (under 1 %)",
        ),
    ],
)
def test_by_number_and_by_share(lately: dict[str, int], says: str) -> None:
    assert told(seen({}, lately))[3] == says


def test_it_claims_no_more_minutes_than_are_known() -> None:
    found = seen()
    found.lately = Lately(42_000, {"relayed": 1})
    assert told(found)[3].startswith("Last 42 s: ")


@pytest.mark.parametrize(
    ("live", "level", "words"),
    [({}, "warn", "Nothing waits, and no worker runs"), ({"scheduled": 1}, "bad", "Mail does not flow")],
)
def test_nobody_works(live: dict[str, int], level: str, words: str) -> None:
    assert told(seen(live, {"relayed": 9}, workers=0))[:3] == (level, words, ["No worker runs"])


def _closed(*names: str) -> list[RouteView]:
    shut = [Closure("a", "operator", "", "", NOW, None)]
    return [RouteView(name, 0, {}, closed=shut if name in names else []) for name in ("a", "b")]


@pytest.mark.parametrize(
    ("live", "more", "level", "words", "trouble"),
    [
        ({"parked": 1}, {"routes": _closed("a", "b")}, "bad", "Mail does not flow", "Route a is closed: an operator"),
        ({"parked": 1}, {"routes": _closed("a")}, "warn", "Mail waits, with trouble", "Route a is closed: an operator"),
        ({}, {"routes": _closed("a", "b")}, "warn", "Nothing waits, with trouble", "Route a is closed: an operator"),
        ({"held": 1}, {"rules": {"all": "hold"}}, "bad", "Mail does not flow", "Every mail is held: a standing rule"),
        ({}, {"swept": False}, "warn", "Nothing waits, with trouble", "No worker leads the sweeps"),
        (
            {},
            {"evicts": "allkeys-lru"},
            "warn",
            "Nothing waits, with trouble",
            "Redis throws mails away when it is full",
        ),
        (
            *({}, {"evicts": "allkeys-lru", "evicted": 1}, "warn", "Nothing waits, with trouble"),
            "Redis throws mails away when it is full: maxmemory-policy is allkeys-lru; since it started it threw 1 key",
        ),
        ({}, {"memory": 90, "memory_max": 100}, "warn", "Nothing waits, with trouble", "Redis is 90 % full: XADD will"),
        (
            *({"waiting": 1}, {"aged_ms": {"high": {"waiting": 61_000}}}, "warn", "Mail waits, with trouble"),
            "Mail of priority high has waited 61 s to be read",
        ),
        (
            *({"scheduled": 1}, {"next_due_ms": NOW - 11_000}, "warn", "Mail waits, with trouble"),
            "The schedule is 11 s behind",
        ),
    ],
)
def test_what_is_in_the_way(live: dict[str, int], more: dict[str, Any], level: str, words: str, trouble: str) -> None:
    found = told(seen(live, **more))
    assert found[:2] == (level, words)
    assert found[2][0].startswith(trouble)


def test_what_stops_mail_is_said_first() -> None:
    found = seen({"held": 9}, {"relayed": 700, "bounced": 300}, rules={"all": "hold"})
    words = ["Every mail is held: a standing rule", "300 of 1,000 attempts bounced (30 %)"]
    assert told(found)[:3] == ("bad", "Mail does not flow", words)


def test_a_closed_site_is_named() -> None:
    found = seen({"parked": 1}, {"relayed": 1})
    for name in ("d", "c", "b", "a"):
        shut = Closure(f"*|{name}.example", "operator", "", "", NOW, None)
        found.sites.append(SiteView(f"{name}.example", "*", Rule(), closed=[shut]))
    words = "4 sites closed: a.example, b.example, c.example …"
    assert told(found)[:3] == ("warn", "Mail flows, with trouble", [words])


# -- nothing leaves, though much did ---------------------------------------------------------------------------------


def stood(ms: int, live: dict[str, int], **more: Any) -> Overview:
    found = seen(live, {"relayed": 9000}, **more)
    found.lately = replace(found.lately, stalled_ms=ms)
    return found


@pytest.mark.parametrize(
    ("ms", "words"), [(15_000, "15 s"), (44_000, "30 s"), (72_000, "60 s"), (119_000, "105 s"), (190_000, "3 min")]
)
def test_nothing_is_delivered_and_mail_could_go(ms: int, words: str) -> None:
    live = {"waiting": 31_672, "leased": 100, "parked": 4}
    assert told(stood(ms, live))[:3] == (
        *("bad", f"Nothing has been delivered for {words}, and mail is due"),
        ["31,672 unread, 100 in hand: do workers or their relays hang?"],
    )
    late = stood(ms, live, visit_ms=NOW - 11_000)
    assert told(late)[2] == ["31,672 unread, 100 in hand, 4 parked: do workers or their relays hang?"]


def test_a_moment_without_a_delivery_is_none() -> None:
    assert told(stood(14_999, {"waiting": 9}))[:3] == ("good", "Mail flows", [])


def test_what_stops_all_is_said_before() -> None:
    assert told(stood(60_000, {"waiting": 9}, workers=0))[1] == "Mail does not flow"


@pytest.mark.parametrize(("leaves", "rate"), [(12.4, "12/s"), (0.0, "0/s"), (0.24, "0.2/s"), (1234.5, "1,234/s")])
def test_unread_mail_that_piles_up_is_named(leaves: float, rate: str) -> None:
    found = seen({"waiting": 5000}, {"relayed": 300}, aged_ms={"normal": {"waiting": 40_500}})
    found.lately = replace(found.lately, leaves=leaves)
    words = f"Unread mail piles up: 5,000, the oldest for 40 s; {rate} leave"
    assert told(found)[:3] == ("warn", "Mail flows, with trouble", [words])


def gate(till_ms: int = 0, *, is_open: bool = True) -> LaneGauge:
    """Of a route whose next slot is in so many ms."""
    meter = Meter(3_600_000_000, NOW * 1000 + till_ms * 1000, 1_800_000_000.0, 0.0)
    return LaneGauge("relay|", NOW * 1000, "relay", is_open, (Gauge("*"), Gauge("relay", (meter,)), Gauge("relay|")))


def test_what_waits_for_a_limit_is_not_stuck() -> None:
    """A site at two an hour, a queue at two an hour."""
    at_site = seen({"parked": 40, "scheduled": 2}, visit_ms=NOW + 900_000, next_due_ms=NOW + 1000)
    assert told(at_site)[:3] == ("idle", "Mail waits for limits", [])
    assert told(_behind(gate(900_000)))[:3] == ("idle", "Mail waits for limits", [])
    two = _behind(gate(900_000), gate())  # another route has a slot
    assert told(two)[1] == "Mail waits, none has gone lately"
    assert [_behind().barred, _behind(gate(1)).barred, two.barred] == [False, True, False]
    assert _behind(gate(is_open=False)).barred


def _behind(*gates: LaneGauge) -> Overview:
    found = seen({"waiting": 40, "leased": 2})
    found.gates = list(gates)
    return found


def test_what_mails_are_held_for_is_named() -> None:
    found = seen({"held": 9}, {"relayed": 1})
    found.needs = {"subjet": 3, "bdy": 1, "template=welcome": 2, "route=main2": 1, "template": 1}
    assert told(found)[2] == [
        "4 mails held: unknown_field, field 'subjet' (3), and 1 more name. "
        "Mend the producer, cancel them, send them again: streamq ls --state held",
        "1 mail held: unknown_route, route 'main2'. They go when a worker has that route: streamq ls --state held",
        "2 mails held: unknown_template, template 'welcome'. They go when it is stored: streamq template put",
        "1 mail held: unsupported, field 'template'. What it takes is not installed: streamq ls --state held",
    ]
    found = seen({"held": 3}, {"relayed": 1})
    found.needs = {"subjet": 3, "bdy": 2}  # two of them have both
    assert told(found)[2][0].startswith("3 mails held: unknown_field, field 'subjet' (3), and 1 more name. ")

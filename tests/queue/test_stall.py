"""For how long nothing was delivered although mail could go; and what piles up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streamq.queue.look import Status
from streamq.queue.stall import Pile, Stall, piled
from streamq.queue.walk import STATES

NOW = 1_800_000_000_000
STEP = 5000  # ms between two looks


def at(nth: int, sent: int = 9000, first: int = 0, leased: int = 0, **more: Any) -> Status:
    """The nth look. `first`: of unread mail the first one's number, 0: none is unread; `leased`: so many in hand."""
    now = NOW + nth * STEP
    states = dict.fromkeys(STATES, 0) | {"waiting": first and 900, "leased": leased}
    ages = {"waiting": now - NOW - first} if first else {}
    known: dict[str, Any] = {
        "now_ms": now,
        "depth": {"low": states},
        "oldest_ms": {},
        "classes": {},
        "totals": {"relayed": sent},
        **dict.fromkeys(("next_due_ms", "dead", "events", "workers", "memory", "memory_max"), 0),
        "aged_ms": {"low": ages | ({"leased": now - NOW} if leased else {})},
    }
    return Status(**known | more)


def told(*looks: Status, failed: int = 0, barred: bool = False) -> list[int]:
    """In seconds. `failed`: so many more at each look."""
    stall = Stall()
    return [stall.look(each, nth * failed, barred=barred) // 1000 for nth, each in enumerate(looks)]


LOOKS = range(5)


@pytest.mark.parametrize(
    "looks",
    [
        [at(n, first=1) for n in LOOKS],  # unread, and nobody reads
        [at(n, leased=5) for n in LOOKS],
        [at(n, visit_ms=NOW - 60_000) for n in LOOKS],  # parked, and nobody releases
        [at(n, next_due_ms=NOW - 60_000) for n in LOOKS],  # scheduled
    ],
)
def test_mail_could_go_and_nothing_is_delivered(looks: list[Status]) -> None:
    assert told(*looks) == [0, 5, 10, 15, 20]
    assert told(*looks, barred=True) == [0] * 5
    looks[3] = replace(looks[3], totals={"relayed": 8000, "delivered": 1001})
    assert told(*looks[:3], *(replace(each, totals=looks[3].totals) for each in looks[3:])) == [0, 5, 10, 0, 5]


@pytest.mark.parametrize(
    "looks",
    [
        [at(n) for n in LOOKS],  # held, or scheduled for later
        [at(n, visit_ms=NOW + 3_600_000, next_due_ms=NOW + 3_600_000) for n in LOOKS],  # parked behind a limit
        [at(n, first=n + 1, leased=4) for n in LOOKS],  # it is read, and parked
        [at(n, leased=1) for n in LOOKS],  # a large one
        [at(n, sent=9000 + n, first=1, leased=100, visit_ms=NOW - 60_000) for n in LOOKS],
        [at(n, first=n % 2) for n in LOOKS],  # what came has gone at the next look
    ],
)
def test_nothing_could_go_or_it_does(looks: list[Status]) -> None:
    assert told(*looks) == [0] * 5


def test_what_is_read_while_all_fails_could_go() -> None:
    looks = [at(n, first=n + 1) for n in LOOKS]
    assert told(*looks, failed=30) == [0, 5, 10, 15, 20]
    assert told(*(at(n) for n in LOOKS), failed=30) == [0] * 5  # no more waits: the outcomes say it


def _moments(*unread: int, left: int = 0) -> list[Pile]:
    """Ten seconds apart; `left`: in each of them."""
    return [Pile(NOW + nth * 10_000, many, 1000 + nth * left) for nth, many in enumerate(unread)]


@pytest.mark.parametrize(
    ("moments", "rate"),
    [
        (_moments(*range(0, 1300, 100), left=20), 2.0),
        (_moments(*range(0, 1300, 100)), 0.0),
        (_moments(*range(0, 1300, 100), left=200), None),  # more leaves than is added
        (_moments(*range(0, 78, 6)), None),  # few
        (_moments(*range(0, 1200, 100)), None),  # it is not known for so long
        (_moments(0, *range(9000, 7800, -100)), None),  # a campaign that came at once, and becomes less
        ([], None),
    ],
)
def test_unread_mail_piles_up(moments: list[Pile], rate: float | None) -> None:
    *before, now = moments or [Pile(NOW, 5000, 0)]
    assert piled(before, now) == rate

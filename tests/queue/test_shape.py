"""The shape of a queue: which mails count where; ages against entries' own times."""

from __future__ import annotations

from collections import Counter

import pytest
from mailroom import Mailroom

from streamq.queue import shape as shapes
from streamq.queue.shape import OTHERS, Shape, ages, shape
from streamq.queue.steer import Selector

pytestmark = pytest.mark.leaves_mail
MINUTE = 60_000


def test_each_column_is_twice_the_one_before() -> None:
    assert ages(5 * MINUTE, 9) == tuple(minutes * MINUTE for minutes in (5, 10, 20, 40, 80, 160, 320, 640, 1280))


@pytest.mark.parametrize(("age", "column"), [(0, 0), (10, 0), (11, 1), (20, 1), (21, 2), (40, 2), (41, 3), (10**12, 3)])
def test_an_age_counts_in_the_first_column_that_is_not_younger(age: int, column: int) -> None:
    found = Shape((10, 20, 40))
    found.add("a.example", age)
    assert found.rows["a.example"].index(1) == column
    assert found.total == found.rows["a.example"]


async def test_mails_in_every_state_count_by_domain_and_age(room: Mailroom) -> None:
    now = room.now + 2000 * MINUTE
    for state, minutes in [("held", 2000), ("scheduled", 30), ("parked", 7), ("leased", 3), ("waiting", 0)]:
        room.to(now - minutes * MINUTE)
        for domain in ("A.example", "b.example"):
            await room.in_state(state, "low", to=f"bob@{domain}", **lane_of(state, domain.lower()))
    good = {"from": "shop@example.com", "text": "Hello"}
    await room.add("high", to="x@a.example, y@a.example", **good)
    await room.add("high", to="x@a.example", cc="y@b.example", **good)
    await room.add("high", raw=b"To: nobody\n\n", envelope_to="z@b.example")
    await room.add("high", subject="nobody")
    found = await shape(room.spool, Selector(), ages(5 * MINUTE, 9), now)
    young = {"a.example": 3, "b.example": 3, "(none)": 2}  # of each: one waits, one is leased
    assert {name: row[0] for name, row in found.rows.items()} == young
    for name in ("a.example", "b.example"):
        assert found.rows[name][1:] == [1, 0, 1, 0, 0, 0, 0, 0, 1]
    assert sum(found.total) == sum((await room.survey()).depth.values()) == 14
    assert [name for name, _ in found.sorted()] == ["a.example", "b.example", "(none)"]


def lane_of(state: str, domain: str) -> dict[str, str]:
    return {"lane": f"{state}|{domain}"} if state in {"leased", "parked"} else {}


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        ("sender", {"x.example": 1, "y.example": 1, "<>": 1, "(none)": 1}),
        ("tenant", {"acme": 2, "(none)": 2}),
        ("class", {"unknown_field": 2, "(none)": 2}),
        ("priority", {"low": 3, "high": 1}),
        ("state", {"held": 2, "parked": 1, "waiting": 1}),
    ],
)
async def test_by_something_else(room: Mailroom, by: str, rows: dict[str, int]) -> None:
    await room.held("low", **{"from": "Shop <a@X.example>"}, tenant="acme")
    await room.held("low", **{"from": "a@x.example"}, envelope_from="b@y.example", tenant="acme")
    await room.parked("low", **{"from": "a@x.example"}, envelope_from="<>", to="bob@example.net")
    await room.add("high", to="bob@example.net")
    found = await shape(room.spool, Selector(), ages(MINUTE, 3), room.now, by)
    assert {name: sum(row) for name, row in found.rows.items()} == rows


async def test_what_is_parked_is_counted_without_its_body(room: Mailroom) -> None:
    """A million of them would travel."""
    for number in range(5):
        await room.parked("low", to="bob@example.net", id=f"p{number}")
    before = await calls(room)
    found = await shape(room.spool, Selector(states=("parked",)), ages(MINUTE, 3), room.now)
    assert {name: sum(row) for name, row in found.rows.items()} == {"example.net": 5}
    assert (await calls(room) - before)["xrange"] == 0


async def calls(room: Mailroom) -> Counter[str]:
    text = (await room.do("INFO", "commandstats")).decode()
    found = (line.removeprefix("cmdstat_").split(":calls=") for line in text.splitlines() if ":calls=" in line)
    return Counter({name: int(rest.partition(",")[0]) for name, rest in found})


async def test_junk_names_take_no_memory_without_bound(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "ROWS_MOST", 3)
    for number in range(9):
        await room.add("low", to=f"bob@d{number % 5}.example")
    found = await shape(room.spool, Selector(), ages(MINUTE, 3), room.now)
    assert {name: sum(row) for name, row in found.rows.items()} == {
        "d0.example": 2,
        "d1.example": 2,
        "d2.example": 2,
        OTHERS: 3,
    }

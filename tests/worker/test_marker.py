"""The marker: which mails a connection's mark names."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from streamq.queue.rows import MarkRow
from streamq.queue.spool import Spool
from streamq.worker.hand import Delivery, Hand
from streamq.worker.link import Link
from streamq.worker.marker import Marker


class Scripts:
    """What `mark.lua` was asked; `lost` are entries that are somebody else's."""

    def __init__(self) -> None:
        self.calls: list[list[MarkRow]] = []
        self.lost: set[str] = set()

    async def mark(self, _: str, rows: Sequence[MarkRow]) -> list[str]:
        self.calls.append(list(rows))
        return ["lost" if row.entry in self.lost else "ok" for row in rows]


def delivery(entry: str, token: int = 7) -> Delivery:
    return Delivery(
        envelope_from="a@example.com",
        envelope_to="b@example.net",
        content=b"",
        site="example.net",
        entry=entry,
        token=token,
        lane="main|example.net",
        way="main",
        mail=cast(Any, None),
        deadline_ms=0,
    )


async def test_a_mark_names_the_mail_and_those_before_it_while_they_are_not_settled() -> None:
    async def nothing() -> None: ...

    scripts, hand = Scripts(), Hand(10)
    spool = cast(Spool, SimpleNamespace(scripts=scripts))
    marker = Marker(spool, Link(nothing), hand, "me")
    running = asyncio.create_task(marker.run())
    mails = {name: delivery(name) for name in "abcdef"}
    for one in mails.values():
        hand.add(one)
    scripts.lost = {"c"}
    try:
        assert await marker.mark("main.0", mails["a"])
        assert await marker.mark("main.0", mails["b"])  # a's 250 has come, and is not settled
        assert not await marker.mark("main.0", mails["c"])  # somebody else's: no dot, and the field still names b
        hand.drop("c")
        assert await marker.mark("main.0", mails["d"])
        hand.drop("d")  # settled
        assert await marker.mark("main.0", mails["e"])
        hand.drop("b")
        hand.add(delivery("a", token=8))  # the same mail, leased anew
        assert await marker.mark("main.0", mails["f"])
    finally:
        running.cancel()
        await asyncio.wait([running])
    rows = [row for call in scripts.calls for row in call]
    assert [(row.entry, row.before) for row in rows] == [
        ("a", ""),
        ("b", "a"),
        ("c", "a,b"),
        ("d", "a,b"),
        ("e", "a,b"),
        ("f", "e"),
    ]


async def test_marks_that_are_asked_for_together_are_one_call() -> None:
    async def nothing() -> None: ...

    scripts = Scripts()
    marker = Marker(cast(Spool, SimpleNamespace(scripts=scripts)), Link(nothing), Hand(10), "me")
    running = asyncio.create_task(marker.run())
    try:
        answers = await asyncio.gather(*(marker.mark(f"main.{number}", delivery(str(number))) for number in range(5)))
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert answers == [True] * 5
    assert len(scripts.calls) == 1


async def test_a_mail_that_is_over_is_not_kept_for_its_connection() -> None:
    """A connection that rests would otherwise hold the content of its last mail, outside of what the hand counts."""

    async def nothing() -> None: ...

    hand = Hand(10)
    spool = cast(Spool, SimpleNamespace(scripts=Scripts()))
    marker = Marker(spool, Link(nothing), hand, "me")
    running = asyncio.create_task(marker.run())
    try:
        one = delivery("a")
        hand.add(one)
        assert await marker.mark("main.0", one)
        hand.drop("a")
        before = sys.getrefcount(one)
        marker._carried.clear()
        assert sys.getrefcount(one) == before
    finally:
        running.cancel()

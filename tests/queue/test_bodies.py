"""queue/bodies.py and `Spool.complete`: what children share comes here in bounded steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from family import FIELDS, TO
from mailroom import Mailroom

from streamq.queue import bodies
from streamq.queue.connection import pipelined
from streamq.queue.rows import ChildRow
from streamq.queue.spool import Entry

pytestmark = [pytest.mark.leaves_mail]


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of each round trip for bodies."""
    seen: list[list[str]] = []

    async def spied(redis: Any, commands: Iterable[Sequence[Any]], **known: Any) -> list[Any]:
        asked = [tuple(parts) for parts in commands]
        if asked:
            seen.append([str(parts[0]) for parts in asked])
        return await pipelined(redis, asked, **known)

    monkeypatch.setattr(bodies, "pipelined", spied)
    return seen


async def families(room: Mailroom, many: int, size: int = 10_000) -> list[Entry]:
    """The first child of each of so many mails, as it stands in its stream; what they share weighs about `size`."""
    children: list[str] = []
    parents = [await room.add(to=",".join(TO)) for _ in range(many)]
    await room.read()
    token = (await room.admit(*parents, kind="expand", lane="")).token
    for entry in parents:
        await room.spool.bodies.upload("up", {**FIELDS, b"html": b"x" * size}, False)
        rows = [ChildRow("envelope_to", address.encode()) for address in TO]
        found = await room.scripts.expand("w1", entry, token, "a1", b"", rows, upload="up", all_=len(TO))
        children.append(found.children[0])
    return [entry for entry in await room.spool.raw(children) if entry is not None]


async def test_bodies_come_so_many_bytes_at_a_time(
    room: Mailroom, monkeypatch: pytest.MonkeyPatch, trips: list[list[str]]
) -> None:
    monkeypatch.setattr(bodies, "FETCHED_BYTES", 25_000)
    children = await families(room, 5)
    trips.clear()
    found = await room.spool.complete(children)
    assert trips == [["HGET"] * 5, ["HGETALL"] * 2, ["HGETALL"] * 2, ["HGETALL"]]
    assert all(len(entry.fields[b"html"]) == 10_000 for entry in found)
    trips.clear()
    assert await room.spool.complete(children) == found
    assert trips == []


async def test_as_many_are_completed_as_weigh_so_much(room: Mailroom, trips: list[list[str]]) -> None:
    """The others stay small, and so do those that were given: a hundred bodies of 25 MB are 2.5 GB."""
    children = await families(room, 5)
    trips.clear()
    found = await room.spool.complete(children, 25_000)
    assert [entry.entry for entry in found] == [entry.entry for entry in children[:2]]
    assert trips == [["HGET"] * 5, ["HGETALL"] * 2]
    assert all(b"html" not in entry.fields for entry in children)
    assert len(await room.spool.complete(children, 1)) == 1  # one always
    assert len(await room.spool.complete(children, 10_000_000)) == 5


async def test_plain_mails_cost_no_round_trip(room: Mailroom, trips: list[list[str]]) -> None:
    plain = [Entry(f"11-{n}", {b"to": b"a@x.example", b"text": b"x" * 100}) for n in range(10)]
    assert await room.spool.complete(plain, 400) == plain[:3]
    assert await room.spool.complete(plain, 10_000) == plain
    assert trips == []


async def test_what_is_kept_is_bounded_and_counted_once(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "KEPT_BYTES", 35_000)
    children = await families(room, 5)
    await room.spool.complete(children)
    assert 20_000 < room.spool.bodies.bytes < 35_000
    one = room.spool.bodies
    one.forget()
    assert one.bytes == 0
    await one.of([(children[0].entry, children[0].fields)])
    size = one.bytes
    kept = next(iter(one._kept.values()))
    one._keep(kept)  # two may have fetched it at once
    assert one.bytes == size


async def test_a_body_that_is_gone_weighs_nothing(room: Mailroom) -> None:
    gone = [("11-2", {b"@of": b"11-1", b"@n": b"1"}), ("11-3", {b"@of": b"x" * 30, b"@n": b"1"})]
    assert await room.spool.bodies.weights(gone) == {"11-1": 0}
    assert await room.spool.bodies.of(gone) == {}

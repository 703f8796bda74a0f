"""Groups of dead letters for all who look: what is new is read, as seldom as it costs."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from mailroom import Mailroom

from streamq.queue import graves, letters
from streamq.queue.connection import command
from streamq.queue.graves import Graves, GravesSeen
from streamq.queue.letters import remove_dead
from streamq.queue.look import status
from streamq.queue.overview import Overviews

pytestmark = pytest.mark.leaves_mail


async def _buried(room: Mailroom, *domains: str) -> list[str]:
    found = []
    for domain in domains:
        lease = await room.lease(to=f"bob@{domain}", subject="x", text="y" * 1000)
        said = {"class": "policy", "reply": f"550 {lease.entry}", "reason": f"no {domain}"}
        assert await room.settled("dead", lease, **said) == "ok"
        [(letter, _)] = await room.do("XREVRANGE", room.keys.dead, "+", "-", "COUNT", 1)
        found.append(letter.decode())
    return found


async def _seen(room: Mailroom, of: Graves, at: float, *, anew: bool = False) -> GravesSeen:
    return await of.of(await status(room.spool), at, anew=anew)


def _many(seen: GravesSeen) -> dict[str, int]:
    return {group.domain: len(group.letters) for reason in seen.reasons for group in reason.domains}


async def _read(room: Mailroom) -> int:
    """Replies' bytes, by the server's own account: a letter has a kilobyte at the least."""
    text: bytes = await room.do("INFO", "stats")
    rows = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
    return int(rows["total_net_output_bytes"])


async def test_what_is_new_is_read_and_nothing_twice(room: Mailroom) -> None:
    of = Graves(room.spool)
    assert await _seen(room, of, 0) == GravesSeen()
    await _buried(room, *["a.example"] * 40)
    assert _many(await _seen(room, of, 10)) == {"a.example": 40}
    newest = (await _buried(room, "b.example", "a.example"))[-1]
    before = await _read(room)
    found = await _seen(room, of, 20)
    assert await _read(room) - before < 20_000  # of two letters, and of a look; forty have more than 40,000
    assert _many(found) == {"a.example": 41, "b.example": 1}
    assert next(iter(found.reasons[0].domains[0].letters)) == newest
    assert (found.looked, found.version) == (42, 2)
    assert await _seen(room, of, 30) is found  # nothing came


async def test_what_went_is_gone(room: Mailroom) -> None:
    of = Graves(room.spool)
    names = await _buried(room, "a.example", "b.example", "a.example")
    assert _many(await _seen(room, of, 0)) == {"a.example": 2, "b.example": 1}
    assert await remove_dead(room.spool, [names[2]]) == 1
    found = await _seen(room, of, 1)
    assert _many(found) == {"a.example": 2, "b.example": 1}  # two seconds are not over
    found = await _seen(room, of, 1, anew=True)
    assert _many(found) == {"a.example": 1, "b.example": 1}
    assert found.reasons[0].domains[0].letters.keys() == {names[0]}
    # as many come as go: their number alone says nothing
    assert await remove_dead(room.spool, [names[0]]) == 1
    await _buried(room, "c.example")
    assert _many(await _seen(room, of, 100)) == {"b.example": 1, "c.example": 1}
    assert await remove_dead(room.spool, [names[1]]) == 1
    assert _many(await _seen(room, of, 200)) == {"c.example": 1}


async def test_reading_is_paid_for_by_a_pause(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes first, and however fast letters come: what it is reckoned to cost is a share of the time."""
    monkeypatch.setattr(graves, "LETTER_MS", 1.0)
    monkeypatch.setattr(graves, "MEGABYTE_MS", 0.0)
    of = Graves(room.spool)
    await _buried(room, *["a.example"] * 10)
    assert (await _seen(room, of, 0)).looked == 10  # 10 ms: 50 s of 0.2 ms
    await _buried(room, "a.example")
    assert (await _seen(room, of, 49.9)).looked == 10
    assert (await _seen(room, of, 50)).looked == 11  # 1 ms: 5 s
    await _buried(room, "a.example")
    assert (await _seen(room, of, 54.9)).looked == 11
    assert (await _seen(room, of, 55)).looked == 12


async def test_no_more_than_so_many_are_kept(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (graves, letters):
        monkeypatch.setattr(module, "GROUPED_MOST", 5)
    of = Graves(room.spool)
    await _buried(room, *["old.example"] * 4)
    assert (await _seen(room, of, 0)).looked == 4
    await _buried(room, *["new.example"] * 3)
    assert _many(await _seen(room, of, 10)) == {"new.example": 3, "old.example": 2}
    await _buried(room, *[f"n{n}.example" for n in range(9)])
    found = await _seen(room, of, 20)
    assert _many(found) == {f"n{n}.example": 1 for n in range(4, 9)}


async def test_a_letter_that_is_huge_is_small_in_memory(room: Mailroom) -> None:
    huge = b"x" * 100_000
    pairs = (b"dead_class", huge, b"dead_reason", huge, b"last_reply", huge, b"to", b"b@" + huge)
    await command(room.spool.redis, "XADD", room.keys.dead, "*", *pairs)
    [reason] = (await _seen(room, Graves(room.spool), 0)).reasons
    texts = (reason.klass, reason.gist, reason.domains[0].domain, reason.reason, reason.reply)
    assert max(map(len, texts)) <= 500
    await room.do("DEL", room.keys.dead)


async def test_all_who_look_are_one_look(room: Mailroom) -> None:
    await _buried(room, *["a.example"] * 30)
    overviews = Overviews(room.spool, clock=lambda: 100.0)
    before = await _read(room)
    seen = await asyncio.gather(*(overviews.get() for _ in range(50)))
    assert await _read(room) - before < 3 * 30 * 1500
    assert Counter(len(one.graves.reasons) for one in seen) == {1: 50}
    await overviews.close()

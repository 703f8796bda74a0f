"""stow.lua: a page of which all parks leaves what `sift` leaves of it, and what is no such page is left alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from mailroom import DAY, START, Mailroom, ident
from sifting import SLOW, sift, slow

from streamq.queue.rows import Sifted, SiftRow
from streamq.queue.stow import stowage
from streamq.worker.sifter import row

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]

READ: dict[bytes, Callable[[bytes], tuple[Any, ...]]] = {
    b"hash": lambda key: ("HGETALL", key),
    b"zset": lambda key: ("ZRANGE", key, 0, -1, "WITHSCORES"),
    b"set": lambda key: ("SMEMBERS", key),
    b"string": lambda key: ("GET", key),
    b"stream": lambda key: ("XINFO", "GROUPS", key),
}
MADE = {"parked", "lane", "due", "seen", "counts"}  # by either


async def contents(room: Mailroom) -> dict[str, Any]:
    """Of all keys but the clock, and which of them end by themselves."""
    found: dict[str, Any] = {}
    for key in sorted(await room.do("KEYS", f"{room.keys.prefix}*")):
        if not key.endswith(b":clock"):
            said = await room.do(*READ[await room.do("TYPE", key)](key))
            if isinstance(said, list) and len(said) % 2 == 0:
                said = sorted(zip(said[::2], said[1::2], strict=True), key=repr)
            found[key.decode()] = (repr(said), await room.do("PTTL", key) > 0)
    return found


async def page(room: Mailroom, *, most: int = 200) -> tuple[str, list[SiftRow]]:
    """What waits, and behind what."""
    behind = await room.spool.passed("normal")
    return behind, [row(id_.decode(), flat, 10**6) for id_, flat in await room.spool.peek("normal", behind, most)]


async def stow(room: Mailroom, behind: str, rows: list[SiftRow]) -> Sifted | None:
    made = stowage(rows, 1, "main")
    assert made is not None
    return await room.scripts.stow(1, made, route="main", max_age_ms=5 * DAY, behind=behind)


async def a_burst(room: Mailroom) -> None:
    """Two closed sites, mails with ids and without, of several milliseconds, more than sixteen of one."""
    await slow(room)
    await room.do("HSET", room.keys.limits, "*|other.example", "1:60000000")
    await room.do("HSET", room.keys.limit("main|other.example"), "60000000", f"{(START + DAY) * 1000}:62499999")
    for n in range(150):
        site = "other" if n % 7 == 3 else "slow"
        fields = {} if n % 5 == 4 else {"id": f"order-{n}"}
        await room.add(to=f"{n}@{site}.example", **fields)
        if n in (60, 61, 90):
            room.tick(1)


async def test_it_leaves_what_sift_leaves(room: Mailroom) -> None:
    await a_burst(room)
    behind, rows = await page(room)
    said = await stow(room, behind, rows)
    stowed = await contents(room)
    for key in await room.do("KEYS", f"{room.keys.prefix}*"):
        if key.decode().removeprefix(room.keys.prefix).partition(":")[0] in MADE:
            await room.do("DEL", key)
    await room.do("HDEL", room.keys.meta, "admitted:1")
    await room.do("HSET", room.keys.meta, "ids", "-")
    await room.do("XGROUP", "SETID", room.keys.stream("normal"), "streamq", "0")
    assert await contents(room) != stowed
    assert (await sift(room, most=200)).said == said
    assert await contents(room) == stowed
    assert said is not None
    assert (said.letters, said.next_us) == ("p" * 150, START * 1000 + 60_000_000)


async def test_who_finds_them_knows_them(room: Mailroom) -> None:
    await slow(room)
    entries = [await room.add(to="bob@slow.example", id=f"a{n}") for n in range(30)]
    assert await stow(room, *await page(room)) is not None
    assert await room.scripts.find([("", f"a{n}") for n in range(30)]) == entries
    assert await room.moved("cancel", *entries[:2]) == ["cancelled"] * 2
    room.tick(61_667)
    assert await room.released() == [entries[2]]


async def known(room: Mailroom) -> None:
    entry = await room.add(to="bob@fast.example", id="a1")
    await room.read()
    await room.admitted(entry, seen=ident("a1", to="bob@fast.example"))


async def known_in_the_last_window(room: Mailroom) -> None:
    await known(room)
    room.tick(DAY)


def word(name: str) -> Callable[[Mailroom], Awaitable[None]]:
    async def stands(room: Mailroom) -> None:
        await room.do("HSET", room.keys.holds, name, "hold")

    stands.__name__ = name
    return stands


async def many_words(room: Mailroom) -> None:
    await room.do("HSET", room.keys.holds, *[part for n in range(101) for part in (f"rule:domain:{n}.example", "hold")])


async def open_lane(room: Mailroom) -> None:
    await room.do("DEL", room.keys.limits)


async def old(room: Mailroom) -> None:
    room.to(room.now - 6 * DAY)


async def was_admitted(room: Mailroom) -> None:
    await room.do("HSET", room.keys.meta, "admitted:1", f"{room.now + 10}-0")


ABOUT_THEM = ["rule:all", "rule:priority:normal", "rule:domain:slow.example", "id:zz", "intent:11-1"]
CAUSES = [known, known_in_the_last_window, open_lane, old, was_admitted, many_words, *map(word, ABOUT_THEM)]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.__name__)
async def test_another_page_is_left_alone(room: Mailroom, cause: Callable[[Mailroom], Awaitable[None]]) -> None:
    await slow(room)
    await room.do("HSET", room.keys.limit(SLOW), "60000000", f"{(START + 9 * DAY) * 1000}:62499999")  # all the while
    now = room.now
    await cause(room)
    for name in ("a0", "a1", "b1"):
        await room.add(to="bob@slow.example", id=name)
    if cause is old:
        room.to(now)
    before = await contents(room)
    assert await stow(room, *await page(room)) is None
    assert await contents(room) == before
    await room.do("DEL", room.keys.holds)  # of no mail


async def test_words_about_others_are_none(room: Mailroom) -> None:
    await slow(room)
    for name in ("need:colour", "rule:domain:elsewhere.example", "rule:priority:low", "rule:tenant:t", "rule:tag:news"):
        await word(name)(room)
    await room.add(to="bob@slow.example", id="a1")
    assert await stow(room, *await page(room)) is not None


async def test_while_the_stream_is_read_again_nothing_passes(room: Mailroom) -> None:
    await slow(room)
    entries = [await room.add(to="bob@slow.example") for _ in range(2)]
    behind, rows = await page(room)
    await room.do("HSET", room.keys.meta, "reread:1", entries[1][1:])
    said = await stow(room, behind, rows)
    assert said is not None
    assert (said.letters, said.behind) == ("", "")
    assert set((await room.states()).values()) == {"waiting"}
    await room.do("HDEL", room.keys.meta, "reread:1")


async def test_behind_another_one_it_says_where(room: Mailroom) -> None:
    await slow(room)
    entries = [await room.add(to="bob@slow.example", id=f"a{n}") for n in range(4)]
    behind, rows = await page(room)
    assert await stow(room, behind, rows[:2]) is not None
    said = await stow(room, behind, rows)
    assert said is not None
    assert (said.letters, said.behind) == ("", entries[1][1:])
    assert await room.states() == dict.fromkeys(entries[:2], "parked") | dict.fromkeys(entries[2:], "waiting")


async def test_while_the_route_is_closed_nothing_passes(room: Mailroom) -> None:
    await slow(room)
    await room.add(to="bob@slow.example")
    behind, rows = await page(room)
    await room.do("HSET", room.keys.pauses, "main", f'{{"till":{room.now * 1000 + 9_000_000}}}')
    said = await stow(room, behind, rows)
    assert said is not None
    assert (said.letters, said.closed_us) == ("", room.now * 1000 + 9_000_000)


@pytest.mark.parametrize(
    "odd",
    [
        SiftRow("1700000000003-0"),  # of no site
        SiftRow("5-0", "slow.example"),
        SiftRow("1700000000003-1234567890123456", "slow.example"),
        SiftRow("1700000000003-0", "slow.example", b"0123456789"),  # again
    ],
)
def test_what_is_no_such_page(odd: SiftRow) -> None:
    good = SiftRow("1700000000002-0", "slow.example", b"0123456789", b"a1")
    assert stowage([good], 1, "main") is not None
    assert stowage([good, odd], 1, "main") is None


def test_ids_that_do_not_count_up_are_for_sift() -> None:
    rows = [SiftRow(f"1700000000002-{n}", "slow.example", bytes([n // 2] * 10) + bytes([n])) for n in range(8)]
    assert stowage(rows, 1, "main") is not None
    assert stowage(rows[::2], 1, "main") is None


async def test_ids_end_by_themselves(room: Mailroom) -> None:
    await slow(room)
    for n in range(25):
        await room.add(to="bob@slow.example", id=f"a{n}")
    assert await stow(room, *await page(room)) is not None
    keys = await room.do("KEYS", f"{room.keys.prefix}seen:*")
    assert len(keys) == 3
    assert all([2 * DAY - 60_000 < await room.do("PTTL", key) <= 2 * DAY for key in keys])
    assert SLOW in {lane.decode() for lane in await room.do("ZRANGE", room.keys.due("normal"), 0, -1)}

"""anew.lua, check.py: streams whose last id lies ahead of the clock are seen, and made anew with what is in them."""

from __future__ import annotations

import asyncio
import time

import pytest
from mailroom import Mailroom
from redis.exceptions import ResponseError

from streamq.keys import GREATEST
from streamq.queue.check import Ahead, check

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
STATES = ["waiting", "leased", "parked", "scheduled", "held"]


@pytest.fixture
def now(room: Mailroom) -> Mailroom:
    """A queue of today: ids of XADD with `*` are those of the server's clock."""
    room.to(time.time_ns() // 1_000_000)
    return room


async def topped(room: Mailroom, id_: str = GREATEST) -> str:
    """A mail under an id ahead of the clock; the entry."""
    await room.do("XADD", room.keys.stream("normal"), id_, "to", "bob@example.net", "subject", "Hi")
    return f"{room.spool.digit('normal')}{id_}"


async def left(room: Mailroom, entry: str) -> None:
    """It is gone, as after any end: acknowledged and deleted."""
    await room.scripts.move("cancel", [entry])
    assert not await room.do("XRANGE", room.keys.stream("normal"), entry[1:], entry[1:])


async def adds(room: Mailroom) -> bytes:
    id_: bytes = await room.do("XADD", room.keys.stream("normal"), "*", "to", "ann@example.net", "subject", "Hi")
    return id_


async def test_the_greatest_id_takes_every_other_xadd_away_and_check_says_so(now: Mailroom) -> None:
    room = now
    entry = await topped(room)
    with pytest.raises(ResponseError):
        await adds(room)
    report = await check(room.spool, repair=True)
    assert report.ahead == [Ahead("normal", GREATEST, 1, "ahead")]
    assert not report.wrong
    assert not report.sound
    assert not report.mended
    await left(room, entry)
    assert (await check(room.spool)).ahead == [Ahead("normal", GREATEST, 0, "ahead")]
    report = await check(room.spool, repair=True)
    assert report.ahead == [Ahead("normal", GREATEST, 0, "made")]
    assert report.mended
    assert (await check(room.spool)).sound
    assert await adds(room)
    assert len(await room.read()) == 1


async def test_each_mail_stays_where_it_is(now: Mailroom) -> None:
    room = now
    entries = {state: await room.in_state(state, "normal") for state in ("leased", "parked", "scheduled", "held")}
    stream = room.keys.stream("normal")
    leases = await room.do("XPENDING", stream, "streamq", "-", "+", 10)
    bodies = await room.do("XRANGE", stream, "-", "+")
    entry = await topped(room)
    await room.read("w2")
    await room.do("XACK", stream, "streamq", entry[1:])
    await room.do("XDEL", stream, entry[1:])
    before = (await check(room.spool)).seen
    assert (await check(room.spool, repair=True)).mended
    after = await check(room.spool)
    assert (after.sound, after.seen) == (True, before)
    assert await room.do("XRANGE", stream, "-", "+") == bodies
    again = await room.do("XPENDING", stream, "streamq", "-", "+", 10)
    assert [[row[0], row[1], row[3]] for row in again] == [[row[0], row[1], row[3]] for row in leases]
    # What comes then is waiting, is read, and is not read twice.
    new = f"1{(await adds(room)).decode()}"
    assert await room.read("w3") == [new]
    assert await room.read("w3") == []
    assert set(entries) == set(STATES) - {"waiting"}


async def test_waiting_mail_waits_on(now: Mailroom) -> None:
    room = now
    waiting = [await room.add() for _ in range(250)]
    read = await room.read("w1", 100)
    await room.admit(*read[:50], due=room.now + 5000)
    await room.do("XADD", room.keys.stream("normal"), GREATEST, "to", "bob@example.net")
    await room.do("XDEL", room.keys.stream("normal"), GREATEST)
    before = (await check(room.spool)).seen
    assert before["normal"] == {"waiting": 150, "leased": 50, "parked": 0, "scheduled": 50, "held": 0}
    assert (await check(room.spool, repair=True)).mended
    assert (await check(room.spool)).seen == before
    assert await room.read("w2", 500) == waiting[100:]


async def test_an_id_of_next_year_is_ahead_and_one_of_now_is_not(now: Mailroom) -> None:
    room = now
    await adds(room)
    assert (await check(room.spool)).sound
    ahead = room.now + 365 * 86_400_000
    entry = await topped(room, f"{ahead}-5")
    [found] = (await check(room.spool)).ahead
    assert (found.last, found.entries, found.is_full) == (f"{ahead}-5", 1, False)
    assert (await adds(room)).startswith(str(ahead).encode())  # of that time: it would never expire
    [found] = (await check(room.spool)).ahead
    assert found.entries == 2
    await room.do("XDEL", room.keys.stream("normal"), f"{ahead}-6")
    await left(room, entry)
    assert (await check(room.spool, repair=True)).mended
    assert not (await adds(room)).startswith(str(ahead).encode())


async def test_what_one_script_should_not_copy_stays(now: Mailroom) -> None:
    room = now
    flat = [part for at in range(3501) for part in (f"x_{at}", "1")]
    await room.do("XADD", room.keys.stream("normal"), f"{room.now}-0", *flat)
    await room.do("XADD", room.keys.stream("normal"), GREATEST, "to", "bob@example.net")
    await room.do("XDEL", room.keys.stream("normal"), GREATEST)
    report = await check(room.spool, repair=True)
    assert report.ahead == [Ahead("normal", GREATEST, 0, "large")]
    assert not await room.do("EXISTS", room.keys.anew)
    await room.do("XDEL", room.keys.stream("normal"), f"{room.now}-0")
    assert (await check(room.spool, repair=True)).mended


async def test_a_lease_without_its_entry_is_mended_first(now: Mailroom) -> None:
    room = now
    lease = await room.lease()
    await room.do("XDEL", room.keys.stream("normal"), lease.entry[1:])
    await room.do("XADD", room.keys.stream("normal"), GREATEST, "to", "bob@example.net")
    await room.do("XDEL", room.keys.stream("normal"), GREATEST)
    assert await room.scripts.anew("make", room.spool.digit("normal")) == ("orphan", GREATEST, 0)
    assert not await room.do("EXISTS", room.keys.anew)
    report = await check(room.spool, repair=True)
    assert report.mended
    assert report.repaired == 1


async def test_a_blocked_reader_reads_on(now: Mailroom) -> None:
    room = now
    await room.do("XADD", room.keys.stream("normal"), GREATEST, "to", "bob@example.net")
    await room.do("XDEL", room.keys.stream("normal"), GREATEST)

    async def reading() -> list[str]:
        while True:
            found = await room.spool.wait("w1", 10, 5000)
            if found.entries:
                return [entry.entry for entry in found.entries]

    task = asyncio.create_task(reading())
    while b"cmd=xreadgroup" not in await room.do("CLIENT LIST"):  # noqa: ASYNC110 (a blocked read tells nobody)
        await asyncio.sleep(0)
    assert (await check(room.spool, repair=True)).mended
    new = f"1{(await adds(room)).decode()}"
    assert await task == [new]

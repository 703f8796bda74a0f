"""whose.lua and whose.py: a queue is the workers', or one `streamq up`'s, and never of both."""

from __future__ import annotations

import pytest
from mailroom import DAY, START, Mailroom

from streamq.errors import QueueTaken, SettingsError
from streamq.queue.rows import Claim
from streamq.queue.whose import LEASE_MS, Hold, join

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]


async def take(room: Mailroom, owner: str = "up1", *, force: bool = False) -> Claim:
    return await room.scripts.whose("take", owner, ttl_ms=LEASE_MS, force=force)


async def gone(room: Mailroom, consumer: str) -> None:
    """It ended in order."""
    assert consumer in await room.scripts.reap(2**53, consumer)


async def test_a_new_queue_is_whose_it_is_taken_by_first(room: Mailroom) -> None:
    assert await take(room) == ("mine", "", 0)
    assert await take(room, "up2", force=True) == ("held", "up1", 1)
    with pytest.raises(QueueTaken, match=r"'streamq' is delivered by `streamq up` \(up1\)"):
        await join(room.spool, "w1")
    await join(room.spool, "w2", "up1")  # its own
    assert await room.scripts.whose("renew", "up1", ttl_ms=LEASE_MS) == ("mine", "", 0)


async def test_a_worker_is_seen_before_it_has_read_anything(room: Mailroom) -> None:
    await join(room.spool, "w1")
    assert await take(room) == ("workers", "w1", 1)
    assert await take(room, force=True) == ("workers", "w1", 1)
    await gone(room, "w1")
    assert await take(room) == ("strange", "workers", 0)  # empty, and its producers may go on in a moment
    assert await take(room, force=True) == ("mine", "", 0)


async def test_mails_that_came_to_nobody_are_nobodys(room: Mailroom) -> None:
    await room.add()
    assert await take(room) == ("strange", "", 0)
    with pytest.raises(SettingsError, match=r"'streamq' holds 1 \(1 waiting; the oldest came \d+ s ago\), and mails"):
        await Hold(room.spool, "up1").take()
    await Hold(room.spool, "up1").take(force=True)


@pytest.mark.parametrize("state", ["parked", "scheduled", "held"])
async def test_in_whatever_state_they_wait(room: Mailroom, state: str) -> None:
    await room.in_state(state)
    await gone(room, "w1")
    assert await take(room) == ("strange", "", 0)
    with pytest.raises(SettingsError, match=rf"holds 1 \(1 {state}; "):
        await Hold(room.spool, "up1").take()


async def test_a_mail_that_is_gone_again_was_somebodys(room: Mailroom) -> None:
    entry = await room.add()
    await room.do("XDEL", room.keys.stream("normal"), entry[1:])
    assert await take(room) == ("strange", "", 0)


async def test_what_came_to_an_up_is_the_next_ones(room: Mailroom) -> None:
    assert (await take(room)).status == "mine"
    await room.add()
    room.tick(5000)
    assert (await room.scripts.whose("leave", "up1")).status == "mine"
    room.tick(DAY)
    assert (await take(room, "up2")).status == "mine"


async def test_what_came_between_two_is_not(room: Mailroom) -> None:
    assert (await take(room)).status == "mine"
    await room.add()
    assert (await room.scripts.whose("leave", "up1")).status == "mine"
    room.tick(1)
    await room.add("low")
    assert await take(room, "up2") == ("strange", "", 0)


async def test_an_id_ahead_of_the_clock_is_known_again(room: Mailroom) -> None:
    """A producer may name any."""
    assert (await take(room)).status == "mine"
    await room.do("XADD", room.keys.stream("high"), f"{START + 2 * DAY}-1", "to", "bob@example.net")
    assert (await room.scripts.whose("leave", "up1")).status == "mine"
    assert (await take(room, "up2")).status == "mine"
    await room.do("XADD", room.keys.stream("high"), f"{START + 2 * DAY}-2", "to", "bob@example.net")
    room.tick(LEASE_MS + 1)
    assert (await take(room, "up3")).status == "strange"


async def test_one_that_was_killed_has_it_until_its_lease_ends(room: Mailroom) -> None:
    assert (await take(room)).status == "mine"
    room.tick(LEASE_MS - 1)
    await room.add()
    assert await take(room, "up2") == ("held", "up1", 1)
    with pytest.raises(QueueTaken):
        await join(room.spool, "w1")
    room.tick(1)
    assert (await take(room, "up2")).status == "mine"
    assert await room.scripts.whose("renew", "up1", ttl_ms=LEASE_MS) == ("lost", "up2", 1)
    assert await room.scripts.whose("leave", "up1") == ("lost", "up2", 1)
    assert await take(room, "up3") == ("held", "up2", 1)


async def test_a_worker_that_comes_when_it_has_ended_has_the_queue(room: Mailroom) -> None:
    assert (await take(room)).status == "mine"
    room.tick(LEASE_MS)
    await join(room.spool, "w1")
    assert await room.scripts.whose("renew", "up1", ttl_ms=LEASE_MS) == ("lost", "workers", 1)
    with pytest.raises(QueueTaken, match="'streamq' belongs to workers by now, and not to up1"):
        await join(room.spool, "w2", "up1")
    await gone(room, "w1")
    assert await take(room, "up2") == ("strange", "workers", 0)


async def test_a_queue_that_was_emptied_stays_the_up_s(room: Mailroom) -> None:
    """FLUSHALL, in the midst of it: nobody else could come."""
    assert (await take(room)).status == "mine"
    await room.do("DEL", room.keys.whose)
    assert (await room.scripts.whose("renew", "up1", ttl_ms=LEASE_MS)).status == "mine"
    assert await take(room, "up2") == ("held", "up1", 1)

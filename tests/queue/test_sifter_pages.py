"""The sifter's pages: each sent before the one in front of it is answered, none passed twice, and none left out,
whoever else reads on meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mailroom import Mailroom
from sifting import slow

from streamq.queue.connection import command
from streamq.worker.admission import Admission
from streamq.worker.link import Link
from streamq.worker.sifter import CHAIN, PAGE, PART, PATIENCE, Sifter

HALF = PAGE // 2
pytestmark = pytest.mark.leaves_mail


class Straight:
    """A link that is never down."""

    async def call(self, ask: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        return await ask(*args)


def sifter(room: Mailroom, consumer: str) -> Sifter:
    intake = SimpleNamespace(plain_route="main")
    admission = SimpleNamespace(intake=intake, next_due=lambda due, now: None, outboxes={"main": None})
    one = Sifter(room.spool.settings, room.spool, cast("Link", Straight()), consumer, cast("Admission", admission))
    one.sifts.add("normal")
    return one


async def test_all_are_passed_once_each_page_for_two_commands(room: Mailroom) -> None:
    await slow(room)
    for n in range(PART + 2 * CHAIN):
        await room.add(to=f"{n}@slow.example")
    one = sifter(room, "w1")
    before = await calls(room, "xrange")
    found = [await one.read("normal", 10) for _ in range(3)]
    assert found[0] == ([], PART)
    assert found[1] == ([], CHAIN)
    assert sum(parked for _, parked in found) <= PART + 2 * CHAIN
    while (last := await one.read("normal", 10)) != ([], 0):
        found.append(last)
    assert sum(parked for _, parked in found) == PART + 2 * CHAIN
    sifts = passes(room)
    assert sifts <= 2 + 2 * CHAIN // HALF
    assert await calls(room, "xrange") - before <= sifts + 3
    assert one.sifts == set()  # nothing is left: who reads on, blocks
    assert await room.count("parked:1") == PART + 2 * CHAIN


async def test_two_pages_are_on_their_way_and_no_more(room: Mailroom) -> None:
    """Where all of the last one was parked: the server has the next one before the answer to the one in front of it is
    read."""
    await slow(room)
    for n in range(2 * PART + CHAIN):
        await room.add(to=f"{n}@slow.example")
    one = sifter(room, "w1")
    under_way, seen = 0, []

    def counted(asked: Callable[..., Awaitable[Any]]) -> Any:
        async def counts(*args: Any, **known: Any) -> Any:
            nonlocal under_way
            under_way += 1
            seen.append(under_way)
            try:
                return await asked(*args, **known)
            finally:
                under_way -= 1

        return counts

    room.spool.scripts.sift = counted(room.spool.scripts.sift)  # type: ignore[method-assign]
    room.spool.scripts.stow = counted(room.spool.scripts.stow)  # type: ignore[method-assign]
    assert await one.read("normal", 10) == ([], PART)
    assert seen == [1]
    await one.read("normal", 10)
    await one.read("normal", 10)
    assert set(seen) == {1, 2}


async def test_a_read_ends_with_the_page_that_holds_something_for_this_one(room: Mailroom) -> None:
    """One more may be on its way: it is passed, too, and what it holds is this one's, within the room."""
    await slow(room)
    wanted = []
    first = 2 * PART  # looked at before anything was known
    for n in range(first + CHAIN):
        is_ours = n >= first and n % HALF == 1
        entry = await room.add(to=f"{n}@{'fast' if is_ours else 'slow'}.example")
        wanted += [entry] if is_ours else []
    one = sifter(room, "w1")
    assert await one.read("normal", 2) == ([], PART)
    taken, parked = await one.read("normal", 2)  # the rest of what was looked at, and a half page, or two
    taken = list(taken)
    while len(taken) < len(wanted):
        entries, more = await one.read("normal", 2)
        assert len(entries) <= 2
        assert entries or more
        taken += entries
        parked += more
    assert [entry.entry for entry in taken] == wanted
    assert PART + parked <= first + CHAIN - len(wanted)


async def test_a_page_before_which_the_first_one_stopped_is_passed_later(room: Mailroom) -> None:
    """It was sent, and the script passed nothing of it: nor is it lost."""
    await slow(room)
    for n in range(3 * PART):
        await room.add(to=f"{n}@{'fast' if n in (PART + 3, PART + 5) else 'slow'}.example")
    one = sifter(room, "w1")
    one._pure.add("normal")
    found = [await one.read("normal", 1)]
    while (last := await one.read("normal", 1))[1]:
        found.append(last)
    assert [len(entries) for entries, _ in found if entries] == [1, 1]
    assert sum(parked for _, parked in found) == 3 * PART - 2
    assert await room.count("parked:1") == 3 * PART - 2


async def test_who_was_overtaken_by_many_rests_and_goes_on_behind_the_other(room: Mailroom) -> None:
    await slow(room)
    for n in range(2 * PART + 3 * CHAIN):
        await room.add(to=f"{n}@slow.example")
    one, two = sifter(room, "w1"), sifter(room, "w2")
    assert await one.read("normal", 10) == ([], PART)
    assert await two.read("normal", 10) == ([], PART)
    assert await two.read("normal", 10) == ([], CHAIN)
    assert await one.read("normal", 10) == ([], 0)  # what it looked at is gone
    assert one.rests() == {"normal"}
    asked = passes(room)
    assert await one.read("normal", 10) == ([], 0)
    assert passes(room) == asked  # it does not ask while it rests
    assert await two.read("normal", 10) == ([], CHAIN)
    one._resting["normal"].until = 0.0
    assert await one.read("normal", 10) == ([], 0)  # the other one is still at it
    for _ in range(PATIENCE - 1):
        one._resting["normal"].until = 0.0
        assert await one.read("normal", 10) == ([], 0)  # held up, perhaps
        assert one.rests() == {"normal"}  # who waits meanwhile leaves it alone, however long a look at it took
    one._resting["normal"].until = 0.0
    assert await one.read("normal", 10) == ([], CHAIN)
    assert one.rests() == set()
    assert await room.count("parked:1") == 2 * PART + 3 * CHAIN


async def test_whose_first_page_was_overtaken_passes_the_second_one_at_its_turn(room: Mailroom) -> None:
    await slow(room)
    for n in range(3 * PART):
        await room.add(to=f"{n}@slow.example")
    one, two = sifter(room, "w1"), sifter(room, "w2")
    assert await one.read("normal", 10) == ([], PART)
    assert await two.read("normal", 10) == ([], PART)
    found = [await one.read("normal", 10)]
    while found[-1][1]:
        found.append(await one.read("normal", 10))
    assert sum(parked for _, parked in found) == PART
    assert await room.count("parked:1") == 3 * PART


async def test_who_was_overtaken_by_few_goes_on_at_once(room: Mailroom) -> None:
    """The other one has a full hand: it passes as many as there is room for, and would keep all others away."""
    await slow(room)
    for n in range(3 * PART):
        await room.add(to=f"{n}@{'fast' if n % 2 else 'slow'}.example")
    one, two = sifter(room, "w1"), sifter(room, "w2")
    assert (await one.read("normal", 10))[1] == 11
    for _ in range(5):
        assert (len((await two.read("normal", 1))[0]), len((await one.read("normal", 1))[0])) == (1, 1)
    assert await room.count("parked:1") == 21


async def test_what_there_was_no_room_for_is_offered_again(room: Mailroom) -> None:
    await slow(room)
    wanted = []
    for n in range(2 * PART):
        entry = await room.add(to=f"{n}@{'fast' if n % 20 == 19 else 'slow'}.example")
        wanted += [entry] if n % 20 == 19 else []
    one = sifter(room, "w1")
    taken: list[str] = []
    for _ in wanted:
        entries, _ = await one.read("normal", 1)
        assert [entry.fields[b"to"].partition(b"@")[2] for entry in entries] == [b"fast.example"]
        taken += [entry.entry for entry in entries]
    assert taken == wanted
    assert await room.count("parked:1") == 2 * PART - len(wanted)


async def test_a_look_that_is_old_is_taken_anew(room: Mailroom) -> None:
    await slow(room)
    entries = [await room.add(to=f"{n}@slow.example") for n in range(PART + 2)]
    one = sifter(room, "w1")
    assert await one.read("normal", 10) == ([], PART)
    await room.do("XDEL", room.keys.stream("normal"), entries[PART][1:])
    for page in one._pages["normal"]:
        page.seen_at -= 10
    assert await one.read("normal", 10) == ([], 1)


async def test_after_large_mails_it_looks_at_few(room: Mailroom) -> None:
    """How large the next ones are nobody knows before; a page of them is two megabytes again."""
    await slow(room)
    for _ in range(PART + 100):
        await room.add(envelope_to="bob@slow.example", raw="x" * 50_000)
    one = sifter(room, "w1")
    assert one.takes("normal", 500.0)  # what the others were like
    _, parked = await one.read("normal", 10)
    assert parked == PART
    assert [len(page.found) for page in one._pages["normal"]] == [39]
    assert one.takes("normal", 500.0)
    assert one._many == 78


def passes(room: Mailroom) -> int:
    """Pages that were handed to the server."""
    return sum(room.spool.caller.calls.get(verb, 0) for verb in ("sift", "stow"))


async def calls(room: Mailroom, name: str) -> int:
    """How often the server carried it out."""
    text = (await command(room.spool.redis, "INFO", "commandstats")).decode()
    found = [line for line in text.splitlines() if line.startswith(f"cmdstat_{name}:")]
    return int(found[0].partition("calls=")[2].partition(",")[0]) if found else 0

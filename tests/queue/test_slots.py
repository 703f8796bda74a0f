"""lib/slots.lua and renew.lua: transactions at once to a site, over all workers: leases of the mails that have them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from conftest import MakeSpool
from mailroom import LANE, Lease, Mailroom
from sifting import sift

from streamq.queue.limits import set_limits, settings_layer
from streamq.queue.rows import AdmitRow, RenewRow, SettleRow, TurnRow

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]

LASTS = 4000  # ms that a slot lasts without a renewal


async def limit(room: Mailroom, rule: str, lane: str = "*|example.net") -> None:
    await room.do("HSET", room.keys.limits, lane, rule)


async def slots(room: Mailroom, target: str = LANE) -> dict[str, int]:
    """Who has one → ms until which it counts."""
    flat = await room.do("ZRANGEBYSCORE", room.keys.slots(target), f"({room.now * 1000}", "+inf", "WITHSCORES")
    return {who.decode(): int(float(till)) // 1000 for who, till in zip(flat[::2], flat[1::2], strict=True)}


async def ended(room: Mailroom, lease: Lease, op: str = "sent", way: str = LANE, **arg: Any) -> tuple[str, int]:
    """As a worker ends a mail that has a slot: status, µs of what is due then."""
    row: SettleRow = room.end(op, lease, **arg)._replace(way=way)
    settled = await room.scripts.settle(lease.consumer, [row])
    return settled.statuses[0], settled.next_us


async def went(room: Mailroom, many: int, *, lane: str = LANE, way: str = LANE) -> list[Lease]:
    """So many new mails that found a slot."""
    made = [await room.add() for _ in range(many)]
    assert await room.read("w1", many) == made
    found = await room.admit(*made, lane=lane)
    target = way if "|" in way else ""
    assert [(each.status, each.way, each.target) for each in found.statuses] == [
        ("go", way.partition("|")[0], target)
    ] * many
    return [Lease(entry, found.token, "w1") for entry in made]


async def waits(room: Mailroom, priority: str = "normal", *, lane: str = LANE) -> str:
    """A new mail that found none."""
    entry = await room.add(priority)
    await room.read()
    assert await room.admitted(entry, lane=lane) == ["parked"]
    return entry


async def test_so_many_go_and_the_rest_parks_until_one_has_ended(room: Mailroom) -> None:
    await limit(room, ";c2")
    first, second = await went(room, 2)
    third = await waits(room)
    found = await room.release()
    assert (found.leases, found.next_us) == ([], (room.now + LASTS) * 1000)
    assert await ended(room, first) == ("ok", room.now * 1000), "who settles hears that a lane is due"
    again = await room.release("w2")
    assert [(lease.entry, lease.way, lease.target) for lease in again.leases] == [(third, "main", LANE)]
    assert set(await slots(room)) == {f"w1 {second.entry}", f"w2 {third}"}
    assert 0 < await room.do("PTTL", room.keys.slots(LANE)) <= 600_000


async def test_a_site_that_is_never_empty_is_kept_and_tidied(room: Mailroom) -> None:
    """Once in sixteen seconds: what lapsed goes, and the key lasts on."""
    await limit(room, ";c9")
    room.tick(1_000)
    await went(room, 1)  # of one whose worker dies
    await room.do("PEXPIRE", room.keys.slots(LANE), 100_000)
    room.tick(3_500)
    [second] = await went(room, 1)
    assert await room.do("PTTL", room.keys.slots(LANE)) <= 100_000
    room.tick(11_000)
    await room.scripts.renew("w1", [RenewRow(second.entry, second.token, LANE)])
    await room.do("PEXPIRE", room.keys.slots(LANE), 100_000)
    room.tick(500)  # START is a multiple of it
    [third] = await went(room, 1)
    assert await room.do("PTTL", room.keys.slots(LANE)) > 500_000
    here = [f"w1 {lease.entry}".encode() for lease in (second, third)]
    assert sorted(await room.do("ZRANGE", room.keys.slots(LANE), 0, -1)) == sorted(here)


@pytest.mark.parametrize(
    ("op", "arg"),
    [
        ("sent", {}),
        ("defer", {}),
        ("dead", {}),
        ("hold", {}),
        ("gone", {}),
        ("park", {"wait": 60_000}),
        ("defer", {"deadline": 1}),
    ],
)
async def test_however_it_ends_it_leaves_its_slot(room: Mailroom, op: str, arg: dict[str, Any]) -> None:
    await limit(room, ";c1")
    [lease] = await went(room, 1)
    await waits(room)
    if op == "gone":
        await room.do("XDEL", room.keys.stream("normal"), lease.entry[1:])
    assert (await ended(room, lease, op, **arg))[1] == room.now * 1000
    assert await slots(room) == {}
    assert len(await room.released()) == 1


async def test_windows_and_slots_hold_at_once(room: Mailroom) -> None:
    await limit(room, "1:2000000;c1")
    [first] = await went(room, 1)
    second, third = await waits(room), await waits(room)
    assert (await ended(room, first))[1] == 0, "it waits for the window, and not for a slot"
    assert await slots(room) == {}
    assert 2000 <= (await room.release()).next_us / 1000 - room.now < 2100
    room.tick(2100)
    [(lease, _)] = await room.taken()
    assert lease.entry == second
    room.tick(2200)
    assert await room.released() == [], "the window says yes, and the slot is taken still"
    assert (await ended(room, lease))[1] == room.now * 1000
    assert await room.released() == [third]


async def test_without_a_slot_nobody_is_asked_and_no_key_is_made(room: Mailroom) -> None:
    await limit(room, "100:1000000")
    lease = await room.lease()
    assert await room.settled("sent", lease) == "ok"
    assert await room.do("KEYS", room.keys.slots("*")) == []


async def test_a_lapsed_slot_counts_no_more_and_its_lane_is_looked_at_then(room: Mailroom) -> None:
    await limit(room, ";c2")
    await went(room, 2)
    entry = await waits(room)
    found = await room.release("w2")
    assert found.next_us == (room.now + LASTS) * 1000
    room.tick(LASTS - 1)
    assert await room.released("w2") == []
    room.tick(1)
    assert await room.released("w2") == [entry]
    assert set(await slots(room)) == {f"w2 {entry}"}


async def test_a_renewed_one_goes_on(room: Mailroom) -> None:
    await limit(room, ";c2")
    first, second = await went(room, 2)
    entry = await waits(room)
    room.tick(3000)
    assert await room.scripts.renew("w1", [RenewRow(first.entry, first.token, LANE)]) == 1
    room.tick(1000)
    assert await room.released("w2") == [entry], "the second was not renewed"
    assert set(await slots(room)) == {f"w1 {first.entry}", f"w2 {entry}"}
    assert second.entry not in str(await slots(room))


async def test_a_renewal_that_is_late_brings_nothing_back_that_was_left(room: Mailroom) -> None:
    """It was on its way when the mail ended."""
    await limit(room, ";c1")
    [lease] = await went(room, 1)
    await ended(room, lease)
    assert await room.scripts.renew("w1", [RenewRow(lease.entry, lease.token, LANE)]) == 0
    assert await slots(room) == {}


async def test_what_was_silent_too_long_counts_again(room: Mailroom) -> None:
    """Its transaction is under way: nobody else is given a slot for it, though there are too many now."""
    await limit(room, ";c1")
    [lease] = await went(room, 1)
    taken, _ = await waits(room), await waits(room)
    room.tick(LASTS)
    assert await room.released("w2") == [taken]
    assert await room.scripts.renew("w1", [RenewRow(lease.entry, lease.token, LANE)]) == 1
    assert len(await slots(room)) == 2
    await ended(room, lease)
    assert await room.released("w2") == []


async def test_a_stolen_lease_frees_its_own_slot_and_not_its_new_owner_s(room: Mailroom) -> None:
    await limit(room, ";c2")
    first, _ = await went(room, 2)
    await room.silent(first.entry, "w1")
    [(entry, _, _)] = (await room.reclaim("w2")).leases
    assert entry == first.entry
    assert await room.scripts.renew("w1", [RenewRow(first.entry, first.token, LANE)]) == 1, "it goes on at the receiver"
    room.tick(3999)
    await room.scripts.renew("w1", [RenewRow(first.entry, first.token, LANE)])
    room.tick(1)
    found = await room.admit(entry, consumer="w2")
    assert found.statuses[0][0] == "go"
    both = {f"w1 {entry}", f"w2 {entry}"}
    assert set(await slots(room)) == both
    for _ in range(2):
        assert (await ended(room, first))[0] == "fenced"
        assert set(await slots(room)) == both - {f"w1 {entry}"}


async def test_a_mail_that_is_admitted_again_needs_no_second_slot(room: Mailroom) -> None:
    await limit(room, ";c1")
    [lease] = await went(room, 1)
    found = await room.admit(lease.entry)
    assert (found.statuses[0].status, found.statuses[0].target) == ("go", LANE)
    assert set(await slots(room)) == {f"w1 {lease.entry}"}


async def test_a_mail_that_asks_for_its_turn_again_keeps_its_slot_or_leaves_it(room: Mailroom) -> None:
    """Its window's slot has run out before its MAIL; what waits for another one is no transaction meanwhile."""
    await limit(room, ";c1")
    [lease] = await went(room, 1)
    other = await waits(room)
    row = TurnRow(lease.entry, lease.token, LANE, "", LANE)
    _, [turn] = await room.scripts.turn("w1", [row])
    assert (turn.status, turn.way, turn.target) == ("go", "main", LANE)
    assert set(await slots(room)) == {f"w1 {lease.entry}"}
    await room.do("HSET", room.keys.limits, "*", "1:60000000")
    _, [turn] = await room.scripts.turn("w1", [row])  # this takes the queue's only slot
    _, [turn] = await room.scripts.turn("w1", [row])
    assert (turn.status, turn.target) == ("wait", "")
    assert await slots(room) == {}
    await room.do("HDEL", room.keys.limits, "*")
    assert await room.released() == [other], "and its lane was told"


async def test_an_entry_that_somebody_deleted_leaves_its_slot(room: Mailroom) -> None:
    await limit(room, ";c1")
    entry, other = await room.add(), await room.add()
    await room.read()
    await room.do("XDEL", room.keys.stream("normal"), entry[1:])
    found = await room.admit(entry, other)
    if [status for status, *_ in found.statuses] == ["go", "parked"]:  # Redis 6.2 leases what is no more
        await ended(room, Lease(entry, found.token, "w1"), "gone")
    assert await room.released() == [other]


async def test_each_way_has_its_own(room: Mailroom) -> None:
    await limit(room, ";c1")
    await went(room, 1)
    await went(room, 1, lane="other|example.net", way="other|example.net")
    await waits(room)
    await went(room, 3, lane="main|example.org", way="main")


async def test_all_lanes_that_wait_for_a_site_are_due(room: Mailroom) -> None:
    """Whatever other ways they have: a slot is of a way and a site."""
    await limit(room, ";c1")
    [lease] = await went(room, 1, lane="main>other|example.net")
    entries = [await waits(room, lane=lane) for lane in ("main|example.net", "main>third|example.net")]
    await ended(room, lease, lane="main>other|example.net")
    [(second, _)] = await room.taken()
    assert second.entry in entries
    await ended(room, second)
    assert len(await room.released()) == 1


async def test_unread_mails_park_behind_a_full_site(room: Mailroom) -> None:
    """By the script that reads on; and they are due when a slot is left."""
    await limit(room, ";c1")
    [lease] = await went(room, 1)
    made = [await room.add() for _ in range(3)]
    found = await sift(room, consumer="w2")
    assert (found.parked, found.said.next_us) == (3, (room.now + LASTS) * 1000)
    assert (await ended(room, lease))[1] == room.now * 1000
    assert await room.released("w2") == made[:1]


async def test_settings_are_published(make_spool: MakeSpool) -> None:
    room = Mailroom(
        await make_spool(
            sites={"*": {"connections": 1}, "example.net": {"rate": ["90/s", "60000/h"], "connections": 2}}
        )
    )
    await set_limits(room.spool, "settings", settings_layer(room.spool.settings) or {}, whole=True)
    flat = await room.do("HGETALL", room.keys.limits)
    assert dict(zip(flat[::2], flat[1::2], strict=True)) == {
        b"*|*": b";c1",
        b"*|example.net": b"90:1000000,60000:3600000000;c2",
    }
    await went(room, 1)
    room.tick(100)
    await went(room, 1)
    room.tick(100)
    await waits(room)


# -- a crowd -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Member:
    """A worker: what it has at the receiver, and its own timer."""

    name: str
    size: int
    at_once: dict[str, Lease] = field(default_factory=dict)
    due_us: int = 0
    full: bool = False  # it was, when something was due: it looks again when a mail has ended
    renews_at: int = 0

    def hear(self, next_us: int) -> None:
        if next_us and (not self.due_us or next_us < self.due_us):
            self.due_us = next_us


class Crowd:
    """Workers under a backlog that never ends, in steps of 50 ms. They take mails when their timers say so, one of
    them leads, and each renews once a second. One that is killed has nothing at the receiver any more."""

    def __init__(self, room: Mailroom, many: int, most: int, chance: random.Random) -> None:
        self.room = room
        self.most = most
        self.chance = chance
        self.members = [Member(f"w{at}", 2 + most // 2) for at in range(many)]
        for member in self.members:
            member.renews_at = room.now + chance.randrange(1000)
        self.leader, self.leads_until = "", 0

    @property
    def at_once(self) -> int:
        return sum(len(member.at_once) for member in self.members)

    async def step(self) -> None:
        self.room.tick(50)
        now = self.room.now
        for member in self.chance.sample(self.members, len(self.members)):
            done = [lease for lease in member.at_once.values() if self.chance.random() < 0.1]
            if done:
                rows = [self.room.end("sent", lease)._replace(way=LANE) for lease in done]
                for lease in done:
                    del member.at_once[lease.entry]
                member.hear((await self.room.scripts.settle(member.name, rows)).next_us)
                member.hear(now * 1000 if member.full else 0)
            if member.renews_at <= now:
                rows_ = [RenewRow(lease.entry, lease.token, LANE) for lease in member.at_once.values()]
                assert await self.room.scripts.renew(member.name, rows_) == len(rows_)
                member.renews_at = now + 1000
                if self.leader in ("", member.name) or self.leads_until <= now:
                    self.leader, self.leads_until, member.due_us = member.name, now + 3000, now * 1000
            if member.due_us and member.due_us <= now * 1000:
                await self.release(member)
        idle = [member for member in self.members if len(member.at_once) < member.size]
        if idle and await self.room.do("XLEN", self.room.keys.bell):
            rung = self.chance.choice(idle)
            await self.release(rung, (await self.room.spool.wait(rung.name, 1, 1)).bell)

    async def release(self, member: Member, bell: Sequence[str] = ()) -> None:
        member.due_us = 0
        found = await self.room.release(member.name, member.size - len(member.at_once), bell)
        for lease in found.leases:
            assert lease.target == LANE
            member.at_once[lease.entry] = Lease(lease.entry, found.token, member.name)
        assert self.at_once <= self.most
        member.full = found.left
        if not found.left:
            member.hear(found.next_us)


@pytest.mark.stories
@pytest.mark.parametrize(("many", "most", "seed"), [(1, 1, 1), (2, 5, 2), (5, 3, 3), (16, 5, 4), (16, 20, 5)])
async def test_never_more_and_all_of_them_again_within_five_seconds(
    room: Mailroom, many: int, most: int, seed: int
) -> None:
    await limit(room, f";c{most}")
    chance = random.Random(seed)
    crowd = Crowd(room, many, most, chance)
    entries = [await room.add() for _ in range(1500)]
    await room.read("w0", len(entries))
    for at in range(0, len(entries), 100):
        found = await room.admit(*entries[at : at + 100], consumer="w0")
        for entry, (status, *_) in zip(entries[at : at + 100], found.statuses, strict=True):
            if status == "go":
                crowd.members[0].at_once[entry] = Lease(entry, found.token, "w0")
    assert crowd.at_once == most
    for _ in range(3 if many > 2 else 1):
        for _ in range(40):
            await crowd.step()
        if many > 1:
            victims = chance.sample(crowd.members, max(1, many // 4))
            crowd.members = [member for member in crowd.members if member not in victims]
        since = room.now
        while crowd.at_once < min(most, sum(member.size for member in crowd.members)):
            await crowd.step()
            assert room.now - since <= 5000
    assert (await room.survey()).of("parked")


async def test_no_slot_is_taken_for_several_mails_that_only_come_apart(room: Mailroom) -> None:
    await limit(room, ";c1")
    entry = await room.add()
    await room.read()
    row: AdmitRow = room.row(entry, kind="expand", lane="")
    assert (await room.admit(row)).statuses[0].target == ""
    assert await slots(room) == {}

"""Stories by chance, told twice: by the plain way (`start`, `finish`) and by `admit` and `settle` alone. They come to
the same."""

from __future__ import annotations

import random
import re
from functools import partial
from itertools import count
from typing import Any

import pytest
from conftest import MakeSpool
from mailroom import START, Lease, Mailroom, ident

from streamq.queue.plain import Plain
from streamq.queue.rows import AdmitRow, SettleRow, Status
from streamq.queue.scripts import why

pytestmark = pytest.mark.usefixtures("any_server_url")


TAT = re.compile(r" \d+(?=;|$)")  # of a slot's mark: each script rounds it up once
LIMITS = {
    "*": "9:3000000",
    "main": "200:1000000",
    "*|*": "100:1000000",
    "*|x.de": "2:1000000",
    "main|x.de": "40:1000000;c2",
    "main|example.net": ";c3",
}
OPS = ["sent", "sent", "sent", "defer", "park", "dead"]


class Story:
    """One queue to which things happen, as `chance` says."""

    def __init__(self, room: Mailroom, *, plain: bool) -> None:
        self.room = room
        self.way: Any = Plain(room.scripts, partial(next, count(0.0, 0.01))) if plain else room.scripts
        self.said: list[Any] = []

    async def pass_(self, chance: random.Random) -> None:
        room = self.room
        room.tick(chance.choice([1, 300, 2_000, 60_000]))
        await self._obstacle(chance)
        for _ in range(chance.randrange(6)):
            await room.add(chance.choice(["high", "normal"]), to="bob@example.net")
        hand = await room.read() + [lease.entry for lease in (await room.release()).leases]
        rows = [self._row(entry, chance) for entry in dict.fromkeys(hand)]
        found = await self.way.admit("w1", rows)
        statuses: list[Status] = found.statuses
        self.said.append([status._replace(token=0, slot=TAT.sub("", status.slot)) for status in statuses])
        self.said.append([found.bound.step_us, found.bound.most])
        ends = [
            self._end(Lease(row.entry, said.token, "w1"), row.lane, said, chance)
            for row, said in zip(rows, statuses, strict=True)
            if said.status in ("go", "wait")
        ]
        self.said.append((await self.way.settle("w1", ends)).statuses)

    def _row(self, entry: str, chance: random.Random) -> AdmitRow:
        known: dict[str, Any] = {"lane": f"main|{chance.choice(['example.net', 'x.de'])}"}
        if chance.random() < 0.6:
            known["seen"] = ident(f"a{chance.randrange(12)}", x=chance.choice("yyyz"))
        kind = chance.random()
        if kind < 0.1:
            known["due"] = self.room.now + 1_000
        elif kind < 0.2:
            known["expires"] = self.room.now + 500
        elif kind < 0.25:
            known |= {"kind": "dead", "why": why(reason="to: no", **{"class": "malformed"})}
        return self.room.row(entry, **known)

    def _end(self, lease: Lease, lane: str, said: Status, chance: random.Random) -> SettleRow:
        op = chance.choice(OPS) if said.status == "go" else "park"  # that has no slot
        end = self.room.end(op, lease, lane=lane)
        return end._replace(arg=b"" if op == "sent" else end.arg, way=said.target or said.way)

    async def _obstacle(self, chance: random.Random) -> None:
        room = self.room
        happens = [*LIMITS, "no limit", "pause", *["resume"] * 3, *["nothing"] * 5]
        match chance.choice(happens):
            case "no limit":
                await room.do("DEL", room.keys.limits)
            case "pause":
                await room.scripts.pause("pause", ["main"])
            case "resume":
                await room.scripts.pause("resume", ["main"])
            case str(name) if name in LIMITS:
                await room.do("HSET", room.keys.limits, name, LIMITS[name])


async def state(room: Mailroom) -> dict[str, Any]:
    """All that is kept, but for tokens and what an event's own entry has of real time."""
    survey = await room.survey()
    events = [(e.kind, e.id, {k: v for k, v in e.data.items() if k != "event_id"}) for e in await room.events()]
    return {
        "states": await room.states(),
        "held": {entry: who for entry, (who, _) in survey.leases.items()},
        "events": sorted(map(repr, events)),
        "counts": await room.counts(),
        "seen": await room.scripts.find([(None, f"a{n}") for n in range(12)]),
    }


@pytest.mark.leaves_mail
@pytest.mark.stories
@pytest.mark.parametrize("seed", range(12))
async def test_both_ways_come_to_the_same(make_spool: MakeSpool, seed: int) -> None:
    stories = []
    for name, plain in (("one", True), ("two", False)):
        story = Story(Mailroom(await make_spool(queue=name)), plain=plain)
        chance = random.Random(seed)
        for _ in range(25):
            await story.pass_(chance)
        stories.append(story)
    one, two = stories
    assert one.said == two.said
    assert await state(one.room) == await state(two.room)
    assert one.room.spool.caller.calls["start"] >= 1
    assert one.room.spool.caller.calls["finish"] >= 1
    assert one.room.now > START

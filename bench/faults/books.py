"""The books at the end of a fault run: what was promised, held against what the sink has and what the queue says.

A mail is promised when its XADD was answered. It is lost when the sink does not have it and no event says that it
ended otherwise. Twice in the sink is a double; `unmarked` is one that no event `email.ambiguous` of it announced,
`unexplained` one that no fault could have made: nobody was killed, and no connection cut, that had it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import orjson

from streamq.keys import GROUP
from streamq.queue.check import check
from streamq.queue.connection import command
from streamq.queue.spool import Spool

__all__ = ["Event", "Verdict", "events", "judge", "leftovers"]

SENT = ("email.relayed", "email.delivered")
DEAD = ("email.bounced", "email.expired", "email.failed", "email.rejected")
SHOWN = 20  # names
COPY = "email.duplicate"  # of an XADD that its producer repeated: its first one has the end
# Of a drained queue, for ever
STAYS = re.compile(r"\{[^{}]+\}:(high|normal|low|bell|events|counts|lease|meta|dead|whose)")


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    id: str  # the producer's
    entry: str


@dataclass(slots=True)
class Verdict:
    """Counts of mails, but for `marks` (events) and what is in words: `wrong`, breaches of the law; `left`, what should
    have gone with the mails."""

    mails: int = 0
    accepted: int = 0
    dead: int = 0
    lost: int = 0
    untold: int = 0  # accepted, and no event says so
    twice_told: int = 0  # entries with two ends
    doubles: int = 0
    unmarked: int = 0
    unexplained: int = 0
    marks: int = 0
    unneeded: int = 0
    allowed: int = 0  # unneeded marks: the open connections of who was killed, and those that were cut
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # the first ones of which something was wrong

    @property
    def kept(self) -> bool:
        """Nothing lost, nothing twice unmarked, the law holds, nothing is left."""
        return not (
            self.lost
            or self.untold
            or self.twice_told
            or self.unmarked
            or self.unexplained
            or self.unneeded > self.allowed
            or self.wrong
            or self.left
        )


def judge(
    promised: Collection[str],
    accepted: Iterable[str],
    said: Iterable[Event],
    suspects: Collection[str] = (),
    suspected_entries: Collection[str] = (),
    allowed: int = 0,
) -> Verdict:
    """`promised` and `accepted` are names (the producer's ids; the sink's, once each time it took one); `suspects`:
    what was in the hand of who was killed, or on a connection that was cut, by id or by entry."""
    there = Counter(accepted)
    ends: dict[str, Counter[str]] = {}
    by_entry: Counter[str] = Counter()
    marks: Counter[str] = Counter()
    suspects = set(suspects)
    for event in said:
        if event.entry in suspected_entries:
            suspects.add(event.id)
        if event.kind == "email.ambiguous":
            marks[event.id] += 1
        elif event.kind in SENT or event.kind in DEAD:
            ends.setdefault(event.id, Counter())[event.kind] += 1
            by_entry[event.entry] += 1
    taken = len(there.keys() & set(promised))
    found = Verdict(mails=len(promised), accepted=taken, marks=marks.total(), allowed=allowed)
    for name in promised:
        died = any(kind in DEAD for kind in ends.get(name, ()))
        found.dead += died
        lost, untold = not there[name] and not died, bool(there[name]) and name not in ends
        found.lost += lost
        found.untold += untold
        found.names += [f"lost {name}"] * lost + [f"untold {name}"] * untold
    found.twice_told = sum(many > 1 for many in by_entry.values())
    for name, many in there.items():
        if many > 1:
            found.doubles += many - 1
            unmarked, unexplained = max(0, many - 1 - marks[name]), name not in suspects
            found.unmarked += unmarked
            found.unexplained += unexplained
            found.names += [f"unmarked {name}"] * (unmarked > 0) + [f"unexplained {name}"] * unexplained
    found.unneeded = sum(max(0, many - max(0, there[name] - 1)) for name, many in marks.items())
    del found.names[SHOWN:]
    return found


async def events(spool: Spool) -> list[Event]:
    """All that are kept, oldest first."""
    found: list[Event] = []
    last = "-"
    while rows := await command(spool.redis, "XRANGE", spool.keys.events, last, "+", "COUNT", 1000):
        last = f"({rows[-1][0].decode()}"
        for _, flat in rows:
            data: Mapping[str, str] = orjson.loads(flat[5])
            found.append(Event(flat[1].decode(), flat[3].decode(), data.get("entry", "")))
    return found


async def leftovers(spool: Spool) -> tuple[list[str], list[str]]:
    """(breaches of the law, what is left of a drained queue whose workers have gone): leases, consumers, keys."""
    report = await check(spool)
    left = []
    for name in (*spool.priorities, "bell"):
        stream = spool.keys.prefix + name
        if many := await command(spool.redis, "XLEN", stream):
            left.append(f"{many} in {name}")
        consumers = await command(spool.redis, "XINFO", "CONSUMERS", stream, GROUP)
        left += [f"consumer {row[1].decode()} of {name}, {row[3]} leases" for row in consumers]
    cursor = b"0"
    while True:
        cursor, keys = await command(spool.redis, "SCAN", cursor, "COUNT", 1000)
        names = [key.decode() for key in keys if not STAYS.fullmatch(key.decode())]
        left += [name for name in names if await command(spool.redis, "PTTL", name) == -1]
        if cursor == b"0":
            return [f"{each.what} {each.entry}" for each in report.wrong], sorted(left)

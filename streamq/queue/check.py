"""The conservation law, proved by visiting: `streamq check`.

For every priority stream, between any two commands: XLEN = waiting + leased + parked + scheduled + held, and
each mail is in exactly one of them. Every entry is visited, in chunks that one script classifies; the indexes
and the PELs are visited for members that no stream holds. On a live queue a mail may move between two looks,
so what looks wrong is looked at a second time, by itself, and only counts if it still is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from streamq.keys import GREATEST
from streamq.queue.connection import command
from streamq.queue.spool import Spool

__all__ = ["Ahead", "CheckReport", "Wrong", "check"]

STATES = ("waiting", "leased", "parked", "scheduled", "held")
CHUNK = 100
CHUNK_BYTES = 2_000_000


@dataclass(frozen=True, slots=True, order=True)
class Wrong:
    """One breach: `what` is lost, twice, both, lane, orphan, stray, counts or body:<count>:<right> (lua/repair.lua).
    `entry` is "" for counts, a member of parked for stray, whose children share it for a body."""

    entry: str
    what: str


@dataclass(frozen=True, slots=True)
class Ahead:
    """A priority whose stream's last id, `last`, lies more than ten minutes ahead of the server's clock: XADD with `*`
    counts on from there, or fails where there is no higher one. `entries` of such ids are in it, 100 standing for more.
    `state` as anew.lua says it: ahead, made, large, orphan."""

    priority: str
    last: str
    entries: int
    state: str

    @property
    def is_full(self) -> bool:
        """Whether no XADD with `*` is taken."""
        return self.last == GREATEST


@dataclass(slots=True)
class CheckReport:
    """What was seen. `seen[priority][state]` are mails."""

    seen: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: list[Wrong] = field(default_factory=list)
    ahead: list[Ahead] = field(default_factory=list)
    repaired: int = 0

    @property
    def clean(self) -> bool:
        """The law is kept."""
        return not self.wrong

    @property
    def sound(self) -> bool:
        """And ids are of our time."""
        return self.clean and not self.ahead

    @property
    def mended(self) -> bool:
        """Whether all that was wrong is no longer so."""
        return self.repaired == len(self.wrong) and all(one.state == "made" for one in self.ahead)

    def total(self, state: str) -> int:
        return sum(counts[state] for counts in self.seen.values())


async def check(spool: Spool, *, repair: bool = False, progress: Callable[[int], None] | None = None) -> CheckReport:
    """Visit everything; with `repair`, mend what is wrong. Reads only, without it."""
    report = CheckReport()
    suspects: set[Wrong] = set()
    for p, name in enumerate(spool.priorities):
        report.seen[name] = counts = Counter(dict.fromkeys(STATES, 0))
        many = await _chunk(spool, name)
        at = ""
        while True:
            reached, *rows = await spool.scripts.check("stream", p, at, many)
            for entry, state in zip(rows[::2], rows[1::2], strict=True):
                if state.decode() in STATES:
                    counts[state.decode()] += 1
                else:
                    suspects.add(Wrong(entry.decode(), state.decode()))
            if progress:
                progress(len(rows) // 2)
            at = reached.decode()
            if not at:
                break
    suspects |= await _orphans(spool)
    suspects |= await _counts(spool)
    if suspects:
        await _again(spool, suspects, report)
    report.wrong += await _bodies(spool)
    if repair and report.wrong:
        rows = [(wrong.entry, wrong.what) for wrong in report.wrong]
        for start in range(0, len(rows), CHUNK):
            report.repaired += await spool.scripts.repair(rows[start : start + CHUNK])
    for p, name in enumerate(spool.priorities):
        state, last, ahead = await spool.scripts.anew("make" if repair else "look", p)
        if state != "sound":
            report.ahead.append(Ahead(name, last, ahead, state))
    return report


async def _chunk(spool: Spool, priority: str) -> int:
    """A script sees bodies when it walks a stream: fewer at a time where they are large."""
    key = spool.keys.stream(priority)
    length: int = await command(spool.redis, "XLEN", key)
    if not length:
        return CHUNK
    used: int = await command(spool.redis, "MEMORY USAGE", key) or 0
    return max(1, min(CHUNK, CHUNK_BYTES * length // max(used, 1)))


async def _orphans(spool: Spool) -> set[Wrong]:
    found: set[Wrong] = set()
    visits = [("schedule", 0), ("held", 0), ("parked", 0)]
    visits += [("lease", p) for p in range(len(spool.priorities))]
    many = min([await _chunk(spool, name) for name in spool.priorities])
    for what, p in visits:
        names = await _all(spool, what, p, many)
        found |= {Wrong(name, "stray" if "|" in name else "orphan") for name in names}
    return found


async def _counts(spool: Spool) -> set[Wrong]:
    _, *rows = await spool.scripts.check("totals")
    kinds = zip(rows[1::3], rows[2::3], strict=True)
    return {Wrong("", "counts") for counted, members in kinds if counted != members}


async def _bodies(spool: Spool) -> list[Wrong]:
    """Shared bodies whose count is not that of the children that there are, or will be. They are counted twice; while
    children end their body's count falls, and of such a one nothing is known."""
    first = await _miscounted(spool)
    return sorted(first & await _miscounted(spool)) if first else []


async def _miscounted(spool: Spool) -> set[Wrong]:
    before = await _body_counts(spool)
    if not before:
        return set()
    children: Counter[str] = Counter()
    for p, name in enumerate(spool.priorities):
        children.update(await _all(spool, "children", p, await _chunk(spool, name)))
    after = await _body_counts(spool)
    wrong = set()
    for parent, (left, to_come) in before.items():
        right = children[parent] + to_come
        if after.get(parent) == (left, to_come) and left != str(right):
            wrong.add(Wrong(parent, f"body:{left}:{right}"))
    return wrong


async def _body_counts(spool: Spool) -> dict[str, tuple[str, int]]:
    """Per body that is shared: its count, and how many children are to come."""
    flat = await _all(spool, "bodies", 0, CHUNK)
    return {
        parent: (left, int(to_come)) for parent, left, to_come in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    }


async def _all(spool: Spool, what: str, p: int, many: int) -> list[str]:
    found: list[str] = []
    at = ""
    while True:
        reached, *rows = await spool.scripts.check(what, p, at, many)
        found += [row.decode() if isinstance(row, bytes) else str(row) for row in rows]
        at = reached.decode()
        if not at:
            return found


async def _again(spool: Spool, suspects: set[Wrong], report: CheckReport) -> None:
    """The second look, one by one."""
    orphans = await _orphans(spool) if any(s.what in {"orphan", "stray"} for s in suspects) else set()
    counts = await _counts(spool) if any(s.what == "counts" for s in suspects) else set()
    for suspect in sorted(suspects):
        if suspect.what in {"orphan", "stray", "counts"}:
            if suspect in orphans | counts:
                report.wrong.append(suspect)
            continue
        state = await _state(spool, suspect.entry)
        if state in STATES:
            report.seen[spool.priorities[int(suspect.entry[0])]][state] += 1
        elif state:
            report.wrong.append(Wrong(suspect.entry, state))


async def _state(spool: Spool, entry: str) -> str:
    """One entry's state now; "" where it is gone."""
    p, id_ = int(entry[0]), entry[1:]
    ms, seq = id_.split("-")
    before = f"{ms}-{int(seq) - 1}" if int(seq) else f"{int(ms) - 1}-{2**64 - 1}" if int(ms) else ""
    _, *rows = await spool.scripts.check("stream", p, before, 1)
    return rows[1].decode() if rows and rows[0].decode() == entry else ""

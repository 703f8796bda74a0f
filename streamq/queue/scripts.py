"""One stub per script in `lua/<verb>.lua`: the script's arguments and replies with names and types.

Times: `_ms` since the epoch in milliseconds, `_us` in microseconds, both by the server's clock. Entries are
`<p><ms>-<seq>`. `now` is "" outside tests: the server's own time decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from streamq.keys import ALIVE_MS
from streamq.mail.numbers import packed
from streamq.queue.rows import (
    AdmitRow,
    Admitted,
    Bound,
    ChildRow,
    Claim,
    Expanded,
    FinishRow,
    Grant,
    GrantRow,
    LaneSaid,
    Leased,
    MarkRow,
    MeasureRow,
    Moved,
    Opened,
    Reclaimed,
    Released,
    RenewRow,
    ResettleRow,
    Settled,
    SettleRow,
    Sifted,
    SiftRow,
    Sought,
    Started,
    StartRow,
    Status,
    Turn,
    TurnRow,
)
from streamq.queue.script import Caller
from streamq.queue.stow import Stowage

__all__ = ["Scripts", "why"]

BATCH = 100  # rows a call: 1 to 3 ms of the server's time at a million entries
LEASED = frozenset({"go", "wait", "bouncing", "expiring"})
MARKED = {"o": "ok", "l": "lost", "s": "sent"}


def route_of(way: bytes) -> str:
    """Of what a script says: `<route>` or `<route>|<site>`."""
    return way.partition(b"|")[0].decode()


def target_of(way: bytes) -> str:
    return way.decode() if b"|" in way else ""


class Scripts:
    """The scripts of one queue. `window_ms`: how long a producer's id is known."""

    def __init__(self, caller: Caller, *, window_ms: int, now: str = "") -> None:
        self.caller = caller
        self.window_ms = window_ms
        self.now = now

    async def open(self, format_: str, salt: bytes, events_kept: int, priorities: Sequence[str]) -> Opened:
        found, kept, names = await self.caller.call("open", (format_, salt, events_kept, ",".join(priorities)))
        return Opened(found.decode(), kept, tuple(names.decode().split(",")))

    async def admit(self, consumer: str, rows: Sequence[AdmitRow], routes: str = "") -> Admitted:
        """`routes`: those that this worker knows, see admit.lua; "" for any."""
        reply = await self.caller.call("admit", (self.now, consumer, self.window_ms, routes), rows)
        now, closed, token, coming, opens, step, most, *flat = reply
        rest = zip(flat[::4], flat[1::4], flat[2::4], flat[3::4], strict=True)
        statuses = [
            Status(name, notes, route_of(way), slot.decode(), target_of(way), token if name in LEASED else 0)
            for name, notes, way, slot in ((status.decode(), *said) for status, *said in rest)
        ]
        bound = Bound(int(now), int(opens), int(step), int(most))
        return Admitted(int(now), int(closed), token, int(coming), bound, statuses)

    async def start(
        self, consumer: str, rows: Sequence[StartRow], routes: str = "", left: Iterable[str] = ()
    ) -> Started:
        """`routes` as in `admit`; `left`: lanes of mails that came with these and are not among them."""
        head = (self.now, consumer, self.window_ms, routes, "\n".join(left))
        now, token, letters, opens, step, most, *flat = await self.caller.call("start", head, rows)
        slots = {nth - 1: slot.decode() for nth, slot in zip(flat[::2], flat[1::2], strict=True)}
        return Started(int(now), token, letters.decode(), Bound(int(now), int(opens), int(step), int(most)), slots)

    async def finish(
        self, consumer: str, rows: Sequence[FinishRow], at_once: Iterable[int] = ()
    ) -> tuple[int, int, str]:
        """`at_once`: places of those rows that are among so many transactions at once. The time, and that of the next
        due thing that this call made (0 none), in µs; and a letter for each row: see finish.lua."""
        counted = ",".join(str(at + 1) for at in at_once)
        now, coming, letters = await self.caller.call("finish", (self.now, consumer, counted), rows)
        return int(now), int(coming), letters.decode()

    async def turn(self, consumer: str, rows: Sequence[TurnRow], routes: str = "") -> tuple[Bound, list[Turn]]:
        """`routes` as in `admit`. No row: only what bounds reading by now."""
        now, opens, step, most, *flat = await self.caller.call("turn", (self.now, consumer, routes), rows)
        rest = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        turns = [Turn(status.decode(), route_of(way), slot.decode(), target_of(way)) for status, way, slot in rest]
        return Bound(int(now), int(opens), int(step), int(most)), turns

    async def sift(
        self, consumer: str, p: int, rows: Sequence[SiftRow], *, route: str, room: int, max_age_ms: int, behind: str
    ) -> Sifted:
        """`rows` of the stream of priority `p`, from the first behind an id on, none left out: what goes to closed
        lanes is parked, `room` others at most are taken."""
        head = (self.now, consumer, self.window_ms, p, route, room, max_age_ms, behind)
        now, closed, coming, at, letters = await self.caller.call("sift", head, rows)
        return Sifted(int(now), int(closed), int(coming), at.decode(), letters.decode())

    async def stow(self, p: int, page: Stowage, *, route: str, max_age_ms: int, behind: str) -> Sifted | None:
        """As `sift`, of a page that parks as a whole; None where it does not: nothing was done, `sift` decides."""
        head = (self.now, self.window_ms, p, route, max_age_ms, behind, *page.head)
        now, closed, coming, at, letters = await self.caller.call("stow", head, page.rows)
        if letters == b"s":
            return None
        return Sifted(int(now), int(closed), int(coming), at.decode(), letters.decode())

    async def settle(self, consumer: str, rows: Sequence[SettleRow]) -> Settled:
        now, coming, marks, *flat = await self.caller.call("settle", (self.now, consumer, self.window_ms), rows)
        known: dict[str, int] = orjson.loads(marks) if marks else {}
        return Settled(int(now), int(coming), [status.decode() for status in flat], known)

    async def expand(
        self,
        consumer: str,
        entry: str,
        token: int,
        id_: str,
        tail: bytes,
        rows: Sequence[ChildRow] = (),
        *,
        verb: str = "more",
        upload: str = "",
        all_: int = 0,
        start: int = 0,
    ) -> Expanded:
        """`rows` are the recipients from `start` on, of `all_`. Raises redis-py's error where memory is full."""
        head = (self.now, consumer, self.window_ms, verb, entry, token, id_, tail, upload, all_, start)
        status, made, *children = await self.caller.call("expand", head, rows)
        return Expanded(status.decode(), made, [child.decode() for child in children])

    async def mark(self, consumer: str, rows: Sequence[MarkRow]) -> list[str]:
        return [MARKED[letter] for letter in (await self.caller.call("mark", (consumer,), rows)).decode()]

    async def release(self, consumer: str, room: int, bell: Iterable[str] = (), routes: str = "") -> Released:
        """`routes` as in `admit`."""
        head = (self.now, consumer, min(room, BATCH), ",".join(bell), routes)
        now, coming, token, left, *flat = await self.caller.call("release", head)
        leases = [
            Leased(entry.decode(), notes, route_of(way), slot.decode(), target_of(way))
            for entry, way, notes, slot in zip(flat[::4], flat[1::4], flat[2::4], flat[3::4], strict=True)
        ]
        return Released(int(now), int(coming), token, bool(left), leases)

    async def heartbeat(self, consumer: str, leases: Sequence[tuple[str, int]]) -> set[str]:
        """Renew; returns the entries that are lost. Chunks go in one round trip."""
        chunks = [leases[at : at + BATCH] for at in range(0, len(leases), BATCH)]
        replies = await self.caller.pipeline("heartbeat", [((consumer,), chunk) for chunk in chunks])
        return {entry.decode() for reply in replies for entry in reply}

    async def reclaim(
        self, consumer: str, *, idle_ms: int, room: int, most: int, cursor: str = "", suspects: int | None = None
    ) -> Reclaimed:
        """`suspects`: see reclaim.lua; None takes as many as come."""
        seen = "" if suspects is None else suspects
        head = (self.now, consumer, self.window_ms, idle_ms, room, most, cursor, seen)
        _, token, reached, *flat = await self.caller.call("reclaim", head)
        leases = [
            (entry.decode(), notes, bool(ambiguous))
            for entry, notes, ambiguous in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        ]
        return Reclaimed(token, reached.decode(), leases)

    async def adopt(self, consumer: str, entries: Sequence[str]) -> tuple[int, list[tuple[str, bytes]]]:
        """Held mails that this version knows: token, and (entry, notes as JSON) of those that are leased now."""
        token, *flat = await self.caller.call("adopt", (consumer,), [(entry,) for entry in entries])
        return token, [(entry.decode(), notes) for entry, notes in zip(flat[::2], flat[1::2], strict=True)]

    async def grant(self, consumer: str, ttl_ms: int, rows: Sequence[GrantRow]) -> tuple[int, list[Grant]]:
        """Now, in µs, and what each row may have for `ttl_ms`; 0 gives all back."""
        now, *flat = await self.caller.call("grant", (self.now, consumer, ttl_ms), rows)
        grants = [flat[at : at + 5] for at in range(0, len(flat), 5)]
        return int(now), [
            Grant(many, int(closed), elsewhere, mails, bool(careful))
            for many, closed, elsewhere, mails, careful in grants
        ]

    async def measure(self, consumer: str, rows: Sequence[MeasureRow]) -> int:
        """A worker's part of what targets take that have just slowed. How many of them have a pace."""
        texts = [(row.target, f"{row.took:.3f}", f"{row.least:.3f}") for row in rows]
        many: int = await self.caller.call("measure", (self.now, consumer), texts)
        return many

    async def renew(self, consumer: str, rows: Sequence[RenewRow]) -> int:
        """How many of those count. Chunks go in one round trip."""
        chunks = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
        return sum(await self.caller.pipeline("renew", [((self.now, consumer), chunk) for chunk in chunks]))

    async def pause(
        self, verb: str, targets: Sequence[str], *, till_us: int = 0, hold: bool = False, reason: str = ""
    ) -> list[str]:
        """`pause` or `resume` routes, or sites (`main|example.net`, `*|example.net`); `till_us` 0: until somebody
        resumes them."""
        head = (self.now, verb, till_us, int(hold), reason)
        return [status.decode() for status in await self.caller.call("pause", head, [(target,) for target in targets])]

    async def gauge(self, lanes: Sequence[str]) -> tuple[int, list[LaneSaid]]:
        """Now, in µs, and of each lane what limits it: see gauge.lua. Chunks go in one round trip."""
        chunks = [[(lane,) for lane in lanes[at : at + BATCH]] for at in range(0, len(lanes), BATCH)]
        replies = await self.caller.pipeline("gauge", [((self.now,), chunk) for chunk in chunks])
        rows: list[LaneSaid] = []
        for _, *flat in replies:
            words = [part.decode() for part in flat]
            rows += [LaneSaid(*words[at : at + 4]) for at in range(0, len(words), 4)]
        return max((int(reply[0]) for reply in replies), default=0), rows

    async def heads(self) -> tuple[list[str], list[str], int]:
        """Of each priority the first entry, and the first that waits to be read, "" for none; and how many entries all
        streams ever took, 0 where the server does not count them."""
        said = [text.decode() for text in await self.caller.call("heads")]
        return said[::3], said[1::3], sum(int(many or 0) for many in said[2::3])

    async def limits(self, verb: str, layer: str = "", rows: Mapping[str, str] | None = None) -> tuple[int, bool]:
        """`set`, `change` or `look`; `rows`: field → value, see limits.lua. How many fields of what holds changed, and
        whether lanes are left that `look` goes on with."""
        changed, left = await self.caller.call("limits", (self.now, verb, layer), (rows or {}).items())
        return changed, bool(left)

    async def leader(self, role: str, consumer: str, ttl_ms: int) -> bool:
        return bool(await self.caller.call("leader", (role, consumer, ttl_ms)))

    async def hear(
        self, name: str, many: int, start: str = "$", *, to: str = "", after: str = "0"
    ) -> tuple[list[Any], int, int]:
        """Rows, how many of those given to it are gone, how many it never read (-1: some): see hear.lua."""
        rows, gone, lost = await self.caller.call("hear", (name, many, start, to, after))
        return rows, gone, lost

    async def heard(self, name: str, ids: Sequence[str], state: bytes, *, failed: bool) -> tuple[int, int]:
        """How many are done with, and rounds that failed in a row: see heard.lua."""
        sent, failures = await self.caller.call("heard", (name, int(failed), state), [(id_,) for id_ in ids])
        return sent, failures

    async def whose(
        self, verb: str, owner: str = "", *, ttl_ms: int = 0, force: bool = False, consumer: str = ""
    ) -> Claim:
        """take, renew, leave, join: see whose.lua."""
        head = (self.now, verb, owner, ttl_ms, int(force), consumer, ALIVE_MS)
        status, who, many = await self.caller.call("whose", head)
        return Claim(status.decode(), who.decode(), many)

    async def reap(self, idle_ms: int, consumer: str = "") -> list[str]:
        return [name.decode() for name in await self.caller.call("reap", (idle_ms, consumer))]

    async def move(
        self, verb: str, entries: Sequence[str], at_ms: int | None = None, reports: Mapping[str, bytes] | None = None
    ) -> Moved:
        """hold, unhold, retry, cancel, bounce or expire; at most 100 entries, and of large ones it does only the
        first: those that have a status. `reports`: see move.lua."""
        head = (self.now, verb, self.window_ms, "" if at_ms is None else at_ms)
        rows = [(entry, (reports or {}).get(entry, b"")) for entry in entries]
        now, coming, *flat = await self.caller.call("move", head, rows)
        return Moved(int(now), int(coming), [status.decode() for status in flat])

    async def requeue(self, letters: Sequence[str], changes: bytes = b"", *, dry: bool = False) -> list[str]:
        """`changes`: JSON, see requeue.lua; the same for all of them. `dry`: nothing is done."""
        rows = [(letter, changes) for letter in letters]
        return [status.decode() for status in await self.caller.call("requeue", (self.now, int(dry)), rows)]

    async def discard(self, letters: Sequence[str], max_bytes: int) -> tuple[int, int]:
        """How many of them were done, and how many dead letters went."""
        done, gone = await self.caller.call("discard", (max_bytes,), [(letter,) for letter in letters])
        return done, gone

    async def trim(self, age_ms: int, most_bytes: int) -> tuple[int, bool]:
        """How many dead letters went, and whether more have to."""
        gone, more = await self.caller.call("trim", (self.now, age_ms, most_bytes))
        return gone, bool(more)

    async def find(self, ids: Sequence[tuple[str | None, str]]) -> list[str]:
        """Entries that own these (tenant, id); "" where none does."""
        rows = [("-" if tenant is None else f"={tenant}", id_) for tenant, id_ in ids]
        return [entry.decode() for entry in await self.caller.call("find", (self.now, self.window_ms), rows)]

    async def search(
        self, p: int | None, below: str, many: int, *, local: str = "", domain: str = "", id_: str = ""
    ) -> tuple[str, int, list[Sought]]:
        """Where to go on in this stream (None: of the dead letters), "" at its end; how many were visited; which of
        them may be meant."""
        head = ("" if p is None else p, below, many, local, domain, id_)
        reached, visited, *flat = await self.caller.call("search", head)
        rows = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        found = [Sought(name.decode(), tenant.decode("utf-8", "replace"), same == b"1") for name, tenant, same in rows]
        return reached.decode(), visited, found

    async def template(self, verb: str, name: str, content: bytes = b"") -> int:
        """put: its version; rm: how many versions went."""
        made: int = await self.caller.call("template", (self.now, verb, name, content))
        return made

    async def expire(
        self, ages_ms: Sequence[int], lane_from: str = "", reports: Mapping[str, bytes] | None = None
    ) -> tuple[int, str, list[str]]:
        """How many ended, where among the lanes the sweep goes on, and the entries that wait for their reports."""
        head = (self.now, self.window_ms, ",".join(map(str, ages_ms)), lane_from)
        ended, at, *due = await self.caller.call("expire", head, (reports or {}).items())
        return ended, at.decode(), [entry.decode() for entry in due]

    async def resettle(self, rows: Sequence[ResettleRow]) -> int:
        again: int = await self.caller.call("resettle", (self.now, self.window_ms), rows)
        return again

    async def check(self, what: str, p: int = 0, start: str = "", many: int = BATCH) -> list[Any]:
        reply: list[Any] = await self.caller.call("check", (what, p, start, many))
        return reply

    async def hush(self, rank: int, forms: Sequence[bytes]) -> tuple[int, int]:
        """Blanks reasons that name an address; where to go on (0: at the end), and how many."""
        reached, blanked = await self.caller.call("hush", (rank,), [(form,) for form in forms])
        return reached, blanked

    async def bounds(self, mails: int, share: float, dead: int, events: int, ids: int) -> int:
        """At most so many live mails, that share of maxmemory, so many bytes of dead letters, events and ids; how many
        of them changed their level."""
        most = (mails, round(share * 1000), dead, events, ids)
        changed: int = await self.caller.call("bounds", (self.now, *most, self.window_ms))
        return changed

    async def anew(self, verb: str, p: int) -> tuple[str, str, int]:
        """look, make: what became of a stream whose last id lies ahead of the clock; that id; entries ahead."""
        state, last, ahead = await self.caller.call("anew", (self.now, verb, p))
        return state.decode(), last.decode(), ahead

    async def repair(self, rows: Sequence[tuple[str, str]]) -> int:
        return sum(await self.caller.call("repair", (self.now,), rows))


def why(**known: object) -> bytes:
    """The JSON argument of a row."""
    return packed(known)

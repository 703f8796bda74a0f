"""What became of mails in the last minutes: whether mail flows is said by outcomes, not by what waits.

Numbers are differences of the queue's own counts, of looks that happened anyway. Who has just begun to look has none to
take them from: then, once, the newest events (`SEEDED` at most) say what the counts were. What the receivers say is
read from the newest events, `REPLIES` once in five seconds, and only while attempts fail: all events of a busy queue
would cost Redis more than all other looks together.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from streamq.queue.connection import command
from streamq.queue.events import OPERATOR, Event, event_from
from streamq.queue.look import ENDED, SENT, Status
from streamq.queue.spool import Spool
from streamq.queue.stall import Pile, Stall, piled

__all__ = ["Lately", "Recent"]

WINDOW_MS = 300_000
STEP_MS = 10_000  # between two moments that are kept
SEEDED = 1000  # events
REPLIES = 200
REPLIES_MS = 5000
REPLY_MOST = 200  # characters
DEFERRED = ("deferred", "throttled")
BOUNCED = ("bounced", "expired", "rejected", "failed")
FAILING = frozenset({*DEFERRED, *BOUNCED})


@dataclass(frozen=True, slots=True)
class Lately:
    """Of the last `span_ms`. `outcomes`, `classes`: how many, by name, without what an operator bounced; `replies`:
    class → the newest reply.
    `stalled_ms`: for so long nothing has been delivered although mail could go (stall.py); `leaves`: mails a second
    that do while more are added to the unread ones, None: they do not pile up; `site`: that all failures are of, as
    far as the newest events tell; "": of several, of none; `sampled`: not all events were seen."""

    span_ms: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    replies: dict[str, str] = field(default_factory=dict)
    stalled_ms: int = 0
    leaves: float | None = None
    site: str = ""
    sampled: bool = False

    @property
    def sent(self) -> int:
        return self._sum(SENT)

    @property
    def failed(self) -> int:
        return self.deferred + self.bounced

    @property
    def deferred(self) -> int:
        """Attempts that end with a later one."""
        return self._sum(DEFERRED)

    @property
    def bounced(self) -> int:
        """Mails that were given up: bounced, expired, rejected at intake, failed as poison."""
        return self._sum(BOUNCED)

    @property
    def tries(self) -> int:
        return self.sent + self.failed

    @property
    def commonest(self) -> tuple[str, int, str]:
        """Class, how many, its newest reply; "" where nothing failed."""
        if not self.classes:
            return "", 0, ""
        name, many = min(self.classes.items(), key=lambda each: (-each[1], each[0]))
        return name, many, self.replies.get(name, "")

    def _sum(self, names: tuple[str, ...]) -> int:
        return sum(self.outcomes.get(name, 0) for name in names)


@dataclass(frozen=True, slots=True)
class _Moment:
    at_ms: int
    totals: dict[str, int]
    classes: dict[str, int]


class Recent:
    """Of one queue; for one caller at a time."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._moments: deque[_Moment] = deque(maxlen=WINDOW_MS // STEP_MS + 2)
        self._piles: deque[Pile] = deque(maxlen=WINDOW_MS // STEP_MS + 2)
        self._stall = Stall()
        self._replies: dict[str, str] = {}
        self._replies_at = 0
        self._failed = -1  # how many had, when replies were read
        self._sites: dict[str, int] = {}  # of the newest failures, two at most → when
        self._heard = ""  # the newest event that was read
        self._missed_ms = 0  # when some came in between that were not

    async def of(self, now: Status, *, barred: bool = False) -> Lately:
        """`barred`: a limit keeps all from being read, or no route is open. Raises redis-py's errors."""
        moments = self._moments
        if moments and (moments[-1].at_ms > now.now_ms or _less(now.totals, moments[-1].totals)):
            moments.clear()  # another queue: flushed, or restored
            self._piles.clear()
            self._stall = Stall()
            self._sites.clear()
        while moments and moments[0].at_ms < now.now_ms - WINDOW_MS - STEP_MS:
            moments.popleft()
        if not moments:
            moments.extend(await self._seed(now))
        first = moments[0]
        if now.now_ms - moments[-1].at_ms >= STEP_MS:
            moments.append(_Moment(now.now_ms, dict(now.totals), dict(now.classes)))
        pile = Pile(now.now_ms, now.sum("waiting"), sum(now.totals.get(name, 0) for name in ENDED))
        leaves = piled(self._piles, pile)
        if not self._piles or now.now_ms - self._piles[-1].at_ms >= STEP_MS:
            self._piles.append(pile)
        stalled_ms = self._stall.look(now, sum(now.totals.get(name, 0) for name in FAILING), barred=barred)
        outcomes, classes = _grown(now.totals, first.totals), _grown(now.classes, first.classes)
        if own := classes.pop(OPERATOR, 0):  # nobody's failure
            outcomes["bounced"] = max(0, outcomes.get("bounced", 0) - own)
        await self._listen(now, classes)
        replies = {name: self._replies[name] for name in classes if name in self._replies}
        since = now.now_ms - WINDOW_MS - STEP_MS
        sites = [site for site, at_ms in self._sites.items() if at_ms >= since]
        site = sites[0] if len(sites) == 1 else ""
        sampled = self._missed_ms >= since
        return Lately(now.now_ms - first.at_ms, outcomes, classes, replies, stalled_ms, leaves, site, sampled)

    async def _seed(self, now: Status) -> list[_Moment]:
        """What was counted in the last five minutes, step by step, or as far back as so many events go."""
        events = await self._newest(now, SEEDED)
        start = max(_ms(events[-1]), now.now_ms - WINDOW_MS) if len(events) == SEEDED else now.now_ms - WINDOW_MS
        since, classes = Counter[str](), Counter[str]()
        found, nth = [], 0
        for at_ms in (*range(now.now_ms - STEP_MS, start, -STEP_MS), start):
            while nth < len(events) and _ms(events[nth]) >= at_ms:
                kind = events[nth].kind.removeprefix("email.")
                since[kind] += 1
                classes[OPERATOR if events[nth].is_asked else events[nth].text("class")] += kind in FAILING
                nth += 1
            found.append(_Moment(at_ms, _less_by(now.totals, since), _less_by(now.classes, classes)))
        self._hear(events, SEEDED)
        return found[::-1]

    async def _listen(self, now: Status, classes: dict[str, int]) -> None:
        failed = sum(now.classes.values())
        if not classes or failed == self._failed or now.now_ms - self._replies_at < REPLIES_MS:
            return
        self._replies_at, self._failed = now.now_ms, failed
        self._replies = {name: said for name, said in self._replies.items() if name in classes}
        self._hear(await self._newest(now, REPLIES), REPLIES)

    async def _newest(self, now: Status, many: int) -> list[Event]:
        start = now.now_ms - WINDOW_MS
        rows = await command(self._spool.redis, "XREVRANGE", self._spool.keys.events, "+", start, "COUNT", many)
        return [event_from(row) for row in rows]

    def _hear(self, events: list[Event], most: int) -> None:
        if len(events) == most and _order(events[-1].at) > _order(self._heard):
            self._missed_ms = _ms(events[-1])
        if events:
            self._heard = events[0].at
        for event in reversed(events):  # the newest has the last word
            if event.text("class") and event.text("reply"):
                self._replies[event.text("class")] = event.said[:REPLY_MOST]
            if event.kind.removeprefix("email.") in FAILING and not event.is_asked:
                self._sites[event.text("site")] = _ms(event)
        self._sites = dict(sorted(self._sites.items(), key=lambda each: -each[1])[:2])


def _ms(event: Event) -> int:
    return int(event.at.partition("-")[0])


def _order(at: str) -> tuple[int, int]:
    ms, _, seq = at.partition("-")
    return int(ms or 0), int(seq or 0)


def _less(now: dict[str, int], before: dict[str, int]) -> bool:
    return any(now.get(name, 0) < many for name, many in before.items())


def _grown(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {name: many - before.get(name, 0) for name, many in now.items() if many > before.get(name, 0)}


def _less_by(now: dict[str, int], since: Counter[str]) -> dict[str, int]:
    return {name: max(0, many - since[name]) for name, many in now.items()}

"""Sites whose mails were put off, or failed much: by the newest events, since nothing else counts by site.

A mail that waits for its next attempt stands in the schedule, which knows no sites; its event does. What is read is
bounded (`FIRST`, then `MOST` in five seconds): of a busy queue it is a sample, which shares of failures bear. How many
wait in all is not said, since a sample does not know it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from streamq.queue.connection import command
from streamq.queue.events import Event, event_from
from streamq.queue.spool import Spool

__all__ = ["LATELY_MS", "Trouble", "Troubles", "site_troubles", "troubles_in"]

FIRST, MOST = 2000, 300  # events that are read at the first look, at each other
KEPT = 5000  # events that are known of
LATELY_MS = 900_000
DUE_MS = 60_000  # since it was due: what became of it may be among the events that nobody looked at
SOME, MUCH = 5, 0.5  # attempts, and the share of them, that failed lately: much
REPLY_MOST = 300  # characters
PUT_OFF = frozenset({"deferred", "throttled"})
FAILED = PUT_OFF | {"bounced", "expired", "failed"}
SENT = frozenset({"relayed", "delivered"})


@dataclass(frozen=True, slots=True)
class Trouble:
    """Of a site, by the events that were looked at. `tried`, `failed`: attempts among those of the last 15 minutes, or,
    where none was since, those whose mails wait still; `klass`, `reply`: of the last that failed, `ago_ms` ago;
    `next_ms`: until the first of its mails is tried again, 0 where that is due, None where none of them waits.
    `sampled`: there may be attempts that were not looked at."""

    site: str
    route: str
    tried: int
    failed: int
    klass: str
    reply: str
    ago_ms: int
    next_ms: int | None
    sampled: bool = False

    @property
    def target(self) -> str:
        return f"{self.route or '*'}|{self.site}"

    @property
    def words(self) -> str:
        """By share: of a busy queue the counts are those of a sample."""
        share = 100 * self.failed / max(1, self.tried)
        seen = " seen" if self.sampled else ""
        if not share:
            return f"no attempt{seen} failed lately"
        if share < 100:
            return f"{min(99, max(1, round(share)))} % of the attempts{seen} failed"
        if not self.sampled:
            return "all attempts failed"
        return "the one attempt seen failed" if self.tried == 1 else f"all of the {self.tried:,} attempts seen failed"


@dataclass(frozen=True, slots=True)
class _Try:
    at_ms: int
    entry: str
    site: str
    route: str
    kind: str
    klass: str
    reply: str
    due_ms: int
    asked: bool = False


def _try_of(event: Event) -> _Try | None:
    """None: nothing that became of a mail."""
    if not event.kind.startswith("email."):
        return None
    due = event.data.get("next_attempt_at")
    entry, site, route, klass = (event.text(name)[:REPLY_MOST] for name in ("entry", "site", "route", "class"))
    reply = event.said[:REPLY_MOST]
    at_ms, kind = int(event.at.partition("-")[0]), event.kind.removeprefix("email.")
    due_ms = due if isinstance(due, int) else 0
    return _Try(at_ms, entry, site, route, kind, klass, reply, due_ms, event.is_asked)


def troubles_in(tries: Iterable[_Try], now_ms: int, since_ms: int = 0) -> list[Trouble]:
    """Of the newest first; since `since_ms` none of them is missing. The sites with most mails that wait, then with
    most failures, first."""
    ended: set[str] = set()
    waits: dict[str, list[_Try]] = {}
    lately: Counter[tuple[str, bool]] = Counter()
    last: dict[str, _Try] = {}
    for each in tries:
        first = each.entry not in ended
        ended.add(each.entry)
        if not each.site:
            continue
        failed = each.kind in FAILED and not each.asked
        if failed:
            last.setdefault(each.site, each)
        if now_ms - each.at_ms <= LATELY_MS and (failed or each.kind in SENT):
            lately[each.site, failed] += 1
        if first and each.kind in PUT_OFF and each.due_ms > now_ms - DUE_MS:
            waits.setdefault(each.site, []).append(each)
    found = []
    for site, one in last.items():
        waiting, failed_, sent = waits.get(site, []), lately[site, True], lately[site, False]
        tried = failed_ + sent
        if not waiting and not (tried >= SOME and failed_ >= MUCH * tried):
            continue
        sampled = not tried or since_ms > now_ms - LATELY_MS
        if not tried:
            failed_ = tried = len(waiting)
        ahead = [each.due_ms - now_ms for each in waiting if each.due_ms > now_ms]
        next_ms = min(ahead) if ahead else 0 if waiting else None
        ago_ms = max(0, now_ms - one.at_ms)
        told = Trouble(site, one.route, tried, failed_, one.klass, one.reply, ago_ms, next_ms, sampled)
        found.append((len(waiting), failed_, told))
    return [told for _, _, told in sorted(found, key=lambda each: (-each[0], -each[1], each[2].site))]


class Troubles:
    """Of one queue; for one caller at a time."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._tries: deque[_Try] = deque(maxlen=KEPT)  # the oldest first
        self._last = ""
        self._since_ms = 0  # of what was since then nothing is missing

    async def of(self, now_ms: int) -> list[Trouble]:
        """Raises redis-py's errors."""
        start = f"({self._last}" if self._last else "-"
        many = MOST if self._last else FIRST
        rows = await command(self._spool.redis, "XREVRANGE", self._spool.keys.events, "+", start, "COUNT", many)
        whole = len(rows) < many and (self._last or len(rows) < self._spool.settings.events_kept)
        if rows:
            self._last = rows[0][0].decode()
            if not whole:
                self._since_ms = int(rows[-1][0].partition(b"-")[0])
        told = (_try_of(event_from(row)) for row in reversed(rows))
        self._tries.extend(each for each in told if each is not None)
        if len(self._tries) == KEPT:
            self._since_ms = max(self._since_ms, self._tries[0].at_ms)
        return troubles_in(reversed(self._tries), now_ms, self._since_ms)


async def site_troubles(spool: Spool, now_ms: int) -> list[Trouble]:
    """By one look. Raises redis-py's errors."""
    return await Troubles(spool).of(now_ms)

"""For how long nothing has been delivered although mail could go; and unread mail that piles up.

Outcomes of minutes do not say that: who delivered thousands until a moment ago, and stands still since, looks well for
minutes. Told by looks that happen anyway, a few seconds apart; nothing is asked of Redis for it.

Mail that could go: what may be released and is not (a lane's slot, the schedule); a first unread mail, or several in
hand, that are the same as at the look before; what is unread while attempts fail. No such mail is: what is held, or
scheduled for later; what waits for a limit, a throttle, a closed route; what is read, and parked for one of those; a
few in hand and none behind them: a large mail takes its time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from streamq.queue.look import SENT, Status

__all__ = ["Pile", "Stall", "piled"]

LATE_MS = 10_000
SEVERAL = 5  # in hand: fewer may be large ones
PILE_MS = 120_000  # over which unread mail has become more, in both halves
PILE_LEAST = 100  # mails, by so many


class Stall:
    """Of one queue; for one caller at a time, each look later than the one before."""

    def __init__(self) -> None:
        self._since_ms = 0
        self._sent = -1
        self._failed = 0
        self._firsts: frozenset[tuple[str, str, int]] = frozenset()

    def look(self, now: Status, failed: int, *, barred: bool) -> int:
        """ms. `failed`: attempts, ever; `barred`: nothing may be read, for a limit, or since no route is open."""
        sent = sum(now.totals.get(name, 0) for name in SENT)
        firsts = frozenset(
            (name, state, now.now_ms - ages[state])
            for name, ages in now.aged_ms.items()
            for state in ("waiting", "leased")
            if state in ages and (state == "waiting" or now.sum("leased") >= SEVERAL)
        )
        late = max(now.late_ms, now.parked_late_ms) > LATE_MS
        due = late or bool(firsts & self._firsts) or bool(firsts and failed != self._failed)
        if sent != self._sent or barred or not due:
            self._since_ms = now.now_ms
        self._sent, self._failed, self._firsts = sent, failed, firsts
        return max(0, now.now_ms - self._since_ms)


@dataclass(frozen=True, slots=True)
class Pile:
    """A moment. `left`: mails that ever did, however."""

    at_ms: int
    unread: int
    left: int


def piled(moments: Iterable[Pile], now: Pile) -> float | None:
    """Mails a second that leave, where more are added to the unread ones than that, for minutes; else None. `moments`:
    the oldest first."""
    known = list(moments)
    before = next((one for one in reversed(known) if now.at_ms - one.at_ms >= PILE_MS), None)
    between = next((one for one in reversed(known) if now.at_ms - one.at_ms >= PILE_MS // 2), None)
    if before is None or between is None or not before.unread < between.unread < now.unread:
        return None
    left, more = max(0, now.left - before.left), now.unread - before.unread
    return left * 1000 / (now.at_ms - before.at_ms) if more >= max(PILE_LEAST, left) else None

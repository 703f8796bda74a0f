"""When a courier may open another line, and what it has learnt that others should know.

SHARE     So many lines at once (`allow`), of those that all workers may have together, and until a time: without
          a word by then others may have them. What stood when we asked is what is kept for us if the answer is a
          smaller number: until it has come none is opened beyond that.
RAMP      At a time no more are being opened than stand: 1, 2, 4; of a server that has refused some, one at a time. How
          fast one is tried that nobody knows is decided over all workers (grant.lua), by how many they may have.
REFUSED   A server that turns a connection away while others stand is not down: it takes no more at once. That is news
          for all workers; until the queue has answered it, or for a growing time, nothing is opened here.
ENOUGH    A server that ends a session for its number of mails has said how many it takes: so does every line from
          the next mail on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import NamedTuple

from streamq.smtp.connection import NotConnected
from streamq.smtp.letter import Stage

__all__ = ["CROWDED", "ENOUGH", "News", "Opening", "backoff", "turned_away"]

CROWDED, ENOUGH = "connection_limit", "session_limit"  # classes of replies.toml
BEFORE_MAIL = frozenset({Stage.CONNECT, Stage.GREETING, Stage.EHLO})
NOT_NOW = frozenset({421, 454})
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds


class News(NamedTuple):
    """Since it was last asked for. `works`: lines that stand now; `lost`: the route is down. `refused`: connections
    that were turned away, and `worked`: the most that stood then. `bore`: mails after which a server would take no
    more over a connection, the fewest; 0: none said so. `full`: connections that have had as many as they may.
    `sent`: mails that were taken."""

    works: int
    lost: int
    refused: int
    worked: int
    bore: int
    full: int
    sent: int


def turned_away(failure: NotConnected) -> bool:
    """Whether this failure, while other connections stand, says that they are as many as the server takes. Names,
    TLS and accounts fail for other reasons."""
    said = failure.klass == CROWDED or failure.code in NOT_NOW
    return failure.hung_up or (said and failure.stage in BEFORE_MAIL)


def backoff(before: int, chance: float) -> float:
    """Seconds after the n-th failure: 1 doubling to 60, less a quarter to a half: the queue's own doubling is
    never shorter, so the letter that it sends to find out is not turned away here. `chance` is in [0, 1)."""
    return float(min(FIRST_WAIT * 2 ** min(before, 10), LONGEST_WAIT)) * (0.75 - chance / 4)


class Opening:
    """Of one courier. `allowance`: lines at once; `mails`: over one connection; `elsewhere`: lines of other workers
    that stand on this route."""

    def __init__(self, allowance: int, mails: int, rand: Callable[[], float]) -> None:
        self.allowance = allowance
        self.mails = mails
        self.elsewhere = 0
        self._most_mails = mails
        self._until = inf  # loop time
        self._asked: float = inf  # lines that stood when a question went out that has no answer yet
        self._careful = False
        self._rand = rand
        self._holds = 0
        self._hold_until = 0.0
        self._answering = False  # the question that is under way told of a refusal
        self._refused = self._worked = self._bore = self._full = self._sent = 0

    @property
    def held(self) -> bool:
        return asyncio.get_running_loop().time() < self._hold_until

    @property
    def lapsed(self) -> bool:
        """Whether what it may have may be others' by now."""
        return self._until < inf and asyncio.get_running_loop().time() >= self._until

    def allow(self, most: int, *, until: float, mails: int | None, elsewhere: int, careful: bool) -> None:
        self.allowance = most
        self._careful = careful
        self._until = until
        self._asked = inf
        self.elsewhere = elsewhere
        if mails is not None:
            self.mails = min(mails, self._bore or mails)
        if self._answering:
            self._answering = False
            self._hold_until = 0.0

    def more(self, wanted: int, lines: int, opening: int) -> int:
        """How many to open now, beside so many `lines` of which so many are being opened."""
        if self.lapsed:
            return 0
        at_once = 1 if self._careful else max(1, lines - opening)
        return int(max(0, min(min(wanted, self.allowance, self._asked) - lines, at_once - opening)))

    def hold(self) -> None:
        """One that came to nothing while others stand."""
        self._hold_until = asyncio.get_running_loop().time() + backoff(self._holds, self._rand())
        self._holds += 1

    def refused(self, stand: int) -> None:
        """The server turned one away that would have been one more than `stand`."""
        self._refused += 1
        self._worked = max(self._worked, stand)
        self._answering = False  # what is under way does not know of it
        self.hold()

    def stands(self, stand: int) -> None:
        """One more was let in, so that there are `stand`: perhaps it was only slower than one that was refused."""
        if self._refused:
            self._worked = max(self._worked, stand)

    def release(self) -> None:
        self._hold_until = 0.0

    def proved(self) -> None:
        """A new line had its first answer."""
        self._holds = 0

    def bore(self, mails: int) -> None:
        """The server ended a session after so many."""
        self._bore = min(self._bore or self._most_mails, max(1, mails))
        self.mails = min(self.mails, self._bore)

    def was_full(self) -> None:
        """A connection has had its number of mails."""
        self._full += 1

    def was_sent(self) -> None:
        """A mail was taken."""
        self._sent += 1

    def news(self, lines: int, stand: int, *, lost: bool) -> News:
        """Takes them, for a question that `allow` answers. `stand`: of the `lines` those that stand now; `lost`: the
        route is down."""
        self._asked = lines
        told = News(stand, int(lost), self._refused, self._worked, self._bore, self._full, self._sent)
        self._answering = self._refused > 0
        self._refused = self._worked = self._bore = self._full = self._sent = 0
        return told

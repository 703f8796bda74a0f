"""The model's book: every mail, where it stands, who holds it, how it ended. Knows DESIGN 3, not the scripts.

What each verb does to it is in predictions.py and beside it; what Redis says beside it in look.py.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from slots import Slots

from streamq.settings import Window

__all__ = ["PRIORITIES", "Ledger", "Mail", "Route", "order"]

PRIORITIES = ("high", "normal", "low")
FIRST = (0, 0)
AT_ONCE = -1  # a score that need only be no later than now


def order(entry: str) -> tuple[int, int]:
    """An id as streams order it, without its priority."""
    ms, _, seq = entry[1:].partition("-")
    return int(ms), int(seq)


@dataclass(slots=True, eq=False)
class Mail:
    """One entry of the spool and what intake makes of it. Times in ms, `place` "" for none of the indexes."""

    entry: str
    kind: str  # send, dead, hold
    lane: str
    fields: dict[str, str]
    tail: str
    due: int = 0
    deadline: int = 0
    expires: int = 0
    ident: bytes = b""
    place: str = ""
    score: int = 0
    pel: tuple[str, int] | None = None
    late: bool = False  # no heartbeat for longer than the lease
    sent: bool = False  # a 250 came from an owner that was none any more
    attempts: int = 0
    reclaims: int = 0
    intent: str = ""
    deleted: bool = False  # by a raw XDEL
    old_due: int = AT_ONCE  # where unhold puts it
    outranked: bool = False  # an operator's retry: send_at is no more
    needs: bool = False  # held for a field that nobody knows yet
    look: int = 0  # when the index of own deadlines has it looked at; 0 for never

    @property
    def p(self) -> int:
        return int(self.entry[0])

    @property
    def site(self) -> str:
        return self.lane.partition("|")[2]

    @property
    def producer(self) -> str:
        return self.fields.get("id") or self.entry

    @property
    def digest(self) -> bytes:
        return self.ident[:10]


@dataclass(slots=True)
class Route:
    """`till`: µs up to which nothing goes. `down`: it failed before MAIL, and no probe, which is a lease above `mark`,
    was judged since."""

    down: bool = False
    till: int = 0
    mark: int = 0


@dataclass(slots=True)
class Ledger:
    """A queue."""

    sites: dict[str, tuple[Window, ...]]
    window_ms: int
    age_ms: int
    now: int  # µs
    mails: dict[str, Mail] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    letters: list[Mail] = field(default_factory=list)
    buried: int = 0
    deferred: int = 0
    late: int = 0
    reclaimed: int = 0
    reclaimed_gone: int = 0  # may count or not
    resettled: int = 0
    events: list[tuple[str, str]] = field(default_factory=list)  # since the last look
    totals: Counter[str] = field(default_factory=Counter)
    cursor: list[tuple[int, int]] = field(default_factory=lambda: [FIRST] * len(PRIORITIES))
    mark: list[tuple[int, int] | None] = field(default_factory=lambda: [None] * len(PRIORITIES))
    seen: dict[bytes, tuple[str, bytes, int]] = field(default_factory=dict)
    dots: dict[str, str] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=lambda: defaultdict(Route))
    waits: dict[tuple[str, int], int] = field(default_factory=dict)
    shared: dict[str, bool] = field(default_factory=dict)  # lane → whether a lower priority had its last slot
    leader: str = ""
    slots: Slots = field(init=False)

    def __post_init__(self) -> None:
        self.slots = Slots(self.sites)

    @property
    def now_ms(self) -> int:
        return self.now // 1000

    # -- where a mail stands -----------------------------------------------------------------------

    def state(self, mail: Mail) -> str:
        """DESIGN 3: one that stands in an index counts there alone."""
        if mail.place:
            return mail.place
        if mail.pel:
            return "leased"
        assert order(mail.entry) > self.cursor[mail.p], f"{mail.entry} is in no state"
        return "waiting"

    def stream(self, p: int) -> list[Mail]:
        """What lies in a stream, in its order."""
        there = (mail for mail in self.mails.values() if mail.p == p and not mail.deleted)
        return sorted(there, key=lambda mail: order(mail.entry))

    def of(self, *states: str) -> list[Mail]:
        return [mail for mail in self.mails.values() if self.state(mail) in states]

    def parked(self, lane: str, p: int) -> list[Mail]:
        """A lane's mails of one priority, oldest first."""
        there = (m for m in self.mails.values() if m.place == "parked" and m.lane == lane and m.p == p)
        return sorted(there, key=lambda mail: order(mail.entry))

    def lanes(self) -> Iterator[tuple[str, int]]:
        yield from {(mail.lane, mail.p) for mail in self.mails.values() if mail.place == "parked"}

    def rereading(self, p: int) -> bool:
        """Its group was made again and has not reached what lay there then."""
        mark = self.mark[p]
        return mark is not None and any(self.cursor[p] < order(mail.entry) <= mark for mail in self.stream(p))

    def is_owner(self, consumer: str, entry: str, token: int | None) -> bool:
        mail = self.mails.get(entry)
        return mail is not None and mail.pel == (consumer, token)

    # -- arrows ------------------------------------------------------------------------------------

    def lease(self, mail: Mail, consumer: str, token: int) -> None:
        """No other lease of it ever had that token."""
        assert token > self.tokens.get(mail.entry, 0), f"{mail}: token {token} was there before"
        self.tokens[mail.entry] = token
        mail.pel, mail.late, mail.place = (consumer, token), False, ""

    def put(self, mail: Mail, place: str, score: int = 0) -> None:
        """Out of a lease, or from one index into another: then one that was just read again stays so."""
        if not mail.place:
            mail.pel, mail.late = None, False
        mail.place, mail.score = place, score

    def park(self, mail: Mail, wait_us: int = 0) -> None:
        key = (mail.lane, mail.p)
        others = bool(self.parked(*key))
        self.put(mail, "parked")
        self.waits[key] = max(self.waits.get(key, 0) if others else 0, self.now + wait_us)

    def event(self, kind: str, of: str) -> None:
        self.events.append((kind, of))

    def end(self, mail: Mail, kind: str) -> None:
        """Gone, with its event; "" for one that somebody deleted."""
        assert mail.entry not in self.ended, f"{mail.entry} ends twice"
        self.ended[mail.entry] = kind or "vanished"
        del self.mails[mail.entry]
        if kind:
            self.event(kind, mail.entry)

    def bury(self, mail: Mail, kind: str) -> bool:
        """A dead letter, unless its entry was deleted."""
        if mail.deleted:
            self.end(mail, "")
            return False
        self.unsee(mail)
        self.letters.append(mail)
        self.buried += 1
        self.end(mail, kind)
        return True

    def forget(self, mail: Mail) -> None:
        """What hangs on it."""
        mail.attempts = mail.reclaims = mail.look = 0
        mail.intent, mail.sent, mail.needs = "", False, False

    # -- producers' ids ----------------------------------------------------------------------------

    def generation(self, ms: int) -> int:
        return ms // self.window_ms

    def owner(self, digest: bytes) -> tuple[str, bytes] | None:
        """An id is known in the window in which it came, and in the next."""
        entry, content, at = self.seen.get(digest, ("", b"", 0))
        if not entry or self.generation(self.now_ms) - self.generation(at) > 1:
            return None
        return entry, content

    def content_of(self, entry: str) -> bytes:
        """Of a mail that is there, whose content nobody has noted: what it holds is compared."""
        mail = self.mails.get(entry)
        return mail.ident[10:] if mail is not None and not mail.deleted else b""

    def see(self, mail: Mail) -> None:
        self.seen[mail.digest] = (mail.entry, mail.ident[10:], self.now_ms)

    def remember(self, mail: Mail) -> None:
        """It was sent, and its content is nobody's to compare any more."""
        if id_ := mail.fields.get("id"):
            digest = ident(mail.fields.get("tenant", ""), id_, "")[:10]
            if self.owner(digest) is None:
                self.seen[digest] = (mail.entry, b"", self.now_ms)

    def unsee(self, mail: Mail) -> None:
        """Ended without having been sent: the id is free."""
        if mail.ident and not mail.deleted and self.seen.get(mail.digest, ("",))[0] == mail.entry:
            del self.seen[mail.digest]

    # -- rules, limits -----------------------------------------------------------------------------

    def rule(self, mail: Mail) -> str:
        tenant = mail.fields.get("tenant")
        by_id = f"id:{mail.producer}" + (f"\n{tenant}" if tenant else "")
        if mail.producer != mail.entry and by_id in self.rules:
            return self.rules.pop(by_id)
        return self.rules.get(f"rule:domain:{mail.site}", "") or self.rules.get("rule:all", "")

    def slot(self, lane: str, said: bool) -> bool:
        """Take one, if there is one now; `said` is what the script did, for where rounding decides."""
        route = self.routes[lane.partition("|")[0]]
        if route.till > self.now or not self.slots.is_open(lane, self.now, said):
            return False
        self.slots.take(lane, self.now)
        if route.down:
            route.till = self.now + 1  # this mail is the probe; how long, Redis says
        return True


def ident(tenant: str, id_: str, content: str) -> bytes:
    """As the wire protocol has it: 10 bytes of digest, 4 of content."""
    kin = re.sub(r"[0-9](?=[^0-9]*$)", "", id_)  # without its last digit: ids that count up stand together
    near, whole = (hashlib.sha1(f"{tenant}\0{each}".encode(), usedforsecurity=False).digest() for each in (kin, id_))
    digest = near[:2] + whole[:8]
    return digest + hashlib.sha1(content.encode(), usedforsecurity=False).digest()[:4]

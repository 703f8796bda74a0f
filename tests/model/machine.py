"""Random interleavings of several workers, producers and operators; after every step the law and the book."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import hypothesis.strategies as st
import mishaps
from actors import Spec, Worker
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ledger import PRIORITIES, Mail
from predictions import End
from rig import IDS, Rig

from streamq.queue.connection import command

__all__ = ["Machine"]

QUEUES = itertools.count()
Do = TypeVar("Do", bound=Callable[..., None])

WORKERS = 3
PICKS = st.integers(0, 10_000)
FEW = st.integers(1, 5)
MANY = st.sampled_from([3, 1, 2, 9])
WHO = st.integers(0, WORKERS - 1)
DIGITS = st.integers(0, len(PRIORITIES) - 1)
LANES = st.sampled_from(["main|few.test", "main|few.test", "main|some.test", "main|free.test", "alt|few.test"])
AHEAD = st.sampled_from([0, 0, 0, 1, 700, 5_000, 120_000, 7_200_000])
ALIVE = st.sampled_from([0, 0, 0, 1, 900, 30_000, 600_000])
KINDS = st.sampled_from(["send"] * 8 + ["dead", "hold", "hold"])
ID = st.sampled_from(["", *IDS])
OPS = st.permutations(["sent", "defer", "dead", "park", "down", "hold", "keep", "gone"])
BREACHES = st.sampled_from(["lost", "held too", "scheduled too", "both", "lane", "counts", "orphan"])
WAITS = st.sampled_from([300, 0, 5_000, 90_000, 4_000_000])
STEPS_US = st.sampled_from(
    [1, 999, 1_000, 100_000, 400_000, 1_050_000, 5_000_000, 61_000_000, 700_000_000, 1_900_000_000, 3_700_000_000]
)
VERBS = st.sampled_from(["hold", "unhold", "retry", "cancel", "bounce", "expire", "hold", "unhold"])


class Act(NamedTuple):
    """What can be done next: `when` it can, with what is drawn for each argument."""

    name: str
    weight: int
    when: Callable[[Machine], bool]
    draws: st.SearchStrategy[dict[str, Any]]


ACTS: list[Act] = []


def act(
    weight: int = 1, *, when: Callable[[Machine], bool] = lambda machine: True, **draws: st.SearchStrategy[Any]
) -> Callable[[Do], Do]:
    """Not a rule of its own: of many rules hypothesis leaves most out for a whole example, and an example of
    nothing but reading tells little. One rule draws among those that would do something now."""

    def add(do: Do) -> Do:
        ACTS.append(Act(do.__name__, weight, when, st.fixed_dictionaries(draws)))
        return do

    return add


def has(*what: str) -> Callable[[Machine], bool]:
    """Any worker has any of that."""
    return lambda machine: any(getattr(worker, name) for worker in machine.rig.workers for name in what)


def lies(*states: str) -> Callable[[Machine], bool]:
    """Any mail is in any of these states; in any at all."""
    return lambda machine: bool(machine.rig.book.of(*states) if states else machine.rig.book.mails)


def any_mail(fits: Callable[[Mail], bool]) -> Callable[[Machine], bool]:
    return lambda machine: any(map(fits, machine.rig.book.mails.values()))


def is_deletable(mail: Mail) -> bool:
    """By hand, after it was admitted."""
    return not mail.deleted and bool(mail.place or (mail.pel is not None and mail.pel[1] >= 16))


class Machine(RuleBasedStateMachine):
    """`url` is set by who runs it."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(self.url, f"m{next(QUEUES)}", WORKERS)
        self.steps = 0
        self.old: mishaps.Snapshot | None = None

    def some(self, things: Sequence[str], pick: int, many: int) -> list[str]:
        """Up to `many` of them, from a place on, without repeats."""
        at = pick % len(things) if things else 0
        return [*things[at:], *things[:at]][:many]

    def worker(self, who: int, has: str = "name") -> Worker:
        """One of those that have any of it."""
        able = [worker for worker in self.rig.workers if getattr(worker, has)]
        return able[who % len(able)]

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        able = sorted((act for act in ACTS if act.when(self)), key=lambda act: -act.weight)
        name = data.draw(st.sampled_from([act.name for act in able for _ in range(act.weight)]))
        drawn = data.draw(next(act.draws for act in able if act.name == name))
        getattr(self, name)(**drawn)

    # -- producers ---------------------------------------------------------------------------------

    @initialize(p=DIGITS, lane=LANES, id_=ID)
    def first(self, p: int, lane: str, id_: str) -> None:
        """Something to do for each, from the start."""
        for _ in range(3):
            self.rig.produce(p, Spec(lane))
        self.rig.produce(1, Spec("main|free.test", id=id_))
        for who in range(WORKERS):
            self.take(who, 1)

    @act(2, p=DIGITS, lane=LANES, many=FEW)
    def burst(self, p: int, lane: str, many: int) -> None:
        for _ in range(many):
            self.rig.produce(p, Spec(lane))

    @act(4,
        p=DIGITS, lane=LANES, kind=KINDS, id_=ID, content=st.sampled_from("ab"), tenant=st.sampled_from(["", "t"]),
        ahead=AHEAD, alive=ALIVE, many=st.integers(1, 2),
    )  # fmt: skip
    def produce(
        self, p: int, lane: str, kind: str, id_: str, content: str, tenant: str, ahead: int, alive: int, many: int
    ) -> None:
        now = self.rig.book.now_ms
        send_at, expires_at = ahead and now + ahead, alive and now + alive
        for _ in range(many):
            self.rig.produce(p, Spec(lane, kind, id_, content, tenant, send_at, expires_at))

    # -- workers -----------------------------------------------------------------------------------

    @act(2, who=WHO, shares=st.tuples(*[st.integers(0, 4)] * 3).filter(any))
    def read(self, who: int, shares: tuple[int, ...]) -> None:
        self.rig.read(self.worker(who), shares)

    @act(
        3,
        when=lies("waiting"),
        who=WHO,
        p=DIGITS,
        stows=st.booleans(),
        room=st.sampled_from([3, 1, 20]),
        most=st.sampled_from([20, 2]),
    )
    def sift(self, who: int, p: int, stows: bool, room: int, most: int) -> None:
        self.rig.sift(self.worker(who), p, room, most, stows=stows)

    @act(2, when=has("hand"), who=WHO, many=st.sampled_from([1, 3, 12]), pick=PICKS)
    def admit(self, who: int, many: int, pick: int) -> None:
        """Part of what it read, or all; what was admitted already is admitted once more."""
        worker = self.worker(who, "hand")
        self.rig.admit(worker, self.bodied(self.some(list(worker.hand), pick, many)))

    @act(4, when=lies("waiting", "leased"), who=WHO, many=st.sampled_from([2, 1, 4]))
    def take(self, who: int, many: int) -> None:
        """The usual way: read, and admit all of it."""
        self.rig.read(self.worker(who), (many, many, many))
        fresh = [entry for entry in self.worker(who).hand if entry not in self.worker(who).ready]
        self.rig.admit(self.worker(who), self.bodied(fresh))

    @act(when=has("hand"), who=WHO, whose=WHO, pick=PICKS)
    def admit_of_others(self, who: int, whose: int, pick: int) -> None:
        """A worker that slept since it read."""
        known = [*self.worker(whose, "hand").hand, *(entry for entry, _ in self.worker(who).old)]
        self.rig.admit(self.worker(who), self.bodied(self.some(known, pick, 3)))

    def bodied(self, entries: Sequence[str]) -> list[str]:
        return [entry for entry in dict.fromkeys(entries) if not self.rig.mail(entry).deleted]

    @act(5, when=has("leases"), who=WHO, ops=OPS, many=MANY, pick=PICKS, wait=WAITS)
    def settle(self, who: int, ops: list[str], many: int, pick: int, wait: int) -> None:
        worker = self.worker(who, "leases")
        self.end(worker, self.some([entry for entry, _ in worker.leases], pick, many), ops, wait)

    @act(
        3,
        when=has("leases"),
        who=WHO,
        op=st.sampled_from(["defer", "park", "dead", "hold"]),
        many=MANY,
        pick=PICKS,
        wait=WAITS,
    )
    def give_up(self, who: int, op: str, many: int, pick: int, wait: int) -> None:
        self.settle(who, [op], many, pick, wait)

    @act(2, when=has("old"), who=WHO, ops=OPS, many=MANY, pick=PICKS)
    def settle_late(self, who: int, ops: list[str], many: int, pick: int) -> None:
        """With tokens that it had once."""
        worker = self.worker(who, "old")
        old = {f"{n}": lease for n, lease in enumerate(worker.old)}
        picked = [old[name] for name in self.some(list(old), pick, many)]
        ends = [self.ended(op, *lease, 300) for op, lease in zip(itertools.cycle(ops), picked, strict=False)]
        self.rig.settle(worker, ends)

    def end(self, worker: Worker, entries: Sequence[str], ops: Sequence[str], wait: int) -> None:
        leases = dict(worker.leases)
        pairs = zip(itertools.cycle(ops), entries, strict=False)
        self.rig.settle(worker, [self.ended(op, e, leases[e], wait) for op, e in pairs if op != "keep"])

    def ended(self, op: str, entry: str, token: int, wait: int) -> End:
        mail = self.rig.mail(entry)
        if op == "gone" and not mail.deleted:
            op = "park"
        return End("park" if op in {"down", "keep"} else op, mail, token, wait, op == "down")

    @act(3, when=has("ready"), who=WHO, pick=PICKS, many=MANY, ops=OPS)
    def transact(self, who: int, pick: int, many: int, ops: list[str]) -> None:
        """Mark before the dot; what came late is settled as sent, what is lost is dropped."""
        worker = self.worker(who, "ready")
        leases = [lease for lease in worker.leases if lease[0] in worker.ready]
        picked = self.some([entry for entry, _ in leases], pick, many)
        said = self.rig.mark(worker, [(entry, dict(leases)[entry]) for entry in picked])
        for entry, word in zip(picked, said, strict=True):
            if word == "lost":
                worker.drop(entry)
            elif word == "sent":
                self.end(worker, [entry], ["sent"], 0)
        self.end(worker, [entry for entry in picked if entry in worker.hand], ops, 1_000)

    @act(2, when=has("hand", "old"), who=WHO)
    def heartbeat(self, who: int) -> None:
        worker = self.worker(who)
        self.rig.heartbeat(worker, [*worker.leases, *worker.old])

    @act(when=has("hand"), who=WHO)
    def stall(self, who: int) -> None:
        self.rig.stall(self.worker(who, "hand"))

    @act(2, when=has("hand"), who=WHO)
    def crash(self, who: int) -> None:
        self.rig.crash(self.worker(who, "hand"))

    @act(who=WHO)
    def recover(self, who: int) -> None:
        self.rig.recover(self.worker(who))

    @act(when=any_mail(lambda mail: mail.late), who=WHO, room=st.sampled_from([4, 1, 9]))
    def reclaim(self, who: int, room: int) -> None:
        cursor = self.rig.reclaim(self.worker(who), room)
        if cursor:
            self.rig.reclaim(self.worker(who), room, cursor)

    @act(3, when=lies("scheduled", "parked"), who=WHO, by=STEPS_US)
    def release_later(self, who: int, by: int) -> None:
        self.rig.moved(by)
        self.release(who, 9, True)

    @act(3, when=lies("scheduled", "parked"), who=WHO)
    def release_on_time(self, who: int) -> None:
        """To the µs at which something falls due: that is where a limit is broken, if anywhere."""
        self.rig.moved(max(self.rig.next_due() - self.rig.book.now, 0))
        self.release(who, 9, True)

    @act(2, when=has("hand"), who=WHO, by=WHO)
    def steal(self, who: int, by: int) -> None:
        """A worker stalls, another takes over."""
        self.rig.stall(self.worker(who, "hand"))
        self.reclaim(by, 9)

    @act(3, when=lies("scheduled", "parked"), who=WHO, room=st.sampled_from([4, 1, 0, 9]), listens=st.booleans())
    def release(self, who: int, room: int, listens: bool) -> None:
        if listens:
            self.rig.listen(self.worker(who))
        self.rig.release(self.worker(who), room)

    @act(when=any_mail(lambda mail: mail.needs), who=WHO)
    def adopt(self, who: int) -> None:
        self.rig.adopt(self.worker(who))

    # -- keepers -----------------------------------------------------------------------------------

    @act(3, by=STEPS_US)
    def advance(self, by: int) -> None:
        self.rig.moved(by)

    @act(by=st.integers(1_000, 500_000_000))
    def slow_clock(self, by: int) -> None:
        """A failover to a server whose clock is behind: no time comes twice."""
        self.rig.release(self.worker(0), 0)
        self.rig.spool.scripts.now = str(self.rig.book.now - by)
        self.rig.release(self.worker(0), 3)
        self.rig.moved(0)

    @act(2, when=lies())
    def expire(self) -> None:
        self.rig.expire()

    @act(p=DIGITS, how=st.sampled_from(["open", "read", "heartbeat", "settle"]), who=WHO)
    def lose_group(self, p: int, how: str, who: int) -> None:
        worker = self.worker(who)
        if any(mail.deleted and mail.p == p for mail in self.rig.book.mails.values()):
            return
        stale = [lease for lease in [*worker.leases, *worker.old] if lease[0][0] == str(p)][:1]
        self.rig.lose_group(p)
        if how == "heartbeat" and stale:
            self.rig.heartbeat(worker, stale)
        elif how == "settle" and stale:
            self.rig.settle(worker, [self.ended("sent", *stale[0], 0)])
        elif how == "read":
            self.rig.run(self.rig.spool.read(worker.name, [(PRIORITIES[p], 1)]))
        else:
            self.rig.run(self.rig.spool.open())

    @act(who=WHO)
    def reap(self, who: int) -> None:
        """A worker that holds nothing says goodbye; one that does stays. The server has lost its scripts."""
        self.rig.raw("SCRIPT", "FLUSH")
        mishaps.reap(self.rig, self.worker(who))

    @act(who=WHO, ttl=st.sampled_from([10**7, 0]))
    def lead(self, who: int, ttl: int) -> None:
        self.rig.lead(self.worker(who), ttl)

    # -- operators ---------------------------------------------------------------------------------

    @act(3, when=lies(), verb=VERBS, pick=PICKS, many=FEW, later=st.sampled_from([None, None, 0, 5_000]))
    def move(self, verb: str, pick: int, many: int, later: int | None) -> None:
        book = self.rig.book
        gone = list(book.ended)[-2:]
        entries = self.some([*book.mails, *gone], pick, many)
        self.rig.move(verb, entries, None if later is None else book.now_ms + later)

    @act(name=st.sampled_from(["rule:domain:some.test", "rule:all", "id:a1"]), verb=st.sampled_from(
        ["hold", "cancel", "bounce", "", "", ""]
    ))  # fmt: skip
    def standing(self, name: str, verb: str) -> None:
        for other in [other for other in self.rig.book.rules if other.startswith("rule:")]:
            self.rig.rule(other, "")  # which of two rules wins is nowhere said
        self.rig.rule(name, verb)

    @act(when=lambda machine: bool(machine.rig.book.letters), pick=PICKS)
    def requeue(self, pick: int) -> None:
        self.rig.requeue(lambda letters: letters[pick % len(letters)])

    @act(when=any_mail(lambda mail: is_deletable(mail)), pick=PICKS)
    def delete(self, pick: int) -> None:
        """An XDEL by hand, of a mail that was admitted."""
        mails = [mail for mail in self.rig.book.mails.values() if is_deletable(mail)]
        mail = mails[pick % len(mails)]
        if not self.rig.book.rereading(mail.p):
            self.rig.delete(mail)

    @act(when=lies(), pick=PICKS, what=BREACHES)
    def repair(self, pick: int, what: str) -> None:
        mishaps.break_and_repair(self.rig, what, pick)

    @act()
    def snapshot(self) -> None:
        self.old = mishaps.snapshot(self.rig)

    @act(when=lambda machine: machine.old is not None)
    def failover(self) -> None:
        assert self.old
        mishaps.failover(self.rig, self.old)
        self.old = None

    # -- the law -----------------------------------------------------------------------------------

    @invariant()
    def law(self) -> None:
        self.rig.law()
        self.rig.find()
        self.steps += 1
        if self.steps % 8 == 0:
            self.rig.check()

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                mishaps.drain(self.rig)
        finally:
            self.rig.run(command(self.rig.spool.redis, "FLUSHALL"))
            self.rig.close()

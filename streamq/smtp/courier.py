"""The courier: takes letters from an outbox and carries them to one relay over kept connections.

LINES    Up to `connections` tasks, each with one connection and a number 0 .. n-1. A line takes letters for
         as long as there are any, rests, and closes with QUIT after `idle`, after `mails_per_connection`, after
         `connection_lifetime`, or when the token that opened it is no longer the route's.
OPENING  One line for LETTERS_PER_LINE letters that wait (for each that is `counted`), beside those at work. Until a
server has answered a
         mail on this route, one line only: a route that is down is not met by twenty connections. More of it, and
         what is `news` for all workers, in opening.py.
SHARE    `allow` says how many lines there may be; it may change at any time. Those that are too many close with QUIT
         after the letter that they have. `wanted` is how many there is work for; `short` is called when that is more
         than may be, or when there is news that should not wait.
DOWN     A connection that fails before MAIL, or that the server gives up in its first transaction, or a reply
         about our account (scope route, park) takes the route down, if no other line has proved that it
         works. Then every letter in the outbox, and every one that comes, is reported PARK with scope ROUTE
         and the class of the failure, with `hint_ms` until the next probe. After that time (1 s, doubling to
         60 s, less jitter) the next letter makes one attempt. No timer probes by itself: whoever holds the
         mails decides by handing out one.
         If another line works, a failed opening only holds back further ones for the same growing time.
AHEAD    With `overlap` a line may have two letters under way: it finishes both, or reports both.
DONE     `done` is called exactly once for each letter that was taken, also when a line is cancelled or the
         mark raises. What nobody took stays in the outbox for `drain`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from math import inf

from streamq.settings import RouteSettings
from streamq.smtp.access import Access
from streamq.smtp.connection import Connection, NotConnected
from streamq.smtp.handshake import connect
from streamq.smtp.letter import Action, Letter, Report, RouteState, Scope
from streamq.smtp.opening import CROWDED, ENOUGH, News, Opening, turned_away
from streamq.smtp.outage import Outage
from streamq.smtp.outbox import Outbox
from streamq.smtp.replies import Replies, default_replies
from streamq.smtp.transaction import Mark, Transaction

__all__ = ["Again", "Connect", "Courier", "Done", "Mark", "RouteState"]

Done = Callable[[Letter, Report], None]
Again = Callable[[Letter], Awaitable[bool]]
Connect = Callable[[Access, int, Replies], Awaitable[Connection]]

LETTERS_PER_LINE = 4
# About this mail's own time, or ours: nothing is known of the route
SAYS_NOTHING = frozenset({"interrupted", "slow"})


async def _is_fresh(letter: Letter) -> bool:
    return True


class Courier:
    """One route. `run` works until `stop` or `close`; it raises only what `done`, `mark`, `on_state` raise.

    `mark(connection number, letter)` is awaited before the first byte of the body (and after the 354, where there
    is one): False ends the transaction with ABANDON. `again(letter)` is awaited before a MAIL that is later than
    `fresh_until`: False takes the letter from the courier. `priorities` are the names of letters' priorities, from 0
    on. `rand` gives numbers in [0, 1); `opener` opens a connection, or raises `NotConnected`.
    """

    def __init__(
        self,
        name: str,
        route: RouteSettings,
        outbox: Outbox,
        done: Done,
        mark: Mark | None = None,
        *,
        again: Again = _is_fresh,
        rules: Replies | None = None,
        on_state: Callable[[RouteState], None] | None = None,
        priorities: Sequence[str] = ("high", "normal", "low"),
        short: Callable[[], object] = lambda: None,
        rand: Callable[[], float] = random.random,
        opener: Connect | None = None,
    ) -> None:
        self.name = name
        self.route = route
        self._outbox = outbox
        self._done = done
        self._mark = mark
        self._again = again
        self._rules = rules or default_replies()
        self._on_state = on_state
        self._limits = route.transaction_seconds(priorities)
        self._short = short
        self._leaving: set[int] = set()  # lines that close since there are too many
        self._lot = Opening(route.connections, route.mails_per_connection, rand)
        self._opener = opener or connect
        self._access = Access(route, name)
        self._group: asyncio.TaskGroup | None = None
        self._lines: dict[int, asyncio.Task[None]] = {}
        self._opening: set[int] = set()
        self._proven: set[int] = set()  # lines whose server has answered a mail
        self._route_proven = False
        self._outage = Outage(rand)
        self._epoch = 0  # lines of an older one saw the route before it went down
        self._refusing = False
        self._stopping = asyncio.Event()

    @property
    def connections(self) -> int:
        """Open now, those being opened included."""
        return len(self._lines)

    def know(self, rules: Replies) -> None:
        """What replies mean from now on. Connections that are open keep theirs."""
        self._rules = rules

    @property
    def standing(self) -> int:
        """Lines whose server has greeted us, and that we are logged in to."""
        return len(self._lines) - len(self._opening)

    @property
    def up(self) -> bool:
        return self._outage.failure is None

    @property
    def waiting(self) -> int:
        """Letters that nobody has taken."""
        return len(self._outbox)

    @property
    def closed_for(self) -> float:
        """Seconds until a letter may find out whether the route is up again; 0: now, or it is up."""
        return self._outage.left

    @property
    def at_work(self) -> int:
        """Lines that have a letter."""
        return len(self._lines) - len(self._opening) - self._outbox.resting

    @property
    def wanted(self) -> int:
        """How many lines there is work for; as many as are at work when nothing waits."""
        at_work = self.at_work
        waiting = len(self._outbox)
        if not self._route_proven:
            return max(at_work, min(waiting, 1))
        counted = self._outbox.counted
        return min(self.route.connections, at_work + counted + -(-(waiting - counted) // LETTERS_PER_LINE))

    @property
    def held(self) -> bool:
        """It has no line and opens none for now: the server turned it away, and takes other workers'."""
        return not self._lines and self._lot.elsewhere > 0 and self._lot.held

    def news(self) -> News:
        """What all workers should know of the route; each is told once."""
        return self._lot.news(len(self._lines), self.standing, lost=not self.up)

    def allow(
        self, most: int, *, until: float = inf, mails: int | None = None, elsewhere: int = 0, careful: bool = False
    ) -> None:
        """So many lines at once from now on; none is opened after `until` (loop time), and closing those that there are
        then is the caller's part. `mails`: so many over one connection; None: as before. `elsewhere`: lines of other
        workers that stand. `careful`: the server has refused some."""
        self._lot.allow(most, until=until, mails=mails, elsewhere=elsewhere, careful=careful)
        if len(self._lines) - len(self._leaving) > most:
            self._outbox.wake_all()  # who rests looks, and leaves
        self._consider()

    def look_again(self) -> None:
        """Somebody says that the route is well: the next letter finds out, whatever the time."""
        self._outage.may_be_over()
        self._lot.release()

    async def run(self) -> None:
        if self._group is not None:
            raise RuntimeError("a courier runs once")
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._outbox.call_when_short_of_hands(self._consider)
                self._consider()
                try:
                    await self._stopping.wait()
                finally:
                    self._stopping.set()  # cancelled: nothing may be opened any more
        finally:
            self._outbox.call_when_short_of_hands(None)

    def stop(self) -> None:
        """Take no more letters; finish the transactions under way."""
        self._stopping.set()
        for number, task in self._lines.items():
            if number in self._opening:  # holds no letter
                task.cancel()
        self._outbox.wake_all()

    async def close(self, grace: float) -> None:
        """`stop`, wait up to `grace` seconds, then abort: past their dot AMBIGUOUS, before it PARK."""
        self.stop()
        tasks = set(self._lines.values())
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=grace)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- lines -----------------------------------------------------------------------------------------------

    def _consider(self) -> None:
        """Open what is missing; called whenever a letter came that no resting line takes."""
        group = self._group
        waiting = len(self._outbox)
        if group is None or not waiting or self._stopping.is_set():
            return
        if self._outage.left > 0:
            self._refuse_soon()
            return
        if len(self._lines) >= self.route.connections:  # no worker may have more: nothing to open, nor to ask for
            return
        if (self._proven or self._lot.elsewhere) and self._lot.held:
            return
        wanted = 1 if not self._route_proven else self.wanted
        if wanted > self._lot.allowance:
            self._short()
        for _ in range(self._lot.more(wanted, len(self._lines), len(self._opening))):
            number = next(number for number in range(self.route.connections) if number not in self._lines)
            self._opening.add(number)
            self._lines[number] = group.create_task(self._line(number, self._epoch), name=f"{self.name}-{number}")

    async def _line(self, number: int, epoch: int) -> None:
        try:
            try:
                if self._lot.lapsed:  # this process stood still since it was begun
                    return
                link = await self._opener(self._access, number, self._rules)
            except NotConnected as failure:
                self._opening_failed(failure, epoch)
            else:
                self._opening.discard(number)
                self._lot.stands(self.standing)
                asyncio.get_running_loop().call_soon(self._consider)  # there may be more
                await self._keep(link, epoch)
        except BaseException:  # the group ends: nothing may be opened any more
            self._stopping.set()
            raise
        finally:
            self._opening.discard(number)
            self._leaving.discard(number)
            del self._lines[number]
        self._consider()

    async def _keep(self, link: Connection, epoch: int) -> None:
        try:
            await self._work(link, epoch)
        finally:
            if link.usable and link.mails >= self._lot.mails:
                self._lot.was_full()
            self._proven.discard(link.number)
            await link.quit()

    async def _work(self, link: Connection, epoch: int) -> None:
        take = partial(self._take_ahead, link, epoch)
        transaction = Transaction(link, self.route, self._rules, self._mark, self._limits, take)
        try:
            while (letter := transaction.ahead) is not None or self._goes_on(link, epoch):
                if letter is None and (letter := self._outbox.get_nowait()) is None:
                    if not await self._rest(link):
                        break
                    continue
                if letter is not transaction.ahead and letter.late and not await self._ask_again(letter, transaction):
                    continue
                report: Report | None = None
                try:
                    report = await transaction.run(letter)
                finally:
                    if report is None:
                        report = transaction.interrupted()
                    if report.action is Action.SENT:
                        self._lot.was_sent()
                    fails = self._fails(link, report, epoch)
                    if fails:
                        self._go_down(report)
                    self._done(letter, report)
                if fails:
                    self._spread_word()
        finally:
            if (left := transaction.ahead) is not None:
                self._done(left, transaction.turned_back())
        self._outbox.pass_on()

    async def _ask_again(self, letter: Letter, transaction: Transaction) -> bool:
        """It waited here for longer than its slot lasts. False: it is no longer ours."""
        try:
            return await self._again(letter)
        except BaseException:
            self._done(letter, transaction.turned_back())
            raise

    def _goes_on(self, link: Connection, epoch: int) -> bool:
        """One more mail over this connection."""
        at_work = self._fit(link) and epoch == self._epoch and not self._stopping.is_set()
        return at_work and not self._is_surplus(link.number)

    def _take_ahead(self, link: Connection, epoch: int, fits: Callable[[Letter], bool]) -> Letter | None:
        """The next letter, to be sent behind the body of the last; nothing goes behind a connection's last mail."""
        first = self._outbox.first
        if first is None or not self._goes_on(link, epoch) or not fits(first) or first.late:
            return None
        return self._outbox.get_nowait()

    def _fit(self, link: Connection) -> bool:
        """Whether the connection may have another mail."""
        return (
            link.usable
            and link.mails < self._lot.mails
            and link.life_left(self.route.connection_lifetime) > 0
            and self._access.holds(link.serial)
        )

    def _is_surplus(self, number: int) -> bool:
        """Whether it is one too many; then it leaves."""
        if number not in self._leaving and len(self._lines) - len(self._leaving) > self._lot.allowance:
            self._leaving.add(number)
        return number in self._leaving

    async def _rest(self, link: Connection) -> bool:
        """Wait for a letter. False: the time is over, or the connection is."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outbox.enlist(waiter)
        link.wire.rest(waiter, min(self.route.idle / 1000, link.life_left(self.route.connection_lifetime)))
        try:
            await waiter
            return bool(self._outbox) or not link.wire.expired
        finally:
            link.wire.rise()
            self._outbox.dismiss(waiter)

    # -- up and down -----------------------------------------------------------------------------------------

    def _fails(self, link: Connection, report: Report, epoch: int) -> bool:
        """What a report says of the route; True: it is down, and the report says so too."""
        if report.klass in SAYS_NOTHING or epoch != self._epoch:
            return False
        if report.action is Action.PARK:
            if report.scope is Scope.SESSION:
                if report.klass == ENOUGH and link.mails > 1:
                    self._lot.bore(link.mails - 1)
                    self._short()
                if link.mails != 1:
                    return False  # a kept connection ended: nothing is known of the route
                if self._stays_up(report.klass == CROWDED, self._proven - {link.number}, self.standing - 1):
                    return False
                report.scope = Scope.ROUTE
            return report.scope is Scope.ROUTE
        if report.code and link.number not in self._proven:
            self._come_up(link.number)
        return False

    def _come_up(self, number: int) -> None:
        self._proven.add(number)
        self._lot.proved()
        self._route_proven = True
        if self._outage.ends() and self._on_state is not None:
            self._on_state(self._outage.state(self.name))
        asyncio.get_running_loop().call_soon(self._consider)  # after this line took its next letter

    def _opening_failed(self, failure: NotConnected, epoch: int) -> None:
        if epoch != self._epoch:
            return
        if self._stays_up(turned_away(failure), self._proven, self.standing, spoke=failure.code > 0):
            return
        self._go_down(failure.report())
        self._spread_word()

    def _stays_up(self, refused: bool, proven: set[int], stand: int, *, spoke: bool = True) -> bool:
        """Whether a connection that came to nothing is no more than that, since others work: those of `proven`, or
        where the server `spoke` as it `refused` those of other workers. (Silence may be our own network's.)"""
        if refused and (proven or (spoke and self._lot.elsewhere)):
            self._lot.refused(stand)
            self._short()
            return True
        if proven:
            self._lot.hold()
        return bool(proven)

    def _go_down(self, failure: Report) -> None:
        self._outage.goes_on(failure)
        self._route_proven = False
        self._proven.clear()
        self._epoch += 1

    def _spread_word(self) -> None:
        """After `_go_down`: to the lines, which are of an older epoch now, to the letters, to the worker."""
        self._outbox.wake_all()
        self._refuse()
        if not self.up and self._on_state is not None:
            self._on_state(self._outage.state(self.name))

    def _refuse_soon(self) -> None:
        """Not inside `put`: whoever puts a letter does not expect its report before `put` returns."""
        if not self._refusing:
            self._refusing = True
            asyncio.get_running_loop().call_soon(self._refuse)

    def _refuse(self) -> None:
        self._refusing = False
        if self.up or self._stopping.is_set():
            return
        while (letter := self._outbox.get_nowait()) is not None:
            self._done(letter, self._outage.untried())

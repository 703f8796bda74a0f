"""What this process may use of its routes: its share of their connections, and whether it uses them at all now.

SHARES   Connections of a route are counted over all workers: each holds a lease of some (grant.lua), which it renews
         once a second, or at once when a courier has work for more. No mail waits for that but the first of a burst
         that is larger than the share. A worker that has none and had to leave mails to others asks for one.
LAPSED   Before a lease that was not renewed is over its connections are closed: those that rest at once, those at work
         after the mail that they have. (Without Redis no mail begins, so nothing is lost by that.) The time is counted
         from before the question, so it ends here first; a process that stands still for longer than that keeps its
         sockets, and nobody can take them from it.
LEARNT   With it goes what the couriers saw: how many connections stand, how many were turned away, how many mails one
         bore. What that means over all workers comes back: so many connections, so many mails on each.
USE      A route is not used while others have all its connections, or while it fails here and works for others: then
         this process leaves its mails to them (`listed`), and finds out for itself later.
NEWS     The renewal says which routes are closed. One that opens again is tried at once: the reader goes on, the
         courier does not wait for its own time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf

from streamq.queue.rows import Grant, GrantRow
from streamq.queue.spool import Spool
from streamq.smtp.courier import Courier, RouteState
from streamq.worker.link import Link

__all__ = ["Allowances"]

RENEW_SECONDS = 1.0
LEASE_SECONDS = 3.0  # of a worker that is gone: with the next renewal of another, and its opening, within five
CLOSE_SECONDS = 0.5  # before it is over: a QUIT and its answer
# Between two renewals for want of connections: after one that had or told news, doubling with each that did not.
AGAIN_SECONDS, AT_LAST_SECONDS = 0.005, 0.25
SPARE_SECONDS = 0.1  # one that was asked for since a mail was left to others, who were quicker: they may want it
STUCK = 2  # renewals without a connection, and letters wait: others have them all
ALERTS = frozenset({"authentication", "quota", "tls", "settings"})  # no waiting mends these: a person must know
log = logging.getLogger("streamq.route")


class Allowances:
    """One per process. `reopened` is called when a route opens, `hand_back` with the name of one whose letters should
    go back to their lanes."""

    def __init__(
        self,
        spool: Spool,
        link: Link,
        consumer: str,
        reopened: Callable[[], object],
        hand_back: Callable[[str], object],
    ) -> None:
        self.spool = spool
        self.link = link
        self.consumer = consumer
        self.reopened = reopened
        self.hand_back = hand_back
        self.couriers: dict[str, Courier] = {}
        self.allowed: dict[str, int] = {}
        self._closed: set[str] = set()
        self._alone: set[str] = set()
        self._broken: set[str] = set()
        self._stuck: dict[str, int] = {}
        self._stood: dict[str, int] = {}  # connections of all workers, as last told
        self._passed: set[str] = set()  # routes of which a mail may have been left to others, for want of a connection
        self._spare = False
        self._read_at = -inf  # loop time
        self._short = asyncio.Event()
        self._lapse: asyncio.TimerHandle | None = None

    def listed(self) -> str:
        """For the scripts: the routes that this process knows, '-' before one that it does not use now."""
        return ",".join(name if self._is_used(name) else f"-{name}" for name in self.couriers)

    def serves(self) -> bool:
        """Whether this process uses any route now. Where it uses none mails stay in their streams, for those who do:
        what it read would go to lanes, a stream of millions within minutes."""
        used = [name for name in self.couriers if self._is_used(name)]  # asks for a connection of each that is not
        return bool(used)

    def reads(self) -> None:
        """This process takes mails from their streams. Who does keeps a connection of each route that it has any of,
        though all that it reads should park: another one would have it a moment later, and nobody reads meanwhile."""
        self._read_at = asyncio.get_running_loop().time()

    def _is_used(self, name: str) -> bool:
        if name in self._alone:
            if self.couriers[name].closed_for > 0:
                return False
            self._alone.discard(name)
        if self.couriers[name].held:
            return False
        if self.allowed.get(name, 0) > 0:
            return True
        self._passed.add(name)
        return False

    # -- what others tell --------------------------------------------------------------------------

    def short(self) -> None:
        """A courier has work for more connections than it may open."""
        self._short.set()

    def alone(self, route: str) -> None:
        """It fails here, and works for others."""
        if route not in self._alone:
            log.warning("route %s fails for this worker alone: its mails are left to the others for now", route)
        self._alone.add(route)

    def broken(self, route: str) -> None:
        """The breaker holds it."""
        if route not in self._broken:
            log.error("route %s is held: most of its mails died of one text (`streamq route show %s`)", route, route)
        self._broken.add(route)

    def state(self, said: RouteState) -> None:
        """A courier's own view of its route."""
        if said.up:
            log.warning("route %s answers again", said.name)
            return
        level = logging.ERROR if said.klass in ALERTS else logging.WARNING
        log.log(level, "route %s is closed: %s at %s: %s", said.name, said.klass, said.stage, said.reply or "no reply")

    # -- renewing ----------------------------------------------------------------------------------

    async def run(self) -> None:
        pause = AGAIN_SECONDS
        while True:
            had = dict(self.allowed), dict(self._stood)
            await self.ask()
            pause = AGAIN_SECONDS if (self.allowed, self._stood) != had else min(pause * 2, AT_LAST_SECONDS)
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(SPARE_SECONDS if self._spare else RENEW_SECONDS):
                    await self._short.wait()
            except TimeoutError:
                pass

    async def ask(self) -> None:
        """Renew, and hear which routes are closed. One round trip."""
        self._short.clear()
        loop = asyncio.get_running_loop()
        rows = [self._row(name) for name in self.couriers]
        left, self._passed = self._passed, set()

        async def grant() -> tuple[float, list[Grant]]:
            asked_at = loop.time()  # of the call that came through: its lease is not older than that
            return asked_at, (await self.spool.scripts.grant(self.consumer, round(LEASE_SECONDS * 1000), rows))[1]

        asked_at, grants = await self.link.call(grant)
        if self._lapse is not None:
            self._lapse.cancel()
        until = asked_at + LEASE_SECONDS - CLOSE_SECONDS
        self._lapse = loop.call_at(until, self._lapsed, until)
        opened = self._spare = False
        for row, granted in zip(rows, grants, strict=True):
            opened |= self._hear(row.route, granted.closed_us > 0)
            opened |= granted.allowance > self.allowed.get(row.route, 0) == 0
            self.allowed[row.route] = granted.allowance
            self._stood[row.route] = row.works + granted.elsewhere
            courier = self.couriers[row.route]
            self._spare |= granted.allowance > 0 and row.route in left and courier.wanted == 0
            courier.allow(
                granted.allowance,
                until=until, mails=granted.mails, elsewhere=granted.elsewhere, careful=granted.careful,
            )  # fmt: skip
            self._tell(row, granted)
            self._unstick(row.route)
        if opened:
            self.reopened()

    def _row(self, name: str) -> GrantRow:
        courier = self.couriers[name]
        reads = asyncio.get_running_loop().time() - self._read_at < RENEW_SECONDS and self.allowed.get(name, 0) > 0
        want = max(courier.wanted, int(name in self._passed or reads))
        route = courier.route
        return GrantRow(name, route.connections, route.mails_per_connection, want, courier.connections, *courier.news())

    def _tell(self, row: GrantRow, granted: Grant) -> None:
        """An operator will want to know why there are fewer."""
        if row.refused:
            log.warning(
                "route %s turned %d connections away while %d of all workers stood",
                row.route, row.refused, row.worked + granted.elsewhere,
            )  # fmt: skip
        if row.bore:
            log.warning("route %s takes %d mails over a connection", row.route, granted.mails)

    def _hear(self, name: str, closed: bool) -> bool:
        """True where it has opened."""
        if closed:
            self._closed.add(name)
            return False
        if name not in self._closed:
            return False
        self._closed.discard(name)
        self._broken.discard(name)
        self.couriers[name].look_again()
        return True

    def _unstick(self, name: str) -> None:
        courier = self.couriers[name]
        none = self.allowed[name] == 0 or courier.held
        waits = none and courier.connections == 0 and courier.waiting > 0
        self._stuck[name] = self._stuck.get(name, 0) + 1 if waits else 0
        if self._stuck[name] > STUCK:
            self.hand_back(name)

    def _lapsed(self, until: float) -> None:
        """In a moment others may have what is ours still."""
        log.warning("no word about connections for %.1f s: they are closed", LEASE_SECONDS - CLOSE_SECONDS)
        for courier in self.couriers.values():
            courier.allow(0, until=until)

    async def leave(self) -> None:
        """Give all back."""
        rows = [GrantRow(name, 0, 0, 0, 0) for name in self.couriers]
        await self.spool.scripts.grant(self.consumer, 0, rows)

    def stop(self) -> None:
        if self._lapse is not None:
            self._lapse.cancel()

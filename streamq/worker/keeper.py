"""The keeper: heartbeats of this process, and what it has at once of each site; and, in one process of all, the sweeps:
reclaim, expiry, orphans of the schedule, dead consumers, old dead letters."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial

import orjson

from streamq.mail import able
from streamq.mail.template import split_name
from streamq.queue.connection import command
from streamq.queue.letters import trim_dead
from streamq.queue.limits import look_anew
from streamq.queue.reports import fetch_reports
from streamq.queue.rows import Leased, RenewRow, SettleRow
from streamq.queue.scripts import why
from streamq.queue.spool import Spool
from streamq.queue.walk import walk
from streamq.settings import Settings
from streamq.worker.admission import Admission
from streamq.worker.hand import Hand
from streamq.worker.intake import Intake
from streamq.worker.link import Link
from streamq.worker.outcome import hash_of
from streamq.worker.releaser import Releaser

__all__ = ["Keeper"]

ROLE = "keeper"
TICK_SECONDS = 1.0
LEADS_MS = 3000  # without a tick: whoever waits for a slot of a worker that died is looked for then
RENEW_SECONDS = 1.0
TRIM_SECONDS = 60.0
TRIM_STEPS = 20  # scripts, of some ms each; what is left then goes a second later
ROUTE = "route="  # the need of a mail whose route is in nobody's settings yet
TEMPLATE = "template="  # and of one whose template is not stored
SUSPECT = 2  # reclaims, as in reclaim.lua
log = logging.getLogger("streamq.keeper")


class Keeper:
    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        link: Link,
        hand: Hand,
        consumer: str,
        admission: Admission,
        intake: Intake,
        releaser: Releaser,
        chance: random.Random,
        missed: asyncio.Queue[list[str]],
    ) -> None:
        self.settings = settings
        self.spool = spool
        self.link = link
        self.hand = hand
        self.consumer = consumer
        self.admission = admission
        self.intake = intake
        self.releaser = releaser
        self.chance = chance
        self.missed = missed
        self.lease_ms = round(settings.lease_seconds * 1000)
        self.leads = False
        self._suspects: set[str] = set()
        self._templates: dict[str, int] = {}
        self._stopping = asyncio.Event()
        self.is_unseen: Callable[[], bool] = lambda: False
        self._cursor = ""
        self._lane_from = ""

    async def beat(self) -> None:
        """Renews every lease that is in hand, three times a lease."""
        while True:
            await asyncio.sleep(self.settings.lease_seconds / 3)
            leases = self.hand.beating()
            if not leases:
                continue
            lost = await self.link.call(self.spool.scripts.heartbeat, self.consumer, leases)
            tokens = dict(leases)
            for entry in lost:
                held = self.hand.deliveries.get(entry)
                if held is not None and held.token == tokens[entry] and not held.lost:
                    held.lost = True
                    log.warning("%s is somebody else's lease now", entry)

    async def renew(self) -> None:
        """Says which mails in hand are transactions at once that somebody counts, four times as often as it must; no
        call where none is. And that this process is there, where nothing else says so."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if self.hand.at_once:
                rows = [RenewRow(entry, token, target) for entry, (token, target) in self.hand.at_once.items()]
                await self.link.call(self.spool.scripts.renew, self.consumer, rows)
            if self.is_unseen():
                await self.link.call(self.spool.touch, self.consumer)

    def stop(self) -> None:
        """No more sweeps: `lead` returns. Heartbeats go on."""
        self._stopping.set()

    async def lead(self) -> None:
        """Once a second, where this process leads: one sweeper per queue."""
        loop = asyncio.get_running_loop()
        sweep = trim = loop.time()
        while not self._stopping.is_set():
            self.leads = await self.link.call(self.spool.scripts.leader, ROLE, self.consumer, LEADS_MS)
            if self.leads:
                self.releaser.now()
                await self._look_at_bounds()
                await self._expire()
                if loop.time() >= sweep:
                    await self._look_at_own()
                    full = await self._reclaim()
                    pace = 0.0 if full else self.settings.lease_seconds / 4
                    sweep = loop.time() + pace * self.chance.uniform(0.75, 1.25)
                if loop.time() >= trim:
                    more = await self._trim()
                    await self._adopt()
                    trim = loop.time() + (0.0 if more else TRIM_SECONDS)
            try:
                async with asyncio.timeout(min(TICK_SECONDS, self.settings.lease_seconds / 4)):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    async def _look_at_bounds(self) -> None:
        """Once a second for all mails together, whatever comes: what it costs hangs on no mail."""
        known = self.settings
        most = (known.max_queue, known.max_memory, known.dead_bytes, known.events_bytes, known.ids_bytes)
        await self.link.call(self.spool.scripts.bounds, *most)

    async def _look_at_own(self) -> None:
        """What we have by the server's book, without a heartbeat for a lease, and do not know of. A server that lost
        its last second has as read what we admitted in it; heartbeats, marks and settles of those leases were refused,
        and we dropped them. Others' are reclaimed; the script leaves the sweeper its own, since it may have stood still
        and know what it has."""
        own = await self.link.call(partial(self.spool.own_pending, self.consumer, idle_ms=self.lease_ms))
        forgotten = [entry for entry in own if entry not in self.hand]
        if forgotten:
            self.missed.put_nowait(forgotten)

    async def _reclaim(self) -> bool:
        """One sweep; True where more may be found at once."""
        self._suspects = {entry for entry in self._suspects if entry in self.hand}
        room = min(self.hand.room, 100)
        if not room:
            return True
        found = await self.link.call(
            lambda: self.spool.scripts.reclaim(
                self.consumer,
                idle_ms=self.lease_ms,
                suspects=len(self._suspects),
                room=room,
                most=self.settings.max_reclaims,
                cursor=self._cursor,
            )
        )
        self._cursor = found.cursor
        if found.leases:
            log.warning("reclaimed %d mails of silent workers", len(found.leases))
            new = self.hand.claim((entry for entry, _, _ in found.leases), found.token)
            self._suspects |= {
                entry for entry, notes, _ in found.leases if orjson.loads(notes).get("reclaims", 0) > SUSPECT
            }
            await self._take([lease for lease in found.leases if lease[0] in new], found.token)
        return bool(found.leases or found.cursor)

    async def _take(self, leases: list[tuple[str, bytes, bool]], token: int) -> None:
        """Reclaimed mails are admitted anew; ambiguous ones as their policy says."""
        ambiguous = [entry for entry, _, past_dot in leases if past_dot]
        settled: set[str] = set()
        if ambiguous:
            rows: list[SettleRow] = []
            for name in ambiguous:  # few, and each may be 25 MB
                [entry] = await self.link.call(self.spool.fetch, [name])
                mail = (await self.admission.aside.judged(entry))[1] if entry is not None else None
                if entry is None or mail is None:
                    continue
                policy = mail.on_ambiguous or self.settings.on_ambiguous
                name = mail.id or entry.entry
                if policy == "hold":
                    said = b'{"reason":"ambiguous: its worker died past the dot","class":"ambiguous"}'
                    rows.append(SettleRow("hold", entry.entry, token, "", name, "email.held", mail.event, said))
                elif policy == "assume_delivered":
                    tail = mail.event + b',"class":"ambiguous"'
                    known = why(**hash_of(mail))
                    rows.append(SettleRow("sent", entry.entry, token, "", name, "email.relayed", tail, known))
            if rows:
                await self.link.call(lambda: self.spool.scripts.settle(self.consumer, rows))
                settled = {row.entry for row in rows}
                for entry_name in settled:
                    self.hand.drop(entry_name)
        rest = [Leased(entry, notes) for entry, notes, _ in leases if entry not in settled]
        if rest:
            await self.admission.take_back(rest, token)

    async def _expire(self) -> None:
        ages = [self.settings.max_age] * len(self.spool.priorities)
        reports: dict[str, bytes] = {}
        while True:
            brought, at = reports, self._lane_from
            ended, lane_from, due = await self.link.call(self.spool.scripts.expire, ages, at, brought)
            if due:  # the same again, with what their senders are told
                reports = await self.link.call(fetch_reports, self.spool, due, "expired")
                continue
            reports, self._lane_from = {}, lane_from
            if not ended:
                return

    async def _adopt(self) -> None:
        """Held mails that waited for fields which this version knows: straight into our own lease."""
        holds = await self.link.call(command, self.spool.redis, "HKEYS", self.spool.keys.holds)
        needs = {name.decode().removeprefix("need:") for name in holds if name.startswith(b"need:")}
        if any(need.startswith(TEMPLATE) for need in needs):
            self._templates = await self.link.call(self.spool.templates.names)
        if not any(self._can(need) for need in needs):
            return
        async for view in walk(self.spool, ("held",), sweep=True):
            fields = view.notes.get("fields")
            if not fields or not all(self._can(field) for field in fields) or not self.hand.room:
                continue
            token, leases = await self.link.call(self.spool.scripts.adopt, self.consumer, [view.entry])
            new = self.hand.claim(entry for entry, _ in leases)
            await self.admission.take_back([Leased(entry, notes) for entry, notes in leases if entry in new], token)

    def _can(self, need: str) -> bool:
        """Whether this version, with these settings, can do what a mail was held for."""
        if need.startswith(TEMPLATE):
            name, version = split_name(need.removeprefix(TEMPLATE).encode())
            return self._templates.get(name, 0) >= (version or 1)
        return need.removeprefix(ROUTE) in self.intake.ways.names if need.startswith(ROUTE) else able(need)

    async def _trim(self) -> bool:
        """What others left half done; consumers that are gone; dead letters that are too old or too many bytes: True
        where more have to go."""
        await self.link.call(self.spool.publish_ends)
        await self.link.call(look_anew, self.spool)
        await self.link.call(lambda: self.spool.scripts.reap(max(60_000, self.lease_ms * 3)))
        gone, more = await self.link.call(
            trim_dead, self.spool, self.settings.dead_age, self.settings.dead_bytes, TRIM_STEPS
        )
        if gone:
            log.info("%d dead letters were too old, or all of them too many bytes", gone)
        return more

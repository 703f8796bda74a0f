"""A queue with so many mails in every state, for `python -m bench agree` and for tests, by the scripts that workers and
operators call. Nothing is written past them, so the law holds; batches of a hundred, so a million takes minutes.

What intake makes of each mail is made up here (nobody composes a message); where a mail ends, its event has what a
courier's has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from streamq.keys import GROUP
from streamq.mail.identity import content_hash, digest
from streamq.queue.connection import command, pipelined
from streamq.queue.limits import OPERATOR, set_limits
from streamq.queue.rows import AdmitRow, ChildRow, GrantRow, SettleRow
from streamq.queue.scripts import BATCH, why
from streamq.queue.spool import Entry, Spool

__all__ = ["CLOSED", "EVENTS_KEPT", "PRIORITIES", "SHARES", "Filler", "Took"]

# Of a thousand mails. Those that end leave events, totals, classes and dead letters instead.
SHARES = {
    "parked": 260,
    "scheduled": 150,
    "held": 40,
    "leased": 20,
    "deferred": 20,
    "sent": 60,
    "died": 35,
    "ended": 25,
    "twice": 10,
    "collapsed": 5,
    "families": 35,
    "waiting": 355,
}
PRIORITIES = ("normal", "low", "normal", "high", "normal", "low", "normal")  # one batch after the other
CLOSED = "bulk"  # a route that an operator closed
ROUTE = "relay"
PROVIDERS = ("gmail.com", "outlook.com", "yahoo.com", "gmx.de", "icloud.com", "web.de", "orange.fr", "t-online.de")
PAUSED, SLOWED, LIMITED = ("yahoo.com", "paused.example"), ("orange.fr", "slowed.example"), ("gmail.com", "outlook.com")
DEATHS = (
    ("bad_address", "550 5.1.1 no such user here"), ("mailbox_full", "552 5.2.2 over quota"),
    ("policy", "550 5.7.1 not from you"), ("spam", "554 5.7.1 spam"), ("bad_sender", "550 5.1.8 sender refused"),
    ("too_large", "552 5.3.4 too large"), ("content", "554 5.6.0 no"),
)  # fmt: skip
EVENTS_KEPT = 10_000_000  # what it does leaves all of its events
DAY, HOUR = 86_400_000, 3_600_000
CHILDREN, MADE = 20, 12  # of a family, and how many of them the unfinished ones have


@dataclass(frozen=True, slots=True)
class Took:
    """A mail that was read. `token`: of its lease, where it has one."""

    entry: str
    id: str
    site: str
    token: int = 0
    status: str = ""


@dataclass(slots=True)
class Filler:
    """`mails`: so many come in, a few of which end. `sites`: beside the large providers."""

    spool: Spool
    mails: int
    sites: int = 300
    consumers: list[str] = field(default_factory=lambda: ["fill-1-a0"])
    requeued: Counter[str] = field(default_factory=Counter)  # letters, by class
    _made: int = 0

    async def fill(self) -> None:
        """An empty queue, once."""
        await self._ground()
        for kind, share in SHARES.items():
            if kind not in ("families", "waiting"):
                await getattr(self, f"_{kind}")(max(4, self.mails * share // 1000))
        await self._mishaps()
        await self._families(max(4, self.mails * SHARES["families"] // 1000))
        await self._requeued()
        await self._waiting(max(4, self.mails * SHARES["waiting"] // 1000))  # last: whoever reads takes what is unread
        await self.looked()

    async def looked(self) -> None:
        """Its workers are alive, and one of them leads."""
        for name in self.consumers:
            await self.spool.touch(name)
        await self.spool.scripts.leader("keeper", self.consumers[0], HOUR)

    async def _ground(self) -> None:
        spool = self.spool
        await spool.publish_adapt()
        now_us, _ = await spool.scripts.grant(self.consumers[0], HOUR, [GrantRow(ROUTE, 20, 1000, 5, 3, works=3)])
        await command(spool.redis, "HSET", spool.keys.limit(ROUTE), "good", f"{self.consumers[0]} {now_us}")
        await set_limits(spool, OPERATOR, {f"*|{site}": "20:1000000;c5" for site in LIMITED})
        await spool.scripts.pause("pause", [CLOSED], reason="the contract ended")
        await spool.scripts.pause("pause", [f"*|{site}" for site in PAUSED], reason="they asked us to wait")
        for site in SLOWED:
            [one] = [took async for batch in self._leases(1, [site]) for took in batch]
            known = {"wait": 60_000, "deadline": self._now() + DAY, "class": "site_rate", "hint": 0, "scope": "site"}
            said = {"reply": "421 4.7.0 slow down", "words": "slow down", "took": 40.0, "took_way": 0, "park": True}
            await self._settle([self._row("throttled", one, "throttled", "site_rate", **known, **said)])

    # -- hands -----------------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return self.spool.now_ms()

    def _site(self, nth: int) -> str:
        """Half of the mail goes to the large providers."""
        return PROVIDERS[nth // 2 % len(PROVIDERS)] if nth % 2 else f"s{nth // 2 % self.sites}.example"

    async def _come(self, priority: str, many: int, sites: Sequence[str] = ()) -> list[tuple[str, str]]:
        """XADDs: (id, site) each."""
        stream, mails, asked = self.spool.keys.stream(priority), [], []
        for _ in range(many):
            nth = self._made = self._made + 1
            site = sites[nth % len(sites)] if sites else self._site(nth)
            mails.append((f"f{nth}", site))
            fields = ("id", f"f{nth}", "from", "shop@example.com", "to", f"b{nth}@{site}")
            asked.append(("XADD", stream, "*", *fields, "subject", "Your order", "text", f"Order {nth} is on its way."))
        await pipelined(self.spool.redis, asked)
        return mails

    def _batches(self, many: int) -> Iterator[tuple[str, int]]:
        most = min(BATCH, max(1, self.mails // 300))
        for priority in cycle(PRIORITIES):
            if many <= 0:
                return
            yield priority, min(many, most)
            many -= most

    async def _admit(
        self, priority: str, mails: Sequence[tuple[str, str]], *, route: str = ROUTE, **known: object
    ) -> list[Took]:
        """Read, and admitted with what `known` says of each row."""
        read: list[Entry] = []
        while len(read) < len(mails):
            read += (await self.spool.read(self.consumers[-1], [(priority, len(mails) - len(read))])).entries
        entries = [one.entry for one in read]
        assert [one.fields[b"id"].decode() for one in read] == [id_ for id_, _ in mails]  # nothing was unread before
        rows = [
            AdmitRow(
                **{"kind": "send", "lane": f"{route}|{site}", "deadline": self._now() + 5 * DAY, "id": id_, **known},  # type: ignore[arg-type]
                entry=entry,
                seen=digest("", id_) + content_hash({b"to": site.encode()}),
            )
            for entry, (id_, site) in zip(entries, mails, strict=True)
        ]
        found = await self.spool.scripts.admit(self.consumers[-1], rows)
        return [
            Took(row.entry, row.id, site, said.token, said.status)
            for row, said, (_, site) in zip(rows, found.statuses, mails, strict=True)
        ]

    async def _leases(self, many: int, sites: Sequence[str] = ("open.example",)) -> AsyncIterator[list[Took]]:
        """Batch by batch; whoever asks for the next one has settled the last."""
        for priority, few in self._batches(many):
            yield await self._admit(priority, await self._come(priority, few, sites))

    def _row(self, op: str, took: Took, kind: str, class_: str, /, **arg: object) -> SettleRow:
        reply = str(arg.get("reply", "250 2.0.0 queued"))
        tail = (
            f'"rcpt":"x@{took.site}","site":"{took.site}","route":"{ROUTE}","class":"{class_}","code":{reply[:3]},'
            f'"reply":"{reply}","attempt":1'
        ).encode()
        lane = f"{ROUTE}|{took.site}"
        known = {"class": class_, **arg} if arg else {}
        return SettleRow(op, took.entry, took.token, lane, took.id, f"email.{kind}", tail, why(**known), lane)

    async def _settle(self, rows: Sequence[SettleRow]) -> list[str]:
        return (await self.spool.scripts.settle(self.consumers[-1], rows)).statuses if rows else []

    # -- states ----------------------------------------------------------------------------------------------------

    async def _waiting(self, many: int) -> None:
        for priority, few in self._batches(many):
            await self._come(priority, few)

    async def _parked(self, many: int) -> None:
        """The first mail of a lane that is open would go: it comes back, and the lane waits for an hour."""
        for nth, (priority, few) in enumerate(self._batches(many)):
            route = CLOSED if nth % 7 == 6 else ROUTE
            done = await self._admit(priority, await self._come(priority, few), route=route)
            went = [took for took in done if took.token]
            await self._settle([
                SettleRow("park", took.entry, took.token, f"{route}|{took.site}", took.id, "", b"", why(wait=HOUR))
                for took in went
            ])  # fmt: skip

    async def _scheduled(self, many: int) -> None:
        for nth, (priority, few) in enumerate(self._batches(many)):
            due = self._now() + HOUR + nth * 1000
            await self._admit(priority, await self._come(priority, few), due=due, expires=due + DAY if nth % 3 else 0)

    async def _held(self, many: int) -> None:
        reason = why(reason="unknown fields: colour", fields=["colour"], **{"class": "unknown_field"})
        for priority, few in self._batches(many):
            await self._admit(priority, await self._come(priority, few), kind="hold", why=reason)

    async def _leased(self, many: int) -> None:
        """Each batch is another worker's."""
        async for _ in self._leases(many):
            self.consumers.append(f"fill-{len(self.consumers) + 1}-a0")

    async def _deferred(self, many: int) -> None:
        async for batch in self._leases(many):
            arg = {"wait": HOUR, "deadline": self._now() + DAY, "reply": "450 4.2.0 try later"}
            await self._settle([self._row("defer", took, "deferred", "greylisted", **arg) for took in batch])

    async def _sent(self, many: int) -> None:
        async for batch in self._leases(many):
            await self._settle([self._row("sent", took, "relayed", "sent") for took in batch])

    async def _died(self, many: int) -> None:
        """Of many reasons, in many domains."""
        async for batch in self._leases(many, [f"gone{nth}.example" for nth in range(40)]):
            rows = []
            for nth, took in enumerate(batch):
                class_, reply = DEATHS[nth % len(DEATHS)]
                arg = {"reason": f"rcpt: {reply}", "reply": reply, "judged": True}
                rows.append(self._row("dead", took, "bounced", class_, **arg))
            await self._settle(rows)

    async def _ended(self, many: int) -> None:
        """By operators, and by deadlines: what is scheduled."""
        for (priority, few), verb in zip(
            self._batches(many), cycle(("cancel", "bounce", "expire", "hold")), strict=False
        ):
            took = await self._admit(priority, await self._come(priority, few), due=self._now() + HOUR)
            await self.spool.scripts.move(verb, [one.entry for one in took])

    async def _twice(self, many: int) -> None:
        for priority, few in self._batches(many):
            mails = await self._come(priority, few)
            await self._admit(priority, mails, due=self._now() + HOUR)
            asked = [
                ("XADD", self.spool.keys.stream(priority), "*", "id", id_, "to", f"b@{site}") for id_, site in mails
            ]
            await pipelined(self.spool.redis, asked)
            await self._admit(priority, mails, due=self._now() + HOUR)

    async def _collapsed(self, many: int) -> None:
        """The newest of each batch stays."""
        until = self._now() + HOUR
        for priority, few in self._batches(many):
            mails = await self._come(priority, few)
            await self._admit(priority, mails, collapse=f"{self._made:020d}{until}")

    async def _families(self, many: int) -> None:
        """Mails of several recipients: every second one has all of its children, the others are in the middle. All are
        read before any has children, which nobody reads here."""
        took: list[Took] = []
        for priority, few in self._batches(max(2, many // CHILDREN)):
            took += await self._admit(priority, await self._come(priority, few), kind="expand", lane="")
        for nth, one in enumerate(took):
            shared = {b"from": b"shop@example.com", b"subject": b"News", b"text": b"Hello", b"id": one.id.encode()}
            await self.spool.bodies.upload(f"up-{one.id}", shared, False)
            made = CHILDREN if nth % 2 else MADE
            rows = [ChildRow("envelope_to", f"c{child}@{self._site(child)}".encode()) for child in range(made)]
            await self.spool.scripts.expand(
                self.consumers[-1], one.entry, one.token, one.id, b"", rows, upload=f"up-{one.id}", all_=CHILDREN
            )

    async def _mishaps(self) -> None:
        """A worker that was reclaimed, and came late; an entry that somebody deleted."""
        spool, late = self.spool, "fill-late-a0"
        self.consumers.append(late)
        batches = [batch async for batch in self._leases(2)]
        slow, gone = [took for batch in batches for took in batch][:2]
        stream = spool.stream(slow.entry)
        await command(spool.redis, "XCLAIM", stream, GROUP, late, 0, slow.entry[1:], "IDLE", 2 * DAY, "JUSTID")
        found = await spool.scripts.reclaim(self.consumers[0], idle_ms=DAY, room=1, most=3)
        assert [entry for entry, *_ in found.leases] == [slow.entry]
        assert await self._settle([self._row("sent", slow, "relayed", "sent")]) != ["ok"]
        await command(spool.redis, "XDEL", spool.stream(gone.entry), gone.entry[1:])
        await self._settle([SettleRow("gone", gone.entry, gone.token, "", gone.id, "", b"", why())])

    async def _requeued(self) -> None:
        """Some letters, which are unread mails again."""
        spool = self.spool
        rows = await command(spool.redis, "XRANGE", spool.keys.dead, "-", "+", "COUNT", 3)
        letters = {row[0].decode(): dict(zip(row[1][::2], row[1][1::2], strict=True)) for row in rows}
        for said, letter in zip(await spool.scripts.requeue(list(letters)), letters.values(), strict=True):
            if said[:1].isdigit():
                self.requeued[letter[b"dead_class"].decode()] += 1

"""The worker: one process that runs the roles, and their life from start to shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import re
import secrets
import socket
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from streamq.errors import SettingsError
from streamq.queue.look import server_facts
from streamq.queue.rows import Leased
from streamq.queue.spool import Spool
from streamq.queue.whose import RENEW_SECONDS, join
from streamq.queue.wording import evicts_words
from streamq.settings import Settings
from streamq.smtp.access import check_routes
from streamq.smtp.courier import Connect, Courier, Mark
from streamq.smtp.handshake import connect
from streamq.smtp.outbox import Outbox
from streamq.smtp.replies import Replies
from streamq.worker.admission import Admission
from streamq.worker.allowances import Allowances
from streamq.worker.cancel import cancel_all, within
from streamq.worker.expander import Expander
from streamq.worker.gate import Gate
from streamq.worker.hand import Delivery, Hand
from streamq.worker.intake import Intake
from streamq.worker.keeper import Keeper
from streamq.worker.link import AWAY, Link
from streamq.worker.marker import Marker
from streamq.worker.outcome import Outcomes
from streamq.worker.publisher import Publisher
from streamq.worker.reader import Reader
from streamq.worker.recall import Recall
from streamq.worker.releaser import Releaser
from streamq.worker.settler import Settler
from streamq.worker.sifter import Sifter
from streamq.worker.tally import Tally
from streamq.worker.turns import Turns
from streamq.worker.ways import Ways

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from streamq.worker.traces import Traces

__all__ = ["Worker", "consumer_name"]

LAST_SECONDS = 2.0  # for the record of what has just ended, when the grace time is over
OTHERS_SECONDS = 2.5  # link.py waits 2 s at the most between two tries: by then others have settled theirs again, too
HELD_PER_LINE = 2  # mails: the one that it sends, and the next
log = logging.getLogger("streamq.worker")


def consumer_name() -> str:
    """`<host>-<pid>-<random>`."""
    host = re.sub(r"[^A-Za-z0-9.]", "", socket.gethostname())[:40] or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


class Worker:
    """Delivers until `stop`; `run` returns when everything is handed back. `chance` decides every jitter;
    `tracer_provider` gets the spans of attempts, whatever the setting `otel` says; `up`: the `streamq up` that it works
    for (queue/whose.py). Raises `SettingsError` without a route, with a wrong reply table, where a file that a route
    names is missing or wrong, or what spans need is not installed; redis-py's errors where the server cannot be reached
    at the start; `QueueTaken`, at the start or after an outage, where the queue is another `up`'s."""

    def __init__(
        self,
        settings: Settings,
        url: str,
        *,
        chance: random.Random | None = None,
        reread: Callable[[], Settings] | None = None,
        tracer_provider: TracerProvider | None = None,
        up: str = "",
    ) -> None:
        if not settings.ways:
            raise SettingsError(
                "no route: set STREAMQ_RELAY=smtp://[user:password@]host:port (to try: `streamq sink` is a mail "
                "server on this machine, STREAMQ_RELAY=smtp://127.0.0.1:2525 reaches it)"
            )
        check_routes(settings.ways)
        self.settings = settings
        self.url = url
        self.publisher = Publisher(settings, reread)
        self.consumer = consumer_name()
        self.up = up
        self.chance = chance or random.Random()
        self.others_seconds = min(OTHERS_SECONDS, settings.lease_seconds / 4)
        self.ready = asyncio.Event()
        self.tally: Tally | None = None  # where somebody asks for metrics
        self.traces: Traces | None = None  # where somebody asks for spans
        if settings.otel or tracer_provider is not None:
            from streamq.worker.traces import Traces

            self.traces = Traces(settings, self.consumer, tracer_provider)
        self._stop = asyncio.Event()
        self._now = asyncio.Event()
        self._run_id = ""

    async def run(self) -> None:
        self.spool = await self._open_spool()
        try:
            await join(self.spool, self.consumer, self.up)
            await self.publisher.publish(self.spool)
            await self.spool.publish_ends()
            self._run_id, policy = await server_facts(self.spool)
            if policy:
                log.warning("%s", evicts_words(policy))
            await self._work()
        finally:
            await self.spool.close()
            if self.traces is not None:
                await self.traces.close()

    async def _open_spool(self) -> Spool:
        return await Spool.connect(self.settings, self.url, self.consumer)

    def _opener(self, route: str) -> Connect:
        """What opens its connections."""
        return connect

    def stop(self, *, now: bool = False) -> None:
        """Stop reading, finish what is in SMTP up to the grace time, hand back the rest; `now`: no grace."""
        self._stop.set()
        if now:
            self._now.set()

    def reload(self) -> None:
        """Read the settings' files again: limits, provider rules, what replies mean."""
        self.publisher.reload()

    @property
    def troubles(self) -> list[str]:
        """Why it takes no mail now, in words; nothing where it does."""
        if not self.ready.is_set():
            return ["it is starting"]
        found = ["it is stopping"] if self._stop.is_set() else []
        return found + (["redis is away"] if not self.link.is_up else [])

    @property
    def settled(self) -> dict[str, int]:
        """How many attempts ended how, since the start."""
        return self.settler.settled

    def _build(self) -> None:
        ways = self.publisher.book.routes()
        self.publisher.known = self._know
        lines = sum(way.connections for way in ways.values())
        self.hand = Hand(self.settings.in_hand, HELD_PER_LINE * lines)
        self.link = Link(self._recover, self.spool.drop)
        self.spool.on_lost(self.link.lost)
        self.missed: asyncio.Queue[list[str]] = asyncio.Queue()
        self.outboxes = {name: Outbox() for name in ways}
        ways_ = Ways(self.settings, self.spool.salt, self.spool.priorities)
        intake = Intake(self.settings, self.spool.salt, ways_, self.spool.templates.find)
        outcomes = Outcomes(self.settings, self.chance)
        self.allowances = Allowances(self.spool, self.link, self.consumer, self._reopened, self._hand_back)
        listed = self.allowances.listed
        self.gate = Gate()
        recall = Recall(self.outboxes)
        self.turns = Turns(
            self.spool,
            self.link,
            self.hand,
            self.consumer,
            self.gate,
            self.outboxes,
            lambda delivery: self.settler.put(outcomes.handed_back(delivery), delivery),
            lambda delivery: self.settler.put(outcomes.overdue(delivery), delivery),
            listed,
            recall.told,
        )
        self.releaser = Releaser(self.spool, self.link, self.hand, self.consumer, listed)
        self.expander = Expander(self.spool, self.link, self.hand, self.consumer)
        self.admission = Admission(
            self.spool,
            self.link,
            self.hand,
            self.consumer,
            intake,
            self.outboxes,
            self.expander,
            self.releaser.next_due,
            self.turns,
            lambda delivery, error: self.settler.put(outcomes.broken(delivery, error), delivery),
            listed,
        )
        self.releaser.admission = self.admission
        book = self.publisher.book
        if self.settings.metrics is not None:
            self.tally = Tally(book.groups(), list(ways), self.spool.priorities)
        if self.traces is not None:
            self.traces.streams = [self.spool.keys.stream(name) for name in self.spool.priorities]
        self.settler = Settler(
            self.spool,
            self.link,
            self.hand,
            self.consumer,
            outcomes,
            self.releaser.next_due,
            self.admission.aside.judged,
            lambda: self.reader.reopened.set(),
            self.allowances.alone,
            self.allowances.broken,
            recall,
            self.tally,
            self.traces,
            self._at_work,
        )
        self.outcomes = outcomes
        sifter = Sifter(self.settings, self.spool, self.link, self.consumer, self.admission)
        self.reader = Reader(
            self.spool,
            self.link,
            self.hand,
            self.consumer,
            self.admission,
            self.turns,
            sifter,
            self.releaser.rang,
            self.allowances.serves,
            self.allowances.reads,
        )
        self.marker = Marker(self.spool, self.link, self.hand, self.consumer, self._at_work)
        self.keeper = Keeper(
            self.settings,
            self.spool,
            self.link,
            self.hand,
            self.consumer,
            self.admission,
            intake,
            self.releaser,
            self.chance,
            self.missed,
        )
        self.keeper.is_unseen = self.reader.is_unseen
        self.couriers = [
            Courier(
                name,
                way,
                self.outboxes[name],
                self.settler.done,
                self._marks(name),
                again=self.turns.again,
                rules=self.publisher.book.replies,
                priorities=self.spool.priorities,
                on_state=self.allowances.state,
                short=self.allowances.short,
                rand=self.chance.random,
                opener=self._opener(name),
            )
            for name, way in ways.items()
        ]
        self.allowances.couriers = {courier.name: courier for courier in self.couriers}

    def _know(self, replies: Replies) -> None:
        if self.tally is not None:
            self.tally.providers = self.publisher.book.groups()
        for courier in self.couriers:
            courier.know(replies)

    def _marks(self, route: str) -> Mark:
        return lambda connection, letter: self.marker.mark(f"{route}.{connection}", letter)

    def _at_work(self) -> int:
        return sum(courier.at_work for courier in self.couriers)

    def _reopened(self) -> None:
        self.reader.reopened.set()
        self.releaser.now()

    def _takers(self) -> dict[str, Coroutine[object, object, None]]:
        """What takes mails, the reader first: these end when the worker is to stop, before all others."""
        return {"reader": self.reader.run(), "releaser": self.releaser.run(), "keeper": self.keeper.lead()}

    async def _work(self) -> None:
        self._build()
        if not await self._asked():
            return
        roles: dict[str, Coroutine[object, object, None]] = {
            "settler": self.settler.run(),
            "marker": self.marker.run(),
            "turns": self.turns.run(),
            "expander": self.expander.run(),
            "aside": self.admission.aside.run(),
            "heartbeat": self.keeper.beat(),
            "at once": self.keeper.renew(),
            "adopter": self._adopt(),
            "publisher": self.publisher.run(self.spool, self.link),
            "allowances": self.allowances.run(),
            **{f"courier {courier.name}": courier.run() for courier in self.couriers},
            **({"hold": self._stay()} if self.up else {}),
        }
        tasks = [asyncio.create_task(role, name=name) for name, role in roles.items()]
        takers = [asyncio.create_task(role, name=name) for name, role in self._takers().items()]
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        self.ready.set()
        try:
            done, _ = await asyncio.wait([*tasks, *takers, stopping], return_when=asyncio.FIRST_COMPLETED)
            failed = next((task for task in done if task is not stopping), None)
            if failed is not None:
                log.error("%s failed: the worker hands back what it has and ends", failed.get_name())
            await self._shut_down(takers)
            if failed is not None:
                failed.result()
        finally:
            await cancel_all([*tasks, *takers, stopping])
            self.allowances.stop()
            await self.link.stop()

    async def _asked(self) -> bool:
        """Connections are asked for before anything is read: what nobody may send stays in its stream. False: it was
        told to stop by then, and Redis may be away for ever."""
        asking, stopping = asyncio.create_task(self.allowances.ask()), asyncio.create_task(self._stop.wait())
        await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await cancel_all([asking, stopping])
        if not asking.cancelled():
            asking.result()
            return True
        self.allowances.stop()
        if self.link.is_up:  # it has joined by then, and asked perhaps: neither is left behind
            with contextlib.suppress(*AWAY, TimeoutError):
                async with asyncio.timeout(LAST_SECONDS):
                    await self._leave()
        await self.link.stop()
        return False

    async def _shut_down(self, takers: list[asyncio.Task[None]]) -> None:
        """One grace time for all of it; a second signal ends it at any point."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.settings.grace / 1000
        self.hand.close()
        self.releaser.stop()
        self.keeper.stop()
        unread = asyncio.create_task(self.reader.stop(takers[0], end))
        await within(asyncio.gather(unread, *takers, return_exceptions=True), end, self._now)
        begun = asyncio.gather(self.admission.put_off(self.admission.aside.drain(), 1), self.admission.aside.flushed())
        await within(begun, end, self._now)
        for courier in self.couriers:
            courier.stop()
        self._hand_back()
        self.expander.stop()
        await within(asyncio.ensure_future(self.expander.flushed()), end, self._now)
        left = max(0.0, end - loop.time())
        await within(asyncio.gather(*(courier.close(left) for courier in self.couriers)), end, self._now)
        await asyncio.gather(*(courier.close(0) for courier in self.couriers))
        self._hand_back()
        settled = asyncio.ensure_future(self.settler.flushed())
        if not await within(settled, max(end, loop.time() + LAST_SECONDS), self._now):
            log.error("redis is away: %d mails stay leased until others reclaim them", len(self.hand))
            return
        with contextlib.suppress(*AWAY):
            await self._leave()

    async def _leave(self) -> None:
        """Nothing of this worker stays behind."""
        await self.spool.scripts.leader("keeper", self.consumer, 0)
        await self.allowances.leave()
        # What was handed back rings for the next worker; a bell that rang for us is answered.
        await self.spool.scripts.release(self.consumer, 0, self.releaser.unanswered(), self.allowances.listed())
        await self.spool.scripts.reap(2**53, self.consumer)

    def _hand_back(self, route: str | None = None) -> None:
        for delivery in self.turns.drain() if route is None else []:
            self.settler.put(self.outcomes.handed_back(delivery), delivery)
        for name in self.outboxes if route is None else [route]:
            for letter in self.outboxes[name].drain():
                assert isinstance(letter, Delivery)
                self._back(letter)

    def _back(self, letter: Delivery) -> None:
        self.settler.put(self.outcomes.handed_back(letter), letter)

    async def _recover(self) -> None:
        """The server answers again: is it the same one? What did a lost reply deliver?"""
        run_id = await self.spool.run_id()
        await self.spool.open()
        await join(self.spool, self.consumer, self.up)
        await self.spool.publish_ends()
        if run_id != self._run_id:
            await self.publisher.publish(self.spool)
            self.spool.bodies.forget()
            again = await self.settler.replay()
            if again:
                log.warning("the server had lost %d settled mails: settled again", again)
            self._run_id = run_id
            # What others had settled may be there again, and they may come back later than we: who reads at once sends
            # their mails a second time, and no mark says so.
            await asyncio.sleep(self.others_seconds)
        missed = [name for name in await self.spool.own_pending(self.consumer) if name not in self.hand]
        if missed:
            self.missed.put_nowait(missed)

    async def _stay(self) -> None:
        """One that works for an `up` ends where the queue is another's by now: its own `up` may be gone."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            await self.link.call(join, self.spool, self.consumer, self.up)

    async def _adopt(self) -> None:
        """What a lost reply had delivered to us; after the outage, since admission needs the link."""
        while True:
            new = self.hand.claim(await self.missed.get())
            log.warning("%d mails were ours and we did not know it", len(new))
            await self.admission.take_back([Leased(name, b"") for name in sorted(new)], 0)

"""A campaign in virtual time: mails are XADDed, real workers deliver them to models, and it is written down.

The scripts, the settings, the workers' roles, the courier and its judgement are those of life. Of it are missing the
wire (relay.py), the server's clock (queue/virtual.py), the keeper's sweeps, and whatever takes a processor's time: a
worker is as fast here as round trips and answers let it be.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from redis.exceptions import RedisError

from streamq.errors import StreamqError
from streamq.keys import Keys
from streamq.queue.check import check
from streamq.queue.virtual import Doorbell, Inline, VirtualSpool, remove_queue
from streamq.settings import Settings
from streamq.simulate.clock import BEGIN_MS, VirtualLoop
from streamq.simulate.record import Record
from streamq.simulate.relay import VirtualRelay
from streamq.simulate.result import Result, SiteResult
from streamq.simulate.scenario import Scenario
from streamq.simulate.world import VirtualWorker, queue_name, virtual_settings
from streamq.smtp.replies import load_replies

__all__ = ["Terms", "simulate"]

PART = 1000  # mails of one round trip
LOOK_SECONDS = 1.0
SWEEP_LOOKS = 60
ADD_SECONDS = 0.1
REDIS_SECONDS = 0.0005
TEXT = "Dear customer,\r\n\r\nyour order leaves our house today.\r\n"


@dataclass(frozen=True, slots=True)
class Terms:
    """How it is simulated. `until_s`: virtual seconds after which it ends, whatever is left; `seed`: all chance."""

    workers: int = 2
    seed: int = 1
    until_s: float = 172_800.0
    redis_s: float = REDIS_SECONDS  # of a round trip to Redis


USUAL = Terms()


def simulate(
    scenario: Scenario,
    settings: Settings,
    url: str,
    terms: Terms = USUAL,
    progress: Callable[[float, int], None] = lambda seconds, taken: None,
) -> Result:
    """In a queue of its own on that server, which is gone when this returns. `progress`: virtual seconds, and mails
    that were taken. Not inside a running event loop. Raises `SettingsError` for settings that no worker could have,
    `StreamqError` where mails are not accounted for."""
    known = virtual_settings(settings, queue_name())
    client = Inline(url, terms.redis_s)
    try:
        with _quiet(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, VirtualLoop)
            return runner.run(_Campaign(scenario, known, client, loop, terms, progress).run())
    finally:
        remove_queue(client, Keys(known.queue).prefix)
        client.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """Workers log what happens to their routes, with the time of life."""
    log = logging.getLogger("streamq")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


class _Campaign:
    def __init__(
        self,
        scenario: Scenario,
        settings: Settings,
        client: Inline,
        loop: VirtualLoop,
        terms: Terms,
        progress: Callable[[float, int], None],
    ) -> None:
        self.scenario = scenario
        self.settings = settings
        self.client = client
        self.loop = loop
        self.terms = terms
        self.progress = progress
        self.bell = Doorbell()
        self.record = Record(load_replies(settings.replies))
        self.shares = scenario.shared_out()
        self.spool = VirtualSpool(settings, client, loop.now_us, self.bell)
        sites = {site.name: site.made(terms.seed, whose=site.name) for site in scenario.sites}
        self.relays = {
            name: VirtualRelay(
                name,
                scenario.relay(name).made(terms.seed, whose=""),
                sites,
                self.record,
                rtt=scenario.rtt,
                service=scenario.service,
            )
            for name in settings.ways
        }
        self.added = 0

    async def run(self) -> Result:
        await self.spool.open()
        workers = [
            VirtualWorker(self.settings, number, self.client, self.loop.now_us, self.bell, self.relays, self.terms.seed)
            for number in range(self.terms.workers)
        ]
        try:
            await self._deliver(workers)
        except* (StreamqError, RedisError, OSError) as wrong:  # anything else is a mistake of ours: all of it is shown
            raise _first(wrong) from None
        return await self._result()

    async def _deliver(self, workers: list[VirtualWorker]) -> None:
        async with asyncio.TaskGroup() as group:  # one that fails is the end of all
            running = [group.create_task(worker.run()) for worker in workers]
            adding = group.create_task(self._add())
            ends = group.create_task(self._end(workers[0]))
            await ends
            adding.cancel()
            for worker in workers:
                worker.stop()
            await asyncio.wait(running)

    async def _add(self) -> None:
        sites = [name for name, many in self.shares.items() for _ in range(many)]
        random.Random(f"{self.terms.seed} mails").shuffle(sites)
        names = self.settings.priorities
        stream = self.spool.keys.stream(names[len(names) // 2])
        over = self.scenario.adding_s
        while self.added < len(sites):
            due = len(sites) if not over else min(len(sites), int(self.loop.time() / over * len(sites)) + 1)
            for start in range(self.added, due, PART):
                self._add_part(stream, sites, start, min(start + PART, due))
            self.added = due
            self.bell.ring()
            await asyncio.sleep(ADD_SECONDS)

    def _add_part(self, stream: str, sites: list[str], start: int, stop: int) -> None:
        ms = BEGIN_MS + int(self.loop.time() * 1000)
        commands = [
            ("XADD", stream, f"{ms}-{number + 1}", "from", "shop@sender.example", "to", f"u{number}@{sites[number]}",
             "subject", f"Order {number}", "text", TEXT)
            for number in range(start, stop)
        ]  # fmt: skip
        wrong = next((reply for reply in self.client.all_now(commands) if isinstance(reply, Exception)), None)
        if wrong is not None:
            raise wrong

    async def _end(self, leader: VirtualWorker) -> None:
        """Returns when nothing is left, or it has taken too long."""
        streams = [("XLEN", self.spool.keys.stream(name)) for name in self.settings.priorities]
        looks, lane = 0, ""
        while self.loop.time() < self.terms.until_s:
            await asyncio.sleep(LOOK_SECONDS)
            looks += 1
            taken = sum(len(site.taken) for site in self.record.sites.values())
            sweeps = looks % SWEEP_LOOKS == 0
            over = self.added == self.scenario.mails and (sweeps or taken == self.added)
            if over and not sum(self.client.all_now(streams)):
                return
            if sweeps:
                ages = [self.settings.max_age] * len(self.settings.priorities)
                _, lane, _ = await self.spool.scripts.expire(ages, lane)
                leader.releaser.now()  # as the keeper does it: a timer that nobody has would be waited for without end
            self.progress(self.loop.time(), taken)

    async def _result(self) -> Result:
        report = await check(self.spool)
        flat = self.client.now("HGETALL", self.spool.keys.counts)
        counts = {name.decode(): int(many) for name, many in zip(flat[::2], flat[1::2], strict=True)}
        failed = sum(counts.get(f"total:{how}", 0) for how in ("bounced", "expired", "rejected"))
        left = sum(report.total(state) for state in ("waiting", "leased", "parked", "scheduled", "held"))
        left += self.scenario.mails - self.added
        relayed = counts.get("total:relayed", 0)
        if not report.clean or relayed + failed + left != self.scenario.mails:
            raise StreamqError(
                f"simulation: of {self.scenario.mails} mails {relayed} went, {failed} failed, {left} are left; "
                f"{len(report.wrong)} are wrong"
            )
        sites = [
            SiteResult.of(site.name, site.model, self.shares[site.name], self.record.site(site.name))
            for site in self.scenario.sites
        ]
        opened = sum(map(len, self.record.opened.values()))
        turned_away = sum(map(len, self.record.turned_away.values()))
        return Result(self.scenario, sites, failed, left, opened, turned_away, self.record, self.loop.time())


def _first(wrong: BaseException) -> BaseException:
    """What went wrong first: a worker's own tasks are a group, too."""
    return _first(wrong.exceptions[0]) if isinstance(wrong, BaseExceptionGroup) else wrong

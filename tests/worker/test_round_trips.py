"""What a mail costs of Redis: round trips, script calls, commands. They are counted, not timed, and must not grow.

A real worker on a real server, in virtual time (streamq/simulate): the order of all that happens is the same in each
run and on each machine, and with it every number. A change that makes one of them smaller writes the smaller one here.
Of the commands one in each script is the simulation's own (queue/virtual.py, EXPIRY).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from streamq.keys import Keys
from streamq.queue.check import check
from streamq.queue.connection import Part
from streamq.queue.virtual import Doorbell, Inline, VirtualSpool, remove_queue
from streamq.settings import Settings, load_settings
from streamq.simulate.clock import BEGIN_MS, VirtualLoop
from streamq.simulate.models import Model
from streamq.simulate.record import Record
from streamq.simulate.relay import Receiver, VirtualRelay
from streamq.simulate.world import VirtualWorker, queue_name, virtual_settings
from streamq.smtp.replies import load_replies

RTT, REDIS = 0.0001, 0.002  # seconds of a round trip
BODY = b"From: shop@example.com\r\nSubject: Order\r\n\r\n" + b"Thank you for your order.\r\n" * 150
WARM = 600


class Counting(Inline):
    """Counts what goes to the server and comes back in one."""

    trips = 0

    def now(self, *parts: Part) -> Any:
        self.trips += 1
        return super().now(*parts)

    def all_now(self, commands: Sequence[Sequence[Part]]) -> list[Any]:
        self.trips += 1
        return super().all_now(commands)


@dataclass(frozen=True, slots=True)
class Spent:
    """For all mails of a measurement."""

    trips: int
    scripts: dict[str, int]
    commands: int


class Bench:
    """One worker of one queue; `spent` is what mails cost that came while it had nothing to do."""

    def __init__(self, settings: Settings, client: Counting, loop: VirtualLoop) -> None:
        self.client = client
        self.loop = loop
        self.bell = Doorbell()
        self.spool = VirtualSpool(settings, client, loop.now_us, self.bell)
        record = Record(load_replies(None))
        relays = {
            name: VirtualRelay(name, Receiver(Model()), {}, record, rtt=RTT, service=0.0) for name in settings.ways
        }
        self.worker = VirtualWorker(settings, 0, client, loop.now_us, self.bell, relays, 1)
        self.added = 0

    async def deliver(self, *batches: int) -> None:
        for many in batches:
            ms = BEGIN_MS + int(self.loop.time() * 1000)
            numbers = range(self.added, self.added + many)
            self.client.all_now(
                [
                    ("XADD", self.spool.keys.stream("normal"), f"{ms}-{number + 1}", "id", f"m{number}",
                     "envelope_from", "shop@example.com", "envelope_to", f"bob{number}@example{number % 50}.net",
                     "raw", BODY)
                    for number in numbers
                ]
            )  # fmt: skip
            self.added += many
            self.bell.ring()
            while sum(self.worker.settled.values()) < self.added:  # noqa: ASYNC110 (virtual time)
                await asyncio.sleep(REDIS)
            await asyncio.sleep(0.2)

    async def spent(self, *batches: int) -> Spent:
        """On mails that come in so many batches, each when the one before is gone."""
        calls, commands, trips = dict(self.worker.spool.caller.calls), self._commands(), self.client.trips
        await self.deliver(*batches)
        trips = self.client.trips - trips - len(batches)  # those that added them
        made = {verb: many - calls.get(verb, 0) for verb, many in self.worker.spool.caller.calls.items()}
        spent = self._commands() - commands - 1 - sum(batches)  # the look before, and the XADDs
        return Spent(trips, {verb: many for verb, many in made.items() if many}, spent)

    def _commands(self) -> int:
        """Of the server, those inside scripts, too."""
        facts = self.client.now("INFO", "stats").decode()
        return int(facts.partition("total_commands_processed:")[2].split()[0])


def measured(url: str, measure: Callable[[Bench], Awaitable[Spent]], **settings: Any) -> Spent:
    known = virtual_settings(
        load_settings(**{"relay": "smtp://relay.example", "adapt": {"ramp": 0}, **settings}), queue_name()
    )
    client = Counting(url, REDIS)

    async def run(loop: VirtualLoop) -> Spent:
        bench = Bench(known, client, loop)
        await bench.spool.open()
        running = asyncio.create_task(bench.worker.run())
        await bench.worker.ready.wait()
        await bench.deliver(WARM)  # its connections are open (at once, by the `ramp`), the server knows the scripts
        found = await measure(bench)
        assert bench.worker.settled == {"sent": bench.added}
        assert (await check(bench.spool)).clean
        bench.worker.stop()
        await running
        return found

    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, VirtualLoop)
            return runner.run(run(loop))
    finally:
        remove_queue(client, Keys(known.queue).prefix)
        client.close()


def drain(many: int) -> Callable[[Bench], Awaitable[Spent]]:
    """They stand in the stream when the first is read."""
    return lambda bench: bench.spent(many)


def singly(many: int) -> Callable[[Bench], Awaitable[Spent]]:
    """Each comes when the one before is gone."""
    return lambda bench: bench.spent(*[1] * many)


OVERLAP = {"relay": None, "routes": {"main": {"url": "smtp://relay.example", "pipelining": "overlap"}}}
UNBOUND = {"sites": {"*": {"rate": ["100000/s"]}}}
ALL_UNBOUND = {
    "relay": None,
    "routes": {"main": {"url": "smtp://relay.example", "rate": ["100000/s"]}},
    "sites": {"*": {"rate": ["100000/s"], "connections": 1000}},
}
# 2,000 mails of a backlog, 20 that come one by one: round trips, script calls, commands
Case = tuple[Callable[[Bench], Awaitable[Spent]], dict[str, Any], tuple[int, int, int]]
CASES: dict[str, Case] = {
    "drain": (drain(2000), {}, (366, 292, 10_573)),
    "drain, overlap": (drain(2000), OVERLAP, (368, 294, 10_575)),
    "drain, a limit that binds nobody": (drain(2000), UNBOUND, (466, 362, 16_377)),
    "drain, limits of all kinds that bind nobody": (drain(2000), ALL_UNBOUND, (453, 349, 26_411)),
    "idle": (singly(20), {}, (128, 64, 857)),
    "idle, a limit that binds nobody": (singly(20), UNBOUND, (128, 64, 1097)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_mails_cost_does_not_grow(server_url: str, name: str) -> None:
    measure, settings, (trips, scripts, commands) = CASES[name]
    spent = measured(server_url, measure, **settings)
    assert spent.trips <= trips, spent
    assert sum(spent.scripts.values()) <= scripts, spent
    assert spent.commands <= commands, spent


def test_what_a_mail_costs_hangs_on_no_backlog(server_url: str) -> None:
    few, many = (measured(server_url, drain(mails)) for mails in (2000, 4000))
    assert many.trips <= 2 * few.trips * 1.02  # the first batch, of a full hand, is the largest
    assert many.commands <= 2 * few.commands * 1.02


def test_the_same_mails_cost_the_same(server_url: str) -> None:
    """Else the numbers above would say nothing."""
    first, again = (measured(server_url, drain(1000)) for _ in range(2))
    assert first == again
    assert first.trips >= sum(first.scripts.values()) > 0

"""One webhook's listener: reads a page of events, sends it, again until all of it is taken, then the next.

One process at a time has the role of a webhook; others stand by. A page that is not taken holds up those behind it:
a receiver that is away gets its events in their order when it is back, and nothing of them is kept in memory. After
`pause_after` rounds that failed in a row it is paused, until an operator says `resume`: what is behind stays in the
stream as long as the stream keeps it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError

from streamq.queue.events import Event, hidden
from streamq.queue.spool import Spool
from streamq.queue.webhooks import Feed, filter_of
from streamq.queue.wording import plural
from streamq.settings import WebhookSettings
from streamq.webhooks.message import Message, message
from streamq.webhooks.sender import Answer, Sender

__all__ = ["Listener"]

log = logging.getLogger("streamq.webhooks")
LEASE_MS = 15_000
PAGE = 100
IDLE_SECONDS = 1.0  # between two looks at whether it is still paused, or somebody else's
JITTER = 0.1


class Listener:
    """`consumer` names this process. `sleep` (seconds) and `chance` are handed in where tests want to."""

    def __init__(
        self,
        spool: Spool,
        name: str,
        settings: WebhookSettings,
        consumer: str,
        *,
        sleep: Callable[[float], Any] = asyncio.sleep,
        chance: random.Random | None = None,
    ) -> None:
        self.spool = spool
        self.name = name
        self.settings = settings
        self.consumer = consumer
        self.feed = Feed(spool, name)
        self.sender = Sender(settings, name)
        self.filter = filter_of(settings)
        self.hides = spool.settings.pii == "hash"
        self.news = asyncio.Event()  # set when events came
        self.leads = False
        self._room = asyncio.Semaphore(settings.at_once)
        self.sleep = sleep
        self.chance = chance or random.Random()

    async def run(self) -> None:
        """Until it is cancelled; what is under way then is sent again by the next one."""
        lease = asyncio.create_task(self._hold())
        try:
            while True:
                try:
                    await self.step()
                except RedisError as error:
                    log.warning("%s: redis: %s", self.name, error)
                    await self.sleep(IDLE_SECONDS)
        finally:
            lease.cancel()
            self.sender.close()

    async def _hold(self) -> None:
        while True:
            try:
                self.leads = await self.spool.scripts.leader(self._role, self.consumer, LEASE_MS)
            except RedisError:
                self.leads = False
            await self.sleep(LEASE_MS / 3000)

    @property
    def _role(self) -> str:
        return f"webhook-{self.name}"  # as keys have it: no colon in a role

    async def leave(self) -> None:
        """Gives the role back."""
        await self.spool.scripts.leader(self._role, self.consumer, 0)

    async def step(self) -> None:
        """One page, or a wait for one."""
        if not self.leads:
            self.leads = await self.spool.scripts.leader(self._role, self.consumer, LEASE_MS)
        if not self.leads or await self.feed.paused():
            await self.sleep(IDLE_SECONDS)
            return
        self.news.clear()
        events, gone, lost = await self.feed.read(max(PAGE, self.settings.batch))
        if gone or lost:
            many = plural(gone + lost, "event") if lost >= 0 else "some events (the server cannot say how many)"
            log.warning("%s: gone, before it had them: %s (STREAMQ_EVENTS_KEPT)", self.name, many)
        if not events and not gone:
            await self.news.wait()
        elif events:
            await self._deliver(events)

    async def _deliver(self, events: Sequence[Event]) -> None:
        wanted = [event for event in events if self.filter.fits(event)]
        await self.feed.ack([event.at for event in events if not self.filter.fits(event)])
        left = self._messages(wanted)
        while True:
            answers = await self._round(left)
            taken = [
                event.at for each, answer in zip(left, answers, strict=True) if answer.taken for event in each.events
            ]
            failed = [answer for answer in answers if not answer.taken]
            state = {"error": failed[0].words if failed else "", "at": self.spool.now_ms()}
            failures = await self.feed.took(taken, state, failed=bool(failed))
            if not failed:
                break
            left = [each for each, answer in zip(left, answers, strict=True) if not answer.taken]
            if not await self._failed(failed, failures):
                return  # what is left is pending: it comes first when this goes on
        if failures:
            log.warning("%s takes events again", self.name)

    def _messages(self, events: Sequence[Event]) -> list[Message]:
        shown = [hidden(event) for event in events] if self.hides else events
        size = self.settings.batch
        return [message(shown[at : at + size], batched=size > 1) for at in range(0, len(shown), size)]

    async def _round(self, messages: Sequence[Message]) -> list[Answer]:
        """Each once, so many at once as there are threads."""
        return await asyncio.gather(*(self._try(each) for each in messages))

    async def _try(self, one: Message) -> Answer:
        async with self._room:  # signed when its turn comes: a receiver refuses what is minutes old
            headers = one.headers(self.settings.keys, self.spool.now_ms() // 1000)
            return await self.sender.post(headers, one.body)

    async def _failed(self, answers: Sequence[Answer], failures: int) -> bool:
        """Whether to try again, after a wait; else it is paused, or somebody else's."""
        worst = answers[0]
        if any(answer.gone for answer in answers):
            return await self._pause("gone", "410: the receiver wants no more of them")
        if failures >= self.settings.pause_after:
            return await self._pause("failures", f"{failures} rounds failed, the last with {worst.words}")
        wait = self._wait_s(max(answer.after_s for answer in answers), failures)
        log.warning("%s: %s; %d events again in %.0f s", self.name, worst.words, len(answers), wait)
        return await self._patience(wait)

    async def _pause(self, why: str, reason: str) -> bool:
        await self.feed.pause({"why": why, "reason": reason, "at": self.spool.now_ms()})
        log.error("%s is paused: %s (`streamq webhook resume %s`)", self.name, reason, self.name)
        return False

    def _wait_s(self, asked_s: float, failures: int) -> float:
        steps = self.settings.retry
        step: float = steps[min(failures, len(steps)) - 1] / 1000
        return max(asked_s, step * self.chance.uniform(1 - JITTER, 1 + JITTER))

    async def _patience(self, wait: float) -> bool:
        """Waits in parts; False where it is somebody else's by then, or an operator's pause."""
        while wait > 0:
            part = min(wait, IDLE_SECONDS)
            await self.sleep(part)
            wait -= part
            if not self.leads or await self.feed.paused():
                return False
        return True

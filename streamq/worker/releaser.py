"""The releaser: what is due, from schedule and lanes, on time. A local timer per process; no mail polls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streamq.queue.rows import Released
from streamq.queue.spool import Spool
from streamq.worker.admission import Admission
from streamq.worker.hand import Hand
from streamq.worker.link import Link

__all__ = ["Releaser"]

FULL_SECONDS = 1.0  # something is due and this process is full: look again when it is not, or then


class Releaser:
    """`next_due` is told by every script what becomes due when; `rang` by the reader that the bell woke us."""

    def __init__(self, spool: Spool, link: Link, hand: Hand, consumer: str, listed: Callable[[], str] = str) -> None:
        self.spool = spool
        self.link = link
        self.hand = hand
        self.consumer = consumer
        self.listed = listed
        self.admission: Admission | None = None  # which in turn tells us what is due
        self.stopping = False
        self._bell: list[str] = []
        self._due: float | None = None  # loop time
        self._wake = asyncio.Event()

    def next_due(self, due_us: int, now_us: int) -> None:
        """Something becomes due at `due_us` by the server's clock, which says `now_us` now; 0: nothing."""
        if due_us:
            at = asyncio.get_running_loop().time() + max(0.0, (due_us - now_us) / 1e6)
            if self._due is None or at < self._due:
                self._due = at
                self._wake.set()

    def unanswered(self) -> list[str]:
        """The bell's entries that no release has acknowledged."""
        bell, self._bell = self._bell, []
        return bell

    def rang(self, bell: list[str]) -> None:
        self._bell.extend(bell)
        self.now()

    def now(self) -> None:
        """Look at once."""
        self._due = asyncio.get_running_loop().time()
        self._wake.set()

    def stop(self) -> None:
        """Take nothing more; `run` returns."""
        self.stopping = True
        self.hand.wake()
        self.now()

    async def run(self) -> None:
        self.now()
        while True:
            await self._until_due()
            self._due = None
            if self.stopping:
                return
            if await self._release():
                # Due, and no room: another worker was rung for. Ours comes when the hand has changed.
                try:
                    async with asyncio.timeout(FULL_SECONDS):
                        await self.hand.changed()
                except TimeoutError:
                    pass
                self.now()

    async def _until_due(self) -> None:
        loop = asyncio.get_running_loop()
        while self._due is None or self._due > loop.time():
            self._wake.clear()
            try:
                async with asyncio.timeout_at(self._due):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _release(self) -> bool:
        assert self.admission is not None
        bell, self._bell = self._bell, []
        room = self.hand.room
        released, asked_at = await self.link.call(lambda: self._ask(room, bell))
        if released.leases:
            new = self.hand.claim((lease.entry for lease in released.leases), released.token)
            for lease in released.leases:
                self.hand.counts(lease.entry, released.token, lease.target)
            fresh = [lease for lease in released.leases if lease.entry in new]
            await self.admission.take_back(fresh, released.token, asked_at)
        if not released.left:
            self.next_due(released.next_us, released.now_us)
        elif self.hand.room:  # one script takes a hundred
            self.now()
            return False
        return released.left

    async def _ask(self, room: int, bell: list[str]) -> tuple[Released, float]:
        """What the script says, and the loop time from which its slots run."""
        asked_at = asyncio.get_running_loop().time()
        return await self.spool.scripts.release(self.consumer, room, bell, self.listed()), asked_at

"""The sifter: where most of what waits goes to sites that take nothing now, it is parked without being brought here.

A burst to a site that takes fifty mails a second stands in front of everybody else's mail. To bring each of its mails
here, glance at it and send it back to its lane costs the server and this process more than to
park it by the script that reads on (`python -m bench heart` measures the latter).
"""

from __future__ import annotations

import asyncio

from streamq.queue.rows import Sifted
from streamq.queue.spool import Entry, Spool
from streamq.settings import Settings
from streamq.worker.admission import Admission
from streamq.worker.link import Link

__all__ = ["Sifter"]

LEAST = 10  # mails that say something
MEAN_MOST = 65_536  # bytes: larger mails travel through no script
REST_SECONDS = 1.0  # after one that did


class Sifter:
    """One per process. `sifts` are the priorities whose stream is read by the script now."""

    def __init__(self, settings: Settings, spool: Spool, link: Link, consumer: str, admission: Admission) -> None:
        self.settings = settings
        self.spool = spool
        self.link = link
        self.consumer = consumer
        self.admission = admission
        self.sifts: set[str] = set()
        self._few: dict[str, tuple[int, int]] = {}  # priority → read, parked
        self._rests_until: dict[str, float] = {}  # priority → loop time

    def note(self, name: str, read: int, parked: int) -> None:
        """Of so many that were read of a priority, so many were parked: is this the way to read on? Few say nothing by
        themselves, and a worker that is full reads one or two at a time."""
        few, shut = self._few.pop(name, (0, 0))
        if read and few + read < LEAST:
            self._few[name] = few + read, shut + parked
        elif read and self.admission.intake.plain_route is not None and (shut + parked) * 2 >= few + read:
            self.sifts.add(name)
        else:
            self.sifts.discard(name)

    def takes(self, name: str, mean: float) -> bool:
        """Whether the priority's next mails, of `mean` bytes each, come through here."""
        if name not in self.sifts or mean > MEAN_MOST:
            return False
        return self._rests_until.get(name, 0.0) <= asyncio.get_running_loop().time()

    async def read(self, name: str, room: int) -> tuple[list[Entry], int]:
        """On in the stream of a priority: what is ours now, and how many were parked."""
        route = self.admission.intake.plain_route
        assert route is not None
        found: Sifted = await self.link.call(
            lambda: self.spool.scripts.sift(
                self.consumer,
                self.spool.digit(name),
                route=route,
                room=room,
                max_age_ms=self.settings.max_age,
                max_bytes=self.settings.max_mail_bytes,
            )
        )
        self.admission.next_due(found.next_us, found.now_us)
        if found.closed_us and len(self.admission.outboxes) == 1:
            self.admission.closed_us, self.admission.now_us = found.closed_us, found.now_us
        self.note(name, found.visited, found.parked)
        if found.large:  # the mean tells little where a few are large
            self._rests_until[name] = asyncio.get_running_loop().time() + REST_SECONDS
        taken = [Entry.of(entry, flat) for entry, flat in found.taken]
        return taken, found.parked

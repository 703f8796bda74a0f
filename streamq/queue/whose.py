"""Who delivers a queue: workers, whose mails go to people, or one `streamq up`, whose mails go to a sink.

A mail for people that ends in a sink is lost; one for a sink that goes to people cannot be called back. So the two
never work on one queue: an `up` takes it by a lease, in one script that looks for workers and for mails that may not be
its own (lua/whose.lua), and a worker that starts, or comes back after an outage, asks first. Who is killed has it until
its lease ends.
"""

from __future__ import annotations

import asyncio

from redis.exceptions import RedisError

from streamq.errors import QueueTaken, SettingsError
from streamq.queue.look import status
from streamq.queue.spool import Spool

__all__ = ["LEASE_MS", "RENEW_SECONDS", "Hold", "join"]

LEASE_MS = 15_000
RENEW_SECONDS = 3.0
SHOWN = 80


async def join(spool: Spool, consumer: str, up: str = "") -> None:
    """A worker begins; `up`: the name of the one that it works for. Raises `QueueTaken`."""
    found = await spool.scripts.whose("join", up, consumer=consumer)
    if found.status == "held":
        raise QueueTaken(
            f"the queue {spool.settings.queue!r} is delivered by `streamq up` ({found.who[:SHOWN]}), to a mail server "
            "that sends nothing on: end that, or give one of the two another queue (STREAMQ_QUEUE); if it was "
            f"killed, it counts for {LEASE_MS // 1000} seconds more"
        )
    if found.status == "lost":
        raise QueueTaken(f"the queue {spool.settings.queue!r} belongs to {found.who[:SHOWN]} by now, and not to {up}")


class Hold:
    """The lease of one `streamq up`, under a name that nobody else has."""

    def __init__(self, spool: Spool, owner: str) -> None:
        self.spool = spool
        self.owner = owner

    async def take(self, *, force: bool = False) -> None:
        """`force`: what waits goes to the sink, too, and whoever delivered it before. Raises `SettingsError`."""
        found = await self.spool.scripts.whose("take", self.owner, ttl_ms=LEASE_MS, force=force)
        queue = repr(self.spool.settings.queue)
        if found.status == "held":
            raise SettingsError(
                f"up: another `streamq up` has the queue {queue} ({found.who[:SHOWN]}), and each would get some of its "
                f"mails: end it (one that was killed counts for {LEASE_MS // 1000} seconds more), or choose another "
                "--queue"
            )
        if found.status == "workers":
            one = found.many == 1
            raise SettingsError(
                f"up: {found.many} worker{'' if one else 's'} of others deliver{'s' if one else ''} the queue {queue} "
                f"already ({found.who[:SHOWN]}): end them (one that was killed counts for a minute more), or choose "
                "another --queue"
            )
        if found.status == "strange":
            raise SettingsError(await self._strange(queue, found.who))

    async def _strange(self, queue: str, who: str) -> str:
        seen = await status(self.spool)
        states = ", ".join(f"{many} {state}" for state in next(iter(seen.depth.values())) if (many := seen.sum(state)))
        oldest = max(seen.oldest_ms.values()) // 1000
        holds = f"holds {seen.live} ({states}; the oldest came {oldest} s ago)" if seen.live else "is empty now"
        whose = "workers delivered its mails before" if who else "mails came while no `streamq up` had it"
        return (
            f"up: the queue {queue} {holds}, and {whose}: they may be for people, and here they would end in a mail "
            "server that sends nothing on. Start a worker for them; or choose another queue (--queue dev, and "
            "STREAMQ_QUEUE=dev for what sends); or, where they are only a test's, --take"
        )

    async def keep(self) -> str:
        """Renews it, and returns when somebody else has the queue: who. A server that is away has nobody."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                found = await self.spool.scripts.whose("renew", self.owner, ttl_ms=LEASE_MS)
            except (RedisError, OSError):
                continue
            if found.status == "lost":
                return found.who

    async def leave(self) -> None:
        """Nobody has it from now on; what is in it is this one's, and the next one's."""
        try:
            await self.spool.scripts.whose("leave", self.owner)
        except (RedisError, OSError):  # its lease ends by itself
            return

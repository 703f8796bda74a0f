"""The settings of a simulated queue, and its workers: the real ones, but for the wire, the clock and the keeper."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Coroutine, Mapping

from pydantic import SecretStr

from streamq.queue.spool import Spool
from streamq.queue.virtual import Doorbell, Inline, VirtualSpool
from streamq.settings import RouteSettings, Settings
from streamq.simulate.relay import VirtualRelay
from streamq.smtp.access import Access
from streamq.smtp.connection import Connection
from streamq.smtp.replies import Replies
from streamq.worker.worker import Worker

__all__ = ["VirtualWorker", "queue_name", "virtual_settings"]

A_DAY = 86_400.0


def queue_name() -> str:
    return f"streamq-simulate-{secrets.token_hex(6)}"


def virtual_settings(settings: Settings, queue: str) -> Settings:
    """As in life, but for what has no place in a simulation: secrets, TLS, reports to senders, leases that end. Routes
    keep their names; the n-th is reached by the host `relay-<n>.example`."""
    ways = settings.ways or {"relay": RouteSettings.model_validate({"url": "smtp://relay.example"})}
    plain = {name: _plain(way, at) for at, (name, way) in enumerate(ways.items())}
    changed = {
        "queue": queue,
        "relay": None,
        "routes": plain,
        "reports": False,
        "delay_warning": None,
        "lease_seconds": A_DAY,  # the server counts it in its own time, and here nobody dies
        "events_kept": 1000,
        "id_window": settings.id_window,
    }
    return settings.model_copy(update=changed)


def _plain(way: RouteSettings, at: int) -> RouteSettings:
    usual = {name: field.get_default() for name, field in RouteSettings.model_fields.items() if name.startswith("tls")}
    changed = {"url": SecretStr(f"smtp://relay-{at}.example"), "tls": "none", "chunking": False, "token": None}
    return way.model_copy(update={**usual, "auth": (), "source": (), **changed})


class VirtualWorker(Worker):
    """`relays` by their hosts. It has no keeper: its sweeps are for workers that died, and the simulation does what is
    due by age."""

    def __init__(
        self,
        settings: Settings,
        number: int,
        client: Inline,
        clock: Callable[[], int],
        bell: Doorbell,
        relays: Mapping[str, VirtualRelay],
        seed: int,
    ) -> None:
        self._relays = relays
        self._made = (client, clock, bell)
        super().__init__(settings, "", chance=random.Random(f"{seed} worker {number}"), opener=self._open)
        self.consumer = f"virtual-{number}"

    async def _open(self, access: Access, number: int, rules: Replies) -> Connection:
        return await self._relays[access.route.host].connect(access, number, rules)

    async def _open_spool(self) -> Spool:
        spool = VirtualSpool(self.settings, *self._made)
        await spool.open()
        return spool

    def _takers(self) -> dict[str, Coroutine[object, object, None]]:
        return {"reader": self.reader.run(), "releaser": self.releaser.run()}

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
from streamq.smtp.courier import Connect
from streamq.worker.worker import Worker

__all__ = ["VirtualWorker", "queue_name", "virtual_settings"]

A_DAY = 86_400.0


def queue_name() -> str:
    return f"streamq-simulate-{secrets.token_hex(6)}"


def virtual_settings(settings: Settings, queue: str) -> Settings:
    """As in life, but for what has no place in a simulation: secrets, TLS, reports to senders, leases that end. Routes
    keep their names and hosts, so what provider rules say of them holds."""
    ways = settings.ways or {"relay": RouteSettings.model_validate({"url": "smtp://relay.example"})}
    plain = {name: _plain(way) for name, way in ways.items()}
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


def _plain(way: RouteSettings) -> RouteSettings:
    usual = {name: field.get_default() for name, field in RouteSettings.model_fields.items() if name.startswith("tls")}
    host = f"[{way.host}]" if ":" in way.host else way.host
    changed = {"url": SecretStr(f"smtp://{host}:{way.port}"), "tls": "none", "chunking": False, "token": None}
    return way.model_copy(update={**usual, "auth": (), "source": (), **changed})


class VirtualWorker(Worker):
    """`relays` by their routes. It has no keeper: its sweeps are for workers that died, and the simulation does what is
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
        super().__init__(settings, "", chance=random.Random(f"{seed} worker {number}"))
        self.consumer = f"virtual-{number}"

    def _opener(self, route: str) -> Connect:
        return self._relays[route].connect

    async def _open_spool(self) -> Spool:
        spool = VirtualSpool(self.settings, *self._made)
        await spool.open()
        return spool

    def _takers(self) -> dict[str, Coroutine[object, object, None]]:
        return {"reader": self.reader.run(), "releaser": self.releaser.run()}

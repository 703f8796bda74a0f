"""What a worker does with its share of connections when no word about it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from streamq.queue.rows import Grant, GrantRow
from streamq.queue.spool import Spool
from streamq.settings import RouteSettings
from streamq.smtp.courier import Courier
from streamq.smtp.opening import News
from streamq.worker import allowances
from streamq.worker.allowances import Allowances
from streamq.worker.link import Link


class Told:
    """Stands for a courier: what it was allowed, and until when."""

    route = RouteSettings.model_validate({"url": "smtp://127.0.0.1:1"})
    connections = wanted = waiting = 0
    held = False

    def __init__(self) -> None:
        self.allowed: list[tuple[int, float]] = []
        self.none = asyncio.Event()

    def news(self) -> News:
        return News(0, 0, 0, 0, 0, 0, 0)

    def allow(self, most: int, *, until: float, **_: Any) -> None:
        self.allowed.append((most, until))
        if not most:
            self.none.set()


async def recovered() -> None:
    return


async def test_connections_are_closed_before_the_lease_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowances, "LEASE_SECONDS", 0.03)
    monkeypatch.setattr(allowances, "CLOSE_SECONDS", 0.01)
    loop = asyncio.get_running_loop()
    asked: list[float] = []

    async def grant(_: str, ttl_ms: int, rows: Sequence[GrantRow]) -> tuple[int, list[Grant]]:
        assert ttl_ms == 30
        asked.append(loop.time())
        if len(asked) == 1:  # the lease of the next try is no older than that try
            raise ConnectionError("away")
        await asyncio.sleep(0)
        return 0, [Grant(allowance=5, closed_us=0, elsewhere=0, mails=100, careful=False) for _ in rows]

    spool = cast(Spool, SimpleNamespace(scripts=SimpleNamespace(grant=grant)))
    link = Link(recovered)
    share = Allowances(spool, link, "w1", lambda: None, lambda _: None)
    told = Told()
    share.couriers["main"] = cast(Courier, told)
    await share.ask()
    [(most, until)] = told.allowed
    assert most == 5
    assert asked[0] + 0.02 < until <= asked[1] + 0.02
    await told.none.wait()
    assert loop.time() >= until
    assert told.allowed == [(5, until), (0, until)]
    # A word in time, and nothing lapses until the next one is missing.
    await share.ask()
    assert told.allowed[2][1] > until
    share.stop()
    await link.stop()


async def test_who_reads_keeps_a_connection_though_all_that_it_reads_should_park(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would be another one's a moment later, which asks once a second: nobody read meanwhile."""
    wants: list[int] = []

    async def grant(_: str, ttl_ms: int, rows: Sequence[GrantRow]) -> tuple[int, list[Grant]]:
        wants.extend(row.want for row in rows)
        return 0, [Grant(allowance=1, closed_us=0, elsewhere=0, mails=100, careful=False) for _ in rows]

    spool = cast(Spool, SimpleNamespace(scripts=SimpleNamespace(grant=grant)))
    link = Link(recovered)
    share = Allowances(spool, link, "w1", lambda: None, lambda _: None)
    share.couriers["main"] = cast(Courier, Told())
    share.reads()
    await share.ask()  # it had none
    await share.ask()
    assert not share._spare  # it left nothing to others
    monkeypatch.setattr(allowances, "RENEW_SECONDS", 0.0)
    await share.ask()
    assert wants == [0, 1, 0]
    share.stop()
    await link.stop()

"""The same scripts on fakeredis, which is Python and Lua in this process: what needs neither a real server's PEL
counts, nor blocking reads, nor JUSTID. It has no `redis.sha1hex`, so that mails with an `id` of the producer's can't
be looked up or end unsent, and no MEMORY USAGE, so that `check` can't size its chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from fakeredis import FakeAsyncRedis
from mailroom import Lease, Mailroom, ident

from streamq.errors import QueueFormat
from streamq.queue.rows import Status
from streamq.queue.spool import Spool
from streamq.settings import load_settings


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[Mailroom]:
    redis = FakeAsyncRedis(protocol=2)
    redis.response_callbacks.clear()
    spool = Spool(load_settings(), redis)
    await spool.open()
    yield Mailroom(spool)
    await spool.close()


async def test_a_mail_from_xadd_to_gone(fake: Mailroom) -> None:
    entry = await fake.add("high", id="a1")
    assert await fake.read() == [entry]
    found = await fake.admit(entry, seen=ident("a1"))
    assert found.statuses == [Status("go", b"", "main", "", "", found.token)]
    assert await fake.settled("sent", Lease(entry, found.token, "w1")) == "ok"
    again = await fake.add("high", id="a1")
    await fake.read()
    assert await fake.admitted(again, seen=ident("a1")) == ["duplicate"]
    assert await fake.kinds() == ["email.relayed", "email.duplicate"]
    assert await fake.states() == {}


@pytest.mark.parametrize("state", ["waiting", "leased", "parked", "scheduled", "held"])
async def test_every_state_keeps_the_law(fake: Mailroom, state: str) -> None:
    entry = await fake.in_state(state)
    assert await fake.states() == {entry: state}


async def test_a_retry_comes_back(fake: Mailroom) -> None:
    await fake.settled("defer", await fake.lease(), wait=1000)
    fake.tick(999)
    assert await fake.released() == []
    fake.tick(1)
    [entry] = await fake.released()
    assert (await fake.notes(entry))["attempts"] == 1


async def test_another_format_is_refused(fake: Mailroom) -> None:
    await fake.do("HSET", fake.keys.meta, "format", "99")
    with pytest.raises(QueueFormat, match="another STREAMQ_QUEUE"):
        await fake.spool.open()

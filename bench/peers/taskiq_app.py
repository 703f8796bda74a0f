"""taskiq on Redis streams: `taskiq worker bench.peers.taskiq_app:broker --workers 2`, with a pool of aiosmtplib's
connections in each process."""

from __future__ import annotations

import asyncio
import os

import aiosmtplib
from taskiq_redis import RedisStreamBroker

from bench.peers.mailer import SENDER, relay

AT_ONCE = 20
broker = RedisStreamBroker(os.environ["PEER_REDIS"], xread_count=100)
_pool: asyncio.LifoQueue[aiosmtplib.SMTP | None] = asyncio.LifoQueue()
for _ in range(AT_ONCE):
    _pool.put_nowait(None)


@broker.task(task_name="deliver")
async def deliver(rcpt: str, body: str) -> None:
    client = await _pool.get()
    try:
        if client is None or not client.is_connected:
            host, port = relay()
            client = aiosmtplib.SMTP(hostname=host, port=port, start_tls=False)
            await client.connect()
        await client.sendmail(SENDER, [rcpt], body.encode("ascii"))
    finally:
        _pool.put_nowait(client)


async def hand_over(recipients: list[str], body: str) -> None:
    await broker.startup()
    for start in range(0, len(recipients), AT_ONCE):
        await asyncio.gather(*(deliver.kiq(rcpt, body) for rcpt in recipients[start : start + AT_ONCE]))
    await broker.shutdown()

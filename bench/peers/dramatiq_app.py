"""dramatiq: `dramatiq bench.peers.dramatiq_app -p 2 -t 16`, its default middleware."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers.mailer import send

broker = RedisBroker(url=os.environ["PEER_REDIS"])
dramatiq.set_broker(broker)


@dramatiq.actor(max_retries=5)
def deliver(rcpt: str, body: str) -> None:
    send(rcpt, body)


async def hand_over(recipients: list[str], body: str) -> None:
    for rcpt in recipients:
        deliver.send(rcpt, body)

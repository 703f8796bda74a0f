"""celery: `celery -A bench.peers.celery_app worker -P threads -c 16`, once a process: threads are its fastest pool here
(prefork moves each mail through one more pipe). Late acknowledgement: else what a worker had fetched dies with it."""

from __future__ import annotations

import os

from celery import Celery

from bench.peers.mailer import send


def broker_url(url: str) -> str:
    """As kombu writes it: `unix:///path?db=0` is `redis+socket:///path?virtual_host=0`."""
    if not url.startswith("unix://"):
        return url
    path, _, query = url.removeprefix("unix://").partition("?")
    number = query.rpartition("db=")[2] or "0"
    return f"redis+socket://{path}?virtual_host={number}"


app = Celery("peer", broker=broker_url(os.environ["PEER_REDIS"]))
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=8,
    broker_connection_retry_on_startup=True,
    worker_send_task_events=False,
    task_send_sent_event=False,
)


@app.task(name="deliver", max_retries=5)
def deliver(rcpt: str, body: str) -> None:
    send(rcpt, body)


async def hand_over(recipients: list[str], body: str) -> None:
    for rcpt in recipients:
        deliver.delay(rcpt, body)

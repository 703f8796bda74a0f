"""A worker that leads looks at the queue's bounds by itself: the sign comes, producers stop, and it goes."""

from __future__ import annotations

import asyncio

import pytest
from cli.shell import streamq
from crew import crew

from streamq import Client, Mail, QueueFull


async def test_a_full_queue_is_told_and_opens_again(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMQ_REDIS_URL", server_url)
    async with crew(server_url) as c:
        later = [await c.add(id=f"m{n}", delay="3000") for n in range(3)]
        await c.worker(max_queue=3)
        [full] = await c.until("queue.full", "queue")
        assert (full["used"], full["most"], full["was"]) == (3, 3, "none")
        assert (
            "100% of the mails that STREAMQ_MAX_QUEUE allows (3 of 3): producers are told to wait"
            in (await streamq("status", columns=200)).out
        )
        assert (await streamq("status", "--json")).json["bounds"] == [
            {"name": "queue", "level": "full", "used": 3, "most": 3}
        ]
        mail = Mail(from_="shop@example.com", to="bob@example.net", subject="Hi", id="a1")
        with Client(server_url) as client, pytest.raises(QueueFull, match=r"3 of 3"):
            await asyncio.to_thread(client.send, mail)
        await streamq("cancel", *later, "--yes")
        assert (await c.until("queue.eased", "queue"))[0]["level"] == "none"
        with Client(server_url) as client:
            await asyncio.to_thread(client.send, mail)
        await c.until("email.relayed", "a1")

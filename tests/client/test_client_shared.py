"""One client, many threads or tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence

import pytest
from mailroom import Mailroom

from client.faces import Threaded, ids, letter, rows
from streamq import (
    AsyncClient,
    Client,
    Mail,
    Result,
    Sent,
)

pytestmark = pytest.mark.leaves_mail


async def test_threads_share_a_client(server_url: str, room: Mailroom) -> None:
    """More of them than connections; each is told of its own mails."""
    with Client(server_url, connections=3, max_depth=10_000) as client:
        face = Threaded(client)

        def one(thread: int) -> list[Sent]:
            return [client.send(letter(f"t{thread}-{n}")) for n in range(30)]

        singles: list[Awaitable[Sequence[Result]]] = [asyncio.to_thread(one, thread) for thread in range(8)]
        batches: list[Awaitable[Sequence[Result]]] = [
            face.send_many([letter(f"b{thread}-{n}") for n in range(700)]) for thread in range(4)
        ]
        told: list[Result] = []
        for results in await asyncio.gather(*singles, *batches):
            told += results
    stands = {f"1{entry}": fields[b"id"].decode() for entry, fields in await rows(room)}
    assert len(stands) == 8 * 30 + 4 * 700
    assert {result.entry: result.id for result in told if isinstance(result, Sent)} == stands


async def test_tasks_share_a_client(server_url: str, room: Mailroom) -> None:
    async with AsyncClient(server_url, connections=3) as client:
        told = await asyncio.gather(*(client.send(letter(f"m{n}")) for n in range(200)))
    assert {f"1{entry}": fields[b"id"].decode() for entry, fields in await rows(room)} == {
        sent.entry: sent.id for sent in told
    }


async def test_mails_that_come_by_and_by(server_url: str, room: Mailroom) -> None:
    async def source() -> AsyncIterator[Mail]:
        for n in range(7):
            yield letter(f"m{n}")

    async with AsyncClient(server_url, batch_mails=3) as client:
        assert len(await client.send_many(source())) == 7
    assert await ids(room) == [f"m{n}" for n in range(7)]

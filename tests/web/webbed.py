"""The application in a test's hands, without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from streamq.queue.overview import Overviews
from streamq.queue.spool import Spool
from streamq.web.serve import queue_app

__all__ = ["TOKEN", "asking", "numbers", "serving"]

TOKEN = "a-token-of-24-characters"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@asynccontextmanager
async def asking(app: Starlette, host: str = "localhost", **known: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}", **known) as client:
        yield client


@asynccontextmanager
async def serving(
    spool: Spool, *, token: str | None = None, hosts: Iterable[str] | None = (), host: str = "localhost"
) -> AsyncIterator[httpx.AsyncClient]:
    overviews = Overviews(spool)
    async with asking(queue_app(overviews, token=token, hosts=hosts), host) as client:
        yield client
    await overviews.close()


def numbers(text: str) -> Samples:
    """(name, labels) → value, read by the library's own parser; but `queue`, which all that is streamq's has."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            ours = sample.name.startswith("streamq_")
            assert sample.labels.pop("queue", None) == ("streamq" if ours else None), sample.name
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found

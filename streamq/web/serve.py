"""The application that `streamq serve` runs: metrics and health of a queue, and its page."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from streamq.limits.rulebook import Rulebook
from streamq.queue.overview import Overview, Overviews
from streamq.web.api import api_routes
from streamq.web.exposition import QueueNumbers, rendered
from streamq.web.guard import Guard
from streamq.web.pages import STATIC, page_of

__all__ = ["AWAY", "queue_app"]

AWAY = (RedisError, OSError)


def queue_app(
    overviews: Overviews,
    *,
    token: str | None = None,
    hosts: Iterable[str] | None = (),
    stopping: asyncio.Event | None = None,
    inbox: bool = False,
) -> Starlette:
    """Of the queue that `overviews` looks at. `token`, `hosts`: as `Guard` has them; `stopping`: streams end; `inbox`:
    it is there, too (`streamq.web.inbox`). Raises `SettingsError` where the settings' own provider rules are wrong."""
    settings = overviews.spool.settings
    numbers = QueueNumbers(Rulebook.read(settings).groups())

    async def metrics(request: Request) -> Response:
        seen: Overview | None
        try:
            seen = await overviews.get()
        except AWAY:
            seen = None
        text, content_type = rendered(numbers.families(seen), settings.queue, request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    async def livez(request: Request) -> Response:
        """Who answers is alive: a loop that stands still does not."""
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        try:
            await overviews.get()
        except AWAY as wrong:
            return PlainTextResponse(f"redis: {type(wrong).__name__}\n", 503)
        return PlainTextResponse("ok\n")

    async def page(request: Request) -> Response:
        return page_of("index.html", beside=inbox)

    return Starlette(
        routes=[
            Route("/", page),
            STATIC,
            Route("/metrics", metrics),
            Route("/livez", livez),
            Route("/readyz", readyz),
            *api_routes(overviews, may_change=token is not None, stopping=stopping or asyncio.Event()),
        ],
        middleware=[Middleware(Guard, token=token, hosts=hosts, public=("/", "/static/"))],
    )

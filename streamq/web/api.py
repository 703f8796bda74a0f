"""What the page asks: what there is, live; dead letters; one mail's story; and what it may have done."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from streamq.errors import NotFound
from streamq.queue.letters import dead_letter
from streamq.queue.overview import Overviews
from streamq.queue.person import person
from streamq.queue.search import is_place
from streamq.queue.story import mailbox, story
from streamq.web.acts import NotDone, carry_out, read_order
from streamq.web.answer import Answer, sure
from streamq.web.shown import letter_shown, mailbox_shown, overview_shown, reason_shown, sample_shown, story_shown

__all__ = ["api_routes"]

PUSH_SECONDS = 2.0
AT_ONCE = 2  # looks that read many entries: whoever finds the button must not keep Redis busy
ADDRESS_SECONDS = 3.0  # of one look for the mails to an address, which goes on where the last one ended
BODY_MOST = 100_000  # bytes of an order
REASONS_SHOWN = 100


def _sure(answer: Answer) -> Answer:
    away = ((RedisError, OSError), 503, lambda wrong: f"redis: {str(wrong) or type(wrong).__name__}")
    return sure(answer, ((NotDone,), 422, str), away)


async def _body(request: Request) -> bytes:
    """Raises `NotDone` where it is too long; reads no more than that."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_MOST:
            raise NotDone(f"an order has at most {BODY_MOST} bytes")
    return body


def api_routes(overviews: Overviews, *, may_change: bool, stopping: asyncio.Event) -> list[Route]:
    spool = overviews.spool
    heavy = asyncio.Semaphore(AT_ONCE)

    async def shown(*, anew: bool = False) -> dict[str, Any]:
        return overview_shown(overviews, await overviews.get(anew=anew), may_change=may_change)

    def silent() -> int | None:
        return overviews.silent_ms

    async def overview(request: Request) -> Response:
        return JSONResponse(await shown())

    async def history(request: Request) -> Response:
        return JSONResponse([sample_shown(overviews, at) for at in range(len(overviews.samples))])

    async def stream(request: Request) -> Response:
        return StreamingResponse(_events(request, shown, silent, stopping), media_type="text/event-stream")

    async def dead(request: Request) -> Response:
        seen = (await overviews.get()).graves
        rows = [reason_shown(reason) for reason in seen.reasons[:REASONS_SHOWN]]
        left = len(seen.reasons) - len(rows)
        return JSONResponse({"reasons": rows, "looked": seen.looked, "reasons_left": left, "version": seen.version})

    async def letter(request: Request) -> Response:
        found = await dead_letter(spool, request.path_params["letter"])
        if found is None:
            raise NotFound("it is no dead letter any more")
        return JSONResponse(letter_shown(found))

    async def mail(request: Request) -> Response:
        name, tenant = request.query_params.get("id", "").strip(), request.query_params.get("tenant", "").strip()
        if not 0 < len(name) <= 256 or len(tenant) > 256:
            raise NotDone("id: an entry, or a producer's id of at most 256 characters")
        async with heavy:
            return JSONResponse(story_shown(await story(spool, name, tenant or None)))

    async def address(request: Request) -> Response:
        asked = request.query_params
        word, tenant, at = (asked.get(name, "").strip() for name in ("address", "tenant", "from"))
        if not 0 < len(word) <= 320 or len(tenant) > 256:
            raise NotDone("address: at most 320 characters")
        if at and not is_place(spool, at):
            raise NotDone(f"from: no place where a search goes on (got {at[:80]!r})")
        try:
            who = person(word)
        except ValueError as wrong:
            raise NotDone(f"address: {wrong} (got {word[:80]!r})") from None
        async with heavy:
            found = await mailbox(spool, who, word, tenant or None, at, ADDRESS_SECONDS)
        return JSONResponse(mailbox_shown(found, who.spec))

    async def order(request: Request) -> Response:
        done = await carry_out(spool, read_order(await _body(request)))
        return JSONResponse({"done": done, "overview": await shown(anew=True)})

    async def token(request: Request) -> Response:
        """That the guard let it through says that the token is the one."""
        return JSONResponse({})

    looks = {"overview": overview, "history": history, "stream": stream, "dead": dead, "mail": mail}
    looks["address"] = address
    return [
        *(Route(f"/api/{name}", _sure(answer)) for name, answer in looks.items()),
        Route("/api/dead/{letter}", _sure(letter)),
        Route("/api/order", _sure(order), methods=["POST"]),
        Route("/api/token", token, methods=["POST"]),
    ]


async def _events(
    request: Request,
    shown: Callable[[], Awaitable[dict[str, Any]]],
    silent: Callable[[], int | None],
    stopping: asyncio.Event,
) -> AsyncIterator[str]:
    """Server-sent events: `overview`, or `away` with why and for how long (None: since we began), every two seconds;
    they end when nobody reads, or we stop."""
    yield "retry: 2000\n\n"
    while not (stopping.is_set() or await request.is_disconnected()):
        try:
            kind, data = "overview", await shown()
        except (RedisError, OSError) as wrong:
            kind, data = "away", {"error": str(wrong) or type(wrong).__name__, "away_ms": silent()}
        yield f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PUSH_SECONDS):
                await stopping.wait()

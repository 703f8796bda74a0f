"""What a worker answers: `/metrics`, `/livez`, `/readyz`."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from streamq.web.exposition import rendered, worker_families
from streamq.worker import Worker

__all__ = ["worker_app"]


def worker_app(worker: Worker) -> Starlette:
    """Of one that has a tally (setting `metrics`). Nothing here asks Redis."""

    async def metrics(request: Request) -> Response:
        ready = worker.ready.is_set()
        if not ready or worker.tally is None:
            return PlainTextResponse("it is starting\n", 503)
        found = worker_families(
            worker.tally,
            settled=worker.settled,
            in_hand=len(worker.hand),
            connections={courier.name: courier.connections for courier in worker.couriers},
            ready=not worker.troubles,
            redis_up=worker.link.is_up,
            leads=worker.keeper.leads,
        )
        text, content_type = rendered(found, worker.settings.queue, request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    async def livez(request: Request) -> Response:
        """Who answers is alive: a loop that stands still does not."""
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        troubles = worker.troubles
        return PlainTextResponse("; ".join(troubles or ["ok"]) + "\n", 503 if troubles else 200)

    return Starlette(routes=[Route("/metrics", metrics), Route("/livez", livez), Route("/readyz", readyz)])

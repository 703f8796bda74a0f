"""The inbox as an application: its page and API, alone (`streamq sink --web`) or beside the queue's (`streamq up`)."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from streamq.web.guard import POLICY
from streamq.web.inbox_api import Desk, inbox_routes
from streamq.web.inbox_guard import InboxGuard
from streamq.web.pages import STATIC, page_of

__all__ = ["both", "inbox_app"]

PAGE_POLICY = f"{POLICY}; frame-src 'self'"  # the frame of a mail's html, which has a policy of its own


def inbox_app(
    desk: Desk, *, token: str | None = None, hosts: tuple[str, ...] | None = (), beside: bool = False
) -> Starlette:
    """`token`, `hosts`: as `Guard` has them; on loopback no token is needed. `beside`: the queue's page is there."""

    async def page(request: Request) -> Response:
        answer = page_of("inbox.html", beside=beside)
        answer.headers["content-security-policy"] = PAGE_POLICY
        return answer

    async def home(request: Request) -> Response:
        return RedirectResponse("/inbox")

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def token_known(request: Request) -> Response:
        """That the guard let it through says that the token is the one."""
        return JSONResponse({})

    return Starlette(
        routes=[
            Route("/", home),
            Route("/inbox", page),
            STATIC,
            Route("/livez", livez),
            Route("/api/token", token_known, methods=["POST"]),
            *inbox_routes(desk),
        ],
        middleware=[
            Middleware(InboxGuard, token=token, hosts=hosts, public=("/", "/inbox", "/static/"), keys=desk.keys)
        ],
    )


def both(queue: ASGIApp, inbox: ASGIApp) -> ASGIApp:
    """Under one address, each with the guard of its own."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        mails = path == "/inbox" or path == "/api/mails" or path.startswith("/api/mails/")
        await (inbox if mails else queue)(scope, receive, send)

    return app

"""Who may ask, and what browsers may do with the answer: around the whole application.

A page on loopback is reached by every page that the same browser shows. So:
HOST     Without a token for readers only names of this machine are answered: a foreign name that is made to resolve to
         127.0.0.1 (DNS rebinding) reads nothing.
TOKEN    Changes need it, as a bearer token (RFC 6750) that the page's script sends. There is no cookie, so no form and
         no image of a foreign page can bring it along: nothing is to be forged (CSRF). A foreign page's script would
         have to ask first (CORS), and nobody answers that; an Origin that is not ours is refused besides.
CSP      Nothing but files of our own, no inline script, no style attribute, no frame around us.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["POLICY", "Guard", "is_foreign", "is_json", "refusal"]

OPEN = ("/livez", "/readyz")  # to whoever reaches the port
POLICY = "; ".join(
    [
        "default-src 'none'",
        *(f"{what}-src 'self'" for what in ("script", "style", "img", "connect")),
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
SAFE = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
SEEING = frozenset({"GET", "HEAD"})
LOCAL = frozenset({"127.0.0.1", "::1", "localhost"})


class Guard:
    """`token`: None: nobody changes anything. `hosts`: by which names readers may come; None: any, and then they bring
    the token, too. `public`: paths that hold nothing of the queue (the page's own files). An answer that brings a
    policy of its own keeps it."""

    def __init__(
        self, app: ASGIApp, *, token: str | None, hosts: Iterable[str] | None, public: Iterable[str] = ()
    ) -> None:
        self._app = app
        self._token = token
        self._hosts = None if hosts is None else LOCAL | set(hosts)
        self._public = (*OPEN, *public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} here")

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refused(scope, Headers(scope=scope))
        await (refused or self._app)(scope, receive, sent)

    def _refused(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        path, method = scope["path"], scope["method"]
        host = _host(headers.get("host", ""))
        is_open = any(
            path == each or (each.endswith("/") and path.startswith(each) and each != "/") for each in self._public
        )
        if self._hosts is not None and host not in self._hosts and path not in OPEN:
            return refusal(421, f"this is not {host[:80]}: name it with --name")
        if method not in SEEING:
            return self._change_refused(scope, headers)
        return None if is_open else self._read_refused(scope, headers)

    def _read_refused(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        if self._hosts is None and not self._is_known(headers):
            return refusal(401, "reading from afar takes the token, too")
        return None

    def _change_refused(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        if self._token is None:
            return refusal(403, "read-only: no STREAMQ_WEB_TOKEN is set")
        if is_foreign(headers):
            return refusal(403, "another page's script asks")
        if not self._is_known(headers):
            return refusal(401, "this token is not the one")
        return None if is_json(headers) else refusal(415, "application/json")

    def _is_known(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if self._token is None or kind.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode(), self._token.encode())


def is_foreign(headers: Headers) -> bool:
    """A browser says that another page's script or form asks."""
    origin = headers.get("origin")
    try:
        if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            return True
    except ValueError:  # nonsense is nobody's
        return True
    return headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}


def is_json(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip() == "application/json"


def _host(text: str) -> str:
    """Without the port; lower case. Of nonsense what is no name of ours."""
    try:
        return urlsplit(f"//{text}").hostname or ""
    except ValueError:
        return ""


def refusal(status: int, why: str) -> JSONResponse:
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": why}, status, headers)

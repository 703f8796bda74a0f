"""A token for a refresh token, from a token endpoint (RFC 6749, section 6).

One POST over asyncio's streams, so that it can be given up at any moment; http.client would hold a thread until
its socket's time was over. What came back is read by http.client all the same: it knows chunks and folds.
No redirects (a secret goes where the settings say, nowhere else), no proxies.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import ssl
from http.client import HTTPException, HTTPResponse
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

from streamq.settings import TokenSettings
from streamq.smtp.token_reply import MAX_REPLY, TokenError, TokenReply, printable, read_token
from streamq.smtp.words import without

__all__ = ["Grant"]


class Grant:
    """`ask` gives a new token. A new refresh token in a reply is used from then on, in this process alone: servers
    that take back the old one need a `command` that keeps it."""

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings
        self._parts = urlsplit(settings.url or "")
        self._context = ssl.create_default_context() if self._parts.scheme == "https" else None
        self._newest: str | None = None

    async def ask(self) -> TokenReply:
        """Raises `TokenError`: no answer, not a good one, or the server's own "invalid_grant"."""
        refresh, self._newest = self._newest or self._configured, None  # one that fails is not tried a second time
        try:
            async with asyncio.timeout(self._settings.timeout / 1000):
                status, body = await self._post(self._form(refresh))
            reply = self._read(status, body)
        except TokenError as wrong:
            raise TokenError(f"token endpoint {self._parts.hostname}: {self._clean(str(wrong), refresh)}") from None
        except TimeoutError:
            raise TokenError(f"token endpoint {self._parts.hostname}: no answer in time") from None
        except (OSError, HTTPException, ValueError) as wrong:
            why = getattr(wrong, "verify_message", "") or getattr(wrong, "strerror", "") or type(wrong).__name__
            raise TokenError(f"token endpoint {self._parts.hostname}: {why}") from None
        self._newest = reply.refresh_token or (refresh if refresh != self._configured else None)
        return reply

    @property
    def _configured(self) -> str:
        secret = self._settings.refresh_token
        return secret.get_secret_value() if secret is not None else ""

    def _form(self, refresh: str) -> bytes:
        """The client's own secret stands in the body (RFC 6749, 2.3.1), as Google and Microsoft document it."""
        settings = self._settings
        secret = settings.client_secret.get_secret_value() if settings.client_secret is not None else None
        form = {
            "grant_type": "refresh_token",
            "refresh_token": refresh,
            "client_id": settings.client_id,
            "client_secret": secret,
            "scope": settings.scope,
        }
        return urlencode({name: value for name, value in form.items() if value}).encode("ascii")

    async def _post(self, form: bytes) -> tuple[int, bytes]:
        parts = self._parts
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: application/json\r\nConnection: close\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n\r\n"
        )
        port = parts.port or (443 if self._context else 80)
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=self._context)
        try:
            writer.write(head.encode("ascii") + form)
            return await _response(reader)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _read(self, status: int, body: bytes) -> TokenReply:
        if status == 200:
            return read_token(body)
        try:
            read_token(body)
        except TokenError as wrong:
            raise TokenError(f"status {status}: {wrong}" if body.lstrip()[:1] == b"{" else f"status {status}") from None
        raise TokenError(f"status {status}")

    def _clean(self, text: str, refresh: str) -> str:
        """An endpoint may repeat what it was given."""
        client = self._settings.client_secret
        secrets = (refresh, client.get_secret_value() if client is not None else "")
        return without(text, map(printable, secrets))


async def _response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Until it is whole: not every server heeds "Connection: close"."""
    text = b""
    while True:
        part = await reader.read(MAX_REPLY)
        text += part
        if len(text) > MAX_REPLY:
            raise TokenError("its answer is too long")
        whole = _parse(text, ended=not part)
        if whole is not None:
            return whole


def _parse(text: bytes, *, ended: bool) -> tuple[int, bytes] | None:
    """None: more is to come. Raises HTTPException for what is no HTTP."""
    if not ended and b"\r\n\r\n" not in text and b"\n\n" not in text:
        return None
    response = HTTPResponse(cast(Any, _Socket(text)), method="POST")
    try:
        response.begin()
        if response.length is None and not response.chunked and not ended:
            return None  # the end of the connection is the end of the body
        return response.status, response.read()
    except HTTPException:
        if ended:
            raise
        return None
    finally:
        response.close()


class _Socket:
    """As much of a socket as HTTPResponse needs."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._text)

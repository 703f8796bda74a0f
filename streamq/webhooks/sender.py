"""One POST, over connections that are kept. By http.client, in threads: it has met the web's servers for twenty years,
a hundred requests at once are the most that is asked of it, and nobody needs another package for that. (httpx and
aiohttp were weighed: they bring pools, proxies, HTTP/2 and a dozen packages; a client of our own on asyncio's streams
lost for its parser.)

No redirect is followed: it would carry events, and their signature, to where nobody's settings say.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from streamq.errors import SettingsError
from streamq.settings import WebhookSettings

__all__ = ["Answer", "Sender"]

BODY_MOST = 65_536  # of an answer: nobody reads it, but a connection is only kept where it has been
REASON_MOST = 300
RETRY_AFTER_MOST = 3600.0
STALE = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` 0: none came, `error` says why. `after_s`: the receiver asked for so long a wait."""

    status: int
    error: str = ""
    after_s: float = 0.0

    @property
    def taken(self) -> bool:
        return 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """410: it wants no more of them."""
        return self.status == 410

    @property
    def words(self) -> str:
        return self.error if not self.status else f"{self.status} {self.error}".strip()


class _Use:
    """What one POST is on, for who ends it from outside."""

    def __init__(self) -> None:
        self.connection: http.client.HTTPConnection | None = None
        self.ended = False

    def cut(self) -> None:
        self.ended = True
        if self.connection is not None:
            _cut(self.connection)


class Sender:
    """Posts to one address. As many threads as requests may be under way, each with a connection of its own. `name`:
    the webhook's, for errors. Raises `SettingsError` where its file of certificates is missing or none."""

    def __init__(self, settings: WebhookSettings, name: str = "") -> None:
        self.settings = settings
        self.parts = urlsplit(settings.url)
        self._tls = _trusting(settings.tls_ca, name) if self.parts.scheme.lower() == "https" else None
        self._pool = ThreadPoolExecutor(settings.at_once, thread_name_prefix="webhook")
        self._mine = threading.local()
        self._open: set[http.client.HTTPConnection] = set()

    async def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Never raises but for a bug: whatever a receiver does is an answer. The time limit is for all of it, however
        slowly it drips."""
        seconds = self.settings.timeout / 1000
        used = _Use()
        work = asyncio.get_running_loop().run_in_executor(self._pool, self._post, headers, body, used)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(work)
        except TimeoutError:
            used.cut()  # its thread's read ends
            work.add_done_callback(lambda done: done.exception())
            return Answer(0, f"no answer within {seconds:g} s")

    def close(self) -> None:
        """What is under way ends as a failure; nobody waits for a thread that a name server keeps."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for connection in list(self._open):
            _cut(connection)
            connection.close()

    def _post(self, headers: Mapping[str, str], body: bytes, used: _Use) -> Answer:
        try:
            kept = getattr(self._mine, "connection", None)
            if kept is not None:
                with contextlib.suppress(*STALE):  # it was closed while nobody used it; the id makes a double known
                    return self._ask(kept, headers, body, used)
                self._drop(kept)
                if used.ended:
                    return Answer(0, "too late")
            return self._ask(self._connect(), headers, body, used)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._drop(getattr(self._mine, "connection", None))
            return Answer(0, (str(error) or type(error).__name__)[:REASON_MOST])

    def _connect(self) -> http.client.HTTPConnection:
        host, port, seconds = self.parts.hostname or "", self.parts.port, self.settings.timeout / 1000
        if self._tls is not None:
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=seconds, context=self._tls
            )
        else:
            made = http.client.HTTPConnection(host, port, timeout=seconds)
        self._mine.connection = made
        self._open.add(made)
        return made

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        headers: Mapping[str, str],
        body: bytes,
        used: _Use,
    ) -> Answer:
        used.connection = connection
        path = (self.parts.path or "/") + (f"?{self.parts.query}" if self.parts.query else "")
        connection.request("POST", path, body, dict(headers))
        with connection.getresponse() as response:
            after = _seconds(response.getheader("retry-after"))
            rest = response.read(BODY_MOST + 1)
            if len(rest) > BODY_MOST or response.will_close:
                self._drop(connection)
            return Answer(response.status, (response.reason or "")[:REASON_MOST], after)

    def _drop(self, connection: http.client.HTTPConnection | None) -> None:
        if connection is not None:
            connection.close()
            self._open.discard(connection)
            self._mine.connection = None


def _trusting(path: str | None, name: str) -> ssl.SSLContext:
    """The system's authorities, or those of the file instead of them."""
    where = f"webhooks.{name}.tls_ca" if name else "tls_ca"
    try:
        return ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise SettingsError(f"{where}: no certificate (PEM) in it: {path!r}") from None
    except OSError as wrong:
        raise SettingsError(f"{where}: {wrong.strerror} (got {path!r})") from None


def _seconds(text: str | None) -> float:
    """Retry-After in seconds; a date is not read: the schedule does."""
    return min(float(text), RETRY_AFTER_MOST) if text is not None and text.isdecimal() and len(text) < 8 else 0.0


def _cut(connection: http.client.HTTPConnection) -> None:
    with contextlib.suppress(OSError):
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)

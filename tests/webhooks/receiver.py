"""A receiver of webhooks on loopback, which verifies signatures by the standard's words alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

__all__ = ["KEY", "SECRET", "Receiver", "receiver", "verified"]

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def verified(key: bytes, headers: dict[str, str], body: bytes) -> bool:
    """standardwebhooks.com, 'Verifying webhook authenticity': any of the signatures is that of id.timestamp.body."""
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    found = [each.partition(",") for each in headers["webhook-signature"].split(" ")]
    return any(version == "v1" and hmac.compare_digest(text, wanted) for version, _, text in found)


class Receiver:
    """`answers`: (status, headers) to the next requests, then 204 to all. `got`: what came, and its answer."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.got: list[dict[str, Any]] = []
        self.unsigned = 0
        self.connections = 0
        self.during: Callable[[BaseHTTPRequestHandler], bool] = lambda handler: False
        self.url = ""
        self._lock = threading.Lock()

    def answer(self, *statuses: int, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers += [(status, named) for status in statuses]

    @property
    def events(self) -> list[dict[str, Any]]:
        """Of all requests that were taken, one by one."""
        found: list[dict[str, Any]] = []
        for each in self.got:
            if each["status"] < 300:
                found += each["body"]["data"] if each["body"]["type"] == "batch" else [each["body"]]
        return found

    def ids(self) -> list[str]:
        return [event["data"]["id"] for event in self.events]

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            status, extra = self.answers.pop(0) if self.answers else (204, {})
            self.unsigned += not verified(KEY, headers, body)
            self.got.append({"headers": headers, "body": orjson.loads(body), "status": status, "path": handler.path})
        if self.during(handler):
            return
        handler.send_response(status)
        for name, value in extra.items():
            handler.send_header(name, value)
        handler.send_header("content-length", "0")
        handler.end_headers()


@contextmanager
def receiver(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """`tls`: it speaks https, by that certificate."""
    known = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            known.connections += 1

        def do_POST(self) -> None:
            known.take(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            if tls is None or not isinstance(sys.exception(), ssl.SSLError):  # who does not trust us hangs up
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:  # a handshake that fails is that connection's alone
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    known.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}/hook?a=1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield known
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

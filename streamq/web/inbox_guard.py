"""Who may ask the inbox, on loopback by every page that the same browser shows.

HOST     As for the queue's page: a foreign name that leads here reads nothing (DNS rebinding).
CHANGES  Tests delete mails without a token. A foreign page's form cannot (it says its Origin, and sends no JSON), and
         its script would have to ask first (CORS), which nobody answers.
READING  What another page, or a mail's html in its frame, asks for is refused, unless it brings the mail's key.
KEYS     A frame, an image and a download send no token: their addresses hold a key, good for that one mail and as
         long as this process runs. A mail's html thus shows its own parts, and cannot be shown by who does not know it.
TOKEN    Beyond loopback all but the page's own files needs it, or a mail's key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Scope

from streamq.web.guard import Guard, is_foreign, is_json, refusal

__all__ = ["InboxGuard", "Keys"]

MAILS = "/api/mails/"
KEY_LETTERS = 32


class Keys:
    """One for each mail."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret or os.urandom(32)

    def of(self, id_: str) -> str:
        return hmac.new(self._secret, id_.encode(), hashlib.sha256).hexdigest()[:KEY_LETTERS]

    def fit(self, path: str, query: bytes) -> bool:
        """Whether the query has the key of the mail that the path is of."""
        if not path.startswith(MAILS):
            return False
        id_ = path.removeprefix(MAILS).partition("/")[0]
        given = parse_qs(query.decode("ascii", "replace")).get("key", [""])[0]
        return hmac.compare_digest(given.encode(), self.of(id_).encode())


class InboxGuard(Guard):
    def __init__(
        self, app: ASGIApp, *, token: str | None, hosts: tuple[str, ...] | None, public: tuple[str, ...], keys: Keys
    ) -> None:
        super().__init__(app, token=token, hosts=hosts, public=public)
        self._keys = keys

    def _read_refused(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        if self._keys.fit(scope["path"], scope["query_string"]):
            return None
        if is_foreign(headers):
            return refusal(403, "another page asks")
        return super()._read_refused(scope, headers)

    def _change_refused(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        if is_foreign(headers):
            return refusal(403, "another page's script asks")
        if self._hosts is None and not self._is_known(headers):
            return refusal(401, "this token is not the one")
        if scope["method"] != "DELETE" and not is_json(headers):  # no form sends a DELETE
            return refusal(415, "application/json")
        return None

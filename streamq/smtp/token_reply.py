"""What a source of tokens answers: the token as it is, or RFC 6749's JSON (5.1: success, 5.2: error)."""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from streamq.errors import StreamqError
from streamq.settings.token import is_token
from streamq.smtp.words import one_line

__all__ = ["MAX_REPLY", "TokenError", "TokenReply", "printable", "read_token"]

MAX_REPLY = 65_536  # bytes


class TokenError(StreamqError):
    """No token is to be had; never leaves smtp/. The text holds no secret."""


@dataclass(frozen=True, slots=True)
class TokenReply:
    """`seconds`: how long it is good; None: nobody said."""

    value: str = field(repr=False)
    seconds: float | None
    refresh_token: str | None = field(default=None, repr=False)


def read_token(text: bytes) -> TokenReply:
    """Raises `TokenError`, which repeats nothing of a text that may be a secret."""
    text = text.strip()
    if len(text) > MAX_REPLY:
        raise TokenError("no token: too long")
    if not text.startswith(b"{"):
        value = text.decode("ascii", "replace")
        if not is_token(value):
            raise TokenError("no token: neither a bearer token (RFC 6750, 2.1) nor a JSON object" if text else "empty")
        return TokenReply(value, None)
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise TokenError("no token: not JSON") from None
    if "error" in found:
        words = (found["error"], found.get("error_description", ""))
        raise TokenError(": ".join(printable(word) for word in words if isinstance(word, str) and word) or "an error")
    value = found.get("access_token")
    if not isinstance(value, str) or not is_token(value):
        raise TokenError("no token: no access_token that is one (RFC 6750, 2.1)")
    kind = found.get("token_type", "Bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise TokenError("no token: its token_type is not Bearer")
    refresh = found.get("refresh_token")
    return TokenReply(
        value, _seconds(found.get("expires_in")), refresh if isinstance(refresh, str) and refresh else None
    )


def _seconds(value: object) -> float | None:
    """Some say the number as a text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return max(float(value), 0.0)


def printable(text: str) -> str:
    """Not cut: a secret that is cut in the middle is not known again. Whoever shows it cuts (`NotConnected`)."""
    return " ".join(one_line(text.encode("ascii", "backslashreplace").decode("ascii")).split())

"""Where the access token of a route comes from, as the settings know it (OAuth 2.0, RFC 6749)."""

from __future__ import annotations

import ipaddress
import re
import shlex
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from streamq.settings.values import Duration, cut, web_address

__all__ = ["MAX_TOKEN", "TokenSettings", "is_token"]

MAX_TOKEN = 8192  # characters: AUTH's line takes 12,288 octets of base64 (RFC 4954, 4)
BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1
WAYS = ("value", "file", "command", "url")
GRANT = ("refresh_token", "client_id", "client_secret", "scope")


def is_token(text: str) -> bool:
    """A bearer token: RFC 6750, section 2.1, and short enough for AUTH."""
    return len(text) <= MAX_TOKEN and BEARER.fullmatch(text) is not None


def _secret_token(value: object) -> object:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, str) and not is_token(text):
        raise ValueError("not a bearer token (RFC 6750, 2.1: letters, digits, - . _ ~ + /)")
    return value


def _command(value: object) -> object:
    """A text is split as a shell would split it; nothing else of a shell is there."""
    try:
        words = shlex.split(value) if isinstance(value, str) else value
    except ValueError as wrong:
        raise ValueError(f"not a command ({str(wrong).lower()})") from None
    if isinstance(words, list | tuple) and (not words or not all(isinstance(word, str) for word in words)):
        raise ValueError("a command, as one text or as a list of words")
    if isinstance(words, list | tuple) and any("\0" in word for word in words):
        raise ValueError("no command holds a NUL")
    return words


def _token_url(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = web_address(value, "not the address of a token endpoint (write https://host/path)")
    if parts.scheme == "http" and not _loopback(parts.hostname or ""):
        raise ValueError(
            f"http reaches only this machine (127.0.0.1, ::1), others need https: {cut(parts.hostname or '')}"
        )
    return value


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # also "localhost": a resolver may think otherwise


class TokenSettings(BaseModel):
    """Exactly one of `value`, `file`, `command`, `url`.

    `file` and the output of `command` hold the token as it is, or JSON as RFC 6749, section 5.1, has it. `url`
    is a token endpoint (https; http on this machine only) that is given `refresh_token` (section 6), and
    `client_id`, `client_secret`, `scope` where they are set. `timeout` (ms) is that of the command or endpoint.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: Annotated[SecretStr, BeforeValidator(_secret_token)] | None = None
    file: str | None = Field(None, min_length=1)
    command: Annotated[tuple[str, ...], BeforeValidator(_command)] | None = Field(None, repr=False)
    url: Annotated[str, BeforeValidator(_token_url)] | None = Field(None, repr=False)
    refresh_token: SecretStr | None = None
    client_id: str | None = None
    client_secret: SecretStr | None = None
    scope: str | None = None
    timeout: Duration = 30_000

    @model_validator(mode="after")
    def _one_way(self) -> TokenSettings:
        given = [way for way in WAYS if getattr(self, way) is not None]
        if len(given) != 1:
            raise ValueError(f"one of {', '.join(WAYS)}, not {' and '.join(given) or 'none of them'}")
        if self.url is not None and not self.refresh_token:
            raise ValueError("url: needs refresh_token")
        odd = [name for name in GRANT if self.url is None and getattr(self, name) is not None]
        if odd:
            raise ValueError(f"{', '.join(odd)}: only with url")
        if self.timeout < 1:
            raise ValueError("timeout: more than 0")
        return self

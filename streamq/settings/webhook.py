"""Where events are sent, and how (Standard Webhooks: https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from streamq.mail.domain import to_wire
from streamq.settings.values import Duration, Durations, Names, duration_ms, web_address

__all__ = ["WebhookSettings", "key_of"]

PREFIX = "whsec_"
KEY_BYTES = range(24, 65)  # of a secret: the standard's
SECRETS_MOST = 5
TYPE = re.compile(r"[a-z_.*?]{1,64}")


def key_of(secret: str) -> bytes:
    """The key in `whsec_<base64>`. Raises ValueError that repeats nothing of it."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not a secret: whsec_ and base64 of 24 to 64 bytes") from None
    if not secret.startswith(PREFIX) or len(key) not in KEY_BYTES:
        raise ValueError("not a secret: whsec_ and base64 of 24 to 64 bytes")
    return key


def _secrets(value: object) -> object:
    """One, or a list of them: while receivers change over each signs."""
    values = [value] if isinstance(value, str | SecretStr) else value
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= SECRETS_MOST:
        raise ValueError(f"a secret, or a list of at most {SECRETS_MOST}")
    for each in values:
        key_of(each.get_secret_value() if isinstance(each, SecretStr) else each if isinstance(each, str) else "")
    return tuple(values)


def _url(value: object) -> object:
    if isinstance(value, str):
        web_address(value, "not a webhook's address (write https://host/path, without user and password)")
    return value


class WebhookSettings(BaseModel):
    """One listener, `[webhooks.NAME]`. `types` are globs; every filter that is set has to fit. `batch`: events in a
    request; `at_once`: requests under way; `pause_after`: rounds of tries in a row that failed. Times in ms."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, BeforeValidator(_url)] = Field(repr=False)
    secret: Annotated[tuple[SecretStr, ...], BeforeValidator(_secrets)]
    types: Names = ()
    domain: str = ""
    tenant: str | None = None
    tag: str = ""
    batch: int = Field(1, ge=1, le=1000)
    at_once: int = Field(10, ge=1, le=100)
    timeout: Duration = 15_000
    tls_ca: str | None = Field(None, min_length=1)
    retry: Durations = tuple(duration_ms(step) for step in ("5s", "30s", "2m", "10m", "30m", "1h"))
    pause_after: int = Field(12, ge=1, le=1000)

    @model_validator(mode="after")
    def _checked(self) -> WebhookSettings:
        for each in self.types:
            if not TYPE.fullmatch(each):
                raise ValueError(f"types: email.bounced, route.*, …: {each[:80]!r}")
        if not 100 <= self.timeout <= 300_000:
            raise ValueError("timeout: from 100ms to 5m")
        if not self.retry:
            raise ValueError("retry: at least one step")
        if self.tls_ca and not self.url.lower().startswith("https:"):
            raise ValueError("tls_ca: nothing is held against it without https://")
        if self.domain:
            try:
                to_wire(self.domain)
            except ValueError as wrong:
                raise ValueError(f"domain: {wrong}: {self.domain[:80]!r}") from None
        return self

    @property
    def shown(self) -> str:
        """For people: where, without what may be a token."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}/" + ("…" if parts.path.strip("/") or parts.query else "")

    @property
    def keys(self) -> tuple[bytes, ...]:
        """What signs."""
        return tuple(key_of(each.get_secret_value()) for each in self.secret)

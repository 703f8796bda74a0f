"""A route as the settings know it: one relay, and how to speak to it."""

from __future__ import annotations

from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from streamq.settings.values import Duration, RelayUrl

__all__ = ["RouteSettings"]


class RouteSettings(BaseModel):
    """A way out: one relay, how to speak to it and how much it gets.

    `url` is `smtp://[user:password@]host[:port]` (port 25; STARTTLS when offered, by `tls`) or `smtps://`
    (implicit TLS, port 465). Times are milliseconds and follow RFC 5321, section 4.5.3.2. `weight` is its share of
    the mails that nothing sends elsewhere, 0: only where the others are closed; a `reserved` one gets only what names
    it. `connections` are over all workers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: RelayUrl
    weight: int = Field(1, ge=0, le=10_000)
    reserved: bool = False
    connections: int = Field(20, ge=1, le=1000)
    mails_per_connection: int = Field(100, ge=1)
    pipelining: Literal["off", "transaction"] = "transaction"
    tls: Literal["none", "may", "require"] = "may"
    verify: bool = True
    ehlo: str = ""
    idle: Duration = 20_000
    connect_timeout: Duration = 30_000
    greeting_timeout: Duration = 300_000
    command_timeout: Duration = 300_000
    data_timeout: Duration = 120_000
    body_timeout: Duration = 180_000
    dot_timeout: Duration = 600_000

    @property
    def implicit_tls(self) -> bool:
        return urlsplit(self.url.get_secret_value()).scheme == "smtps"

    @property
    def host(self) -> str:
        return urlsplit(self.url.get_secret_value()).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url.get_secret_value()).port or (465 if self.implicit_tls else 25)

    @property
    def user(self) -> str | None:
        user = urlsplit(self.url.get_secret_value()).username
        return None if user is None else unquote(user)

    @property
    def password(self) -> str | None:
        password = urlsplit(self.url.get_secret_value()).password
        return None if password is None else unquote(password)

    @property
    def shown(self) -> str:
        """The address without its secrets, for people."""
        return f"{'smtps' if self.implicit_tls else 'smtp'}://{self.host}:{self.port}"

"""A route as the settings know it: one relay, and how to speak to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import inf
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from streamq.settings.token import TokenSettings
from streamq.settings.values import Addresses, ByPriority, Duration, Names, Pins, RelayUrl, Windows, cut

__all__ = ["BEARER_MECHANISMS", "PASSWORD_MECHANISMS", "RouteSettings"]

PASSWORD_MECHANISMS = ("plain", "login", "cram-md5")
BEARER_MECHANISMS = ("oauthbearer", "xoauth2")  # RFC 7628 first: it is the standard of the two
TimeLimit = Annotated[Duration, Field(ge=1)]  # 0 is no word for "none": each mail would be ambiguous at its dot
UNFIT = re.compile(r"[\x00-\x20\x7f]|[^\x00-\x7f]")

URGENT_MS = 60_000  # a one-time code that waits longer for a server does better on another connection


class RouteSettings(BaseModel):
    """A way out: one relay, how to speak to it and how much it gets.

    `url` is `smtp://[user:password@]host[:port]` (port 25; STARTTLS when offered, by `tls`) or `smtps://`
    (implicit TLS, port 465). Times are milliseconds and follow RFC 5321, section 4.5.3.2; `transaction_timeout` is
    ours, by priority (`*`: each that is not named), None: URGENT_MS for the most urgent one. Files are read when a
    courier is made (`streamq.smtp.access`), so that who only looks at a queue needs none of them. `weight` is its
    share of the mails that nothing sends elsewhere, 0: only where the others are closed; a `reserved` one gets only
    what names it. `connections` and `rate` (every window holds at once) are over all workers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: RelayUrl
    weight: int = Field(1, ge=0, le=10_000)
    reserved: bool = False
    connections: int = Field(20, ge=1, le=1000)
    rate: Windows = ()
    mails_per_connection: int = Field(100, ge=1)
    pipelining: Literal["off", "transaction", "overlap"] = "transaction"
    chunking: bool = False
    tls: Literal["none", "may", "require"] = "may"
    verify: bool = True
    tls_min: Literal["1.2", "1.3"] = "1.2"
    tls_name: str = ""
    tls_ca: str | None = Field(None, min_length=1)
    tls_cert: str | None = Field(None, min_length=1)
    tls_key: str | None = Field(None, min_length=1)
    tls_key_password: SecretStr | None = None
    tls_pin: Pins = ()
    auth: Names = ()
    token: TokenSettings | None = None
    ehlo: str = ""
    family: Literal["any", "ipv6", "ipv4"] = "any"
    source: Addresses = ()
    idle: Duration = 20_000
    connection_lifetime: Annotated[Duration, Field(ge=1000)] = 300_000
    connect_timeout: TimeLimit = 30_000
    greeting_timeout: TimeLimit = 300_000
    command_timeout: TimeLimit = 300_000
    data_timeout: TimeLimit = 120_000
    body_timeout: TimeLimit = 180_000
    dot_timeout: TimeLimit = 600_000
    transaction_timeout: ByPriority | None = None

    def transaction_seconds(self, priorities: Sequence[str]) -> tuple[float, ...]:
        """From the first byte of MAIL to the dot, for each priority, the most urgent first; infinite: no limit."""
        given = self.transaction_timeout
        if given is None:
            given = dict.fromkeys(priorities[:1], URGENT_MS)
        return tuple(given.get(name, given.get("*", inf)) / 1000 for name in priorities)

    @field_validator("tls_min", mode="before")
    @classmethod
    def _tls_min_is_a_text(cls, value: object) -> object:
        return str(value) if isinstance(value, float) else value  # tls_min = 1.3

    @field_validator("ehlo", "tls_name")
    @classmethod
    def _is_one_word(cls, value: str) -> str:
        if UNFIT.search(value) or len(value) > 255:
            raise ValueError(f"a host name, or an address in brackets: {cut(value)}")
        return value

    @field_validator("auth")
    @classmethod
    def _mechanisms_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        ways = tuple(way.lower() for way in value)
        for way in ways:
            if way not in (*BEARER_MECHANISMS, *PASSWORD_MECHANISMS):
                known = ", ".join((*PASSWORD_MECHANISMS, *BEARER_MECHANISMS))
                raise ValueError(f"mechanisms are {known}, not {cut(way)}")
        if len(set(ways)) != len(ways):
            raise ValueError(f"each mechanism once: {', '.join(ways)}")
        return ways

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> RouteSettings:
        tls = {
            name: getattr(self, name)
            for name in ("tls_name", "tls_ca", "tls_cert", "tls_key", "tls_key_password", "tls_pin")
        }
        asked = [name for name, value in tls.items() if value]
        if asked and self.tls == "none" and not self.implicit_tls:
            raise ValueError(f"{asked[0]}: no TLS with tls = 'none'")
        if self.tls_pin and self.tls != "require" and not self.implicit_tls:
            raise ValueError(f"tls_pin: needs tls = 'require': {self.tls!r} may go on without TLS")
        if self.tls_ca and not self.verify:
            raise ValueError("tls_ca: nothing is held against it with verify = false")
        if self.tls_key and not self.tls_cert:
            raise ValueError("tls_key: needs tls_cert")
        if self.tls_key_password and not self.tls_cert:
            raise ValueError("tls_key_password: needs tls_cert")
        self._check_login()
        self._check_source()
        return self

    def _check_login(self) -> None:
        bearer = [way for way in self.auth if way in BEARER_MECHANISMS]
        if self.token is None:
            if bearer:
                raise ValueError(f"auth: {bearer[0]} needs a [token]")
            if self.auth and self.user is None:
                raise ValueError("auth: needs a user in the url")
            return
        if not self.user or re.search(r"[\x00-\x1f\x7f]", self.user):
            raise ValueError("token: needs a user in the url (smtp://user%40example.com@host)")
        if self.auth and not bearer:
            raise ValueError(f"token: auth allows neither {' nor '.join(BEARER_MECHANISMS)}")
        if self.password is None and len(bearer) < len(self.auth):
            raise ValueError("auth: a mechanism with a password, and no password in the url")

    def _check_source(self) -> None:
        families = {"ipv4": 4, "ipv6": 6}
        odd = [one for one in self.source if self.family != "any" and one.version != families[self.family]]
        if odd:
            raise ValueError(f"source: {odd[0]} is not {self.family}")

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Those that may be used, the first first; a password is the second choice where there is a token."""
        if self.auth:
            return self.auth
        if self.token is None:
            return PASSWORD_MECHANISMS
        return BEARER_MECHANISMS if self.password is None else BEARER_MECHANISMS + PASSWORD_MECHANISMS

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

"""Settings: STREAMQ_* in the environment, streamq.toml, flags; flags win, then environment, then file.

Durations are texts like `90s`, `5m`, `1h`, `5d` (a bare number is seconds); rates are texts like `50/s`,
`600/10m`, `60000/h` (mails per window). Every wrong value ends as one `SettingsError` that names it.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from streamq.errors import SettingsError

__all__ = ["LimitSettings", "RouteSettings", "Settings", "Window", "duration_ms", "load_settings", "window"]

UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
LONGEST_MS = 366 * UNITS_MS["d"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def duration_ms(text: str | float) -> int:
    """Read `90s`, `5m`, `1.5h`, `5d`, or a number of seconds; returns milliseconds."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) *(ms|s|m|h|d)?", str(text).strip())
    if not found:
        raise ValueError(f"not a duration (write 90s, 5m, 1h, 5d): {text!r}")
    ms = round(float(found[1]) * UNITS_MS[found[2] or "s"])
    if ms > LONGEST_MS:
        raise ValueError(f"longer than a year: {text!r}")
    return ms


class Window(BaseModel):
    """At most `count` mails in any `window_ms` milliseconds."""

    model_config = ConfigDict(frozen=True)
    count: int = Field(ge=1, le=10**9)
    window_ms: int = Field(ge=100, le=LONGEST_MS)

    def __str__(self) -> str:
        for unit, ms in reversed(UNITS_MS.items()):
            if self.window_ms % ms == 0:
                many = self.window_ms // ms
                return f"{self.count}/{'' if many == 1 else many}{unit}"
        raise AssertionError(self.window_ms)


def window(text: str | Window) -> Window:
    """Read `50/s`, `600/10m`, `60000/h`."""
    if isinstance(text, Window):
        return text
    found = re.fullmatch(r"(\d{1,10}) */ *(\d{0,9})(ms|s|m|h|d)", str(text).strip())
    if not found:
        raise ValueError(f"not a rate (write 50/s, 600/10m, 60000/h): {text!r}")
    return Window(count=int(found[1]), window_ms=int(found[2] or 1) * UNITS_MS[found[3]])


def _listed(value: object) -> object:
    """A comma list, or one value, where a list is meant."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _each(convert: Any, value: object) -> object:
    listed = _listed(value)
    return tuple(convert(part) for part in listed) if isinstance(listed, list | tuple) else listed


Duration = Annotated[int, BeforeValidator(duration_ms)]
Durations = Annotated[tuple[int, ...], NoDecode, BeforeValidator(partial(_each, duration_ms))]
Windows = Annotated[tuple[Window, ...], NoDecode, BeforeValidator(partial(_each, window))]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(partial(_each, str))]


class LimitSettings(BaseModel):
    """Limits of the queue, of a site. Every window holds at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rate: Windows = ()


class RouteSettings(BaseModel):
    """A way out: one relay, how to speak to it and how much it gets.

    `url` is `smtp://[user:password@]host[:port]` (port 25; STARTTLS when offered, by `tls`) or `smtps://`
    (implicit TLS, port 465). Times are milliseconds and follow RFC 5321, section 4.5.3.2.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: SecretStr
    connections: int = Field(20, ge=1, le=10_000)
    mails_per_connection: int = Field(1000, ge=1)
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

    @model_validator(mode="after")
    def _url_is_one(self) -> RouteSettings:
        parts = urlsplit(self.url.get_secret_value())
        if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
            raise ValueError("not a relay (write smtp://[user:password@]host:port or smtps://…)")
        try:
            _ = parts.port
        except ValueError as wrong:
            raise ValueError(f"the relay's port is wrong: {wrong}") from None
        return self

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


class Settings(BaseSettings):
    """All of them. `load_settings` reads them from where they may stand."""

    model_config = SettingsConfigDict(
        env_prefix="STREAMQ_", extra="forbid", frozen=True, validate_default=False
    )

    redis_url: str | None = None
    redis_bin: str | None = None
    queue: str = "streamq"
    priorities: Names = ("high", "normal", "low")
    relay: SecretStr | None = None
    in_hand: int = Field(100, ge=1, le=10_000)
    lease_seconds: float = Field(60.0, ge=0.2, le=86_400)
    grace: Duration = 30_000
    retry: Durations = tuple(duration_ms(step) for step in ("1m", "5m", "15m", "1h", "3h", "6h"))
    jitter: float = Field(0.1, ge=0.0, le=0.5)
    max_age: Duration = duration_ms("5d")
    id_window: Duration = duration_ms("24h")
    max_reclaims: int = Field(3, ge=1, le=100)
    max_mail_bytes: int = Field(25 * 1024 * 1024, ge=1024, le=512 * 1024 * 1024)
    on_ambiguous: Literal["resend", "hold", "assume_delivered"] = "resend"
    pii: Literal["full", "hash"] = "full"
    events_kept: int = Field(100_000, ge=100)
    dead_age: Duration = duration_ms("30d")
    dead_bytes: int = Field(1024**3, ge=1024)
    limits: LimitSettings | None = None
    routes: dict[str, RouteSettings] = Field(default_factory=dict)
    sites: dict[str, LimitSettings] | None = None

    @model_validator(mode="after")
    def _names_are_names(self) -> Settings:
        if not NAME.fullmatch(self.queue):
            raise ValueError(f"queue: letters, digits, '.', '_', '-' only: {self.queue!r}")
        if not 1 <= len(self.priorities) <= 10 or len(set(self.priorities)) != len(self.priorities):
            raise ValueError(f"priorities: one to ten different names: {','.join(self.priorities)!r}")
        for name in (*self.priorities, *self.routes):
            if not NAME.fullmatch(name):
                raise ValueError(f"letters, digits, '.', '_', '-' only: {name!r}")
        if not self.retry:
            raise ValueError("retry: at least one step")
        return self

    @property
    def ways(self) -> dict[str, RouteSettings]:
        """Every route by name; `relay` is the one named `relay`."""
        if self.relay is None:
            return dict(self.routes)
        try:
            return {"relay": RouteSettings.model_validate({"url": self.relay}), **self.routes}
        except ValidationError as wrong:
            raise SettingsError(f"STREAMQ_RELAY: {wrong.errors()[0]['msg']}") from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        flags = dict(getattr(init_settings, "init_kwargs", {}))
        file = flags.pop("toml_values", {})
        return (
            InitSettingsSource(settings_cls, flags),
            env_settings,
            InitSettingsSource(settings_cls, file),
        )


def load_settings(config: str | Path | None = None, **flags: Any) -> Settings:
    """Read all sources; `flags` that are None are absent. Raises `SettingsError`."""
    path = config or os.environ.get("STREAMQ_CONFIG")
    file = _read_file(Path(path)) if path else {}
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = Settings(**{"toml_values": file, **given})
    except ValidationError as wrong:
        raise SettingsError(_worded(wrong, path)) from None
    if settings.redis_url is None and os.environ.get("REDIS_URL"):
        settings = settings.model_copy(update={"redis_url": os.environ["REDIS_URL"]})
    _ = settings.ways
    return settings


def _read_file(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as wrong:
        raise SettingsError(f"{path}: {wrong.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as wrong:
        raise SettingsError(f"{path}: {wrong}") from None


def _worded(wrong: ValidationError, path: str | Path | None) -> str:
    """One line per mistake: where, what, which value; secrets are not repeated."""
    lines = []
    for error in wrong.errors(include_url=False):
        place = ".".join(str(part) for part in error["loc"])
        text = error["msg"].removeprefix("Value error, ")
        value = "" if "url" in place or "relay" in place or not place else f" (got {error['input']!r})"
        lines.append(f"{place}: {text}{value}" if place else text)
    return f"settings ({path or 'environment'}): " + "; ".join(lines)

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
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SourceError

from streamq.errors import SHOWN, SettingsError
from streamq.keys import TABLE

__all__ = ["LimitSettings", "RouteSettings", "Settings", "Window", "duration_ms", "load_settings", "window"]

UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
LONGEST_MS = 366 * UNITS_MS["d"]
SHORTEST_MS = 100  # of a rate's window
MOST_MAILS = 10**9
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
MISREAD = "not an address: host or port is wrong (in a password write / as %2F, @ as %40, # as %23)"
TABLES = frozenset({"routes", "sites"})  # whose values stand three deep
SITE = re.compile(r"[^A-Z\s|]{1,255}")
TAKEN = frozenset(key.shape.partition(":")[0] for key in TABLE if not key.shape.startswith("<"))  # beside priorities


def duration_ms(text: str | float) -> int:
    """Read `90s`, `5m`, `1.5h`, `5d`, or a number of seconds; returns milliseconds."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) *(ms|s|m|h|d)?", str(text).strip(), re.ASCII)
    if not found:
        raise ValueError(f"not a duration (write 90s, 5m, 1h, 5d): {_cut(text)}")
    ms = round(float(found[1]) * UNITS_MS[found[2] or "s"])
    if ms > LONGEST_MS:
        raise ValueError(f"longer than a year: {_cut(text)}")
    return ms


def _cut(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


class Window(BaseModel):
    """At most `count` mails in any `window_ms` milliseconds."""

    model_config = ConfigDict(frozen=True)
    count: int = Field(ge=1, le=MOST_MAILS)
    window_ms: int = Field(ge=SHORTEST_MS, le=LONGEST_MS)

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
    found = re.fullmatch(r"(\d{1,10}) */ *(\d{0,9})(ms|s|m|h|d)", str(text).strip(), re.ASCII)
    if not found:
        raise ValueError(f"not a rate (write 50/s, 600/10m, 60000/h): {_cut(text)}")
    count, window_ms = int(found[1]), int(found[2] or 1) * UNITS_MS[found[3]]
    if not (1 <= count <= MOST_MAILS and SHORTEST_MS <= window_ms <= LONGEST_MS):
        raise ValueError(f"a rate is 1 to {MOST_MAILS} mails in {SHORTEST_MS} ms to a year: {_cut(text)}")
    return Window(count=count, window_ms=window_ms)


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


def _parts(url: str) -> SplitResult:
    """Raises ValueError that repeats no part of the URL: a `/` in a password makes the parser take the password
    for a port, and name it."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(MISREAD) from None
    if parts.scheme != "unix" and "@" in parts.path + parts.fragment:
        raise ValueError(MISREAD)
    return parts


def _relay_url(value: object) -> object:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, str):
        parts = _parts(text)
        if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError("not a relay (write smtp://[user:password@]host:port or smtps://…)")
    return value


def _redis_url(value: object) -> object:
    if isinstance(value, str) and _parts(value).scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("not an address (write redis://, rediss:// or unix://)")
    return value


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
    url: Annotated[SecretStr, BeforeValidator(_relay_url)]
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


class Settings(BaseSettings):
    """All of them. `load_settings` reads them from where they may stand."""

    model_config = SettingsConfigDict(
        env_prefix="STREAMQ_", extra="forbid", frozen=True, validate_default=False, env_ignore_empty=True
    )

    redis_url: Annotated[str | None, BeforeValidator(_redis_url)] = Field(None, repr=False)
    redis_bin: str | None = None
    queue: str = "streamq"
    priorities: Names = ("high", "normal", "low")
    relay: Annotated[SecretStr | None, BeforeValidator(_relay_url)] = None
    in_hand: int = Field(100, ge=1, le=1000)
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
        for name in self.priorities:
            if name in TAKEN:
                raise ValueError(f"priorities: {name!r} is the name of another key of the queue: choose another one")
        for site in self.sites or ():
            if not SITE.fullmatch(site):
                raise ValueError(f"sites: a domain in lower case, or '*': {_cut(site)}")
        if not self.retry:
            raise ValueError("retry: at least one step")
        return self

    @property
    def ways(self) -> dict[str, RouteSettings]:
        """Every route by name; `relay` is the one named `relay`."""
        if self.relay is None:
            return dict(self.routes)
        return {"relay": RouteSettings.model_validate({"url": self.relay}), **self.routes}

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
    """Read all sources; `flags` that are None are absent. Raises `SettingsError`: one line that names each wrong
    setting as it was given (flag, variable, place in the file), and its value where that is no secret."""
    path = config or os.environ.get("STREAMQ_CONFIG")
    file = _read_file(Path(path)) if path else {}
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = Settings(**{"toml_values": file, **given})
    except ValidationError as wrong:
        raise SettingsError(_worded(wrong, path, given)) from None
    except SourceError as wrong:  # a variable whose value should be JSON; the text names the field
        field = next((name for name in Settings.model_fields if f'"{name}"' in str(wrong)), "?")
        raise SettingsError(f"STREAMQ_{field.upper()}: not JSON") from None
    fallback = os.environ.get("REDIS_URL")
    if settings.redis_url is None and fallback:
        try:
            settings = settings.model_copy(update={"redis_url": _redis_url(fallback)})
        except ValueError as wrong:
            raise SettingsError(f"REDIS_URL: {wrong}") from None
    return settings


def _read_file(path: Path) -> Mapping[str, Any]:
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as wrong:
        raise SettingsError(f"{path}: {wrong.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as wrong:
        raise SettingsError(f"{path}: {wrong}") from None
    if "toml_values" in found:  # our own word for the file, see `settings_customise_sources`
        raise SettingsError(f"{path}: toml_values: no such setting")
    return found


def _worded(wrong: ValidationError, path: str | Path | None, given: Mapping[str, Any]) -> str:
    """One part per mistake: where, what, which value."""
    parts = []
    for error in wrong.errors(include_url=False):
        text = error["msg"].removeprefix("Value error, ").replace("Extra inputs are not permitted", "no such setting")
        parts.append(": ".join(filter(None, (_place(error["loc"], path, given), text + _value(error)))))
    return "; ".join(parts)


def _place(loc: tuple[int | str, ...], path: str | Path | None, given: Mapping[str, Any]) -> str:
    if not loc:
        return f"settings ({path})" if path else "settings"
    top = str(loc[0])
    name = ".".join(_cut(part)[1:-1] if isinstance(part, str) else str(part) for part in loc)
    if top in given:
        return "--" + name.replace("_", "-")
    if any(variable.upper() == f"STREAMQ_{top.upper()}" for variable in os.environ):
        return f"STREAMQ_{name.upper()}"
    return f"{path}: {name}" if path else name


def _value(error: ErrorDetails) -> str:
    """What stood there; nothing that may be a secret, or hold one."""
    loc, value = error["loc"], error["input"]
    if error["type"] == "extra_forbidden" or not loc or not isinstance(value, str | int | float):
        return ""
    if "url" in str(loc[-1]) or loc[0] == "relay" or (loc[0] in TABLES and len(loc) < 3):
        return ""
    return "" if repr(value) in error["msg"] else f" (got {_cut(value)})"

"""All settings with their defaults: STREAMQ_* in the environment, streamq.toml, flags."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from streamq.keys import TABLE
from streamq.mail.address import parse_list
from streamq.settings.adapt import AdaptSettings
from streamq.settings.choice import ChoiceSettings
from streamq.settings.route import RouteSettings
from streamq.settings.values import (
    Duration,
    Durations,
    Listen,
    Names,
    OneWindow,
    RedisUrl,
    RelayUrl,
    Window,
    Windows,
    cut,
    duration_ms,
)
from streamq.settings.webhook import WebhookSettings

__all__ = ["LimitSettings", "Settings", "SiteSettings"]

TOKEN = re.compile(r"[!-~]+")  # what a header takes as it is
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
SITE = re.compile(r"[^A-Z\s|]{1,255}")
MTA = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
MOST_REPORTS = 1000  # in a window, to one sender: the queue remembers when each of them went
MOST_REPORTS_ALL = 10_000
TAKEN = frozenset(key.shape.partition(":")[0] for key in TABLE if not key.shape.startswith("<"))  # beside priorities


class LimitSettings(BaseModel):
    """Limits of the queue. Every window holds at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rate: Windows = ()


class SiteSettings(LimitSettings):
    """Limits of a site. What is not set here comes of where it is set less specifically; an empty rate, and 0
    `connections`, are no limit. Through a relay `connections` are transactions at once, over all workers; mails per
    connection are a matter of the route: the relay's connections are not the site's."""

    connections: int | None = Field(None, ge=0, le=100_000)


class Settings(BaseSettings):
    """All of them. `load_settings` reads them from where they may stand."""

    model_config = SettingsConfigDict(
        env_prefix="STREAMQ_", extra="forbid", frozen=True, validate_default=False, env_ignore_empty=True
    )

    redis_url: RedisUrl = Field(None, repr=False)
    redis_bin: str | None = None
    queue: str = "streamq"
    priorities: Names = ("high", "normal", "low")
    relay: RelayUrl | None = None
    replies: str | None = None
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
    log: Literal["text", "json"] = "text"
    reports: bool = True
    report_rate: OneWindow = Window(count=100, window_ms=duration_ms("1h"))
    report_rate_all: OneWindow = Window(count=1000, window_ms=duration_ms("1h"))
    report_from: str | None = None
    report_mta: str | None = None
    delay_warning: Duration | None = None
    max_queue: int = Field(10_000_000, ge=1)
    max_memory: float = Field(0.9, gt=0, le=1)
    events_kept: int = Field(100_000, ge=100)
    events_bytes: int = Field(256 * 1024 * 1024, ge=65_536)
    ids_bytes: int = Field(4 * 1024 * 1024 * 1024, ge=1024 * 1024)
    dead_age: Duration = duration_ms("30d")
    dead_bytes: int = Field(1024**3, ge=1024)
    routes: dict[str, RouteSettings] = Field(default_factory=dict)
    groups: dict[str, Names] = Field(default_factory=dict)
    choice: tuple[ChoiceSettings, ...] = ()
    limits: LimitSettings = LimitSettings()
    sites: dict[str, SiteSettings] | None = None
    providers: Literal["off", "relays", "all"] | None = None
    provider_rules: str | None = None
    adapt: AdaptSettings = AdaptSettings()
    metrics: Listen | None = None
    otel: bool = False
    web_token: SecretStr | None = None
    webhooks: dict[str, WebhookSettings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_names(self) -> Settings:
        if not NAME.fullmatch(self.queue):
            raise ValueError(f"queue: letters, digits, '.', '_', '-' only: {self.queue!r}")
        if not 1 <= len(self.priorities) <= 10 or len(set(self.priorities)) != len(self.priorities):
            raise ValueError(f"priorities: one to ten different names: {','.join(self.priorities)!r}")
        for name in (*self.priorities, *self.routes, *self.webhooks):
            if not NAME.fullmatch(name):
                raise ValueError(f"letters, digits, '.', '_', '-' only: {name!r}")
        for name in self.priorities:
            if name in TAKEN:
                raise ValueError(f"priorities: {name!r} is the name of another key of the queue: choose another one")
        for name, route in self.routes.items():
            for priority in route.transaction_timeout or ():
                if priority != "*" and priority not in self.priorities:
                    raise ValueError(f"routes.{name}.transaction_timeout: no such priority: {cut(priority)}")
        for site in self.sites or ():
            if not SITE.fullmatch(site):
                raise ValueError(f"sites: a domain in lower case, or '*': {cut(site)}")
        if not self.retry:
            raise ValueError("retry: at least one step")
        return self

    @model_validator(mode="after")
    def _token_fits_a_header(self) -> Settings:
        if self.web_token is None:
            return self
        token = self.web_token.get_secret_value()
        if not 16 <= len(token) <= 1024 or not TOKEN.fullmatch(token):
            form = "16 to 1,024 characters of printable ASCII without blanks"
            raise ValueError(f"web_token (STREAMQ_WEB_TOKEN): {form} (got {len(token)} characters)")
        return self

    @model_validator(mode="after")
    def _reports_have_an_author(self) -> Settings:
        if self.report_rate.count > MOST_REPORTS:
            raise ValueError(f"report_rate: at most {MOST_REPORTS} in a window: {str(self.report_rate)!r}")
        if self.report_rate_all.count > MOST_REPORTS_ALL:
            raise ValueError(f"report_rate_all: at most {MOST_REPORTS_ALL} in a window: {str(self.report_rate_all)!r}")
        if self.report_mta is not None and not MTA.fullmatch(self.report_mta):
            raise ValueError(f"report_mta: a host name: {cut(self.report_mta)}")
        if self.report_from is not None:
            try:
                found = parse_list(self.report_from)
            except ValueError as broken:
                raise ValueError(f"report_from: {broken}: {cut(self.report_from)}") from None
            if len(found) != 1 or not found[0].local.isascii():
                raise ValueError(f"report_from: one address in ASCII: {cut(self.report_from)}")
        return self

    @model_validator(mode="after")
    def _routes_are_there(self) -> Settings:
        """A file that says `relay` may stand beside a variable that only the workers have."""
        known = {"relay", *self.routes}
        for group, members in self.groups.items():
            if group in known or not NAME.fullmatch(group):
                raise ValueError(f"groups: letters, digits, '.', '_', '-', and no route of that name: {group!r}")
            if not members or not known.issuperset(members):
                raise ValueError(f"groups.{group}: routes, of those that there are: {','.join(members)!r}")
        for at, choice in enumerate(self.choice):
            for name in choice.routes:
                if name not in known and name not in self.groups:
                    raise ValueError(f"choice.{at}.routes: no such route, and no group: {name!r}")
            for name in choice.priority:
                if name not in self.priorities:
                    raise ValueError(f"choice.{at}.priority: one of {', '.join(self.priorities)}: {name!r}")
        ways = self.ways
        if ways and all(way.reserved for way in ways.values()):
            raise ValueError("routes: all are reserved, so a mail that no choice fits has none")
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

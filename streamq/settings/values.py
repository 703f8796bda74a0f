"""The texts that settings are written in: durations, rates, lists, addresses.

Durations are texts like `90s`, `5m`, `1h`, `5d` (a bare number is seconds); rates are texts like `50/s`,
`600/10m`, `60000/h` (mails per window).
"""

from __future__ import annotations

import ipaddress
import re
from functools import partial
from typing import Annotated, Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import NoDecode

from streamq.errors import SHOWN

__all__ = [
    "UNITS_MS",
    "Address",
    "Addresses",
    "ByPriority",
    "Duration",
    "Durations",
    "Listen",
    "Names",
    "OneWindow",
    "Pins",
    "Place",
    "RedisUrl",
    "RelayUrl",
    "Window",
    "Windows",
    "cut",
    "duration_ms",
    "listen",
    "redis_url",
    "web_address",
    "window",
]

UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
LONGEST_MS = 366 * UNITS_MS["d"]
SHORTEST_MS = 100  # of a rate's window
SHORTEST_TIME_MS = 1000  # of a mail's transaction
MOST_MAILS = 10**9
MISREAD = "not an address: host or port is wrong (in a password write / as %2F, @ as %40, # as %23)"


def duration_ms(text: str | float) -> int:
    """Read `90s`, `5m`, `1.5h`, `5d`, or a number of seconds; returns milliseconds."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) *(ms|s|m|h|d)?", str(text).strip(), re.ASCII)
    if not found:
        raise ValueError(f"not a duration (write 90s, 5m, 1h, 5d): {cut(text)}")
    ms = round(float(found[1]) * UNITS_MS[found[2] or "s"])
    if ms > LONGEST_MS:
        raise ValueError(f"longer than a year: {cut(text)}")
    return ms


def cut(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


class Place(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listen(text: str | int | Place) -> Place:
    """Read `9469` (on 127.0.0.1), `0.0.0.0:9469`, `[::1]:9469`. A host is an address, not a name: what a name means
    where a worker starts is no matter of the settings."""
    if isinstance(text, Place):
        return text
    host, colon, port = str(text).strip().rpartition(":")
    host = host if colon else "127.0.0.1"
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise ValueError(f"not a port, and not ADDRESS:PORT (9469, 127.0.0.1:9469, [::1]:9469): {cut(text)}") from None
    if not (port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= 65_535):
        raise ValueError(f"a port is 1 to 65535: {cut(text)}")
    return Place(str(address), int(port))


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
        raise ValueError(f"not a rate (write 50/s, 600/10m, 60000/h): {cut(text)}")
    count, window_ms = int(found[1]), int(found[2] or 1) * UNITS_MS[found[3]]
    if not (1 <= count <= MOST_MAILS and SHORTEST_MS <= window_ms <= LONGEST_MS):
        raise ValueError(f"a rate is 1 to {MOST_MAILS} mails in {SHORTEST_MS} ms to a year: {cut(text)}")
    return Window(count=count, window_ms=window_ms)


def _listed(value: object) -> object:
    """A comma list, or one value, where a list is meant."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _each(convert: Any, value: object) -> object:
    listed = _listed(value)
    return tuple(convert(part) for part in listed) if isinstance(listed, list | tuple) else listed


def _by_priority(value: object) -> object:
    """One duration for all (`*`), or a table of them."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        value = {"*": value}
    if not isinstance(value, dict):
        raise ValueError(f'not a duration, nor durations by priority (write {{high = "30s"}}): {cut(value)}')
    found = {str(name): duration_ms(given) for name, given in value.items()}
    if short := next((name for name, ms in found.items() if ms < SHORTEST_TIME_MS), None):
        raise ValueError(f"{short}: at least 1s: {cut(value[short])}")
    return found


def _address(text: object) -> Address:
    try:
        return ipaddress.ip_address(str(text))
    except ValueError:
        raise ValueError(f"not an IPv4 or IPv6 address: {cut(text)}") from None


def _pin(text: object) -> str:
    """The SHA-256 of a certificate (its DER form) as `openssl x509 -fingerprint -sha256` prints it; returns plain
    hexadecimal digits."""
    plain = str(text).rpartition("=")[2].replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", plain):
        raise ValueError(f"not a SHA-256 fingerprint (64 hexadecimal digits): {cut(text)}")
    return plain


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Listen = Annotated[Place, NoDecode, BeforeValidator(listen)]
Addresses = Annotated[tuple[Address, ...], BeforeValidator(partial(_each, _address))]
Pins = Annotated[tuple[str, ...], BeforeValidator(partial(_each, _pin))]
Duration = Annotated[int, BeforeValidator(duration_ms)]
ByPriority = Annotated[dict[str, int], BeforeValidator(_by_priority)]
Durations = Annotated[tuple[int, ...], NoDecode, BeforeValidator(partial(_each, duration_ms))]
Windows = Annotated[tuple[Window, ...], NoDecode, BeforeValidator(partial(_each, window))]
OneWindow = Annotated[Window, NoDecode, BeforeValidator(window)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(partial(_each, str))]


def web_address(url: str, other: str) -> SplitResult:
    """The parts of `https://host…` or `http://host…`. Raises ValueError, `other` where it is an address of another kind
    or holds a user, a password or a fragment; none repeats a part of it."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("not an address") from None
    if parts.scheme not in {"https", "http"} or not parts.hostname or "@" in parts.netloc or parts.fragment:
        raise ValueError(other)
    if not url.isascii() or re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError("not an address: no blanks, no control characters, ASCII only")
    return parts


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
        if "\0" in unquote(text):
            raise ValueError("no user and no password holds a NUL (RFC 4616, 2)")
    return value


def redis_url(value: object) -> object:
    if isinstance(value, str) and _parts(value).scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("not an address (write redis://, rediss:// or unix://)")
    return value


RelayUrl = Annotated[SecretStr, BeforeValidator(_relay_url)]
RedisUrl = Annotated[str | None, BeforeValidator(redis_url)]

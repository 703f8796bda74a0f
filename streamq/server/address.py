"""The redis-cli line that reaches an address."""

from __future__ import annotations

import shlex
from urllib.parse import parse_qs, unquote, urlsplit

from streamq.errors import SettingsError

__all__ = ["redis_cli_line"]

TLS_FILES = {"ssl_ca_certs": "--cacert", "ssl_certfile": "--cert", "ssl_keyfile": "--key"}


def redis_cli_line(url: str) -> str:
    """`redis-cli …` for a `redis://`, `rediss://` or `unix://` URL as redis-py reads it, ready to paste.

    A password is never shown. Where one is needed the line begins with `REDISCLI_AUTH="$PASSWORD"`, which
    redis-cli reads (`-a` would put it into the list of processes). Raises `SettingsError`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as wrong:
        raise SettingsError(f"STREAMQ_REDIS_URL: not an address: {wrong}") from None
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    words = ["redis-cli"]
    if parts.scheme == "unix":
        words += ["-s", unquote(parts.path)]
        database = ""
    elif parts.scheme in {"redis", "rediss"}:
        words += ["-h", unquote(parts.hostname or "localhost"), "-p", str(port or 6379)]
        database = unquote(parts.path).strip("/")
    else:
        raise SettingsError("STREAMQ_REDIS_URL: not an address (write redis://, rediss:// or unix://)")
    if parts.scheme == "rediss":
        words += _tls(query)
    user = query.get("username") or unquote(parts.username or "")
    if user:
        words += ["--user", user]
    database = query.get("db", database)
    if database not in {"", "0"}:
        words += ["-n", database]
    password = 'REDISCLI_AUTH="$PASSWORD" ' if parts.password or query.get("password") else ""
    return password + shlex.join(words)


def _tls(query: dict[str, str]) -> list[str]:
    words = ["--tls"]
    if query.get("ssl_cert_reqs") == "none":
        words.append("--insecure")
    for name, flag in TLS_FILES.items():
        if name in query:
            words += [flag, query[name]]
    return words

"""Reading the settings: flags win, then environment, then file; every wrong value ends as one error that names it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError as SourceError

from streamq.errors import SettingsError
from streamq.settings.places import Path as KeyPath
from streamq.settings.places import line_of, lines_of
from streamq.settings.settings import Settings
from streamq.settings.values import cut, redis_url
from streamq.toml import NotToml, read_toml

__all__ = ["load_settings"]

TABLES = frozenset({"routes", "sites", "webhooks"})  # whose values stand three deep
SECRETS = frozenset({"value", "command", "refresh_token", "client_secret", "tls_key_password", "secret"})


def load_settings(config: str | Path | None = None, **flags: Any) -> Settings:
    """Read all sources; `flags` that are None are absent. Raises `SettingsError`: one line that names each wrong
    setting as it was given (flag, variable, place in the file), and its value where that is no secret."""
    path = config or os.environ.get("STREAMQ_CONFIG")
    file, text = _read_file(Path(path)) if path else ({}, "")
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = Settings(**{"toml_values": file, **given})
    except ValidationError as wrong:
        raise SettingsError(_worded(wrong, path, given, lines_of(text))) from None
    except SourceError as wrong:  # a variable whose value should be JSON; the text names the field
        field = next((name for name in Settings.model_fields if f'"{name}"' in str(wrong)), "?")
        raise SettingsError(f"STREAMQ_{field.upper()}: not JSON") from None
    fallback = os.environ.get("REDIS_URL")
    if settings.redis_url is None and fallback:
        try:
            settings = settings.model_copy(update={"redis_url": redis_url(fallback)})
        except ValueError as wrong:
            raise SettingsError(f"REDIS_URL: {wrong}") from None
    return settings


def _read_file(path: Path) -> tuple[Mapping[str, Any], str]:
    """What it says, and its text."""
    try:
        text = path.read_text("utf-8")
        found = read_toml(text)
    except OSError as wrong:
        raise SettingsError(f"{path}: {wrong.strerror}") from None
    except (NotToml, UnicodeDecodeError) as wrong:
        raise SettingsError(f"{path}: {wrong}") from None
    if "toml_values" in found:  # our own word for the file, see `settings_customise_sources`
        raise SettingsError(f"{path}: toml_values: no such setting")
    return found, text


def _worded(
    wrong: ValidationError, path: str | Path | None, given: Mapping[str, Any], lines: Mapping[KeyPath, int]
) -> str:
    """One part per mistake: where, what, which value; of the file the line, too."""
    parts = []
    for error in wrong.errors(include_url=False):
        place = _place(error["loc"], path, given)
        text = error["msg"].removeprefix("Value error, ").replace("Extra inputs are not permitted", "no such setting")
        line = line_of(lines, error["loc"]) if place.startswith(f"{path}: ") else 0
        parts.append(": ".join(filter(None, (place, text + _value(error)))) + (f" (line {line})" if line else ""))
    return "; ".join(parts)


def _place(loc: tuple[int | str, ...], path: str | Path | None, given: Mapping[str, Any]) -> str:
    if not loc:
        return f"settings ({path})" if path else "settings"
    top = str(loc[0])
    name = ".".join(cut(part)[1:-1] if isinstance(part, str) else str(part) for part in loc)
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
    if "url" in str(loc[-1]) or loc[0] in {"relay", "web_token"} or (loc[0] in TABLES and len(loc) < 3):
        return ""
    if SECRETS & set(loc[2:]) or (loc[-1] == "token" and len(loc) == 3):
        return ""
    return "" if repr(value) in error["msg"] else f" (got {cut(value)})"

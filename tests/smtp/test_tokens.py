"""Access tokens that stand in settings or a file: what is kept and for how long; settings; nothing secret in a text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from scripted_relay import on_both_loops
from token_asking import CLIENT, REFRESH, tokens

from streamq.errors import SettingsError
from streamq.settings import RouteSettings, TokenSettings
from streamq.smtp.access import check_routes
from streamq.smtp.token_reply import TokenError

# -- a value, a file -------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_value_stays_and_there_is_no_other() -> None:
    asked = tokens(value="static.token")
    token = await asked.get()
    assert (token.value, token.serial) == ("static.token", 1)
    assert await asked.get() is token
    assert await asked.renew(token) is None
    assert "static.token" not in repr(token) + repr(asked._settings)


@on_both_loops
async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    asked = tokens(file=str(path))
    first = await asked.get()
    assert (first.value, asked.holds(first.serial)) == ("first", True)
    fresh = tmp_path / "fresh"
    fresh.write_text('{"access_token": "second", "expires_in": 1}')
    fresh.replace(path)
    assert not asked.holds(first.serial)  # a connection that logged in with it is not used on
    second = await asked.get()
    assert (second.value, second.serial) == ("second", 2)
    assert asked.holds(2)
    assert not asked.holds(1)


@on_both_loops
async def test_a_file_that_is_touched_only_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    asked = tokens(file=str(path))
    first = await asked.get()
    os.utime(path, (1, 1))
    assert (await asked.get()).serial == first.serial
    assert asked.holds(first.serial)
    assert await asked.renew(first) is None


@pytest.mark.parametrize("how", ["gone", "empty"])
@on_both_loops
async def test_a_file_in_the_middle_of_being_written(how: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    asked = tokens(file=str(path))
    first = await asked.get()
    if how == "gone":
        path.unlink()
    else:
        path.write_text("")
    assert (await asked.get()).value == "first"
    assert asked.holds(first.serial)
    with pytest.raises(TokenError, match="token file: "):  # but the server refused that one
        await asked.renew(first)
    path.write_text("second")
    assert (await asked.get()).value == "second"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"file": "/nowhere"}, "routes.main.token.file: No such file or directory: '/nowhere'"),
        ({"file": "/"}, "routes.main.token.file: "),
        ({"file": "/dev/null"}, "routes.main.token.file: not a file: '/dev/null'"),
        ({"file": __file__}, "routes.main.token.file: no token: "),
        ({"command": "/nowhere/token"}, "routes.main.token.command: no such program: '/nowhere/token'"),
    ],
)
def test_a_source_that_is_not_there_is_met_at_the_start(settings: dict[str, Any], says: str) -> None:
    way = RouteSettings.model_validate({"url": "smtp://me@h", "token": settings})
    with pytest.raises(SettingsError) as raised:
        check_routes({"main": way})
    assert str(raised.value).startswith(says)


def test_a_fifo_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(SettingsError, match="not a file"):
        tokens(file=str(path))


# -- a command -------------------------------------------------------------------------------------------------


# -- a refresh token -------------------------------------------------------------------------------------------


# -- settings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "one of value, file, command, url, not none of them"),
        ({"value": "a", "file": "b"}, "not value and file"),
        ({"value": "a b"}, "not a bearer token"),
        ({"value": "a" * 8193}, "not a bearer token"),
        ({"command": "'open"}, "not a command"),
        ({"command": ""}, "a command"),
        ({"command": [1]}, "a command"),
        ({"command": ["a\0"]}, "NUL"),
        ({"url": "https://h/t"}, "url: needs refresh_token"),
        ({"url": "http://h/t", "refresh_token": "x"}, "http reaches only this machine"),
        ({"url": "http://localhost/t", "refresh_token": "x"}, "http reaches only this machine"),
        ({"url": "ftp://h/t", "refresh_token": "x"}, "not the address of a token endpoint"),
        ({"url": "https://u:p@h/t", "refresh_token": "x"}, "not the address of a token endpoint"),
        ({"url": "https://h/t\r\nX: y", "refresh_token": "x"}, "not a"),
        ({"url": "https://h:port/t", "refresh_token": "x"}, "not an address"),
        ({"value": "a", "scope": "b"}, "scope: only with url"),
        ({"value": "a", "timeout": 0}, "timeout: more than 0"),
    ],
)
def test_settings_of_a_token(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match="validation error") as raised:
        TokenSettings.model_validate(settings)
    assert says in str(raised.value)


def test_nothing_secret_is_shown() -> None:
    known = TokenSettings.model_validate(
        {"url": "https://h/t", "refresh_token": REFRESH, "client_secret": CLIENT, "client_id": "shop"}
    )
    assert REFRESH not in f"{known!r}{known}"
    assert CLIENT not in f"{known!r}{known}"
    assert "s3cret" not in repr(TokenSettings.model_validate({"command": "token --password s3cret"}))

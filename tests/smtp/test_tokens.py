"""Access tokens: each source, what is kept and for how long, one fetch at a time, nothing secret in a text."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from scripted_relay import on_both_loops, until
from tidy import tidy
from token_endpoint import HANGS, Endpoint, answer, token

from streamq.errors import SettingsError
from streamq.settings import RouteSettings, TokenSettings
from streamq.smtp.access import check_routes
from streamq.smtp.token_reply import MAX_REPLY, TokenError, read_token
from streamq.smtp.tokens import Tokens

PEM = Path(__file__).with_name("relay_test.pem")
REFRESH = "1//refresh-s3cret"
CLIENT = "client-s3cret"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def tokens(clock: Clock | None = None, **settings: Any) -> Tokens:
    return Tokens(TokenSettings.model_validate(settings), clock=clock or Clock())


def granted(endpoint: Endpoint, clock: Clock | None = None, **more: Any) -> Tokens:
    values = {"refresh_token": REFRESH, "client_id": "shop", "client_secret": CLIENT, "scope": "mail send", **more}
    return tokens(clock, url=endpoint.url, **values)


def printed(*words: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; sys.stdout.write({' '.join(words)!r})"]


async def failed(asked: Tokens) -> str:
    with pytest.raises(TokenError) as raised:
        await asked.get()
    text = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert REFRESH not in text
    assert CLIENT not in text
    return str(raised.value)


# -- what stands in a reply ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value", "seconds"),
    [
        (b"ya29.a0-_~+/=\n", "ya29.a0-_~+/=", None),
        (b'{"access_token": "abc", "expires_in": 3599}', "abc", 3599.0),
        (b'{"access_token": "abc", "expires_in": "3599", "token_type": "bearer"}', "abc", 3599.0),
        (b'{"access_token": "abc", "expires_in": -5}', "abc", 0.0),
        (b'{"access_token": "abc", "expires_in": true}', "abc", None),
        (b'{"access_token": "abc", "expires_in": "soon"}', "abc", None),
        (b'{"access_token": "abc", "expires_in": 1e999}', None, None),
    ],
)
def test_what_is_read(text: bytes, value: str | None, seconds: float | None) -> None:
    if value is None:
        with pytest.raises(TokenError):
            read_token(text)
        return
    reply = read_token(text)
    assert (reply.value, reply.seconds) == (value, seconds)
    assert value not in repr(reply)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "empty"),
        (b"two words", "no token"),
        (b"line\nline", "no token"),
        ("schlüssel".encode(), "no token"),
        (b"x" * 9000, "no token"),
        (b"x" * (MAX_REPLY + 1), "too long"),
        (b"{", "not JSON"),
        (b'{"a":' * 10_000, "not JSON"),
        (b"{}", "no access_token"),
        (b'{"access_token": 5}', "no access_token"),
        (b'{"access_token": "a b"}', "no access_token"),
        (b'{"access_token": "ab", "token_type": "mac"}', "not Bearer"),
        (b'{"error": "invalid_grant", "error_description": "Token\\u0007 revoked"}', "invalid_grant: Token"),
        (b'{"error": 5}', "an error"),
    ],
)
def test_what_is_no_token(text: bytes, says: str) -> None:
    with pytest.raises(TokenError, match=says):
        read_token(text)


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


@on_both_loops
async def test_a_command_says_it() -> None:
    clock = Clock()
    async with tidy():
        asked = tokens(clock, command=printed('{"access_token": "by.command", "expires_in": 3600}'))
        token = await asked.get()
        assert token.value == "by.command"
        clock.now += 3539
        assert await asked.get() is token
        assert asked._fetches == 1
        clock.now += 2
        assert (await asked.get()).serial == 1  # asked anew, the same value
        assert asked._fetches == 2


@on_both_loops
async def test_a_command_is_split_without_a_shell(tmp_path: Path) -> None:
    async with tidy():
        asked = tokens(command=f"{sys.executable} -c 'print(\"$HOME\"[1:])'")
        assert (await asked.get()).value == "HOME"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; print('s3cret'); print('s3cret', file=sys.stderr); sys.exit(3)", "token command: exit status 3"),
        ("print('not a token, s3cret')", "token command: no token"),
        ("pass", "token command: empty"),
        ("while True: print('s3cret' * 1000)", "token command: its output is too long"),
        ("import os; os.kill(os.getpid(), 9)", "token command: exit status -9"),
    ],
)
@on_both_loops
async def test_a_command_that_fails(code: str, says: str, capfd: pytest.CaptureFixture[str]) -> None:
    async with tidy():
        text = await failed(tokens(command=[sys.executable, "-c", code]))
    assert text.startswith(says)
    assert "s3cret" not in text + "".join(capfd.readouterr())


@on_both_loops
async def test_a_command_that_never_ends_ends_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(3600)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    async with tidy():
        asked = asyncio.create_task(tokens(command=[sys.executable, "-c", code]).get())
        await until(lambda: note.exists() and bool(note.read_text()))
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await until(lambda: not alive(int(note.read_text())))
        assert (await failed(tokens(command=["sleep", "3600"], timeout="0.05s"))).startswith("token command: no end")


def alive(pid: int) -> bool:
    """A zombie that init has yet to collect is dead."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


# -- a refresh token -------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_grant_asks_as_rfc_6749_says() -> None:
    async with tidy():
        async with Endpoint(token("granted.1", expires_in=3600)) as endpoint:
            assert (await granted(endpoint).get()).value == "granted.1"
        assert endpoint.asked == [
            {
                "grant_type": "refresh_token",
                "refresh_token": REFRESH,
                "client_id": "shop",
                "client_secret": CLIENT,
                "scope": "mail send",
            }
        ]
        assert endpoint.heads[0].startswith("POST /token?tenant=1 HTTP/1.1\r\n")
        assert f"\r\nHost: 127.0.0.1:{endpoint.port}\r\n" in endpoint.heads[0]


@on_both_loops
async def test_what_is_not_set_is_not_asked() -> None:
    async with Endpoint(token("granted.1")) as endpoint:
        await tokens(url=endpoint.url, refresh_token=REFRESH).get()
    assert endpoint.asked == [{"grant_type": "refresh_token", "refresh_token": REFRESH}]


@pytest.mark.parametrize(
    ("seconds", "good_for"), [(3600, 3540), (40, 30), (None, 300), (20, 30), (0, 30), (10**9, 86_400 - 60)], ids=str
)
@on_both_loops
async def test_a_token_is_kept_until_shortly_before_its_end(seconds: int | None, good_for: int) -> None:
    clock = Clock()
    life = {} if seconds is None else {"expires_in": seconds}
    async with Endpoint(token("one", **life), token("two", **life)) as endpoint:
        asked = granted(endpoint, clock)
        first = await asked.get()
        clock.now += good_for - 0.1
        assert await asked.get() is first
        clock.now += 0.2
        second = await asked.get()
    assert (first.value, first.serial, second.value, second.serial) == ("one", 1, "two", 2)
    assert len(endpoint.asked) == 2


@on_both_loops
async def test_a_new_refresh_token_is_used_until_it_fails() -> None:
    refused = answer('{"error": "invalid_grant"}', status="400 Bad Request")
    said = [token("one", expires_in=0, refresh_token="2//next"), token("two", expires_in=0), refused, token("three")]
    async with Endpoint(*said) as endpoint:
        clock = Clock()
        asked = granted(endpoint, clock)
        await asked.get()
        clock.now += 31
        await asked.get()
        clock.now += 31
        assert "invalid_grant" in await failed(asked)
        await asked.get()
    assert [form["refresh_token"] for form in endpoint.asked] == [REFRESH, "2//next", "2//next", REFRESH]


@pytest.mark.parametrize("closes", [True, False], ids=["closes", "stays"])
@pytest.mark.parametrize("head", ["", "Transfer-Encoding: chunked\r\n"], ids=["length", "chunked"])
@on_both_loops
async def test_how_an_answer_may_come(head: str, closes: bool) -> None:
    body = json.dumps({"access_token": "abc"}).encode()
    said = b"HTTP/1.1 200 OK\r\n" + head.encode()
    if head:
        said += b"\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (5, body[:5], len(body) - 5, body[5:])
    else:
        said += b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    async with tidy(), Endpoint(said, closes=closes) as endpoint:
        assert (await granted(endpoint).get()).value == "abc"


@on_both_loops
async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async with Endpoint(b'HTTP/1.0 200 OK\r\n\r\n{"access_token": "abc"}') as endpoint:
        assert (await granted(endpoint).get()).value == "abc"


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (
            answer('{"error": "invalid_grant", "error_description": "Bad"}', status="400 x"),
            "status 400: invalid_grant: Bad",
        ),
        (
            answer(json.dumps({"error": "x", "error_description": f"{REFRESH} {CLIENT}"}), status="401 x"),
            "[secret] [secret]",
        ),
        (
            answer(json.dumps({"error": "x", "error_description": f"{'long ' * 90}{REFRESH}"}), status="401 x"),
            "long [secret]",
        ),
        (
            answer(json.dumps({"error": "no", "error_description": "\x1b[2Jno\x07"}), status="401 x"),
            "no: [2Jno",
        ),
        (answer("<html>busy", status="503 x"), "status 503"),
        (answer("", status="302 Found", head="Location: http://127.0.0.1/\r\n"), "status 302"),
        (answer('{"access_token": "abc"}', status="500 x"), "status 500"),
        (answer("<html>hello"), "no token"),
        (answer('{"access_token": "a b"}'), "no access_token"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000, "too long"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "too long"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "IncompleteRead"),
        (b"220 relay.example ESMTP\r\n\r\n", "BadStatusLine"),
        (b"", "RemoteDisconnected"),
    ],
)
@on_both_loops
async def test_an_endpoint_that_fails(said: bytes, says: str) -> None:
    async with tidy(), Endpoint(said) as endpoint:
        text = await failed(granted(endpoint))
    assert text.startswith("token endpoint 127.0.0.1: ")
    assert says in text


@on_both_loops
async def test_an_endpoint_that_says_nothing_has_a_time() -> None:
    async with tidy():
        async with Endpoint(HANGS) as endpoint:
            assert "no answer in time" in await failed(granted(endpoint, timeout="0.05s"))
        assert "Connect" in await failed(granted(endpoint))  # nobody listens there now


@on_both_loops
async def test_https_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    async with tidy(), Endpoint(token("abc"), context=context) as endpoint:
        assert "self-signed" in await failed(granted(endpoint))
        assert endpoint.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(PEM))
        assert (await granted(endpoint).get()).value == "abc"


@on_both_loops
async def test_one_fetch_at_a_time_serves_all() -> None:
    async with tidy(), Endpoint(token("one"), token("two")) as endpoint:
        endpoint.gate.clear()
        asked = granted(endpoint)
        waiting = [asyncio.create_task(asked.get()) for _ in range(20)]
        await endpoint.came.wait()
        endpoint.gate.set()
        assert {one.value for one in await asyncio.gather(*waiting)} == {"one"}
        assert len(endpoint.asked) == 1
        first = await asked.get()
        renewed = await asyncio.gather(*(asked.renew(first) for _ in range(20)))
        assert {one.value for one in renewed if one is not None} == {"two"}
        assert len(endpoint.asked) == 2


@on_both_loops
async def test_whoever_waited_shares_the_failure() -> None:
    async with Endpoint(answer("", status="500 x"), token("one")) as endpoint:
        endpoint.gate.clear()
        asked = granted(endpoint)
        waiting = [asyncio.create_task(asked.get()) for _ in range(5)]
        await endpoint.came.wait()
        endpoint.gate.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in found] == [TokenError] * 5
        assert len(endpoint.asked) == 1
        assert (await asked.get()).value == "one"


@on_both_loops
async def test_one_that_gives_up_leaves_it_to_the_next() -> None:
    async with tidy(), Endpoint(HANGS, token("one")) as endpoint:
        asked = granted(endpoint)
        first, second = asyncio.create_task(asked.get()), asyncio.create_task(asked.get())
        await endpoint.came.wait()
        first.cancel()
        assert (await second).value == "one"
        with pytest.raises(asyncio.CancelledError):
            await first


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

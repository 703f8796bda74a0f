"""Access tokens by a refresh token (RFC 6749, section 6): what is asked, kept, and by how many at a time."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import pytest
from scripted_relay import on_both_loops
from tidy import tidy
from token_asking import CLIENT, REFRESH, Clock, failed, granted, tokens
from token_endpoint import HANGS, Endpoint, answer, token

from streamq.smtp.token_reply import TokenError

PEM = Path(__file__).with_name("relay_test.pem")


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

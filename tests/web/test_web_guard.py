"""Who may read and change, by every way in which a foreign page could try."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from webbed import TOKEN, asking

from streamq.web.guard import Guard

OURS = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}


async def _page(request: Request) -> PlainTextResponse:
    return PlainTextResponse("done")


def _app(token: str | None = TOKEN, hosts: tuple[str, ...] | None = ()) -> Guard:
    paths = ("/", "/livez", "/api/x", "/static/app.js", "/static")
    inner = Starlette(routes=[Route(path, _page, methods=["GET", "POST"]) for path in paths])
    return Guard(inner, token=token, hosts=hosts, public=("/", "/static/"))


async def _asked(app: Guard, method: str, path: str, host: str = "localhost", **headers: str) -> int:
    async with asking(app, host) as client:  # type: ignore[arg-type]
        return (await client.request(method, path, headers=headers, content=b"{}")).status_code


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.0.0.1:8470", "[::1]:8470", "LOCALHOST", "mail.example"]
)
async def test_names_of_this_machine_are_answered(host: str) -> None:
    assert await _asked(_app(hosts=("mail.example",)), "GET", "/api/x", host) == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1"])
async def test_a_foreign_name_reads_nothing(host: str) -> None:
    """DNS rebinding: the browser says the name under which it came."""
    assert await _asked(_app(), "GET", "/api/x", host) == 421
    assert await _asked(_app(), "POST", "/api/x", host, **OURS) == 421
    assert await _asked(_app(), "GET", "/livez", host) == 200  # a prober comes by an address


@pytest.mark.parametrize("host", ["[", "a]b", ""])
async def test_a_host_that_is_none_reads_nothing(host: str) -> None:
    async with asking(_app()) as client:  # type: ignore[arg-type]
        assert (await client.get("/api/x", headers={"host": host})).status_code == 421


async def test_without_a_token_nothing_changes() -> None:
    assert await _asked(_app(token=None), "POST", "/api/x", **OURS) == 403
    assert (
        await _asked(
            _app(token=None), "POST", "/api/x", authorization="Bearer ", **{"content-type": "application/json"}
        )
        == 403
    )
    assert await _asked(_app(token=None), "GET", "/api/x") == 200


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, 200),
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer wrong-token-of-24-chars!"}, 401),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({"authorization": "Bearer tök€n"}, 401),
        ({"cookie": f"token={TOKEN}", "authorization": ""}, 401),
        ({"content-type": "text/plain"}, 415),  # what a form may send without asking first
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"origin": "http://localhost"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
@pytest.mark.parametrize("method", ["POST"])
async def test_a_change_takes_the_token_and_our_own_page(changed: dict[str, str], status: int, method: str) -> None:
    headers = {name.encode(): value.encode() for name, value in (OURS | changed).items() if value}
    async with asking(_app()) as client:  # type: ignore[arg-type]
        said = await client.request(method, "/api/x", headers=headers, content=b"{}")
    assert said.status_code == status
    if status != 200:
        assert "done" not in said.text
        assert TOKEN not in said.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_no_other_verb_needs_less(method: str) -> None:
    assert await _asked(_app(), method, "/api/x") == 401


async def test_from_afar_reading_takes_the_token_but_for_what_holds_nothing() -> None:
    app = _app(hosts=None)
    assert await _asked(app, "GET", "/api/x", "queue.example") == 401
    assert await _asked(app, "HEAD", "/static", "queue.example") == 401
    assert await _asked(app, "GET", "/static/../api/x", "queue.example") == 401
    for path in ("/", "/static/app.js", "/livez"):
        assert await _asked(app, "GET", path, "queue.example") == 200, path
    assert await _asked(app, "GET", "/api/x", "queue.example", authorization=f"bearer {TOKEN}") == 200


async def test_every_answer_is_safe_to_show() -> None:
    async with asking(_app()) as client:  # type: ignore[arg-type]
        answers = [await client.get("/"), await client.get("/nowhere"), await client.post("/api/x")]
    for said in answers:
        policy = dict(part.strip().split(" ", 1) for part in said.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
        assert "unsafe" not in str(policy)
        assert said.headers["x-content-type-options"] == "nosniff"
        assert said.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in said.headers


async def test_nothing_but_http(recwarn: pytest.WarningsRecorder) -> None:
    async def never() -> dict[str, str]:
        raise AssertionError

    with pytest.raises(RuntimeError, match="websocket"):
        await _app()({"type": "websocket"}, never, None)  # type: ignore[arg-type]

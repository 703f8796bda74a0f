"""`streamq serve`, and `streamq worker --metrics`, as programs."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from mailroom import Mailroom

from cli.shell import program, streamq
from streamq.sink import Sink


async def _said(process: Any, what: str) -> str:
    """The rest of the line that begins so."""
    while True:
        line = (await process.stdout.readline()).decode()
        assert line, (await process.stderr.read()).decode()
        if line.startswith(what):
            return str(line.removeprefix(what).split()[0])


def _free() -> int:
    """The first of two ports in a row that nobody has just now."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
            except OSError:
                continue
            return port


@pytest.mark.leaves_mail
async def test_serve_shows_its_queue_until_it_is_told_to_end(queue: Mailroom) -> None:
    await queue.add()
    process = await program("serve", "--port", "0")
    place = await _said(process, "metrics")
    async with httpx.AsyncClient() as client:
        assert 'streamq_mails{priority="normal",queue="streamq",state="waiting"} 1.0' in (await client.get(place)).text
        assert (await client.get(place, headers={"host": "evil.example"})).status_code == 421
        assert (await client.get(place.replace("/metrics", "/readyz"))).text == "ok\n"
        async with client.stream("GET", place.replace("/metrics", "/api/stream")) as stream:
            lines = stream.aiter_lines()
            while not (await anext(lines)).startswith("event: overview"):
                pass
            process.send_signal(signal.SIGTERM)  # a page that somebody left open keeps nobody up
            out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"", b"")


async def test_two_workers_have_a_port_each(queue: Mailroom, server_url: str) -> None:
    sink = Sink()
    async with AsyncExitStack() as stack:
        await sink.start()
        stack.push_async_callback(sink.close)
        port = _free()
        known = {"STREAMQ_RELAY": sink.url, "STREAMQ_REDIS_URL": server_url}
        process = await program("worker", "--processes", "2", "--metrics", str(port), environment=known)
        for _ in range(2):
            await _said(process, "metrics")
        async with httpx.AsyncClient() as client:
            said = [(await client.get(f"http://127.0.0.1:{port + nth}/livez")).text for nth in range(2)]
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 60)
    assert said == ["ok\n", "ok\n"]
    assert process.returncode == 0


@pytest.mark.usefixtures("queue")
async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await program("serve", "--port", str(port))
        _, err = await process.communicate()
    assert process.returncode == 2
    assert err.decode() == f"streamq: --port: somebody listens there already (got '127.0.0.1:{port}')\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["serve", "--host", "0.0.0.0"], "--host: mails are private: beyond loopback only with --allow-remote"),
        (["serve", "--host", "0.0.0.0", "--allow-remote"], "--allow-remote: set STREAMQ_WEB_TOKEN"),
        (["serve", "--host", "mail.example"], "--host: not an address (got 'mail.example')"),
        (["worker", "--relay", "smtp://127.0.0.1:9", "--metrics", "x"], "--metrics: a port is 1 to 65535: 'x'"),
        (["worker", "--relay", "smtp://127.0.0.1:9", "--metrics", "mail.example:80"], "--metrics: not a port"),
        (["worker", "--relay", "smtp://127.0.0.1:9", "--metrics", "127.0.0.1:0"], "--metrics: a port is 1 to 65535"),
        (
            ["worker", "--relay", "smtp://127.0.0.1:9", "--metrics", "65535", "--processes", "2"],
            "STREAMQ_METRICS: no 2 ports from there on (got '127.0.0.1:65535')",
        ),
    ],
)
@pytest.mark.usefixtures("queue")
async def test_what_cannot_be_served_is_said(words: list[str], says: str) -> None:
    said = await streamq(*words)
    assert (said.code, said.out) == (2, "")
    assert says in said.err


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize("token", ["hunter2", "hunter2 hunter2 hunter2", "hunter2-hunter2-hünter2"])
async def test_a_token_that_is_none_is_not_repeated(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("STREAMQ_WEB_TOKEN", token)
    said = await streamq("serve")
    monkeypatch.undo()
    assert said.code == 2
    assert "web_token" in said.err.lower()
    assert "hunter2" not in said.err


@pytest.mark.usefixtures("queue")
async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys.modules["streamq.cli.app"], "find_spec", lambda name: None if name == "uvicorn" else object()
    )
    for words in (["serve"], ["worker", "--relay", "smtp://127.0.0.1:9", "--metrics", "9469"]):
        said = await streamq(*words)
        assert (said.code, said.out) == (2, "")
        assert said.err.endswith("needs uvicorn: install streamq with its extra `web`\n")

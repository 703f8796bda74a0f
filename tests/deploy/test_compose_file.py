"""compose.yaml: what its sink is told to do is done, on ports of this machine."""

from __future__ import annotations

import asyncio
import shlex
import signal
import smtplib
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cli.shell import program, streamq

FILE = Path(__file__).parents[2] / "compose.yaml"
SERVICES: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


@pytest.mark.parametrize("name", OURS)
async def test_each_command_is_one(name: str) -> None:
    command = shlex.split(OURS[name]["command"])
    said = (await streamq(command[0], "--help", columns=200)).out
    assert [word for word in command if word.startswith("--") and word not in said] == []


def test_only_this_machine_reaches_the_inbox() -> None:
    for service in OURS.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert any("8471:8471" in port for port in OURS["sink"]["ports"])


async def test_the_sink_shows_what_it_gets_to_who_has_the_token() -> None:
    token = OURS["sink"]["environment"]["STREAMQ_WEB_TOKEN"].partition(":-")[2].rstrip("}")
    command = OURS["sink"]["command"]
    words = [*shlex.split(command.replace("0.0.0.0:8471", "0.0.0.0:0")), "--port", "0"]
    assert words.count("0.0.0.0:0") == 1
    process = await program(*words, environment={"STREAMQ_WEB_TOKEN": token})
    try:
        smtp = int((await process.stdout.readline()).decode().strip().rpartition(":")[2])
        inbox = int((await process.stdout.readline()).decode().split()[1].rpartition(":")[2].partition("/")[0])
        await asyncio.to_thread(_send, smtp)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{inbox}", timeout=60) as client:
            assert (await client.get("/inbox")).status_code == 200
            assert (await client.get("/api/mails")).status_code == 401
            known = {"authorization": f"Bearer {token}"}
            assert (await client.get("/api/mails/wait", headers=known)).json()["subject"] == "Hi"
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def _send(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, "shop.example.com", timeout=60) as client:
        client.sendmail("shop@example.com", ["bob@example.net"], "Subject: Hi\r\n\r\nHello\r\n")

"""docs/inbox.md: each of its examples is run as it stands there, against a real inbox. What Playwright and Cypress do
themselves is played: a page that is clicked, a request that is sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import textwrap
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from inboxed import Inboxed, inboxing

DOC = (Path(__file__).parents[2] / "docs" / "inbox.md").read_text("utf-8")
WRITTEN = "http://127.0.0.1:8470"  # the address that the examples have
BLOCKS = [
    (language, code)
    for language, code in re.findall(r"^```(\w+)\n(.*?)^```", DOC, re.M | re.S)
    if "api/mails" in code or language == "js"
]
MAIL = b"From: shop@example.com\r\nTo: bob@example.net\r\nSubject: 482911 is your code\r\n\r\n%b\r\n"
LINK = b"https://shop.example/confirm/7"

PLAYED = """
const fetched = async (url, query) => {
  const answer = await fetch(`${url}?${new URLSearchParams(query)}`);
  const text = await answer.text();
  return { ok: () => answer.ok, text: async () => text, json: async () => JSON.parse(text), body: JSON.parse(text) };
};
const say = (what, value) => console.log(JSON.stringify([what, value]));
const page = {
  goto: async (url) => say("goto", url),
  fill: async (_, value) => say("fill", value),
  click: async (what) => say("click", what),
};
const request = { get: (url, { params }) => fetched(url, params) };
const expect = (value, message) => ({ toBe: (other) => { if (value !== other) throw new Error(message); } });
const test = (name, run) => run({ page, request }).catch((wrong) => { say("failed", String(wrong)); process.exit(1); });
const address = "bob@example.net";
const cy = {
  request: ({ url, qs, timeout }) => ({
    its: (path) => ({
      then: async (next) => {
        if (timeout !== 15000) throw new Error("Cypress itself ends after 30 s");
        const answer = await fetched(url, qs);
        next(path.split(".").reduce((value, name) => value[name], answer));
      },
    }),
  }),
  visit: (url) => say("goto", url),
};
"""


def examples(language: str) -> list[str]:
    found = [code for name, code in BLOCKS if name == language]
    assert found, language
    return found


def at(code: str, box: Inboxed) -> str:
    return code.replace(WRITTEN, box.url)


def here(*tools: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")


def test_every_example_is_run() -> None:
    assert sorted(language for language, _ in BLOCKS) == ["bash", "js", "python"]


@asynccontextmanager
async def running(*words: str, box: Inboxed) -> AsyncIterator[Any]:
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    process = await asyncio.create_subprocess_exec(*words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


async def test_curl() -> None:
    here("sh", "curl", "jq")
    [code] = examples("bash")
    async with asyncio.timeout(60), inboxing() as box:
        async with running("sh", "-e", "-c", at(code, box), box=box) as process:
            await box.inbox.until_waiting(1)
            box.put(MAIL % b"Hello")
            out, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
        subject, _, rest = out.decode().partition("\n")
        assert subject == "482911 is your code"
        assert json.loads(rest)["deleted"] == 1


async def test_curl_as_sh_reads_it() -> None:
    """Where there is no jq, at least its syntax."""
    for code in examples("bash"):
        process = await asyncio.create_subprocess_exec("sh", "-n", "-c", code, stdout=PIPE, stderr=PIPE)
        assert await process.communicate() == (b"", b"")


async def test_python() -> None:
    [code] = examples("python")
    async with inboxing() as box:
        known: dict[str, Any] = {"httpx": httpx, "re": re, "INBOX": box.url}
        exec(compile(code, "inbox.md", "exec"), known)
        asked = asyncio.create_task(asyncio.to_thread(known["code_for"], "bob@example.net"))
        await box.inbox.until_waiting(1)
        box.put(MAIL % b"Hello")
        assert await asked == "482911"


def _node(name: str, box: Inboxed) -> str:
    """The part of the example behind a comment with that name."""
    [code] = examples("js")
    parts = dict(re.findall(r"^// (\w+)\n(.*?)(?=^// |\Z)", code, re.M | re.S))
    assert set(parts) == {"Playwright", "Cypress"}
    return f"{PLAYED}\n{{\n{textwrap.indent(at(parts[name], box), '  ')}\n}}"


@pytest.mark.parametrize("name", ["Playwright", "Cypress"])
async def test_node(name: str, tmp_path: Path) -> None:
    here("node")
    async with asyncio.timeout(60), inboxing() as box:
        program = tmp_path / "example.mjs"
        program.write_text(_node(name, box))
        async with running("node", str(program), box=box) as process:
            await box.inbox.until_waiting(1)
            told = "bob@example.net"
            if name == "Playwright":
                seen = dict([json.loads(await process.stdout.readline()) for _ in range(3)])
                assert (seen["goto"], seen["click"]) == ("/sign-up", "text=Sign up")
                told = seen["fill"]
            box.put(MAIL % LINK, told)
            out, err = await process.communicate()
        assert (process.returncode, err) == (0, b""), out
        assert json.loads(out) == ["goto", LINK.decode()]

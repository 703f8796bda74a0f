"""`streamq up` in a browser: what was XADDed is looked at, on a real run; the inbox's pictures of docs/ are of it."""

from __future__ import annotations

import asyncio
import base64
import json
import shlex
import shutil
import signal
import struct
import tempfile
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from chromium import BROWSER, WHY_NOT, Page, browsing
from cli.shell import program, told
from redis.asyncio import Redis
from test_web_pictures import PICTURES, WRITES, _kept

pytestmark = pytest.mark.skipif(BROWSER is None, reason=WHY_NOT)

ORDER = """<!doctype html><html><body style="margin:0;background:#eef1f5;font-family:Helvetica,Arial,sans-serif">
<table role="presentation" width="100%"><tr><td align="center" style="padding:24px">
<table role="presentation" width="520" style="background:#fff;border-radius:8px"><tr><td style="padding:28px">
<img src="cid:logo" width="160" height="40" alt="Nordlicht">
<h1 style="font-size:22px;color:#16324f">Thank you, Zoë!</h1>
<p style="color:#33475b;line-height:1.5">
Your order <b>2041</b> leaves our house today. It has two lamps and a blue coat.</p>
<p><a href="https://shop.example/orders/2041" style="background:#1d4ed8;color:#fff;padding:12px 20px;border-radius:6px;
text-decoration:none;display:inline-block">See your order</a></p>
<p style="color:#7b8794;font-size:12px">Nordlicht, Harbour Street 7, Bergen</p>
<script>document.body.textContent = "pwned"</script></td></tr></table></td></tr></table></body></html>"""
MAILS: tuple[dict[str, str], ...] = (
    {
        "from": "Nordlicht Newsletter <news@shop.example>",
        "to": "ann@example.org",
        "subject": "Ten lamps for long nights",
        "html": "<h1>Long nights</h1>",
    },
    {
        "from": "security@shop.example",
        "to": "bob@example.net",
        "subject": "A new sign-in from Bergen",
        "text": "Was it you?",
    },
    {
        "from": "Nordlicht <login@shop.example>",
        "to": "zoe@example.com",
        "subject": "482911 is your code",
        "text": "482911",
    },
    {
        "from": "Billing <billing@shop.example>",
        "to": "ann@example.org",
        "subject": "Rechnung für November",
        "text": "Anbei.",
    },
    {
        "from": "Nordlicht <orders@shop.example>",
        "to": "zoe@example.com",
        "subject": "Your order 2041 is on its way",
        "html": ORDER,
        "text": "Thank you, Zoë! Your order 2041 leaves our house today.",
    },
)


def logo() -> bytes:
    """A PNG of 160 by 40."""
    rows = b"".join(
        b"\0" + b"".join(bytes((20 + x // 2, 60 + x // 3 + 2 * y, 120 + x // 2)) for x in range(160)) for y in range(40)
    )
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 160, 40, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.fixture
async def up(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, str]]:
    """What it prints, by name."""
    folder = tempfile.mkdtemp(prefix="sq-")
    process = await program("up", "--port", "0", "--smtp-port", "0", environment={"XDG_STATE_HOME": folder})
    try:
        yield await told(process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.communicate()
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    assert process.returncode == 0


async def _add(said: dict[str, str]) -> str:
    """All mails by XADD, each when the one before is there; the id of the last."""
    files: list[dict[str, Any]] = [
        {"filename": "logo.png", "content_type": "image/png", "content_id": "logo", "disposition": "inline"},
        {"filename": "Rechnung 2041.pdf", "content_type": "application/pdf"},
    ]
    for file, data in zip(files, (logo(), b"%PDF-1.7\n" + bytes(20_000)), strict=True):
        file["content"] = base64.b64encode(data).decode()
    client = Redis(unix_socket_path=shlex.split(said["queue"])[2])
    id_ = "0"
    async with httpx.AsyncClient(base_url=said["page"].split()[0], timeout=90) as http:
        for mail in MAILS:
            known = mail | ({"attachments": json.dumps(files)} if "2041" in mail["subject"] else {})
            await client.xadd("{streamq}:normal", known)  # type: ignore[arg-type]
            after = {"after": id_} if id_ != "0" else {}
            id_ = (await http.get("/api/mails/wait", params={"timeout": "1m", **after})).json()["id"]
    await client.aclose()
    return id_


async def _opened(page: Page) -> Page:
    """The frame of the mail that is opened, once its own picture is there."""
    await page.until("return document.querySelector('iframe')")
    assert await page.until_frame("document.images.length && document.images[0].complete") is True
    frame = await page.frame()
    assert await frame.run("document.images[0].naturalWidth") == 160
    return frame


async def test_what_was_xadded_is_looked_at_and_pictured(up: dict[str, str], tmp_path: Path) -> None:
    id_ = await _add(up)
    folder = PICTURES if WRITES else tmp_path
    async with AsyncExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="sq-", ignore_cleanup_errors=True))
        browser = await stack.enter_async_context(browsing(Path(place)))
        page = await browser.page(up["page"].split()[0])
        await page.until("return document.querySelector('#link').dataset.up === 'yes'")
        await page.click("header a")  # the two pages lead to each other
        await page.until("return document.querySelectorAll('#list li').length === 5")
        found = await page.run("[...document.querySelectorAll('#list .what')].map((e) => e.innerText)")
        assert found == [mail["subject"] for mail in reversed(MAILS)]
        await page.click("#list a")
        frame = await _opened(page)
        assert "Thank you, Zoë!" in await frame.text("body")
        assert await page.run("[...document.querySelectorAll('#files a')].map((e) => e.innerText)") == [
            "logo.png",
            "Rechnung 2041.pdf",
        ]
        await page.until("return document.title === '(4) inbox – streamq'")
        assert page.complaints == []
        for name, width, height, hash_ in (
            ("inbox-light", 1280, 900, f"#{id_}"),
            ("inbox-phone", 390, 844, ""),
            ("inbox-phone-mail", 390, 844, f"#{id_}"),
        ):
            page = await browser.page(f"{up['inbox']}{hash_}", width=width, height=height)
            await page.until("return document.querySelectorAll('#list li').length === 5")
            if hash_:
                await _opened(page)
            await page.run("document.activeElement?.blur()")
            await page.run("scrollTo(0, 0)")
            _kept(folder, name, await page.picture())

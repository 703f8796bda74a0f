"""The pictures of docs/: `top` and the page of a real run, on real servers with real workers, of mail that flows.

`PICTURES=1 pytest tests/web/test_web_pictures.py` makes them, in some minutes (the charts go over time). Without it the
same programs run until everything that a picture shows has happened, and what they would have shown is looked at.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import os
import random
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from chromium import BROWSER, WHY_NOT, Browser, Page, browsing
from paged import unlock
from rich.console import Console
from webbed import TOKEN

from bench.programs import programs, until
from streamq.cli import top
from streamq.queue.check import check
from streamq.queue.connection import command, pipelined
from streamq.queue.look import status
from streamq.queue.pulse import Look, Pulse
from streamq.queue.spool import Spool
from streamq.settings import load_settings

WRITES = os.environ.get("PICTURES") == "1"
SECONDS = 360 if WRITES else 0
pytestmark = [pytest.mark.skipif(BROWSER is None, reason=WHY_NOT), pytest.mark.timeout(300 + 2 * SECONDS)]
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"

SITES = {  # of a hundred mails
    "gmail.com": 27,
    "outlook.com": 17,
    "yahoo.com": 11,
    "web.de": 9,
    "icloud.com": 8,
    "gmx.de": 6,
    "orange.fr": 5,
    "busy.example": 5,
    "gone.example": 2,
    "corp.example": 2,
    "example.net": 8,
}
WORKER = """
retry = "40s,3m,10m"
[sites."gmail.com"]
rate = ["12/s"]
connections = 4
[sites."outlook.com"]
rate = ["30/s", "60000/h"]
"""
SINK = """
[[rule]]
match = "*@busy.example"
stage = "rcpt"
times = 1
reply = "450 4.2.0 Greylisted, please try again later"

[[rule]]
match = "*@gone.example"
stage = "rcpt"
reply = "550 5.1.1 No such user here"

[[rule]]
match = "*@corp.example"
stage = "rcpt"
reply = "554 5.7.1 Message refused by policy"

[[rate]]
per = "all"
match = "*@yahoo.com"
stage = "rcpt"
most = {}
seconds = 1.0
reply = "450 4.7.1 Too much mail for yahoo.com, slow down"
"""


async def _produced(spool: Spool, chance: random.Random) -> None:
    """A shop's mail, half a second's at a time, in waves; until it is cancelled."""
    nth = 0
    while True:
        asked = []
        for _ in range(round(30 + 14 * math.sin(nth / 900) + chance.uniform(-4, 4))):
            nth += 1
            [site] = chance.choices(list(SITES), list(SITES.values()))
            [priority] = chance.choices(("high", "normal", "low"), (10, 60, 30))
            fields = ("id", f"order-{nth}", "from", "shop@example.com", "to", f"customer{nth}@{site}")
            text = ("subject", f"Your order {nth}", "text", "Dear customer,\n\nthank you. It leaves our house today.\n")
            asked.append(("XADD", spool.keys.stream(priority), "*", *fields, *text))
        await pipelined(spool.redis, asked)
        await asyncio.sleep(0.5)


@asynccontextmanager
async def _running() -> AsyncIterator[tuple[Spool, str]]:
    """Server, sink, two workers, `serve`, and a producer; where the page is."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sqb-", ignore_cleanup_errors=True))
        p = await stack.enter_async_context(programs(Path(folder)))
        await p.sink(SINK.format(5 if WRITES else 2))  # with fewer it happens sooner
        spool = await Spool.connect(load_settings(), p.url)
        stack.push_async_callback(spool.close)
        for _ in range(2):
            await p.worker(WORKER)
        serve = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "streamq", "--redis-url", p.url, "serve", "--port", "0"),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "STREAMQ_WEB_TOKEN": TOKEN},
        )

        async def end() -> None:
            serve.terminate()
            await serve.communicate()

        stack.push_async_callback(end)
        assert serve.stdout is not None
        url = (await serve.stdout.readline()).decode().split()[1]
        await spool.scripts.pause("pause", ["*|web.de"], reason="they asked us to wait until their move is done")
        producer = asyncio.create_task(_produced(spool, random.Random(7)))
        yield spool, url
        producer.cancel()
        await asyncio.gather(producer, return_exceptions=True)
        assert await p.stop_workers() == [0, 0]
        assert (await check(spool)).clean


async def _happened(spool: Spool) -> bool:
    now = await status(spool)
    kinds = {"relayed", "deferred", "throttled", "bounced"}
    return kinds <= now.totals.keys() and min(now.sum("parked"), now.sum("scheduled"), now.dead) > 0


async def test_pictures(tmp_path: Path) -> None:
    folder = PICTURES if WRITES else tmp_path
    async with _running() as (spool, url), AsyncExitStack() as stack:
        await until(lambda: _happened(spool))
        pulse = Pulse(spool, ["relay"], 60)
        stack.push_async_callback(pulse.close)
        look = await _looked(pulse)
        drawn = _terminal(look, list(pulse.relayed))
        for words in ("queue streamq", "in ", "yahoo.com", "relay"):
            assert words in drawn.replace("&#160;", " "), words
        (folder / "top.svg").write_text(drawn, "utf-8")
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="sq-", ignore_cleanup_errors=True))
        browser: Browser = await stack.enter_async_context(browsing(Path(home)))
        for name, how in {
            "page-light": {"height": 1560},
            "page-dark": {"dark": True, "height": 1560},
            "page-phone": {"width": 390, "height": 1200},
        }.items():
            page = await _unlocked(browser, url, **how)
            await page.until("return document.querySelectorAll('#dead tbody tr[data-key]').length > 1")
            await page.until("return document.querySelector('#sites').innerText.includes('yahoo.com')")
            _kept(folder, name, await page.picture())
            assert page.complaints == []
        page = await _unlocked(browser, url, height=900)
        await _find(page, await _retried(spool))
        text = await page.text("#story")
        assert "deferred greylisted" in " ".join(text.split())
        await page.run("document.querySelector('#story-section').scrollIntoView()")
        _kept(folder, "page-story", await page.picture())


async def _looked(pulse: Pulse) -> Look:
    """With rates; of pictures that are kept, with the bars of some minutes."""
    look = await pulse.look()
    end = asyncio.get_running_loop().time() + SECONDS
    while look.flow is None or asyncio.get_running_loop().time() < end:
        await asyncio.sleep(2 if WRITES else 0.05)
        look = await pulse.look()
    return look


def _terminal(look: Look, relayed: list[float]) -> str:
    """What `streamq top` shows on a terminal of this size."""
    recorded = Console(record=True, width=112, height=34, file=io.StringIO(), force_terminal=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(top, "console", recorded)
        recorded.print(top.screen("streamq", look, relayed, 32))
    return recorded.export_svg(title="streamq top")


async def _unlocked(browser: Browser, url: str, **how: Any) -> Page:
    page = await browser.page(url, **how)
    await page.until("return document.querySelector('#link').dataset.up === 'yes'")
    await unlock(page)
    await page.run("document.querySelector('#said').textContent = ''")
    await page.run("scrollTo(0, 0)")
    return page


async def _retried(spool: Spool) -> str:
    """A mail that waits for its second attempt, or has made it."""
    for _, flat in await command(spool.redis, "XREVRANGE", spool.keys.events, "+", "-", "COUNT", 5000):
        if flat[1] == b"email.deferred" and b'"greylisted"' in flat[5]:
            return str(flat[3].decode())
    raise AssertionError("nothing was deferred")


async def _find(page: Page, id_: str) -> None:
    said = json.dumps(id_)
    await page.run(f"(() => {{ const e = document.querySelector('#search-id'); e.value = {said}; e.focus(); }})()")
    await page.key("Enter")
    await page.until("return document.querySelector('#story-events li')")


def _kept(folder: Path, name: str, picture: bytes) -> None:
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000  # an empty page is smaller
    (folder / f"{name}.png").write_bytes(picture)

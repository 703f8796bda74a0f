"""Many tabs of one browser, which has six connections to a server for all of them (HTTP/1.1)."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from chromium import BROWSER, WHY_NOT, Browser, Page, browsing
from inboxed import received
from mailroom import Mailroom
from paged import unlock
from webbed import TOKEN

from streamq.inbox import Inbox
from streamq.queue.overview import Overviews
from streamq.settings import Place
from streamq.web.inbox import both, inbox_app
from streamq.web.inbox_api import Desk
from streamq.web.listener import listening
from streamq.web.serve import queue_app

pytestmark = [pytest.mark.leaves_mail, pytest.mark.skipif(BROWSER is None, reason=WHY_NOT)]

MANY = 8
LIVE = "return document.querySelector('#link').innerText === 'live'"


class Tabs:
    """Page and inbox under one address; `streams`: how many are open, by their paths."""

    def __init__(self, browser: Browser, context: str, room: Mailroom, inbox: Inbox) -> None:
        self.browser = browser
        self.context = context
        self.room = room
        self.inbox = inbox
        self.url = ""
        self.streams: list[str] = []
        self._moved = asyncio.Event()

    def move(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def until_streams(self, many: int) -> None:
        """One that was dropped is found out when something is to be sent."""
        while len(self.streams) != many:
            await self._moved.wait()

    async def open(self, path: str = "/") -> Page:
        page = await self.browser.page(f"{self.url}{path}", context=self.context)
        await page.until(LIVE)
        return page


@pytest.fixture
async def tabs(room: Mailroom) -> AsyncIterator[Tabs]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sq-", ignore_cleanup_errors=True))
        overviews = Overviews(room.spool)
        stack.push_async_callback(overviews.close)
        stopping = asyncio.Event()
        desk = Desk(Inbox(100, 1_000_000), stopping)
        app = both(queue_app(overviews, token=TOKEN, stopping=stopping, inbox=True), inbox_app(desk, beside=True))

        async def counted(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
            path = scope.get("path", "")
            if not path.endswith("/stream"):
                return await app(scope, receive, send)
            found.streams.append(path)
            found.move()
            try:
                return await app(scope, receive, send)
            finally:
                found.streams.remove(path)
                found.move()

        place = await stack.enter_async_context(listening(counted, Place("127.0.0.1", 0), "--port", stopping))
        browser = await stack.enter_async_context(browsing(Path(folder)))
        found = Tabs(browser, await browser.context(), room, desk.inbox)
        found.url = f"http://{place}"
        yield found


async def test_eight_tabs_all_show_and_a_click_acts(tabs: Tabs) -> None:
    pages = [await tabs.open("/inbox" if n % 2 else "/") for n in range(MANY)]
    await tabs.room.parked(lane="relay|example.net")
    tabs.inbox.add(received(b"Subject: to all tabs\r\n\r\n"))
    for n, page in enumerate(pages):  # what happens later comes to each of them, too
        if n % 2:
            await page.until("return document.querySelector('#list').innerText.includes('to all tabs')")
        else:
            await page.until("return document.querySelector('#tile-live').innerText === '1'")
    page = pages[-2]
    await page.call("Page.bringToFront")
    await unlock(page)
    await page.click("#routes button[aria-label='Pause route relay']")
    await page.until("return document.querySelector('#dialog').open")
    await page.click("#dialog-yes")
    for each in pages[::2]:
        await each.until("return document.querySelector('#routes').innerText.includes('paused')")
    assert await tabs.room.do("HEXISTS", "{streamq}:pauses", "relay") == 1
    for each in pages:
        assert each.complaints == []


@pytest.mark.parametrize("locks", [True, False])
async def test_the_stream_is_of_one_that_is_looked_at(tabs: Tabs, locks: bool) -> None:
    """Without locks (beyond loopback without TLS) each that is looked at has its own."""
    first, second = [await _plain(tabs, locks) for _ in range(2)]  # the second lies over the first
    assert await first.run("document.visibilityState") == "hidden"
    await tabs.until_streams(1)
    await tabs.room.add("low")
    await second.until("return document.querySelector('#tile-live').innerText === '1'")
    if locks:  # what its title says is of now
        await first.until("return document.querySelector('#tile-live').innerText === '1'")
    await first.call("Page.bringToFront")
    await tabs.room.add("low")
    await first.until("return document.querySelector('#tile-live').innerText === '2'")
    # whoever has it may go: the other one takes it
    await first.call("Page.navigate", url="about:blank")
    await second.call("Page.bringToFront")
    await tabs.room.add("low")
    await second.until("return document.querySelector('#tile-live').innerText === '3'")
    assert second.complaints == []


async def _plain(tabs: Tabs, locks: bool) -> Page:
    page = await tabs.browser.page("about:blank", context=tabs.context)
    if not locks:
        source = "Object.defineProperty(Navigator.prototype, 'locks', {get: () => undefined})"
        await page.call("Page.addScriptToEvaluateOnNewDocument", source=source)
    await page.call("Page.navigate", url=tabs.url)
    await page.until(LIVE)
    return page

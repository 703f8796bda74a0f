"""A queue in every state, and its page in a browser; `shown` is for the modules that name it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from chromium import Page, browsing
from mailroom import DAY, Mailroom
from webbed import TOKEN

from streamq.queue.overview import Overviews
from streamq.settings import Place
from streamq.web.listener import listening
from streamq.web.serve import queue_app

__all__ = ["Open", "cells", "confirmed", "filled", "shown", "unlock"]

CELLS = "[...document.querySelectorAll('#{} tbody tr')].map((tr) => [...tr.children].map((c) => c.innerText.trim()))"


async def unlock(page: Page) -> None:
    """By the token, as people do."""
    await page.click("#lock")
    await page.until("return document.querySelector('#dialog').open")
    await page.write(TOKEN)
    await page.key("Enter")
    await page.until("return document.querySelector('#lock').innerText === 'Lock'")


async def confirmed(page: Page, **fields: str) -> None:
    """What a dialog asks: filled in, said yes to, and it is gone."""
    await page.until("return document.querySelector('#dialog').open")
    for name, value in fields.items():
        await page.run(f"document.querySelector('#field-{name}').focus()")
        await page.write(value)
    await page.click("#dialog-yes")
    await page.until("return !document.querySelector('#dialog').open")


class Open:
    """A queue in every state, its page in a browser."""

    def __init__(self, room: Mailroom, overviews: Overviews, url: str, browser: Any) -> None:
        self.room = room
        self.overviews = overviews
        self.url = url
        self.browser = browser

    async def page(self, **how: Any) -> Page:
        page: Page = await self.browser.page(self.url, **how)
        await page.until("return document.querySelector('#link').dataset.up === 'yes'")
        return page

    async def unlocked(self, **how: Any) -> Page:
        page = await self.page(**how)
        await unlock(page)
        return page


@pytest.fixture
async def shown(room: Mailroom) -> AsyncIterator[Open]:
    seconds, _ = await room.do("TIME")
    room.to(int(seconds) * 1000 - 90_000)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sq-", ignore_cleanup_errors=True))
        overviews = Overviews(room.spool)
        stack.push_async_callback(overviews.close)
        stopping = asyncio.Event()
        app = queue_app(overviews, token=TOKEN, stopping=stopping)
        place = await stack.enter_async_context(listening(app, Place("127.0.0.1", 0), "--port", stopping))
        browser = await stack.enter_async_context(browsing(Path(folder)))
        yield Open(room, overviews, f"http://{place}/", browser)


async def cells(page: Page, table: str) -> list[list[str]]:
    found: list[list[str]] = await page.run(CELLS.format(table))
    return found


async def filled(room: Mailroom) -> dict[str, str]:
    """Mails in every state, closed and slowed sites, dead letters; entries by name."""
    await room.spool.publish_adapt()
    await room.spool.touch("mail1-4711-9f3a01")
    await room.scripts.leader("keeper", "mail1-4711-9f3a01", 60_000)
    await room.well("relay")
    found: dict[str, str] = {}
    for name, site, many in (("high", "gmail.com", 2), ("normal", "yahoo.com", 40), ("low", "example.net", 160)):
        for n in range(many):
            to = f"b{n}@{site}"
            found[f"parked-{site}-{n}"] = await room.parked(name, lane=f"relay|{site}", to=to, id=f"{site}-{n}")
    slow = await room.lease(lane="relay|orange.fr", to="claire@orange.fr", id="slow-1")
    said = "421 4.7.0 too many messages, slow down"
    assert await room.settled("throttled", slow, lane="relay|orange.fr", reply=said, took=40.0) == "ok"
    for n in range(3):
        await room.scheduled("low", id=f"later-{n}", after=DAY)
    await room.held(id="odd-1")
    for n in range(5):
        lease = await room.lease(lane="relay|icloud.com", to=f"gone{n}@icloud.com", id=f"dead-{n}")
        said = "550 5.1.1 no such user here"
        tail = b'"route":"relay","class":"bad_address","code":550,"reply":"550 5.1.1 no such user here","attempt":1'
        known = {"class": "bad_address", "reason": f"rcpt: {said}", "reply": said}
        found[f"dead-{n}"] = lease.entry
        assert await room.settled("dead", lease, lane="relay|icloud.com", tail=tail, **known) == "ok"
    lease = await room.lease(lane="relay|corp.example", to="<img src=x onerror=alert(1)>@corp.example", id="policy-1")
    known = {"class": "policy", "reason": "<script>document.title='pwned'</script>", "reply": "550 5.7.1 <b>no</b>"}
    assert await room.settled("dead", lease, lane="relay|corp.example", **known) == "ok"
    retried = await room.lease(lane="relay|busy.example", to="bob@busy.example", id="retried")
    tail = b'"site":"busy.example","route":"relay","class":"greylisted","reply":"450 4.2.0 try later","attempt":1'
    later: dict[str, Any] = {"class": "greylisted", "reply": "450 4.2.0 try later", "wait": DAY}
    assert await room.settled("defer", retried, lane="relay|busy.example", tail=tail, **later) == "ok"
    sent = [await room.lease("high", lane="relay|sent.example", to=f"c{n}@sent.example") for n in range(12)]
    for lease in sent:
        assert await room.settled("sent", lease, lane="relay|sent.example") == "ok"
    await room.scripts.pause("pause", ["*|yahoo.com"], reason="they asked us to <i>wait</i>")
    for n in range(7):
        found[f"waiting-{n}"] = await room.add("high", id=f"new-{n}", to=f"d{n}@new.example")
    return found

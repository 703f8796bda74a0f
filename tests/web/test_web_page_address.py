"""The page in a real browser: from an address to its mails, why they wait, and 'go now', in two clicks."""

from __future__ import annotations

import json

import paged
import pytest
from chromium import BROWSER, WHY_NOT, Page
from mailroom import DAY, LANE
from paged import Open, confirmed

from streamq.queue import story

pytestmark = [pytest.mark.leaves_mail, pytest.mark.skipif(BROWSER is None, reason=WHY_NOT)]
shown = paged.shown
ANNA = "anna@example.net"


async def _typed(page: Page, word: str) -> None:
    said = json.dumps(word)
    await page.run(f"(() => {{ const e = document.querySelector('#search-id'); e.value = {said}; }})()")


async def test_two_clicks_from_an_address_to_go_now(shown: Open) -> None:
    room = shown.room
    entry = await room.scheduled(id="later", to="Anna <Anna@Example.net>", after=DAY)
    await room.scheduled(id="other", to="bob@example.net", after=DAY)
    lease = await room.lease(id="sent", to=ANNA)
    tail = b'"rcpt":"anna@example.net","site":"example.net","reply":"250 2.0.0 taken"'
    assert await room.settled("sent", lease, lane=LANE, tail=tail) == "ok"
    page = await shown.unlocked()
    await _typed(page, ANNA)
    await page.click("#search button")
    await page.until("return document.querySelector('#found-note')?.innerText.includes('looked at')")
    assert await page.text("#found-note") == "1 live mail to anna@example.net; all 2 looked at"
    assert "later is scheduled: for its time" in await page.text("#found")
    assert "250 2.0.0 taken" in await page.text("#found-ended")
    before = float(await room.do("ZSCORE", room.keys.schedule, entry))
    await page.click("#found button[aria-label='Retry now: later']")
    await page.until("return document.querySelector('#said').innerText === 'later: scheduled'")
    assert float(await room.do("ZSCORE", room.keys.schedule, entry)) < before - DAY / 2
    assert page.complaints == []


async def test_two_clicks_from_an_address_to_send_a_dead_one_again(shown: Open) -> None:
    room = shown.room
    lease = await room.lease(id="gone", to=ANNA, text="Hello")
    tail = b'"rcpt":"anna@example.net","site":"example.net","reply":"550 5.1.1 who"'
    assert await room.settled("dead", lease, lane=LANE, tail=tail, **{"class": "rejected"}) == "ok"
    page = await shown.page()
    await _typed(page, ANNA)
    await page.click("#search button")
    await page.until("return document.querySelector('#found-ended .buttons')")
    assert await page.run("[...document.querySelectorAll('#found-ended button')].map((e) => e.innerText)") == ["Look"]
    await page.click("#found-ended button")
    await page.until("return document.querySelector('#found-ended #letter-card')")
    assert "rejected" in await page.text("#letter-card")
    page = await shown.unlocked()
    for word, place in ((ANNA, "#found-ended"), ("gone", "#story-mail")):
        await _typed(page, word)
        await page.click("#search button")
        await page.until(f"return document.querySelector('{place} button[aria-label^=Requeue]')")
    await page.click("#story-mail button[aria-label='Requeue gone']")
    await confirmed(page)
    await page.until("return document.querySelector('#said').innerText === '1 letter requeued'")
    await page.until("return !document.querySelector('#story-mail button')")
    assert await room.letters() == []
    assert (await room.states()).popitem()[1] == "waiting"
    assert page.complaints == []


async def test_several_are_shown_as_they_come_and_go_together(shown: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    room = shown.room
    monkeypatch.setattr("streamq.web.api.ADDRESS_SECONDS", 0.0)  # a priority each look
    monkeypatch.setattr(story, "FOUND_MOST", 1)
    entries = [await room.scheduled(name, id=f"n-{name}", to=ANNA, after=DAY) for name in ("high", "normal", "low")]
    page = await shown.unlocked()
    await _typed(page, ANNA)
    await page.click("#search button")
    await page.until("return document.querySelectorAll('#found .found').length === 3")
    await page.until("return !document.querySelector('#found-on')")
    await page.click("#found-acts button")
    await page.until("return document.querySelector('#dialog').open")
    await page.click("#dialog-yes")
    await page.until("return document.querySelector('#said').innerText === '3 scheduled'")
    due = [float(await room.do("ZSCORE", room.keys.schedule, entry)) for entry in entries]
    seconds, _ = await room.do("TIME")
    assert max(due) < (int(seconds) + 60) * 1000
    assert page.complaints == []


async def test_an_id_like_an_address_is_an_id_and_without_the_token_nothing_can_be_done(shown: Open) -> None:
    await shown.room.add(id="order@shop.example", to="bob@example.net", tenant="acme")
    page = await shown.page()
    await _typed(page, "order@shop.example")
    await page.click("#search button")
    await page.until("return document.querySelector('#story-mail')")
    assert "It is waiting" in await page.text("#story")
    await shown.room.add(id="of@no@address", to="bob@example.net")
    await _typed(page, "of@no@address")
    await page.click("#search button")
    await page.until("return document.querySelector('#story-mail')?.innerText.includes('of@no@address')")
    await _typed(page, "bob@example.net")
    await page.click("#search button")
    await page.until("return document.querySelector('#found .found')")
    names = await page.run("[...document.querySelectorAll('#story button')].map((e) => e.innerText)")
    assert set(names) == {"Story"}

"""One mail on the page, in a real browser: its story, and what may be done with it."""

from __future__ import annotations

import json
import re

import paged
import pytest
from chromium import BROWSER, WHY_NOT, Page
from mailroom import DAY
from paged import Open, filled

pytestmark = [pytest.mark.leaves_mail, pytest.mark.skipif(BROWSER is None, reason=WHY_NOT)]
shown = paged.shown


async def _found(page: Page, id_: str) -> str:
    await page.run(
        f"(() => {{ const e = document.querySelector('#search-id'); e.value = {json.dumps(id_)}; e.focus(); }})()"
    )
    await page.key("Enter")
    done = "#story-mail, #story-error"
    title = json.dumps(f"Mail {id_}")
    await page.until(
        f"return document.querySelector('#story-title').innerText === {title} && document.querySelector('{done}')"
    )
    return await page.text("#story")


async def test_a_mails_story(shown: Open) -> None:
    entries = await filled(shown.room)
    page = await shown.page()
    text = await _found(page, "retried")
    assert text.startswith("It is scheduled: for its next attempt")
    assert "450 4.2.0 try later" in text
    lines = await page.run("[...document.querySelectorAll('#story-events li')].map((e) => e.innerText)")
    assert len(lines) == 1
    assert re.match(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\ddeferred greylisted · by relay · attempt 1", lines[0].replace("\n", "")
    )
    text = await _found(page, entries["parked-yahoo.com-3"])
    said = "paused by an operator until `streamq site resume`: they asked us to <i>wait</i>"
    assert text.startswith(f"It is parked: its site is {said}")  # as `streamq why` says it
    assert re.search(r"since\s+it came, \S+ \w+ ago; its site was closed \S+ \w+ ago", text)
    assert re.search(r"ahead\s+3 mails", text)
    text = await _found(page, entries["waiting-2"])
    assert text.startswith("It is waiting: to be read: no worker has come to it yet")
    assert re.search(r"ahead\s+2 mails", text)
    text = await _found(page, entries["dead-1"])
    assert "It is not in the queue any more: bounced" in text
    assert "550 5.1.1 no such user here" in text
    assert "no live mail has the entry" in await _found(page, "nobody")
    # where the search's answer is, a screen reader and the keyboard are, too
    assert await page.run("document.activeElement.id") == "story-title"


async def test_what_turns_text_around_is_seen(shown: Open) -> None:
    """A producer's id stands in the page's own lines, and in its dialogs."""
    odd = "abc\u202e123\u2066\u200f\u001b[2J\u0085"
    await shown.room.scheduled(id=odd, subject=f"invoice {odd}", to="odd@example.net", after=DAY)
    page = await shown.page()
    await page.run(
        "(() => { const e = document.querySelector('#search-id'); e.value = 'odd@example.net'; e.focus(); })()"
    )
    await page.key("Enter")
    await page.until("return document.querySelector('#found .card')")
    texts = "document.body.textContent + [...document.querySelectorAll('[aria-label]')].map((e) => e.ariaLabel)"
    shows = await page.run(texts)
    assert "invoice abc\\u202e123\\u2066\\u200f\\u001b[2J\\u0085" in shows
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c\u001b\u0080-\u009f]", shows)


async def test_a_mail_is_steered(shown: Open) -> None:
    room = shown.room
    entry = await room.scheduled(id="later", after=DAY)
    page = await shown.unlocked()
    await _found(page, "later")
    await page.run("[...document.querySelectorAll('#story-mail button')].find((e) => e.innerText === 'Hold').focus()")
    await page.key("Enter")
    await page.until("return document.querySelector('#dialog').open")
    assert await page.run("document.activeElement.innerText") == "Back"  # what an Enter too many does no harm to
    await page.key("Tab")
    await page.key("Enter")
    await page.until("return document.querySelector('#story').innerText.startsWith('It is held')")
    assert await room.state(entry) == "held"


async def test_what_is_long_hides_no_button_and_is_whole_when_somebody_asks(shown: Open) -> None:
    """A subject of 2,000 characters without a space: in a mail's card, an address' and a dead letter's, by keyboard."""
    room = shown.room
    word = "x" * 1999 + "\N{PILE OF POO}"
    await room.scheduled(id="long", to="anna@example.net", subject=word, after=DAY)
    lease = await room.lease(lane="relay|a.example", to="bob@a.example", id="dead", subject=word)
    known = {"class": "policy", "reason": "550 5.7.1 no"}
    assert await room.settled("dead", lease, lane="relay|a.example", **known) == "ok"
    page = await shown.unlocked(width=390, height=800)
    await page.until("return document.querySelector('#dead [aria-label^=Look]')")
    await page.run("document.querySelector('#dead [aria-label^=Look]').click()")
    await page.until("return document.querySelector('#letter .buttons')")
    await _found(page, "long")
    await _buttons_first(page, "#story-mail", word)
    await _buttons_first(page, "#letter-card", word)
    await page.run("document.querySelector('#search-id').value = 'anna@example.net'")
    await page.click("#search button")
    await page.until("return document.querySelector('#found .card')")
    await _buttons_first(page, "#found .card", word)
    assert page.complaints == []


async def _buttons_first(page: Page, card: str, word: str) -> None:
    place = f"document.querySelector({json.dumps(card)})"
    assert await page.run(
        f"Math.max(...[...{place}.querySelectorAll('button')].map((e) => e.getBoundingClientRect().bottom))"
        f" < {place}.querySelector('dl').getBoundingClientRect().top"
    )
    assert await page.run(f"{place}.querySelector('details').offsetHeight") < 300
    assert word not in await page.text(card)
    await page.run(f"{place}.querySelector('summary').focus()")
    await page.key("Enter")
    await page.until(f"return {place}.querySelector('details').open")
    assert word in await page.text(card)
    assert await page.run("document.documentElement.scrollWidth") == 390

"""The page by keyboard, for a screen reader, in the dark, on a phone."""

from __future__ import annotations

import json

import paged
import pytest
from chromium import BROWSER, WHY_NOT
from paged import Open, filled
from readable import CONTRAST, fits_phones

pytestmark = [pytest.mark.leaves_mail, pytest.mark.skipif(BROWSER is None, reason=WHY_NOT)]
shown = paged.shown


async def test_by_keyboard_and_for_a_screen_reader(shown: Open) -> None:
    await filled(shown.room)
    page = await shown.unlocked()
    await page.until("return document.querySelectorAll('#dead tbody tr[data-key]').length === 2")
    tree = await page.tree()
    assert [name for role, name in tree if role in {"button", "searchbox", "textbox"} and not name] == []
    for role, name in (
        ("heading", "Mail flows, with trouble"),
        ("button", "Resume site yahoo.com"),
        ("table", "Sites"),
        ("columnheader", "all gone in"),
        ("rowheader", "yahoo.com"),
        ("searchbox", "Mail: an address, an id, or an entry"),
    ):
        assert (role, name) in tree, (role, name)
    await page.run("document.querySelector('.skip').focus()")
    reached = set()
    for _ in range(60):
        await page.key("Tab")
        reached.add(
            await page.run("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText")
        )
    assert {"Find", "Lock", "Pause route relay", "Resume site yahoo.com", "Limit site gmail.com"} <= reached


async def test_who_has_the_focus_keeps_it_while_numbers_change(shown: Open) -> None:
    await filled(shown.room)
    page = await shown.unlocked()
    await page.run("document.querySelector(\"#sites button[aria-label='Resume site yahoo.com']\").focus()")
    before = await page.text("#tile-live")
    await shown.room.do("XADD", "{streamq}:low", "*", "to", "x@example.net")
    await page.until(f"return document.querySelector('#tile-live').innerText !== {json.dumps(before)}")
    assert await page.run("document.activeElement.getAttribute('aria-label')") == "Resume site yahoo.com"


@pytest.mark.parametrize("dark", [False, True])
async def test_text_can_be_read_on_its_ground(shown: Open, dark: bool) -> None:
    """WCAG 2.1, 1.4.3: 4.5 to 1."""
    await filled(shown.room)
    page = await shown.page(dark=dark)
    await page.until("return document.querySelectorAll('#dead tbody tr[data-key]').length === 2")
    wrong = await page.run(CONTRAST)
    assert wrong == []


async def test_on_a_phone_all_is_in_sight(shown: Open) -> None:
    """Each row is a card, its buttons too, whatever is long; a screen reader is told of tables all the same."""
    room = shown.room
    await filled(room)
    word = "x" * 2000  # without a space
    lane = f"relay|{'y' * 60}.{'z' * 60}.example"
    long = await room.lease(lane=lane, to=f"bob@{lane.partition('|')[2]}", id="long-1", subject=word)
    assert await room.settled("dead", long, lane=lane, **{"class": "policy", "reason": word[:500]}) == "ok"
    await room.parked(lane=lane, to="bob@example.net", id="long-2", subject=word)
    for dark in (False, True):
        page = await shown.unlocked(width=390, height=800, dark=dark)
        await page.until("return document.querySelectorAll('#dead tbody tr[data-key]').length === 3")
        await page.run("document.querySelector('#dead [data-key*=xxx] [aria-label^=Look]').click()")
        await page.until("return document.querySelector('#letter .buttons')")
        await fits_phones(page, CONTRAST)
    tree = await page.tree()
    for known in (("table", "Sites"), ("columnheader", "all gone in"), ("rowheader", "yahoo.com"), ("cell", "40")):
        assert known in tree, known
    told = await page.run("getComputedStyle(document.querySelector('#depth td'), '::before').content")
    assert told.startswith('"waiting"')


async def test_on_a_phone_the_age_of_unread_mail_is_in_sight(shown: Open) -> None:
    """Without a finger on the table, with its name."""
    await shown.room.add()
    page = await shown.page(width=390, height=800)
    await page.until("return document.querySelector('#tile-live').innerText === '1'")
    cell = "document.querySelector('#depth [data-key=normal] [data-label=\"longest unread\"]')"
    assert 0 < await page.run(f"{cell}.getBoundingClientRect().right") <= 390
    assert await page.run(f"{cell}.innerText") not in {"", "–"}


async def test_numbers_that_change_are_not_read_aloud_again(shown: Open) -> None:
    page = await shown.page()
    await shown.room.held()
    await shown.overviews.get(anew=True)
    live = "return document.querySelector('#troubles').getAttribute('aria-live')"
    await page.until("return document.querySelector('#troubles').innerText.includes('1 mail held')")
    assert await page.until(live) == "polite"
    for many in (2, 3):
        await shown.room.held()
        await shown.overviews.get(anew=True)
        await page.until(f"return document.querySelector('#troubles').innerText.includes('{many} mails held')")
    assert await page.until(live) == "off"

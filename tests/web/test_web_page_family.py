"""The page in a real browser: a mail to several recipients by its own id, and what is done to all that it became."""

from __future__ import annotations

import json

import paged
import pytest
from chromium import BROWSER, WHY_NOT
from family import TO, end, expanded, parent
from paged import Open, confirmed

pytestmark = [pytest.mark.leaves_mail, pytest.mark.skipif(BROWSER is None, reason=WHY_NOT)]
shown = paged.shown


async def test_what_it_became_is_there_and_one_button_is_for_all(shown: Open) -> None:
    room = shown.room
    lease = await parent(room)
    children = await expanded(room, lease, tail=b'"tenant":"acme"')
    assert await end(room, "dead", children[0], rcpt=TO[0]) == "ok"
    page = await shown.unlocked()
    for field, word in (("id", "a1"), ("tenant", "acme")):
        await page.run(f"(() => {{ document.querySelector('#search-{field}').value = {json.dumps(word)}; }})()")
    await page.click("#search button")
    await page.until("return document.querySelector('#story-family')")
    said = "It became one mail for each of its 5 recipients: 4 live mails"
    assert (await page.text("#story-family")).startswith(said)
    cards = await page.run("[...document.querySelectorAll('#found .card')].map((e) => e.dataset.entry)")
    assert cards == children[1:]
    assert "bob2@example.net" in await page.text(f"#found [data-entry='{children[1]}']")
    assert "bounced" in await page.text("#found-ended")
    await page.click("#found-ended button[aria-label^='Look at the dead letter']")
    await page.until("return document.querySelector('#found-ended #letter-card')")
    assert TO[0] in await page.text("#letter-card")
    await page.click(f"#found [data-entry='{children[1]}'] button[aria-label='Cancel: a1#2']")
    await confirmed(page)
    await page.until("return document.querySelector('#said').innerText.startsWith('a1#2: ')")
    await page.click("#story-family .buttons button:last-child")
    await page.until("return document.querySelector('#dialog').open")
    assert "one mail for each of its 5 recipients" in await page.text("#dialog")
    names = await page.run("[...document.querySelectorAll('#dialog button')].map((e) => e.innerText)")
    assert names == ["Back", "Cancel"]
    await confirmed(page)
    await page.until("return document.querySelector('#said').innerText.startsWith('a1: 4 ')")
    asked = await room.do("HGETALL", room.keys.holds)
    assert set(await room.states()) == {name.decode().removeprefix("intent:") for name in asked[::2]}
    assert set(asked[1::2]) <= {b"cancel"}
    assert page.complaints == []

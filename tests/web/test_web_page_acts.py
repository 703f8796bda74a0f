"""The page in a real browser: acts act on Redis, and there are none without the token."""

from __future__ import annotations

import json

import paged
import pytest
from chromium import BROWSER, WHY_NOT
from paged import Open, cells, confirmed, filled

pytestmark = [pytest.mark.leaves_mail, pytest.mark.skipif(BROWSER is None, reason=WHY_NOT)]
shown = paged.shown


async def test_without_the_token_there_is_nothing_to_press(shown: Open) -> None:
    await filled(shown.room)
    page = await shown.page()
    await page.until("return document.querySelectorAll('#dead tbody tr[data-key]').length === 2")
    names = set(
        await page.run(
            "[...document.querySelectorAll('main button')].filter((e) => e.offsetParent).map((e) => e.innerText)"
        )
    )
    assert names == {"Look"}
    await page.click("#lock")
    await page.until("return document.querySelector('#dialog').open")
    await page.write("not-the-token-at-all")
    await page.key("Enter")
    assert await page.until("return document.querySelector('#dialog-error').innerText") == "this token is not the one"
    assert await page.run("sessionStorage.length") == 0


async def test_a_route_is_paused_limited_and_resumed(shown: Open) -> None:
    room = shown.room
    await room.parked(lane="relay|example.net")
    page = await shown.unlocked()
    await page.click("#routes button[aria-label='Pause route relay']")
    await confirmed(page, reason="moving house", **{"for": "2h"})
    await page.until("return document.querySelector('#routes').innerText.includes('moving house')")
    known = json.loads(await room.do("HGET", "{streamq}:pauses", "relay"))["asked"]
    assert known["reason"] == "moving house"
    assert abs(int(known["till"]) - int(known["since"]) - 7_200_000_000) < 200_000_000  # the test's own clock is behind
    await page.click("#routes button[aria-label='Resume route relay']")
    await confirmed(page)
    await page.until("return document.querySelector('#routes').innerText.includes('open')")
    assert await room.do("HGET", "{streamq}:pauses", "relay") is None
    await page.click("#routes button[aria-label='Limit route relay']")
    await confirmed(page, rate="50/s, 60000/h")
    await page.until("return document.querySelector('#routes').innerText.includes('50/s, 60000/h (operator)')")
    assert await room.do("HGET", "{streamq}:limits:operator", "relay") == b"50:1000000,60000:3600000000"


async def test_standing_rules_are_listed_with_what_ends_them(shown: Open) -> None:
    await shown.room.do("HSET", "{streamq}:holds", "rule:domain:gmail.com", "hold", "rule:tag:a b", "cancel")
    await shown.room.lease()
    page = await shown.page()
    await page.until("return document.querySelectorAll('#rules li').length === 2")
    assert await page.run("document.querySelector('#tile-workers-note').innerText") == "1 mail in hand"
    lines = (await page.run("document.querySelector('#rules').innerText")).splitlines()
    assert lines == [
        "hold domain gmail.com, until streamq unhold --domain gmail.com",
        "cancel tag a b, until streamq unhold --tag 'a b'",
    ]
    await shown.room.do("HSET", "{streamq}:holds", f"rule:tenant:{'x' * 250}", "hold")
    await page.until("return document.querySelectorAll('#rules li').length === 3")
    assert await page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    await shown.room.do("DEL", "{streamq}:holds")
    await page.until("return document.querySelector('#rules-section').hidden")


async def test_a_standing_rule_is_ended(shown: Open) -> None:
    room = shown.room
    await room.do(
        "HSET", "{streamq}:holds", "rule:tag:a b", "cancel", "rule:domain:gmail.com", "hold", "id:x'<i>", "hold"
    )
    page = await shown.unlocked()
    await page.until("return document.querySelectorAll('#rules button').length === 3")
    await page.click("#rules button[aria-label='End the rule: hold domain gmail.com']")
    await page.until("return document.querySelector('#dialog').open")
    words = await page.run("document.querySelector('#dialog-words').innerText")
    assert words.endswith("What it has held stays held; streamq unhold --domain gmail.com lets that go, too.")
    assert await room.do("HLEN", "{streamq}:holds") == 3
    await confirmed(page)
    await page.until("return document.querySelectorAll('#rules li').length === 2")
    await page.click("#rules button[aria-label*='<i>']")
    await confirmed(page)
    await page.until("return document.querySelectorAll('#rules li').length === 1")
    assert await room.do("HGETALL", "{streamq}:holds") == [b"rule:tag:a b", b"cancel"]
    await room.do("DEL", "{streamq}:holds")  # somebody else was quicker
    await page.click("#rules button")
    await page.until("return document.querySelector('#dialog').open")
    await page.click("#dialog-yes")
    said = await page.until("return document.querySelector('#dialog-error').innerText")
    assert said == "rule: no such rule stands (got 'tag:a b')"


async def test_a_site_is_paused_and_a_wrong_limit_is_said(shown: Open) -> None:
    room = shown.room
    page = await shown.unlocked()
    await page.run("document.querySelector('#site-name').focus()")
    await page.write("Example.ORG")
    await page.click("#site-form button[value=pause]")
    await confirmed(page)
    await page.until("return document.querySelector('#sites').innerText.includes('example.org')")
    assert await room.do("HEXISTS", "{streamq}:pauses", "*|example.org") == 1
    await page.click("#sites button[aria-label='Limit site example.org']")
    await page.until("return document.querySelector('#dialog').open")
    await page.run("document.querySelector('#field-rate').focus()")
    await page.write("fast")
    await page.key("Enter")
    said = await page.until("return document.querySelector('#dialog-error').innerText")
    assert said.startswith("rate: not a rate")
    assert "'fast'" in said
    await page.key("Escape")
    await page.until("return !document.querySelector('#dialog').open")
    assert await room.do("HGET", "{streamq}:limits:operator", "*|example.org") is None


async def test_dead_letters_are_looked_at_requeued_and_discarded(shown: Open) -> None:
    room = shown.room
    await filled(room)
    page = await shown.unlocked()
    await page.until("return document.querySelectorAll('#dead tbody tr[data-key]').length === 2")
    names = await page.run("[...document.querySelectorAll('#dead button')].map((e) => e.innerText)")
    assert names == ["Look", "Requeue", "Discard"] * 2
    await page.click("#dead button[aria-label='Look at the newest dead letter of policy corp.example']")
    text = await page.until("return document.querySelector('#letter').innerText")
    assert "<script>document.title='pwned'</script>" in text
    assert "policy-1" in text
    await page.click("#dead button[aria-label='Requeue all of policy corp.example']")
    await confirmed(page)
    await page.until("return document.querySelectorAll('#dead tbody tr[data-key]').length === 1")
    again = await room.do("XREVRANGE", "{streamq}:normal", "+", "-", "COUNT", 1)
    assert b"policy-1" in again[0][1]
    await page.click("#dead button[aria-label='Discard all of bad_address icloud.com']")
    await confirmed(page)
    await page.until("return document.querySelector('#dead').innerText.includes('none')")
    assert await room.do("XLEN", "{streamq}:dead") == 0


async def test_the_domains_of_a_reason_are_behind_it_and_each_is_acted_on_alone(shown: Open) -> None:
    room = shown.room
    for site, many in (("a.example", 3), ("b.example", 2), ("c.example", 1)):
        for n in range(many):
            lease = await room.lease(lane=f"relay|{site}", to=f"bob@{site}", id=f"{site}-{n}")
            known = {"class": "policy", "reason": f"rcpt: 550 5.7.1 <bob@{site}> not wanted"}
            assert await room.settled("dead", lease, lane=f"relay|{site}", **known) == "ok"
    page = await shown.unlocked()
    await page.until("return document.querySelectorAll('#dead tbody tr[data-key]').length === 1")
    [row] = await cells(page, "dead")
    assert row[2:4] == ["a.example and 2 more", "6"]
    await page.click("#dead button[aria-label^='Show the domains of policy']")
    await page.until("return document.querySelectorAll('#dead tbody tr[data-key]').length === 4")
    assert await page.run("document.activeElement.innerText") == "Fewer"  # the focus stays where it was
    assert [row[2:4] for row in (await cells(page, "dead"))[1:]] == [
        ["a.example", "3"],
        ["b.example", "2"],
        ["c.example", "1"],
    ]
    await page.click("#dead button[aria-label='Discard all of policy b.example']")
    await confirmed(page)
    await page.until("return document.querySelectorAll('#dead tbody tr[data-key]').length === 3")
    assert await room.do("XLEN", "{streamq}:dead") == 4
    await page.click("#dead button[aria-label^='Requeue all of policy rcpt']")
    await confirmed(page)
    await page.until("return document.querySelector('#dead').innerText.includes('none')")
    assert await room.do("XLEN", "{streamq}:dead") == 0

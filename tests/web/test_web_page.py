"""The page in a real browser: what it says is read from its text and compared with Redis read by hand; acts act."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from chromium import BROWSER, WHY_NOT, Page, browsing
from mailroom import DAY, Mailroom
from webbed import TOKEN

from streamq.queue.overview import Overviews
from streamq.settings import Place
from streamq.web.listener import listening
from streamq.web.serve import queue_app

pytestmark = [pytest.mark.leaves_mail, pytest.mark.skipif(BROWSER is None, reason=WHY_NOT)]

CELLS = "[...document.querySelectorAll('#{} tbody tr')].map((tr) => [...tr.children].map((c) => c.innerText.trim()))"


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
        await page.click("#lock")
        await page.until("return document.querySelector('#dialog').open")
        await page.write(TOKEN)
        await page.key("Enter")
        await page.until("return document.querySelector('#lock').innerText === 'Lock'")
        return page


@pytest.fixture
async def shown(room: Mailroom, server_url: str) -> AsyncIterator[Open]:
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


async def _filled(room: Mailroom) -> dict[str, str]:
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
    tail = b'"route":"relay","class":"greylisted","code":450,"reply":"450 4.2.0 try later","attempt":1'
    later: dict[str, Any] = {"class": "greylisted", "reply": "450 4.2.0 try later", "wait": DAY}
    assert await room.settled("defer", retried, lane="relay|busy.example", tail=tail, **later) == "ok"
    sent = [await room.lease("high", lane="relay|sent.example", to=f"c{n}@sent.example") for n in range(12)]
    for lease in sent:
        assert await room.settled("sent", lease, lane="relay|sent.example") == "ok"
    await room.scripts.pause("pause", ["*|yahoo.com"], reason="they asked us to <i>wait</i>")
    for n in range(7):
        found[f"waiting-{n}"] = await room.add("high", id=f"new-{n}", to=f"d{n}@new.example")
    return found


async def test_what_the_page_says_is_what_redis_has(shown: Open) -> None:
    room = shown.room
    await _filled(room)
    page = await shown.page()
    await page.until("return document.querySelectorAll('#dead tbody tr[data-key]').length === 2")
    do = room.do
    by_hand: dict[str, list[int]] = {}
    for p, name in enumerate(("high", "normal", "low")):
        live, leased = (
            await do("XLEN", f"{{streamq}}:{name}"),
            (await do("XPENDING", f"{{streamq}}:{name}", "streamq"))[0],
        )
        due = sum(each.startswith(b"%d" % p) for each in await do("ZRANGE", "{streamq}:schedule", 0, -1))
        held = sum(each.startswith(b"%d" % p) for each in await do("ZRANGE", "{streamq}:held", 0, -1))
        members = await do("ZRANGE", "{streamq}:parked", 0, -1)
        parked = sum(each.rpartition(b"|")[2].startswith(b"%d" % p) for each in members)
        by_hand[name] = [live - leased - due - held - parked, leased, parked, due, held, live]
    rows = {row[0]: row for row in await cells(page, "depth")}
    assert {name: [int(cell.replace(",", "")) for cell in row[1:7]] for name, row in rows.items()} == by_hand
    assert by_hand["high"][0] == 7
    sites = {row[0]: row for row in await cells(page, "sites")}
    for site in (b"gmail.com", b"yahoo.com", b"example.net", b"orange.fr"):
        parked = sum(b"|" + site + b"|" in each for each in members)
        assert int(sites[site.decode()][3]) == parked > 0, site
    assert "paused until somebody resumes it: they asked us to <i>wait</i>" in sites["yahoo.com"][2]
    assert "421 4.7.0 too many messages, slow down" in sites["orange.fr"][2]
    [route] = await cells(page, "routes")
    assert (route[0], route[1], int(route[2])) == ("relay", "open", len(members))
    dead = {(row[0], row[1]): row for row in await cells(page, "dead")}
    assert dead["bad_address", "icloud.com"][2] == "5"
    assert dead["policy", "corp.example"][4] == "<script>document.title='pwned'</script>"
    assert int(await page.text("#tile-dead")) == await do("XLEN", "{streamq}:dead") == 6
    live = sum(row[-1] for row in by_hand.values())
    assert int(await page.text("#tile-live")) == live
    assert await page.text("#tile-workers") == "2"  # the one of the mails, and who leads
    names = {row[0] for row in await cells(page, "workers")}
    assert names == {"w1", "mail1-4711-9f3a01"}
    assert await page.run("document.title") == "Mail flows, with trouble – streamq streamq"
    assert page.complaints == []


async def test_the_page_asks_nobody_else(shown: Open) -> None:
    page = await shown.page()
    await page.until("return document.querySelector('#tile-live').innerText === '0'")
    assert {url.split("/")[2] for url in page.asked} == {shown.url.split("/")[2]}
    assert page.complaints == []


@pytest.mark.parametrize(
    ("what", "level", "words", "trouble"),
    [
        ("nothing", "idle", "Nothing waits", ""),
        ("worked", "idle", "Mail waits, none has gone lately", ""),
        ("sent", "good", "Mail flows", ""),
        (
            "bounced",
            "bad",
            "Mail does not flow",
            "None of 6 attempts delivered\nMost often bad address, 6 times",
        ),
        ("unmanned", "warn", "Nothing waits, and no worker runs", "No worker runs"),
        ("nobody", "bad", "Mail does not flow", "No worker runs"),
        ("closed", "bad", "Mail does not flow", "Route relay is closed: an operator paused it"),
        ("held", "bad", "Mail does not flow", "Every mail is held: a standing rule"),
        ("site", "warn", "Mail waits, with trouble", "1 site closed: example.net"),
        ("unread", "warn", "Mail waits, with trouble", "Mail of priority high has waited"),
        ("campaign", "idle", "Mail waits, none has gone lately", ""),  # whose turn comes
    ],
)
async def test_five_seconds(shown: Open, what: str, level: str, words: str, trouble: str) -> None:
    """Whether mail flows is the largest text of the page, and in its title."""
    room = shown.room
    if what not in {"nothing", "unmanned", "sent", "bounced"}:
        seconds, _ = await room.do("TIME")
        room.to(int(seconds) * 1000)
        await room.add()
    if what in {"unread", "campaign"}:
        room.tick(-100_000)
        await room.add("high" if what == "unread" else "low")
    if what == "sent":
        assert await room.settled("sent", await room.lease()) == "ok"
    for n in range(6 if what == "bounced" else 0):
        lease = await room.lease(to=f"gone{n}@example.net")
        said = "550 5.1.1 no such user"
        tail = b'"class":"bad_address","code":550,"reply":"550 5.1.1 no such user"'
        assert await room.settled("dead", lease, tail=tail, reply=said, reason=said, **{"class": "bad_address"}) == "ok"
    if what not in {"unmanned", "nobody"}:
        await room.spool.touch("w1")
        await room.scripts.leader("keeper", "w1", 60_000)
    if what == "closed":
        await room.scripts.pause("pause", ["relay"])
    if what == "site":
        await room.scripts.pause("pause", ["*|example.net"])
    if what == "held":
        await room.do("HSET", room.keys.holds, "rule:all", "hold")
    page = await shown.page()
    assert await page.text("#verdict-words") == words
    assert await page.run("document.querySelector('#verdict').dataset.level") == level
    said = (await page.text("#troubles")).strip()
    assert said.startswith(trouble) if trouble else not said
    shares = {"sent": (1, 100, 0, 0), "bounced": (0, 0, 6, 100)}
    counts = shares.get(what)
    lately = counts and "Last 5 min: {} delivered ({} %), 0 deferred (0 %), {} bounced ({} %)".format(*counts)
    assert await page.text("#verdict-lately") == (lately or "")
    assert (await page.run("document.title")).startswith(words)
    sizes = "[...document.querySelectorAll('main *')].map((e) => parseFloat(getComputedStyle(e).fontSize))"
    largest = await page.run(f"Math.max(...{sizes})")
    assert largest == await page.run("parseFloat(getComputedStyle(document.querySelector('#verdict-words')).fontSize)")


async def test_numbers_follow_while_it_is_open(shown: Open) -> None:
    page = await shown.page()
    await page.until("return document.querySelector('#tile-live').innerText === '0'")
    await shown.room.add("low")
    await page.until("return document.querySelector('#tile-live').innerText === '1'")
    rows = {row[0]: row for row in await cells(page, "depth")}
    assert rows["low"][1] == "1"


async def test_charts_say_their_numbers_in_words(shown: Open) -> None:
    await shown.overviews.sample()
    for _ in range(3):
        await shown.room.add()
    await shown.overviews.get(anew=True)
    await shown.overviews.sample()
    page = await shown.page()
    label = await page.until("return document.querySelector('#chart-depth').getAttribute('aria-label')")
    assert label == "Live mails by priority. Now: high 0, normal 3, low 0"
    assert await page.run("document.querySelectorAll('.chart canvas').length") == 3
    assert page.complaints == []


# -- one mail --------------------------------------------------------------------------------------------------------


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
    entries = await _filled(shown.room)
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
    assert "It is parked: all its ways are closed; *|yahoo.com: operator: they asked us to <i>wait</i>" in text
    assert re.search(r"ahead\s+3 mails", text)
    text = await _found(page, entries["waiting-2"])
    assert text.startswith("It is waiting: nobody has read it yet")
    assert re.search(r"ahead\s+2 mails", text)
    text = await _found(page, entries["dead-1"])
    assert "It is not in the queue any more: bounced" in text
    assert "550 5.1.1 no such user here" in text
    assert "no live mail has the entry" in await _found(page, "nobody")
    # where the search's answer is, a screen reader and the keyboard are, too
    assert await page.run("document.activeElement.id") == "story-title"


async def test_a_mail_is_steered(shown: Open) -> None:
    room = shown.room
    entry = await room.scheduled(id="later", after=DAY)
    page = await shown.unlocked()
    await _found(page, "later")
    await page.run("[...document.querySelectorAll('#story-mail button')].find((e) => e.innerText === 'Hold').focus()")
    await page.key("Enter")
    await page.until("return document.querySelector('#dialog').open")
    assert await page.run("document.activeElement.innerText") == "Cancel"  # what an Enter too many does no harm to
    await page.key("Tab")
    await page.key("Enter")
    await page.until("return document.querySelector('#story').innerText.startsWith('It is held')")
    assert await room.state(entry) == "held"


# -- acts ------------------------------------------------------------------------------------------------------------


async def _confirm(page: Page, **fields: str) -> None:
    await page.until("return document.querySelector('#dialog').open")
    for name, value in fields.items():
        await page.run(f"document.querySelector('#field-{name}').focus()")
        await page.write(value)
    await page.click("#dialog-yes")
    await page.until("return !document.querySelector('#dialog').open")


async def test_without_the_token_there_is_nothing_to_press(shown: Open) -> None:
    await _filled(shown.room)
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
    await _confirm(page, reason="moving house", **{"for": "2h"})
    await page.until("return document.querySelector('#routes').innerText.includes('moving house')")
    known = json.loads(await room.do("HGET", "{streamq}:pauses", "relay"))["asked"]
    assert known["reason"] == "moving house"
    assert abs(int(known["till"]) - int(known["since"]) - 7_200_000_000) < 200_000_000  # the test's own clock is behind
    await page.click("#routes button[aria-label='Resume route relay']")
    await _confirm(page)
    await page.until("return document.querySelector('#routes').innerText.includes('open')")
    assert await room.do("HGET", "{streamq}:pauses", "relay") is None
    await page.click("#routes button[aria-label='Limit route relay']")
    await _confirm(page, rate="50/s, 60000/h")
    await page.until("return document.querySelector('#routes').innerText.includes('50/s, 60000/h (operator)')")
    assert await room.do("HGET", "{streamq}:limits:operator", "relay") == b"50:1000000,60000:3600000000"


async def test_a_site_is_paused_and_a_wrong_limit_is_said(shown: Open) -> None:
    room = shown.room
    page = await shown.unlocked()
    await page.run("document.querySelector('#site-name').focus()")
    await page.write("Example.ORG")
    await page.click("#site-form button[value=pause]")
    await _confirm(page)
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
    await _filled(room)
    page = await shown.unlocked()
    await page.until("return document.querySelectorAll('#dead tbody tr[data-key]').length === 2")
    names = await page.run("[...document.querySelectorAll('#dead button')].map((e) => e.innerText)")
    assert names == ["Look", "Requeue", "Discard"] * 2
    await page.click("#dead button[aria-label='Look at the newest dead letter of policy corp.example']")
    text = await page.until("return document.querySelector('#letter').innerText")
    assert "<script>document.title='pwned'</script>" in text
    assert "policy-1" in text
    await page.click("#dead button[aria-label='Requeue all of policy corp.example']")
    await _confirm(page)
    await page.until("return document.querySelectorAll('#dead tbody tr[data-key]').length === 1")
    again = await room.do("XREVRANGE", "{streamq}:normal", "+", "-", "COUNT", 1)
    assert b"policy-1" in again[0][1]
    await page.click("#dead button[aria-label='Discard all of bad_address icloud.com']")
    await _confirm(page)
    await page.until("return document.querySelector('#dead').innerText.includes('none')")
    assert await room.do("XLEN", "{streamq}:dead") == 0


# -- for everybody ---------------------------------------------------------------------------------------------------


async def test_by_keyboard_and_for_a_screen_reader(shown: Open) -> None:
    await _filled(shown.room)
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
        ("searchbox", "A mail: its id, or its entry"),
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
    await _filled(shown.room)
    page = await shown.unlocked()
    await page.run("document.querySelector(\"#sites button[aria-label='Resume site yahoo.com']\").focus()")
    before = await page.text("#tile-live")
    await shown.room.do("XADD", "{streamq}:low", "*", "to", "x@example.net")
    await page.until(f"return document.querySelector('#tile-live').innerText !== {json.dumps(before)}")
    assert await page.run("document.activeElement.getAttribute('aria-label')") == "Resume site yahoo.com"


@pytest.mark.parametrize("dark", [False, True])
async def test_text_can_be_read_on_its_ground(shown: Open, dark: bool) -> None:
    """WCAG 2.1, 1.4.3: 4.5 to 1."""
    await _filled(shown.room)
    page = await shown.page(dark=dark)
    await page.until("return document.querySelectorAll('#dead tbody tr[data-key]').length === 2")
    wrong = await page.run(CONTRAST)
    assert wrong == []


CONTRAST = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  const light = (c) => [.2126, .7152, .0722].reduce((sum, part, at) => sum + part * linear(c[at] / 255), 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const hasText = (e) => e.offsetParent && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const ratio = (e) => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  };
  return [...document.querySelectorAll("body *")].filter(hasText).filter((e) => ratio(e) < 4.5)
    .map((e) => [e.innerText.slice(0, 40), ratio(e)]);
})()"""
WIDE = """[...document.querySelectorAll("body *")].filter((e) => !e.closest(".wide"))
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"""
SMALL = """[...document.querySelectorAll("button")].filter((e) => e.offsetParent && !e.closest("table"))
  .filter((e) => e.offsetHeight < 40).map((e) => e.innerText)"""


async def test_on_a_phone_nothing_is_wider_than_it(shown: Open) -> None:
    await _filled(shown.room)
    page = await shown.unlocked(width=375, height=800)
    await page.until("return document.querySelectorAll('#dead tbody tr[data-key]').length === 2")
    assert await page.run(WIDE) == []
    assert await page.run("document.documentElement.scrollWidth") == 375
    assert await page.run(SMALL) == []

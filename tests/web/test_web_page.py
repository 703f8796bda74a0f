"""The page in a real browser: what it says is read from its text and compared with Redis read by hand."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import paged
import pytest
from chromium import BROWSER, WHY_NOT
from mailroom import ident
from paged import Open, cells, filled
from readable import CONTRAST
from redis.exceptions import ConnectionError as RedisConnectionError

from streamq.queue.look import ENDED

pytestmark = [pytest.mark.leaves_mail, pytest.mark.skipif(BROWSER is None, reason=WHY_NOT)]
shown = paged.shown


async def test_what_the_page_says_is_what_redis_has(shown: Open) -> None:
    room = shown.room
    await filled(room)
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
    assert {name: [int(cell.replace(",", "")) for cell in (row[1], *row[3:8])] for name, row in rows.items()} == by_hand
    assert by_hand["high"][0] == 7
    sites = {row[0]: row for row in await cells(page, "sites")}
    for site in (b"gmail.com", b"yahoo.com", b"example.net", b"orange.fr"):
        parked = sum(b"|" + site + b"|" in each for each in members)
        assert int(sites[site.decode()][3]) == parked > 0, site
    assert "paused until somebody resumes it: they asked us to <i>wait</i>" in sites["yahoo.com"][2]
    assert "421 4.7.0 too many messages, slow down" in sites["orange.fr"][2]
    assert re.fullmatch(r"all attempts failed, next try in \S+ [hd]: 450 4\.2\.0 try later", sites["busy.example"][2])
    [route] = await cells(page, "routes")
    assert (route[0], route[1], int(route[2])) == ("relay", "open", len(members))
    dead = {(row[0], row[2]): row for row in await cells(page, "dead")}
    assert dead["bad_address", "icloud.com"][3] == "5"
    assert dead["policy", "corp.example"][1] == "<script>document.title='pwned'</script>"
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
        (
            "misspelt",
            "warn",
            "Mail waits, with trouble",
            "1 mail held: unknown_field, field 'colour'. Mend the producer",
        ),
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
    if what == "misspelt":
        await room.held()
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


AXES = """import("/static/charts.js").then((charts) => [
  charts.times([0, 5, 10], 5), charts.times([0, 60, 120], 60),
  charts.numbers([0, 0.25, 0.5], 0.25), charts.numbers([0, 1000, 1001], 1), charts.numbers([0, 1e6, 1.5e6], 5e5),
  charts.numbers([0.1, 0.2, 0.1 + 0.2], 0.1),
  charts.OUTCOMES.map(([name]) => name), charts.OUTCOMES.map(([, ...how]) => how.join()),
])"""


async def test_an_axis_says_nothing_twice_and_no_outcome_is_left_out(shown: Open) -> None:
    page = await shown.page()
    *ticks, names, looks = await page.run(AXES)
    assert ticks == [
        ["00:00:00", "00:00:05", "00:00:10"],
        ["00:00", "00:01", "00:02"],
        ["0", "0.25", "0.50"],
        ["0", "1.000k", "1.001k"],
        ["0", "1.0M", "1.5M"],
        ["0.1", "0.2", "0.3"],
    ]
    assert set(names) == {*ENDED, "deferred", "throttled", "ambiguous"}
    assert len(set(looks)) == len(names)


async def test_a_chart_has_each_outcome_that_there_ever_was(shown: Open) -> None:
    room = shown.room
    assert await room.moved("cancel", await room.scheduled()) == ["cancelled"]
    for _ in range(2):
        entry = await room.add(id="twice")
        assert entry in await room.read()
        await room.admitted(entry, id="twice", seen=ident("twice"))
    await shown.overviews.sample()
    assert await room.moved("cancel", await room.scheduled(), await room.scheduled()) == ["cancelled"] * 2
    await shown.overviews.get(anew=True)
    await shown.overviews.sample()
    page = await shown.page()
    await page.until("return document.querySelector('#chart-outcomes .u-legend')")
    names = await page.run("[...document.querySelectorAll('#chart-outcomes .u-legend th')].map((e) => e.innerText)")
    assert names == ["at", "relayed", "deferred", "throttled", "bounced", "cancelled", "duplicate"]
    style = "(e) => getComputedStyle(e).borderTopStyle"
    looks = await page.run(f"[...document.querySelectorAll('#chart-outcomes .u-marker')].map({style})")
    assert looks[-2:] == ["solid", "dotted"]  # of one colour


# -- nobody answers --------------------------------------------------------------------------------------------------

WORDS = "document.querySelector('#verdict-words').innerText"
LEGEND = "#chart-depth .u-legend .u-value"
BELOW = "getComputedStyle(document.querySelector('#tile-live')).color"


async def test_redis_that_does_not_answer_is_said_first(shown: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what stands below is old, and looks and sounds so, until it is of now again."""
    await shown.room.add()
    await shown.overviews.sample()
    await shown.overviews.get(anew=True)
    await shown.overviews.sample()
    page = await shown.page()
    before = await page.run(BELOW)
    well = await page.text("#verdict-words")
    monkeypatch.setattr("streamq.queue.overview.status", _away)
    status = await page.until(f"return /^Redis has not answered since ..:..:..$/.exec({WORDS})?.[0]")
    assert await page.run("document.querySelector('#verdict').dataset.level") == "bad"
    assert (await page.run("document.title")).startswith(status)
    tree = await page.tree()
    assert ("heading", status) in tree
    old = await page.text("#old")
    assert old.startswith("What stands below is of ")
    assert await page.run("document.querySelector('#old').closest('[role=status][aria-live]').id") == "verdict"
    assert (await page.text("#verdict")).split("\n") == [status, "", old]
    assert await page.run(BELOW) != before
    assert await page.text(LEGEND) == old.removeprefix("What stands below is of ").removesuffix(".")
    assert await page.run(CONTRAST) == []
    monkeypatch.undo()
    await page.until(f"return {WORDS} === {json.dumps(well)}")
    assert await page.run(BELOW) == before
    assert await page.text(LEGEND) == "now"
    assert "What stands below" not in await page.text("#verdict")


async def _away(*_: Any, **__: Any) -> Any:
    raise RedisConnectionError("refused")


async def test_a_server_that_says_nothing_is_said_first(shown: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    page = await shown.page()
    hangs = asyncio.Event()

    async def hang(*_: Any, **__: Any) -> Any:
        hangs.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(shown.overviews, "get", hang)
    await hangs.wait()
    await page.run("Date.now = ((now) => () => now() + 16000)(Date.now)")  # so much later
    await page.until(f"return {WORDS}.startsWith('The server of this page has not answered since ')")
    assert "What stands below is of " in await page.text("#verdict")

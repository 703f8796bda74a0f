"""Every number of `status`, `/metrics` and the page against Redis read by hand, of a queue in all states.

Some thousand mails; `AGREE_MAILS=1000000 pytest tests/web/test_web_agree.py` takes as many as it says (a million: a
quarter of an hour), `python -m bench agree` does so with whole programs, and says what asking costs.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chromium import BROWSER, WHY_NOT, browsing
from webbed import asking

from bench.compared import Known, metrics_wrong, page_wrong, samples, status_wrong
from bench.compared_ways import page_ways_wrong, routes_wrong, sites_wrong
from bench.fill import EVENTS_KEPT, Filler
from bench.truth import STATES, Truth, truth
from bench.truth_ways import ways
from streamq.queue.check import check
from streamq.queue.connection import command
from streamq.queue.overview import Overviews
from streamq.queue.spool import Spool
from streamq.settings import Place, load_settings
from streamq.web.listener import listening
from streamq.web.serve import queue_app

MAILS = int(os.environ.get("AGREE_MAILS", "3000"))
LONG = 120 if MAILS <= 10_000 else 7200
pytestmark = [pytest.mark.leaves_mail, pytest.mark.timeout(LONG)]
CELLS = "[...document.querySelectorAll('#{} tbody tr')].map((tr) => [...tr.children].map((c) => c.innerText.trim()))"


async def _ms(spool: Spool) -> int:
    seconds, micros = await command(spool.redis, "TIME")
    return int(seconds) * 1000 + int(micros) // 1000


async def _said(url: str, *words: str) -> Any:
    """By a command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "streamq", "--redis-url", url, *words, "--json"), stdout=asyncio.subprocess.PIPE
    )
    return json.loads((await process.communicate())[0])


async def test_every_number_is_that_of_redis(server_url: str) -> None:
    spool = await Spool.connect(load_settings(events_kept=EVENTS_KEPT), server_url)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(spool.close)
        filler = Filler(spool, MAILS)
        await filler.fill()
        seen = await truth(server_url)
        known = Known(len(filler.consumers), filler.requeued)
        assert all(seen.depth[name, state] for name in spool.priorities for state in STATES)
        assert len(seen.ends) >= 10
        assert len(seen.classes) >= 10
        overviews = Overviews(spool)
        stack.push_async_callback(overviews.close)
        app = queue_app(overviews)
        await filler.looked()
        async with asking(app) as client:
            early = await _ms(spool)
            text = (await client.get("/metrics")).text
            between = early, await _ms(spool)
            overview, dead = (await client.get("/api/overview")).json(), (await client.get("/api/dead")).json()
        said = await _said(server_url, "status")
        assert status_wrong(said, seen, known) == []
        assert metrics_wrong(text, seen, known, between) == []
        assert page_wrong(overview, dead, seen, known) == []
        await _ways(spool, server_url, overview, (early, await _ms(spool)), seen)
        _uncompared(said, overview, text)
        _noticed(lambda other: status_wrong(said, other, known), seen)
        _noticed(lambda other: metrics_wrong(text, other, known, between), seen)
        assert metrics_wrong(text, replace(seen, holds=seen.holds | {"rule:all": "hold"}), known, between) != []
        _noticed(lambda other: page_wrong(overview, dead, other, known), seen)
        if BROWSER is not None:
            await _read(stack, app, seen, known)
        assert (await check(spool)).clean
    if BROWSER is None:
        pytest.skip(f"all but the page's text: {WHY_NOT}")


async def _ways(spool: Spool, url: str, overview: dict[str, Any], between: tuple[int, int], seen: Truth) -> None:
    """Limits, rates, paces, next slots and ETAs, of sites and routes: on the page, and by the commands."""
    known = await ways(url)
    assert known.limits
    assert known.paces
    early = await _ms(spool)
    sites = await _said(url, "site", "ls", "--limit", "10000")
    routes = await _said(url, "route", "ls")
    later = early, await _ms(spool)
    assert page_ways_wrong(overview, seen, known, between) == []
    assert sites_wrong(sites, seen, known, later) == []
    assert routes_wrong(routes, known) == []
    rows = [row for row in overview["sites"] if row["drained_ms"]]
    assert {bool(row["pace"]) for row in rows} == {True, False}
    assert any(row["limit"]["words"] for row in rows)
    pace = next(iter(known.paces))
    for other in (
        replace(known, limits={name: text.replace("20:", "21:") for name, text in known.limits.items()}),
        replace(known, paces=known.paces | {pace: replace(known.paces[pace], rate=known.paces[pace].rate * 1.1)}),
        replace(known, paces=known.paces | {pace: replace(known.paces[pace], reply="421 other")}),
        replace(known, said={}),
        replace(known, pauses={}),
    ):
        assert page_ways_wrong(overview, seen, other, between) != []
        assert sites_wrong(sites, seen, other, later) != []
    assert routes_wrong(routes, replace(known, pauses={})) != []


def _noticed(wrong: Callable[[Truth], list[str]], seen: Truth) -> None:
    """Whoever is one off is found out: the comparison itself can fail."""
    [(lane, _)] = seen.parked.most_common(1)
    for other in (
        replace(seen, depth=seen.depth | {("low", "held"): seen.depth["low", "held"] + 1}),
        replace(seen, ends=seen.ends + Counter({"relayed": 1})),
        replace(seen, classes=seen.classes + Counter({"policy": 1})),
        replace(seen, dead=seen.dead - 1),
        replace(seen, needed=seen.needed + Counter({"colour": 1})),
        replace(seen, events=seen.events - 1),
        replace(seen, evicted=seen.evicted + 1),
        replace(seen, first=seen.first | {("low", ""): seen.first["low", ""] - 100_000}),
        replace(seen, parked=seen.parked + Counter({lane: 1})),
    ):
        assert wrong(other) != []


def _uncompared(said: dict[str, Any], overview: dict[str, Any], text: str) -> None:
    """What is left out is known by name: the clock's, memory's, and what is no number of mails."""
    assert said.keys() - {"lanes", "closed", "swept", "rules", "consumers"} == {
        *("queue", "now_ms", "depth", "oldest_ms", "next_due_ms", "totals", "classes", "dead", "events", "workers"),
        *("memory", "memory_max", "aged_ms", "tallies", "paused", "live", "bounds", "held_for", "visit_ms"),
        *("evicts", "evicted"),
    }
    assert overview.keys() - said.keys() == {
        *("may_change", "verdict", "late_ms", "accepted", "routes", "sites", "sites_left", "sample"),
        "dead_version",
        *("troubled_left", "standing"),
    }
    names = {name.partition("{")[0] for name in samples(text)}
    assert {name for name in names if re.search("memory|latency|build", name)} == {
        *("streamq_build", "streamq_redis_memory_bytes", "streamq_redis_memory_max_bytes"),
        "streamq_redis_latency_seconds",
    }
    assert len(names) == 38


async def _read(stack: AsyncExitStack, app: Any, seen: Truth, known: Known) -> None:
    """The page's own text, in a browser."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sq-", ignore_cleanup_errors=True))
    place = await stack.enter_async_context(listening(app, Place("127.0.0.1", 0), "--port", asyncio.Event()))
    browser = await stack.enter_async_context(browsing(Path(folder)))
    page = await browser.page(f"http://{place}/")
    await page.until("return document.querySelectorAll('#dead tbody tr[data-key]').length > 1")

    async def cells(table: str) -> list[list[str]]:
        found: list[list[str]] = await page.run(CELLS.format(table))
        return found

    def number(text: str) -> int:
        return int(text.replace(",", ""))

    depth = {row[0]: [number(cell) for cell in (row[1], *row[3:8])] for row in await cells("depth")}
    assert depth == {
        name: [*(seen.depth[name, state] for state in STATES), sum(seen.depth[name, state] for state in STATES)]
        for name in seen.lanes
    }
    tiles = {name: number(await page.text(f"#tile-{name}")) for name in ("live", "dead", "workers")}
    assert tiles == {"live": seen.live, "dead": seen.dead, "workers": known.workers}
    waits, later = (sum(seen.depth[name, state] for name in seen.lanes) for state in ("waiting", "scheduled"))
    assert await page.text("#tile-live-note") == f"{waits:,} unread, {later:,} scheduled"
    assert await page.text("#tile-dead-note") == f"{seen.dead + known.requeued.total():,} ever"
    sites = {f"{'*' if row[1] == 'all' else row[1]}|{row[0]}": number(row[3]) for row in await cells("sites")}
    assert len([row for row in await cells("sites") if "failed" not in row[2]]) <= 100 <= len(sites) <= 120
    assert sites == {name: seen.parked[name] for name in sites}
    routes = {row[0]: (number(row[2]), row[3]) for row in await cells("routes")}
    for name, (parked, connections) in routes.items():
        grants = seen.granted.get(name, [])
        assert connections == f"{sum(one for _, one in grants)} of {sum(one for one, _ in grants)}"
        assert parked == sum(many for lane, many in seen.parked.items() if lane.startswith(f"{name}|"))
    dead: Counter[str] = Counter()
    for row in await cells("dead"):
        dead[row[0]] += number(row[3])
    assert dead.total() == seen.dead_groups.total()
    assert all(dead[name] == sum(seen.dead_groups[key] for key in seen.dead_groups if key[0] == name) for name in dead)
    workers = {row[0]: number(row[2]) for row in await cells("workers")}
    assert workers == {name: seen.pending[name] for name in workers}
    assert len(workers) == min(200, known.workers)
    assert page.complaints == []

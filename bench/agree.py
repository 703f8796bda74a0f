"""`python -m bench agree`: whether `status`, `/metrics` and the page say what Redis has, number by number, of a queue
with a million mails in all states; and what asking costs Redis.

The queue is made by the scripts (bench/fill.py), then stands still; what there is is read by hand (bench/truth.py).
COST   `streamq serve` runs, a page's stream is open, and metrics are scraped once a second: the time of Redis' commands
       by its own account (INFO stats: eventloop_duration_cmd_sum) and the CPU of the whole process (INFO cpu); the
       same while nobody looks, and while `streamq top` runs beside them; and while dead letters come, `BURIED` a second
       of some KB, with `PAGES` pages open that ask for their groups, less what the letters' coming takes by itself.
ALIKE  Each number of all three, and of `site ls` and `route ls`, against the truth; limits, rates, paces, next slots
       and ETAs, too (bench/truth_ways.py).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.compared import Known, metrics_wrong, page_wrong, status_wrong
from bench.compared_ways import page_ways_wrong, routes_wrong, sites_wrong
from bench.facts import of_server
from bench.figures import columns
from bench.fill import EVENTS_KEPT, Filler
from bench.programs import Programs, programs, rested
from bench.truth import truth
from bench.truth_ways import ways
from streamq.queue.check import check
from streamq.queue.connection import command
from streamq.queue.look import status
from streamq.queue.spool import Spool
from streamq.settings import load_settings

__all__ = ["Agreed", "add", "agree", "table"]

PARTS = ("cost", "alike")
MAILS, SECONDS = 1_000_000, 30
WRONG_SHOWN = 10
MOST_MS = 2.0  # of Redis' time, a second
OLD_SECONDS = 16.0  # what is told of workers, routes, sites is so old at most
GRAVES_SECONDS = 130.0  # and of dead letters
PAGES, BURIED, LETTER_BYTES = 5, 20, 6000
SHOWN = {
    "idle": "nobody looks",
    "page": "page, metrics",
    "top": "page, metrics, top",
    "buried": "nobody looks, letters come",
    "graves": f"{PAGES} pages, metrics, letters come",
}


@dataclass(frozen=True, slots=True)
class Spent:
    """Of a second: ms of Redis' commands, ms of its CPU, calls of commands, those within scripts included."""

    commands_ms: float
    cpu_ms: float
    calls: float


@dataclass(frozen=True, slots=True)
class Agreed:
    """`live` of `mails` that came. `wrong`: what differs, by who says it. `spent`: idle, page (with metrics), top."""

    mails: int
    live: int
    fill_s: float
    wrong: dict[str, list[str]]
    spent: dict[str, Spent]

    @property
    def good(self) -> bool:
        return self.cheap and not any(self.wrong.values())

    @property
    def cheap(self) -> bool:
        """What was not measured breaks no promise, and keeps none: `table` says so."""
        page, idle = self.spent.get("page"), self.spent.get("idle")
        calm = not page or not idle or max(page.commands_ms, page.cpu_ms - idle.cpu_ms) <= MOST_MS
        graves, buried = self.spent.get("graves"), self.spent.get("buried")
        return calm and (not graves or not buried or graves.commands_ms - buried.commands_ms <= MOST_MS)


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("agree", parents=[common], help="numbers of status, metrics and page, and their price")
    one.add_argument("--mails", type=int, default=MAILS, help=f"({MAILS})")
    one.add_argument("--seconds", type=int, default=SECONDS, help=f"of looking, and of nobody looking ({SECONDS})")
    one.add_argument("--part", choices=PARTS, action="append", help="(each)")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    found, server = asyncio.run(agree(asked.mails, asked.seconds, asked.part or PARTS))
    return {"results": asdict(found), "server": server}, found.good, table(found, server)


async def _info(spool: Spool) -> dict[str, float]:
    text = b"\r\n".join([await command(spool.redis, "INFO", section) for section in ("stats", "cpu")]).decode()
    return {name: float(value) for name, value in re.findall(r"^(\w+):([0-9.]+)\r?$", text, re.MULTILINE)}


async def _spent(spool: Spool, seconds: float) -> Spent:
    """By the clock of this machine: a measurement, no test."""
    before, begun = await _info(spool), time.monotonic()
    await asyncio.sleep(seconds)
    after, took = await _info(spool), time.monotonic() - begun
    grown = {name: (value - before.get(name, 0.0)) / took for name, value in after.items()}
    cpu = grown["used_cpu_sys"] + grown["used_cpu_user"]
    return Spent(grown["eventloop_duration_cmd_sum"] / 1000, cpu * 1000, grown["total_commands_processed"])


async def _program(p: Programs, *words: str, first: bytes = b"") -> tuple[asyncio.subprocess.Process, str]:
    """A `streamq` command that runs on; its line that begins so."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "streamq", "--redis-url", p.url, *words), stdout=asyncio.subprocess.PIPE
    )

    async def end() -> None:
        if process.returncode is None:
            process.terminate()
        await process.communicate()

    p.stack.push_async_callback(end)
    assert process.stdout is not None
    while first and not (line := await process.stdout.readline()).startswith(first):
        if not line:
            raise RuntimeError(f"streamq {words[0]} ended")
    return process, line.decode().strip() if first else ""


async def _said(p: Programs, *words: str) -> Any:
    """By a command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "streamq", "--redis-url", p.url, *words, "--json"), stdout=asyncio.subprocess.PIPE
    )
    return json.loads((await process.communicate())[0])


async def _now_ms(spool: Spool) -> int:
    seconds, micros = await command(spool.redis, "TIME")
    return int(seconds) * 1000 + int(micros) // 1000


async def _looked(web: httpx.AsyncClient, pages: int = 1) -> None:
    """So many pages that are open (of as many browsers), and a Prometheus; until it is cancelled."""

    async def page() -> None:
        version = None
        async with web.stream("GET", "/api/stream") as told:
            async for line in told.aiter_lines():
                found = json.loads(line[6:]).get("dead_version") if line.startswith("data: ") else version
                if found != version:  # as the page does
                    (await web.get("/api/dead")).raise_for_status()
                    version = found

    async def scraped() -> None:
        while True:
            (await web.get("/metrics")).raise_for_status()
            await asyncio.sleep(1)

    await asyncio.gather(scraped(), *(page() for _ in range(pages)))


async def _costs(p: Programs, spool: Spool, web: httpx.AsyncClient, seconds: float) -> dict[str, Spent]:
    looking = asyncio.create_task(_looked(web))
    await web.get("/api/overview")
    page = await _spent(spool, seconds)
    top, _ = await _program(p, "top", "--json", "-n", "100000", first=b"{")
    beside = await _spent(spool, seconds)
    top.terminate()
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    return {"page": page, "top": beside, **await _graves(spool, web, seconds)}


async def _graves(spool: Spool, web: httpx.AsyncClient, seconds: float) -> dict[str, Spent]:
    """While dead letters come: nobody looks, then several do. They are taken away again: no script knows them."""
    names: list[bytes] = []

    async def buried() -> None:
        body, n = "x" * LETTER_BYTES, 0
        while True:
            pairs = ("dead_class", "policy", "last_reply", "550 5.7.1 no", "to", f"b@d{n % 50}.example", "text", body)
            names.append(await command(spool.redis, "XADD", spool.keys.dead, "*", *pairs))
            n += 1
            await asyncio.sleep(1 / BURIED)

    coming = asyncio.create_task(buried())
    nobody = await _spent(spool, seconds)
    looking = asyncio.create_task(_looked(web, PAGES))
    await web.get("/api/overview")
    pages = await _spent(spool, seconds)
    for task in (coming, looking):
        task.cancel()
    await asyncio.gather(coming, looking, return_exceptions=True)
    for name in names:
        await command(spool.redis, "XDEL", spool.keys.dead, name)
    return {"buried": nobody, "graves": pages}


async def _alike(p: Programs, spool: Spool, web: httpx.AsyncClient, filler: Filler) -> dict[str, list[str]]:
    print("reading all of it by hand", flush=True)
    seen = await truth(p.url)
    known = Known(len(filler.consumers), filler.requeued)
    await asyncio.sleep(GRAVES_SECONDS)
    await filler.looked()  # a worker that was silent for a minute is none
    await asyncio.sleep(OLD_SECONDS)
    early = await _now_ms(spool)
    text = (await web.get("/metrics")).text
    between = early, await _now_ms(spool)
    overview, dead = (await web.get("/api/overview")).json(), (await web.get("/api/dead")).json()
    set_, page = await ways(p.url), (early, await _now_ms(spool))
    sites, routes = await _said(p, "site", "ls", "--limit", "10000"), await _said(p, "route", "ls")
    commands = page[1], await _now_ms(spool)
    found = await check(spool)
    return {
        "status": status_wrong(await _said(p, "status"), seen, known),
        "site": sites_wrong(sites, seen, set_, commands),
        "route": routes_wrong(routes, set_),
        "metrics": metrics_wrong(text, seen, known, between),
        "page": [*page_wrong(overview, dead, seen, known), *page_ways_wrong(overview, seen, set_, page)],
        "check": [f"{each.what} {each.entry}" for each in found.wrong[:WRONG_SHOWN]],
    }


async def agree(mails: int, seconds: float, parts: Sequence[str] = PARTS) -> tuple[Agreed, dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="sqb-") as folder:
        async with programs(Path(folder)) as p:
            spool = await Spool.connect(load_settings(events_kept=EVENTS_KEPT), p.url)
            p.stack.push_async_callback(spool.close)
            begun = time.monotonic()
            filler = Filler(spool, mails)
            await filler.fill()
            took = time.monotonic() - begun
            print(f"filled in {took:,.0f} s", flush=True)
            await rested(spool)
            spent = {"idle": await _spent(spool, seconds)} if "cost" in parts else {}
            _, line = await _program(p, "serve", "--port", "0", first=b"page")
            async with httpx.AsyncClient(base_url=line.split()[1], timeout=30) as web:
                spent |= await _costs(p, spool, web, seconds) if "cost" in parts else {}
                wrong = await _alike(p, spool, web, filler) if "alike" in parts else {}
            return Agreed(mails, (await status(spool)).live, took, wrong, spent), await of_server(spool.redis)


def table(found: Agreed, server: dict[str, str]) -> str:
    rows = [["Redis, a second", "commands ms", "CPU ms", "calls"]]
    for name, spent in found.spent.items():
        rows.append([SHOWN[name], f"{spent.commands_ms:.2f}", f"{spent.cpu_ms:.2f}", f"{spent.calls:.0f}"])
    lines = [f"{found.mails:,} mails came in {found.fill_s:,.0f} s, {found.live:,} are live", columns(rows), ""]
    for name, wrong in found.wrong.items():
        lines += [f"{name}: {'nothing is wrong' if not wrong else f'{len(wrong)} WRONG'}", *wrong]
    cost = "not measured" if not found.spent else "kept" if found.cheap else "broken"
    lines.append(f"promise ({MOST_MS:g} ms a second): {cost}")
    return "\n".join([*lines, "server: " + ", ".join(f"{name} {value}" for name, value in server.items())])

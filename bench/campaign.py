"""`python -m bench campaign`: mails for many, made by workers of which one is killed in the middle.

Each entry names its recipients, every one with `vars` for a stored template. First nobody delivers: the children wait,
and what one of them takes in Redis is measured. Then two workers do, one is killed (kill -9) in the middle, and
everybody must have got one mail (one that was past its dot when its worker died may come twice, and is marked).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from bench.programs import Programs, programs, until
from streamq.mail import parse
from streamq.mail.template import Template
from streamq.queue.check import check
from streamq.queue.connection import command
from streamq.queue.rows import AdmitRow
from streamq.queue.spool import Spool
from streamq.settings import load_settings
from streamq.worker.expander import chunk

__all__ = ["Campaign", "add", "campaign", "table"]

HTML = "<p>Dear {{ name }},</p>\n" + "<p>What is new in {{ month }}, at some length.</p>\n" * 80  # 4 KB
NEWS = Template({"subject": "News of {{ month }} for {{ name }}", "text": "Dear {{ name }}.\n", "html": HTML})


@dataclass(frozen=True, slots=True)
class Campaign:
    """`bytes_per_child`: of Redis' memory while it waits, all that hangs on it included; `doubles`: that came twice,
    `marked`: that were marked ambiguous."""

    entries: int
    recipients: int
    expand_seconds: float
    bytes_per_child: float
    killed_at: int
    seconds: float
    missing: int
    doubles: int
    unmarked: int
    wrong: int
    left: int

    @property
    def good(self) -> bool:
        return not (self.missing or self.unmarked or self.wrong or self.left) and self.bytes_per_child <= 400


def table(found: Campaign) -> str:
    return "\n".join(
        (
            f"{found.recipients:,} recipients of {found.entries:,} entries, expanded in {found.expand_seconds:.1f} s",
            f"{found.bytes_per_child:.0f} bytes of Redis for a child that waits (asked: at most 400)",
            f"worker killed when {found.killed_at:,} were there; all delivered {found.seconds:.1f} s later",
            f"missing {found.missing}, doubles {found.doubles} (unmarked {found.unmarked})",
            f"breaches of the law {found.wrong}, bodies left {found.left}",
        )
    )


async def _feed(spool: Spool, entries: int, each: int) -> None:
    await spool.templates.put("news", NEWS)
    stream = spool.keys.stream("low")
    for number in range(entries):
        recipients = [
            {"to": f"r{number * each + at}@example{at % 50}.net", "vars": {"name": f"Reader {number * each + at}"}}
            for at in range(each)
        ]
        await command(
            spool.redis, "XADD", stream, "*", "id", f"news-{number}", "from", "shop@example.com",
            "template", "news", "vars", '{"month":"May"}', "recipients", orjson.dumps(recipients),
        )  # fmt: skip


async def _memory(spool: Spool) -> int:
    text = (await command(spool.redis, "INFO", "memory")).decode()
    return next(int(line[12:]) for line in text.splitlines() if line.startswith("used_memory:"))


async def _made(spool: Spool) -> int:
    """Children that wait."""
    return int(await command(spool.redis, "XLEN", spool.keys.stream("low")))


async def _waiting(spool: Spool, entries: int, each: int) -> float:
    """Expands all of them, as a worker does it, and reads no child; seconds."""
    begun = time.monotonic()
    reader = "bench"
    for _ in range(entries):
        [entry] = await spool.complete((await spool.read(reader, [("low", 1)])).entries)
        mail = parse(entry.fields, entry=entry.entry, at_ms=0, salt=b"", max_bytes=10**8, template=spool.templates.find)
        assert mail.several is not None
        row = AdmitRow("expand", entry.entry, deadline=2**53, id=mail.id or "")
        token = (await spool.scripts.admit(reader, [row])).token
        await spool.bodies.upload("bench", mail.several.fields, mail.several.personal)
        made = 0
        while made < each:
            rows = list(chunk(mail.several.children, made))
            found = await spool.scripts.expand(
                reader, entry.entry, token, mail.id or "", b"", rows, upload="bench", all_=each, start=made
            )
            made = found.made
    return time.monotonic() - begun


async def campaign(recipients: int = 200_000, entries: int = 200) -> Campaign:
    each = recipients // entries
    with tempfile.TemporaryDirectory(prefix="sqb-") as name:
        folder = Path(name)
        (folder / "waiting").mkdir()
        async with programs(folder / "waiting") as p:
            spool = await Spool.connect(load_settings(), p.url)
            p.stack.push_async_callback(spool.close)
            empty = await _memory(spool)
            await _feed(spool, entries, each)
            seconds = await _waiting(spool, entries, each)
            # What the parents took is gone: children and bodies are all that is left.
            per_child = (await _memory(spool) - empty) / (entries * each)
        (folder / "killed").mkdir()
        async with programs(folder / "killed") as p:
            return await _killed(p, entries, each, seconds, per_child)


async def _killed(p: Programs, entries: int, each: int, expand_seconds: float, per_child: float) -> Campaign:
    many = entries * each
    sink = await p.sink()
    spool = await Spool.connect(load_settings(events_kept=2 * many + 10_000, events_bytes=10**11), p.url)
    p.stack.push_async_callback(spool.close)
    await _feed(spool, entries, each)
    first = await p.worker(lease_seconds=3, events_kept=2 * many + 10_000, events_bytes=10**11)
    await p.worker(lease_seconds=3, events_kept=2 * many + 10_000, events_bytes=10**11)

    async def in_the_middle() -> bool:
        return await _made(spool) > many // 3 or sink.count() > many // 3

    await until(in_the_middle)
    killed_at = await _made(spool)
    first.signal(signal.SIGKILL)
    begun = time.monotonic()

    async def over() -> bool:
        return not await _made(spool)

    await until(over, 900)
    seconds = time.monotonic() - begun
    await p.stop_workers()
    doubles = p.duplicates()
    marked = await _marked(spool)
    report = await check(spool)
    there = len({rcpt for _, rcpt in sink.accepted()})
    left = await command(spool.redis, "EXISTS", spool.keys.bodies)
    return Campaign(
        entries,
        many,
        expand_seconds,
        per_child,
        killed_at,
        seconds,
        many - there,
        sum(times - 1 for times in doubles.values()),
        len(doubles.keys() - marked),
        len(report.wrong),
        int(left),
    )


async def _marked(spool: Spool) -> set[str]:
    """Recipients of mails that were marked ambiguous."""
    entries: set[str] = set()
    recipients: dict[str, str] = {}
    last = "-"
    while rows := await command(spool.redis, "XRANGE", spool.keys.events, last, "+", "COUNT", 1000):
        last = f"({rows[-1][0].decode()}"
        for _, flat in rows:
            data = orjson.loads(flat[5])
            if flat[1] == b"email.ambiguous":
                entries.add(data["entry"])
            if "rcpt" in data:
                recipients[data["entry"]] = data["rcpt"]
    return {recipients[entry] for entry in entries if entry in recipients}


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("campaign", parents=[common], help="mails for many, a worker killed in the middle")
    one.add_argument("--recipients", type=int, default=200_000, help="of all entries (200000)")
    one.add_argument("--entries", type=int, default=200, help="that name them (200)")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    found = asyncio.run(campaign(asked.recipients, asked.entries))
    return {"results": asdict(found)}, found.good, table(found)

"""The demo: everything on this machine, for real: a server, a mail server, workers, XADDs, and what became of them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from streamq.cli.app import app, console, given, run_async
from streamq.queue.check import check
from streamq.queue.connection import command, pipelined
from streamq.queue.look import consumers
from streamq.queue.spool import Spool, time_ms
from streamq.settings import Settings, load_settings

FINAL = {"email.relayed": "relayed", "email.bounced": "bounced", "email.rejected": "rejected"}
CODES_A_SECOND = 20
LONGEST_S = 60.0
RULES = """
[[rule]]
match = "*@busy.example"
stage = "rcpt"
times = 1
reply = "450 4.2.1 The mailbox is busy, try again later"

[[rule]]
match = "*@gone.example"
stage = "rcpt"
reply = "550 5.1.1 No such user here"
"""
TEXT = "Dear customer,\n\nthank you for your order {number}. It leaves our house today.\n\nYour shop\n"


@dataclass
class Story:
    """What was sent, and what the events say of it."""

    sent: dict[str, str] = field(default_factory=dict)  # id → priority
    ended: dict[str, str] = field(default_factory=dict)  # id → how
    twice: int = 0
    deferred: int = 0
    retried: set[str] = field(default_factory=set)
    latency: dict[str, list[int]] = field(default_factory=dict)  # priority → ms from XADD to 250, first attempts
    begun: float = 0.0
    last: float = 0.0
    first_ms: int = 0  # of the newsletters' XADDs
    last_ms: int = 0  # of their first attempts

    @property
    def unaccounted(self) -> list[str]:
        return [id_ for id_ in self.sent if id_ not in self.ended]

    def note(self, kind: str, id_: str, data: dict[str, object]) -> None:
        if kind == "email.deferred":
            self.deferred += 1
            self.retried.add(id_)
        if kind not in FINAL:
            return
        if id_ in self.ended:
            self.twice += 1
        self.ended[id_] = FINAL[kind]
        self.last = time.monotonic()
        if kind == "email.relayed" and id_ not in self.retried:
            added, at, priority = time_ms(str(data["entry"])), int(str(data["at"])), str(data["priority"])
            self.latency.setdefault(priority, []).append(at - added)
            if priority == "low":
                self.first_ms = min(self.first_ms or added, added)
                self.last_ms = max(self.last_ms, at)


@app.command()
def demo(
    mails: Annotated[int, typer.Option(min=10, max=1_000_000, help="newsletter mails")] = 5000,
    processes: Annotated[int, typer.Option(min=1, max=16, help="worker processes")] = 2,
) -> None:
    """See it work: real mails from XADD through Redis to an SMTP server, on this machine, in a minute at most."""
    if not run_async(lambda: _demo(mails, processes)):
        raise typer.Exit(1)


async def _demo(mails: int, processes: int) -> bool:
    from streamq.server import start

    known = load_settings(config=given.get("config"), queue=given.get("queue"))
    with tempfile.TemporaryDirectory(prefix="streamq-demo-") as folder:
        async with AsyncExitStack() as stack:
            server = await asyncio.to_thread(lambda: start(known, directory=Path(folder)))
            stack.callback(server.close)
            console.print(f"redis     {server.version}, started for this:  [bold]{server.cli_line}[/]", soft_wrap=True)
            port = await stack.enter_async_context(_sink(Path(folder)))
            console.print(f"sink      a mail server on 127.0.0.1:{port}: keeps nothing, counts everything")
            environment = {
                "STREAMQ_REDIS_URL": server.url,
                "STREAMQ_RELAY": f"smtp://127.0.0.1:{port}",
                "STREAMQ_RETRY": "2s,3s",
                "STREAMQ_JITTER": "0.2",
                "STREAMQ_QUEUE": known.queue,
            }
            worker = await stack.enter_async_context(_workers(environment, processes, Path(folder)))
            console.print(f"workers   {processes} processes, parent {worker}")
            spool = await Spool.connect(known, server.url)
            stack.push_async_callback(spool.close)
            await _readers(spool, processes)
            return await _play(spool, mails, known)


async def _readers(spool: Spool, many: int) -> None:
    """Returns when so many workers read: their start is not the mails' wait."""
    end = time.monotonic() + LONGEST_S / 4
    while len(await consumers(spool)) < many and time.monotonic() < end:
        await asyncio.sleep(0.02)


@asynccontextmanager
async def _sink(folder: Path) -> AsyncIterator[int]:
    (folder / "rules.toml").write_text(RULES)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamq.sink", "--port", "0", "--keep", "0", "--quiet",
        "--rules", str(folder / "rules.toml"), stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = (await process.stdout.readline()).decode()
        yield int(line.rsplit(":", 1)[1])
    finally:
        await _end(process)


@asynccontextmanager
async def _workers(environment: dict[str, str], many: int, folder: Path) -> AsyncIterator[int]:
    with (folder / "workers.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "streamq", "worker", "--processes", str(many),
            stdout=log, stderr=log, env={**os.environ, **environment}, start_new_session=True,
        )  # fmt: skip
        try:
            yield process.pid
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(15):
                await process.wait()
        except TimeoutError:
            process.kill()
    await process.communicate() if process.stdout else await process.wait()


async def _play(spool: Spool, mails: int, known: Settings) -> bool:
    """Send, watch, account for every mail."""
    story = Story()
    console.print(
        f"mails     {mails:,} newsletters at once to '{spool.keys.stream('low')}', and {CODES_A_SECOND} one-time codes "
        f"a second to '{spool.keys.stream('high')}'; one in 50 meets a busy mailbox, one in 100 nobody\n",
        soft_wrap=True,
    )
    story.begun = time.monotonic()
    watcher = asyncio.create_task(_watch(spool, story))
    try:
        await asyncio.gather(_newsletters(spool, story, mails), _codes(spool, story, mails))
        await _finish(story)
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
    report = await check(spool)
    _print(story, report.clean)
    for id_ in story.unaccounted[:5]:
        console.print(f"unaccounted for: {id_}", style="red")
    return not story.unaccounted and not story.twice and report.clean


async def _newsletters(spool: Spool, story: Story, mails: int) -> None:
    stream = spool.keys.stream("low")
    for start in range(0, mails, 250):
        commands = []
        for number in range(start, min(start + 250, mails)):
            domain = "gone.example" if number % 100 == 7 else "busy.example" if number % 50 == 3 else None
            to = f"customer{number}@{domain or f'shop{number % 97}.example'}"
            id_ = f"news-{number}"
            story.sent[id_] = "low"
            commands.append(
                ("XADD", stream, "*", "id", id_, "from", "Shop <news@shop.example>", "to", to,
                 "subject", f"Order {number}", "text", TEXT.format(number=number))
            )  # fmt: skip
        await pipelined(spool.redis, commands)


async def _codes(spool: Spool, story: Story, mails: int) -> None:
    """As long as the newsletters run."""
    number = 0
    while number < CODES_A_SECOND or sum(id_.startswith("news") for id_ in story.ended) < mails * 0.97:
        id_ = f"code-{number}"
        story.sent[id_] = "high"
        await command(
            spool.redis, "XADD", spool.keys.stream("high"), "*", "id", id_, "from", "login@shop.example",
            "to", f"user{number}@inbox.example", "subject", "Your code", "text", f"{100000 + number * 7919 % 900000}",
        )  # fmt: skip
        number += 1
        if time.monotonic() - story.begun > LONGEST_S * 0.75:
            return
        await asyncio.sleep(1 / CODES_A_SECOND)


async def _watch(spool: Spool, story: Story) -> None:
    last = "0"
    while True:
        found = await command(spool.reader, "XREAD", "COUNT", 1000, "BLOCK", 500, "STREAMS", spool.keys.events, last)
        for _, rows in found or ():
            for id_, flat in rows:
                last = id_.decode()
                story.note(flat[1].decode(), flat[3].decode(), orjson.loads(flat[5]))


async def _finish(story: Story) -> None:
    """Until every mail has ended, or the minute is over."""
    columns = (
        TextColumn("delivering"),
        BarColumn(40),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rest]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=len(story.sent), rest="")
        while story.unaccounted and time.monotonic() - story.begun < LONGEST_S:
            waiting = len(story.retried - story.ended.keys())
            progress.update(bar, completed=len(story.ended), total=len(story.sent), rest=f"{waiting} to be retried")
            await asyncio.sleep(0.1)
        progress.update(bar, completed=len(story.ended), total=len(story.sent), rest="")


def _print(story: Story, clean: bool) -> None:
    ended = Counter(story.ended.values())
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
    table.add_row("sent", f"{len(story.sent):,}", "XADDs")
    table.add_row("relayed", f"{ended['relayed']:,}", "the relay said 250")
    table.add_row("deferred", f"{story.deferred:,}", "times a mailbox said 450: on the schedule, and again")
    retried = sum(story.ended.get(id_) == "relayed" for id_ in story.retried)
    table.add_row("retried", f"{retried:,}", "of those relayed needed more than one attempt")
    table.add_row("bounced", f"{ended['bounced']:,}", "550, no such user: dead letters (`streamq dead ls`)")
    table.add_row("unaccounted", f"{len(story.unaccounted):,}", "" if story.unaccounted else "every id has one end")
    if story.twice:
        table.add_row("twice", f"{story.twice:,}", "", style="red")
    console.print(table)
    seconds = max(story.last - story.begun, 1e-9)
    console.print()
    news = story.latency.get("low", [])
    if news:
        rate = len(news) * 1000 / max(story.last_ms - story.first_ms, 1)
        console.print(f"{rate:,.0f} newsletters a second, from the first XADD to the last first attempt")
    for name, label in (("high", "one-time codes"), ("low", "newsletters")):
        values = sorted(story.latency.get(name, []))
        if values:
            half, most = values[len(values) // 2], values[min(len(values) - 1, len(values) * 99 // 100)]
            console.print(f"{label:<15} XADD to 250: 50 % within {half:,} ms, 99 % within {most:,} ms")
    law = "the conservation law holds" if clean else "[red]the conservation law is broken: a fault of ours[/]"
    console.print(f"all ended after {seconds:.1f} s; {law}")

"""The demo: everything on this machine, for real: a server, a mail server, workers, XADDs, and what became of them."""

from __future__ import annotations

import asyncio
import os
import signal
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
from redis.exceptions import RedisError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from streamq.cli.app import app, given, run_async
from streamq.cli.own import close_own, own_program
from streamq.cli.terminal import clip, console, table
from streamq.errors import ServerFailed, SettingsError
from streamq.queue.check import check
from streamq.queue.connection import command, pipelined
from streamq.queue.look import consumers
from streamq.queue.spool import Spool, time_ms
from streamq.settings import load_settings

FINAL = {"email.relayed": "relayed", "email.bounced": "bounced", "email.rejected": "rejected"}
CODES_A_SECOND = 20
START_S = 15.0
LONGEST_S = 40.0  # with start and end less than a minute
MAILS_A_SECOND = 300  # a slow machine's pace: who asks for more mails waits longer
LOG_LINES = 10
INTERRUPTED = 130  # as shells say it
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
UNUSUAL = {"rejected", "twice"}
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
    begun: float = 0.0  # monotonic seconds
    last: float = 0.0
    newsletters: int = 0  # that have ended
    first_ms: int = 0  # of the newsletters' XADDs
    last_ms: int = 0  # of their first attempts

    @property
    def sound(self) -> bool:
        """Every mail that was sent has ended, once."""
        return bool(self.sent) and not self.unaccounted and not self.twice

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
        elif id_.startswith("news-"):
            self.newsletters += 1
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
    mails: Annotated[int, typer.Option(min=10, max=1_000_000, help="newsletter mails", metavar="N")] = 5000,
    processes: Annotated[int, typer.Option(min=1, max=16, help="worker processes", metavar="N")] = 2,
) -> None:
    """See it work: real mails from XADD through Redis to an SMTP server, on this machine, in a minute at most."""
    flags = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if flags:
        raise SettingsError(f"demo: it has a server and settings of its own (got {', '.join(flags)})")
    _forget_settings()
    try:
        sound = run_async(lambda: _demo(mails, processes))
    except asyncio.CancelledError:
        raise typer.Exit(INTERRUPTED) from None
    if not sound:
        raise typer.Exit(1)


def _forget_settings() -> None:
    """What a user has set, limits above all, is not for the demo, nor for the programs that it starts."""
    for name in list(os.environ):
        if name == "REDIS_URL" or (name.startswith("STREAMQ_") and name != "STREAMQ_REDIS_BIN"):
            del os.environ[name]


async def _demo(mails: int, processes: int) -> bool:
    """Raises `CancelledError` at SIGTERM and SIGINT, when everything it started has ended."""
    from streamq.server import start

    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    known = load_settings()
    with tempfile.TemporaryDirectory(prefix="streamq-demo-", ignore_cleanup_errors=True) as folder:
        async with AsyncExitStack() as stack:
            server = await asyncio.to_thread(lambda: start(known, directory=Path(folder)))
            stack.push_async_callback(asyncio.to_thread, close_own, server, Path(folder))
            console.print(f"redis     {server.version}, for as long as this runs:  {server.cli_line}", soft_wrap=True)
            port = await stack.enter_async_context(_sink(Path(folder)))
            console.print(f"sink      a mail server on 127.0.0.1:{port}: keeps nothing, counts everything")
            workers = {
                "STREAMQ_REDIS_URL": server.url,
                "STREAMQ_RELAY": f"smtp://127.0.0.1:{port}",
                "STREAMQ_RETRY": "2s,3s",
                "STREAMQ_JITTER": "0.2",
                # Who kills the demo takes its server away before the workers have settled: they'd wait for another.
                "STREAMQ_GRACE": "5s",
            }
            log = Path(folder) / "workers.log"
            worker = await stack.enter_async_context(_workers({**os.environ, **workers}, processes, log))
            console.print(f"workers   {processes} processes, parent {worker}")
            spool = await Spool.connect(known, server.url)
            stack.push_async_callback(spool.close)
            try:
                sound = await _readers(spool, processes) and await _play(spool, mails)
            except* (RedisError, OSError) as wrong:
                raise wrong.exceptions[0] from None
            if not sound:
                _print_log(log)
            return sound


async def _readers(spool: Spool, many: int) -> bool:
    """Returns when so many workers read (their start is not the mails' wait); False where they don't come."""
    end = time.monotonic() + START_S
    while len(await consumers(spool)) < many:
        if time.monotonic() > end:
            console.print(f"the workers did not start in {START_S:.0f} s", style="red")
            return False
        await asyncio.sleep(0.02)
    return True


def _print_log(log: Path) -> None:
    console.print("the last lines of the workers' log:", style="red")
    for line in log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]:
        console.print(f"  {clip(line, 400)}", soft_wrap=True)


@asynccontextmanager
async def _sink(folder: Path) -> AsyncIterator[int]:
    (folder / "rules.toml").write_text(RULES)
    words = ("sink", "--port", "0", "--keep", "0", "--quiet", "--rules", str(folder / "rules.toml"))
    async with own_program(*words, stdout=asyncio.subprocess.PIPE) as process:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        if not line.strip():
            raise ServerFailed("the sink did not start")
        yield int(line.rsplit(":", 1)[1])


@asynccontextmanager
async def _workers(environment: dict[str, str], many: int, log: Path) -> AsyncIterator[int]:
    with log.open("wb") as output:
        words = ("worker", "--processes", str(many))
        async with own_program(*words, stdout=output, stderr=output, environment=environment) as process:
            yield process.pid


async def _play(spool: Spool, mails: int) -> bool:
    """Send, watch, account for every mail."""
    story = Story(begun=time.monotonic())
    end = story.begun + max(LONGEST_S, mails / MAILS_A_SECOND)
    console.print(
        f"mails     {mails:,} newsletters at once to '{spool.keys.stream('low')}', and {CODES_A_SECOND} one-time codes "
        f"a second to '{spool.keys.stream('high')}'; one in 50 meets a busy mailbox, one in 100 nobody\n",
        soft_wrap=True,
    )
    async with asyncio.TaskGroup() as group:  # one that fails is the end of all
        watcher = group.create_task(_watch(spool, story))
        news = group.create_task(_newsletters(spool, story, mails))
        codes = group.create_task(_codes(spool, story, mails, end))
        await _until_ended(story, [news, codes], end)
        for task in (watcher, news, codes):
            task.cancel()
    report = await check(spool)
    _print(story, report.clean)
    for id_ in story.unaccounted[:5]:
        console.print(f"unaccounted for: {id_}", style="red")
    return story.sound and report.clean


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


async def _codes(spool: Spool, story: Story, mails: int, end: float) -> None:
    """As long as the newsletters run, and for a second at least."""
    number = 0
    while number < CODES_A_SECOND or (story.newsletters < mails * 0.97 and time.monotonic() < end - LONGEST_S / 4):
        id_ = f"code-{number}"
        story.sent[id_] = "high"
        await command(
            spool.redis, "XADD", spool.keys.stream("high"), "*", "id", id_, "from", "login@shop.example",
            "to", f"user{number}@inbox.example", "subject", "Your code", "text", f"{100000 + number * 7919 % 900000}",
        )  # fmt: skip
        number += 1
        await asyncio.sleep(1 / CODES_A_SECOND)


async def _watch(spool: Spool, story: Story) -> None:
    last = "0"
    while True:
        found = await command(spool.reader, "XREAD", "COUNT", 1000, "BLOCK", 500, "STREAMS", spool.keys.events, last)
        for _, rows in found or ():
            for id_, flat in rows:
                last = id_.decode()
                story.note(flat[1].decode(), flat[3].decode(), orjson.loads(flat[5]))


async def _until_ended(story: Story, senders: list[asyncio.Task[None]], end: float) -> None:
    """Until every mail has ended, or the time is over."""
    columns = (
        TextColumn("delivering", markup=False),
        BarColumn(30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rest]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None, rest="")
        while time.monotonic() < end:
            waiting = len(story.retried - story.ended.keys())
            progress.update(bar, completed=len(story.ended), total=len(story.sent), rest=f"{waiting} to be retried")
            if all(task.done() for task in senders) and len(story.ended) >= len(story.sent):
                break
            await asyncio.sleep(0.05)
        progress.update(bar, completed=len(story.ended), total=len(story.sent), rest="")


def _print(story: Story, clean: bool) -> None:
    ended = Counter(story.ended.values())
    retried = sum(story.ended.get(id_) == "relayed" for id_ in story.retried)
    missing = len(story.unaccounted)
    rows = [
        ("sent", len(story.sent), "XADDs"),
        ("relayed", ended["relayed"], "the relay said 250"),
        ("deferred", story.deferred, "times a mailbox said 450: on the schedule, and again"),
        ("retried", retried, "of those relayed needed more than one attempt"),
        ("bounced", ended["bounced"], "550, no such user: dead letters"),
        ("rejected", ended["rejected"], "malformed: none should be"),
        ("unaccounted", missing, "of these we know no end" if missing else "every id has one end"),
        ("twice", story.twice, "have two ends"),
    ]
    shown = [(name, many, said) for name, many, said in rows if many or name not in UNUSUAL]
    console.print(
        table(("", "mails", ""), [[name, f"{many:,}", said] for name, many, said in shown], right=("mails",)),
        soft_wrap=True,
    )
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
    law = "the conservation law holds" if clean else "the conservation law is broken: a fault of ours"
    how = "all ended" if story.sound else "not all ended once; the last did"
    console.print(f"{how} after {seconds:.1f} s; {law}", style=None if clean and story.sound else "red")

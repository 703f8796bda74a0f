"""top: a live queue on one screen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from redis.exceptions import RedisError
from rich.live import Live
from rich.text import Text

from streamq.cli.app import Json, app, open_queue, run_async
from streamq.cli.route import lanes_words, learnt_words
from streamq.cli.terminal import clip, console, emit_line, table
from streamq.queue.events import Event
from streamq.queue.look import Status
from streamq.queue.pulse import Look, Pulse
from streamq.queue.routes import RouteView
from streamq.queue.walk import STATES
from streamq.queue.wording import evicts_words, plural, shown_ms, why_words
from streamq.settings import duration_ms

LEAST_MS = 250  # a look costs the server half a millisecond or two
BARS = "▁▂▃▄▅▆▇█"
# What is shown of an outcome's rate, and how it looks.
OUTCOMES = {
    "relayed": "green",
    "delivered": "green",
    "deferred": "yellow",
    "throttled": "yellow",
    "bounced": "red",
    "rejected": "red",
    "expired": "red",
    "failed": "red",
    "held": "yellow",
    "ambiguous": "yellow",
}
EVENTS_LEAST = 5
ROUTES_SHOWN = 5
PIPED_LINES = 40


@app.command()
def top(
    interval: Annotated[str, typer.Option("--interval", "-d", help="between two looks", metavar="TIME")] = "2s",
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="so many looks, then end")] = None,
    json: Json = False,
) -> None:
    """A live view: rates in and out, depth, routes, what is parked, the last outcomes. q, or Ctrl-C, ends it.

    Where the output is no terminal: one look with rates, and the end; --json: a line for each look.
    """
    every = _interval(interval)
    with contextlib.suppress(KeyboardInterrupt):
        run_async(lambda: _run(every, count, json))


def _interval(text: str) -> float:
    from streamq.errors import SettingsError

    try:
        ms = duration_ms(text)
    except ValueError as wrong:
        raise SettingsError(f"--interval: {wrong}") from None
    if ms < LEAST_MS:
        raise SettingsError(f"--interval: at least {LEAST_MS}ms (got {text!r})")
    return ms / 1000


async def _run(every: float, count: int | None, json: bool) -> None:
    async with open_queue() as spool:
        name = spool.settings.queue
        pulse = Pulse(spool, list(spool.settings.ways) or ["relay"], max(EVENTS_LEAST, console.height))
        if json:
            return await _lines(pulse, every, count)
        if not console.is_terminal:
            await pulse.look()  # rates are between two
            for _ in range(count or 1):
                await asyncio.sleep(every)
                console.print(screen(name, await pulse.look(), pulse.relayed, PIPED_LINES), soft_wrap=True)
            return None
        return await _live(name, pulse, every, count)


async def _lines(pulse: Pulse, every: float, count: int | None) -> None:
    seen = 0
    while True:
        emit_line(_plain(await pulse.look()))
        sys.stdout.flush()
        seen += 1
        if seen == count:
            return
        await asyncio.sleep(every)


async def _live(name: str, pulse: Pulse, every: float, count: int | None) -> None:
    asked = asyncio.Event()
    with _keys(asked), Live(console=console, screen=True, auto_refresh=False) as live:
        seen = 0
        while not asked.is_set():
            try:
                shown = screen(name, await pulse.look(), pulse.relayed, console.height)
            except (RedisError, OSError) as away:  # a failover is when somebody looks: it goes on
                shown = Text(f"redis: {clip(str(away) or type(away).__name__, 200)}; again in {every:g} s", style="red")
            live.update(shown, refresh=True)
            seen += 1
            if seen == count:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asked.wait(), every)


@contextlib.contextmanager
def _keys(asked: asyncio.Event) -> Iterator[None]:
    """Sets it at `q`, without an Enter and without showing what is typed."""
    if not sys.stdin or not sys.stdin.isatty():
        yield
        return
    there = sys.stdin.fileno()
    before = termios.tcgetattr(there)
    loop = asyncio.get_running_loop()

    def typed() -> None:
        typed_now = os.read(there, 1024)
        if not typed_now or b"q" in typed_now.lower():
            asked.set()

    tty.setcbreak(there)
    loop.add_reader(there, typed)
    try:
        yield
    finally:
        loop.remove_reader(there)
        termios.tcsetattr(there, termios.TCSADRAIN, before)


def screen(queue: str, look: Look, relayed: Sequence[float], height: int) -> Text:
    """What one look says, in so many lines: the events take what the rest leaves."""
    now = look.status
    lines = [_head(queue, now), *_flow(look, relayed), Text(), _depth(now), Text()]
    lines += [_labelled("route", _route(view), "red" if view.closed else None) for view in look.routes[:ROUTES_SHOWN]]
    if len(look.routes) > ROUTES_SHOWN:
        lines.append(_labelled("", f"… and {len(look.routes) - ROUTES_SHOWN:,} more: `streamq route ls`"))
    if look.lanes:
        for nth, lane in enumerate(look.lanes):
            lines.append(_labelled("" if nth else "parked", lanes_words([lane], 0)))
        if look.more_lanes:
            lines.append(_labelled("", lanes_words([], look.more_lanes)))
    shut = [each for each in now.closed if each.site]
    if shut:
        more = f"; … and {len(shut) - 1:,} more: `streamq site ls`" if len(shut) > 1 else ""
        lines.append(_labelled("closed", f"site {shut[0].site}: {why_words(shut[0])}{more}", "yellow"))
    lines += [_labelled("warning", text, "red") for text in _warnings(now)]
    used = sum(line.plain.count("\n") + 1 for line in lines)
    events = look.events[: max(EVENTS_LEAST, height - used - 3)]
    if events:
        lines += [Text(), _events(events, now.now_ms)]
    return Text("\n").join(lines)


def _head(queue: str, now: Status) -> Text:
    ceiling = f" of {now.memory_max / 1e6:,.0f}" if now.memory_max else ""
    at = datetime.fromtimestamp(now.now_ms / 1000, UTC)
    workers = f"{now.workers} worker{'s' * (now.workers != 1)}"
    words = f"{workers}, redis {now.memory / 1e6:,.1f}{ceiling} MB, {plural(now.dead, 'dead letter')}"
    return Text.assemble((f"queue {queue}", "bold"), f"  {words}  {at:%H:%M:%S} UTC")


def _flow(look: Look, relayed: Sequence[float]) -> list[Text]:
    if look.flow is None:
        return [_labelled("flow", "rates from the second look on")]
    flow = Text.assemble(f"{'flow':<9} in {_rate(look.flow.came)}/s, out {_rate(look.flow.went)}/s")
    for name, style in OUTCOMES.items():
        if rate := look.flow.outcomes.get(name):
            flow.append(", ").append(f"{name} {_rate(rate)}/s", style)
    bars = _bars(relayed)
    return [_cut(flow), *([_labelled("relayed", f"{bars} at most {_rate(max(relayed))}/s")] if bars else [])]


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _bars(rates: Sequence[float]) -> str:
    """The last looks, oldest first; "" where nothing went."""
    most = max(rates, default=0.0)
    if not most:
        return ""
    return "".join(" " if not rate else BARS[min(len(BARS) - 1, int(rate / most * len(BARS)))] for rate in rates)


def _depth(now: Status) -> Text:
    rows = []
    for priority, states in now.depth.items():
        oldest = shown_ms(now.oldest_ms[priority]) if now.oldest_ms[priority] else "–"
        rows.append([clip(priority, 20), *(f"{states[state]:,}" for state in STATES), oldest])
    rows.append(["all", *(f"{now.sum(state):,}" for state in STATES), ""])
    return table(("priority", *STATES, "oldest"), rows, right=(*STATES, "oldest"))


def _route(view: RouteView) -> str:
    words = [f"{view.name}: {plural(view.connections, 'connection')}, {plural(view.parked, 'mail')} parked"]
    if view.learnt is not None and (known := learnt_words(view.learnt, brief=True)):
        words.append(known)
    words += [why_words(each) for each in view.closed]
    return "; ".join(words)


def _warnings(now: Status) -> list[str]:
    found = []
    if now.evicts:
        found.append(evicts_words(now.evicts, now.evicted))
    if now.memory_max and now.memory > 0.85 * now.memory_max:
        found.append("redis is nearly full: XADD will be refused at maxmemory")
    if not now.workers and now.live:
        found.append("mails wait and no worker runs: `streamq worker`")
    return found


def _events(events: Sequence[Event], now_ms: int) -> Text:
    rows = []
    for event in events:
        said = event.said
        what = said or event.text("reason") or event.text("class")
        whose = event.text("rcpt") or event.text("site") or event.id
        ago = shown_ms(max(0, now_ms - event.at_ms))
        rows.append([ago, clip(event.kind.removeprefix("email."), 16), clip(whose, 40), clip(what, 200)])
    made = table(("ago", "event", "to", "reply, reason"), rows, right=("ago",), firm=2)
    lines = made.split("\n")
    for line, event in zip(lines[1:], events, strict=True):
        line.stylize(OUTCOMES.get(event.kind.removeprefix("email."), ""))
    return Text("\n").join(lines)


def _labelled(label: str, text: str, style: str | None = None) -> Text:
    return _cut(Text(f"{label:<9} {clip(text, 400)}", style or ""))


def _cut(line: Text) -> Text:
    line.truncate(console.width, overflow="ellipsis")
    return line


def _plain(look: Look) -> dict[str, object]:
    """For JSON: what `status` says, and what has changed since the last look."""
    since = look.flow
    flow = {
        "in": since and since.came,
        "out": since and since.went,
        "outcomes": since and {name: round(rate, 3) for name, rate in since.outcomes.items()},
    }
    return {
        **look.status.shown,
        "live": look.status.live,
        "rates": flow,
        "routes": [{**asdict(view), "connections": view.connections} for view in look.routes],
        "lanes": [
            {"name": lane.name, "site": lane.site, "many": lane.many, "drained_ms": lane.drained_ms, "open": lane.open}
            for lane in look.lanes
        ],
    }

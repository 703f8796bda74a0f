"""Simulate: how long a campaign takes, and what it meets, in virtual time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from streamq.cli.app import Json, app, settings
from streamq.cli.own import own_server
from streamq.cli.terminal import clip, console, emit, table
from streamq.errors import SettingsError
from streamq.queue.wording import shown_ms
from streamq.settings.values import cut, duration_ms
from streamq.simulate import MODELS, Result, SiteResult, Terms, picture, read_scenario, simulate

COLUMNS = ("site", "model", "mails", "last", "met", "throttles", "peak/s", "rate/s")


@app.command(name="simulate")
def simulate_(
    sites: Annotated[
        Path | None, typer.Option(help="what is simulated (docs/simulate.md); without: a mix", metavar="FILE")
    ] = None,
    mails: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="of the campaign", metavar="N")] = None,
    scale: Annotated[float, typer.Option(help="of mails, rates and quotas, for a quick look", metavar="X")] = 1.0,
    workers: Annotated[int, typer.Option(min=1, max=64, help="worker processes", metavar="N")] = 2,
    model: Annotated[
        list[str] | None, typer.Option(help=f"only sites of this one: {', '.join(MODELS)}", metavar="NAME")
    ] = None,
    seed: Annotated[int, typer.Option(help="the same seed, the same outcome", metavar="N")] = 1,
    until: Annotated[str, typer.Option(help="virtual time after which it ends", metavar="TIME")] = "2d",
    svg: Annotated[Path | None, typer.Option(help="draw rates over time", metavar="FILE")] = None,
    json: Json = False,
) -> None:
    """How long a campaign takes and what it meets: the real scripts and workers, with your settings, in virtual time
    against models of providers. On a server of its own; your queue is not touched."""
    known = settings()
    try:
        terms = Terms(workers=workers, seed=seed, until_s=duration_ms(until) / 1000)
    except ValueError as wrong:
        raise SettingsError(f"--until: {wrong}") from None
    if not 0.001 <= scale <= 1000:
        raise SettingsError(f"--scale: from 0.001 to 1000 (got {cut(scale)})")
    scenario = read_scenario(sites).of(model or [])
    if mails is not None:
        scenario = replace(scenario, mails=mails)
    scenario = scenario.scaled(scale)
    if svg is not None and not svg.parent.is_dir():
        raise SettingsError(f"--svg: no such directory: {cut(str(svg.parent))}")
    begun = time.monotonic()
    with _ended_by_signals(), own_server(known, "simulate") as server, _bar(json, scenario.mails) as bar:
        found = simulate(scenario, known, server.url, terms, bar.show)
    if svg is not None:
        svg.write_text(picture(found), "utf-8")
    if json:
        emit(found.plain())
    else:
        _print(found, time.monotonic() - begun)
    if svg is not None and not json:
        console.print(f"drawn: {clip(str(svg), 500)}", soft_wrap=True)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end it as Ctrl-C does: nothing of it stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _bar:  # noqa: N801
    """Progress on a terminal, by mails; nothing for JSON."""

    def __init__(self, hidden: bool, mails: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bar = Progress(*columns, console=console, transient=True, disable=hidden or not console.is_terminal)
        self.task = self.bar.add_task("0 s", total=mails)

    def __enter__(self) -> _bar:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def show(self, seconds: float, taken: int) -> None:
        self.bar.update(self.task, completed=taken, description=shown_ms(seconds * 1000))


def _print(found: Result, real_s: float) -> None:
    rows = [_cells(site) for site in found.sites]
    if len(rows) > 1:
        rows.append(_cells(found.whole))
    console.print(table(COLUMNS, rows, right=COLUMNS[2:], firm=1))
    console.print(
        f"\n{found.failed:,} failed, {found.left:,} left; {found.opened:,} connections, {found.turned_away:,} of them "
        f"turned away; {shown_ms(found.seconds * 1000)} in {real_s:.1f} s",
        soft_wrap=True,
    )


def _cells(site: SiteResult) -> tuple[str, ...]:
    left = site.mails - site.taken
    return (
        site.name,
        site.model,
        f"{site.mails:,}",
        f"{left:,} left" if left else shown_ms(site.seconds * 1000),
        f"{site.met_share:.1%}",
        f"{site.throttles:,}",
        f"{site.peak:,}",
        f"{site.steady:,.1f}",
    )

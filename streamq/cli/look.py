"""Look: status, ls, show, check."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from streamq.cli.app import ID, Json, app, clip, console, emit, open_queue, run_async, shown_ms
from streamq.errors import SettingsError
from streamq.queue.check import check as check_law
from streamq.queue.connection import command
from streamq.queue.look import STATES, MailView, Status, age_ms, locate
from streamq.queue.look import show as show_mail
from streamq.queue.look import status as read_status
from streamq.queue.steer import Selector, rules, select

BODY = {b"text", b"html", b"raw", b"attachments", b"vars", b"recipients"}


@app.command()
def status(json: Json = False) -> None:
    """Depth by priority and state, what became of mails, who works."""

    async def run() -> None:
        async with open_queue() as spool:
            now = await read_status(spool)
            standing = await rules(spool)
            if json:
                emit({**asdict(now), "live": now.live, "rules": standing})
            else:
                _print_status(spool.settings.queue, now, standing)

    run_async(run)


def _print_status(queue: str, now: Status, standing: dict[str, str]) -> None:
    table = Table(title=f"queue {queue}", title_justify="left", title_style="bold")
    table.add_column("priority")
    for name in (*STATES, "oldest"):
        table.add_column(name, justify="right")
    for priority, states in now.depth.items():
        oldest = shown_ms(now.oldest_ms[priority]) if now.oldest_ms[priority] else "–"
        table.add_row(priority, *(f"{states[state]:,}" for state in STATES), oldest)
    console.print(table)
    ended = ", ".join(f"{count:,} {name}" for name, count in sorted(now.totals.items())) or "nothing yet"
    console.print(f"so far    {ended}")
    if now.classes:
        most = sorted(now.classes.items(), key=lambda pair: -pair[1])[:8]
        console.print("reasons   " + ", ".join(f"{count:,} {name}" for name, count in most))
    due = f"; next due in {shown_ms(max(0, now.next_due_ms - now.now_ms))}" if now.next_due_ms else ""
    console.print(f"dead      {now.dead:,} dead letters; {now.events:,} events kept{due}")
    ceiling = f" of {now.memory_max / 1e6:,.0f} MB" if now.memory_max else ""
    console.print(f"workers   {now.workers}; redis uses {now.memory / 1e6:,.1f} MB{ceiling}")
    for name, left in now.paused.items():
        console.print(f"closed    route {name}: looks again in {shown_ms(left)}", style="yellow")
    for name, verb in standing.items():
        console.print(f"rule      {verb} {name}", style="yellow")
    if now.memory_max and now.memory > 0.85 * now.memory_max:
        console.print("warning   redis is nearly full: XADD will be refused at maxmemory", style="red")
    if not now.workers and now.live:
        console.print("warning   mails wait and no worker runs: `streamq worker`", style="red")


@app.command()
def ls(
    state: Annotated[str | None, typer.Option(help=f"one of {', '.join(STATES)}")] = None,
    priority: Annotated[str | None, typer.Option()] = None,
    domain: Annotated[str | None, typer.Option(help="of the recipient")] = None,
    tenant: Annotated[str | None, typer.Option()] = None,
    tag: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, help="at most so many")] = 50,
    json: Json = False,
) -> None:
    """List live mails, oldest first within each state."""
    if state is not None and state not in STATES:
        raise SettingsError(f"--state: one of {', '.join(STATES)} (got {state!r})")
    states = STATES if state is None else (state,)

    async def run() -> None:
        async with open_queue() as spool:
            seconds, micros = await command(spool.redis, "TIME")
            now_ms = int(seconds) * 1000 + int(micros) // 1000
            views: list[MailView] = []
            more = False
            async for view in select(spool, Selector(priority, domain, tenant, tag, states)):
                if len(views) == limit:
                    more = True
                    break
                views.append(view)
            if json:
                emit([_plain(view, now_ms) for view in views])
                return
            table = Table()
            for name in ("entry", "priority", "state", "age", "to", "subject", "why, when"):
                table.add_column(name, no_wrap=name in {"entry", "state", "age"})
            for view in views:
                table.add_row(
                    view.entry,
                    view.priority,
                    view.state,
                    shown_ms(age_ms(view, now_ms)),
                    Text(clip(view.text("envelope_to") or view.text("to"), 40)),
                    Text(clip(view.text("subject"), 40)),
                    Text(clip(_why(view, now_ms), 60)),
                )
            console.print(table)
            if more:
                console.print(f"… and more: --limit {limit * 10}")

    run_async(run)


def _why(view: MailView, now_ms: int) -> str:
    last = str(view.notes.get("reply") or view.notes.get("reason") or "")
    if view.state == "scheduled":
        return f"in {shown_ms(max(0, view.due_ms - now_ms))} {last}"
    if view.state == "parked":
        return f"lane {view.lane} {last}"
    if view.state == "leased":
        return f"{view.holder}"
    return last


def _plain(view: MailView, now_ms: int) -> dict[str, Any]:
    """For JSON: fields without bodies."""
    fields = {name.decode("utf-8", "replace"): value for name, value in view.fields.items() if name not in BODY}
    known: dict[str, Any] = {"entry": view.entry, "priority": view.priority, "state": view.state}
    known |= {"age_ms": age_ms(view, now_ms), "fields": fields, "notes": view.notes}
    for name in ("due_ms", "lane", "holder", "token", "intent"):
        if getattr(view, name):
            known[name] = getattr(view, name)
    return known


@app.command()
def show(
    id_: ID,
    tenant: Annotated[str | None, typer.Option(help="whose id it is")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="bodies, too")] = False,
    json: Json = False,
) -> None:
    """One live mail: where it is, why, its fields, its attempts."""

    async def run() -> None:
        async with open_queue() as spool:
            view = await show_mail(spool, await locate(spool, id_, tenant))
            seconds, _ = await command(spool.redis, "TIME")
            now_ms = int(seconds) * 1000
            if json:
                known = _plain(view, now_ms)
                if raw:
                    known["fields"] = {name.decode("utf-8", "replace"): value for name, value in view.fields.items()}
                emit(known)
                return
            console.print(f"[bold]{view.entry}[/]  {view.priority}  {view.state}  {shown_ms(age_ms(view, now_ms))} old")
            if view.due_ms:
                console.print(f"next attempt in {shown_ms(max(0, view.due_ms - now_ms))}")
            if view.lane:
                console.print(f"waits in lane {view.lane} for a slot")
            if view.holder:
                console.print(f"leased by {view.holder}, token {view.token}, heard of {shown_ms(view.idle_ms)} ago")
            if view.intent:
                console.print(f"asked for: {view.intent}, when this attempt ends unsent")
            for name, value in view.notes.items():
                console.print(Text(f"  {name:<12} {clip(str(value), 200)}"))
            console.rule(style="dim")
            for field, content in view.fields.items():
                text = content.decode("utf-8", "backslashreplace")
                hidden = field in BODY and not raw
                said = f"({len(content):,} bytes: --raw)" if hidden else text if raw else clip(text, 200)
                console.print(Text(f"{field.decode('utf-8', 'replace'):<16} {said}"))

    run_async(run)


@app.command()
def check(
    repair: Annotated[bool, typer.Option("--repair", help="mend what is wrong")] = False, json: Json = False
) -> None:
    """The conservation law: every mail is in exactly one state. On a live queue, too. Exit 1 where it is broken."""

    async def run() -> bool:
        async with open_queue() as spool:
            report = await check_law(spool, repair=repair)
            if json:
                wrong = [{"entry": one.entry, "wrong": one.what} for one in report.wrong]
                emit({"clean": report.clean, "seen": report.seen, "wrong": wrong, "repaired": report.repaired})
            else:
                visited = sum(report.total(state) for state in STATES)
                seen = ", ".join(f"{report.total(state):,} {state}" for state in STATES)
                console.print(f"{visited:,} mails visited: {seen}")
                for one in report.wrong[:50]:
                    console.print(f"{one.what:<8} {one.entry}", style="red")
                if len(report.wrong) > 50:
                    console.print(f"… and {len(report.wrong) - 50:,} more")
                if report.clean:
                    console.print("clean: each is in exactly one state", style="green")
                elif repair:
                    console.print(f"{report.repaired:,} of {len(report.wrong):,} repaired; run it again to see")
                else:
                    console.print(f"{len(report.wrong):,} wrong: `streamq check --repair` mends them")
            return report.clean or (repair and report.repaired == len(report.wrong))

    if not run_async(run):
        raise typer.Exit(1)

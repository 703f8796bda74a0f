"""Look: status, ls, show, check."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from streamq.cli.addressed import Gone, IdOrAddress, Limit, Several, named_by, say_ended
from streamq.cli.app import Json, app, open_queue, run_async
from streamq.cli.choice import Class, Domain, Priority, State, Tag, Tenant, To, chosen, known_choice, known_states
from streamq.cli.route import lanes_words
from streamq.cli.terminal import clip, console, emit, progress, safe, table
from streamq.mail.fields import lacking
from streamq.queue.ambiguous import ambiguous
from streamq.queue.check import CHUNK, Ahead, CheckReport
from streamq.queue.check import check as check_law
from streamq.queue.look import BoundSeen, Status, age_ms, now_ms
from streamq.queue.look import show as show_mail
from streamq.queue.look import status as read_status
from streamq.queue.sites import fullest
from streamq.queue.spool import Spool
from streamq.queue.steer import Selector, rule_flags, select, standing
from streamq.queue.walk import STATES, MailView
from streamq.queue.wording import evicts_words, plural, shown_ms, why_words

BODY = {b"text", b"html", b"raw", b"attachments", b"vars", b"recipients"}
WRONG_SHOWN = 50
BOUNDS = {
    "queue": "the mails that STREAMQ_MAX_QUEUE allows",
    "memory": "the memory that STREAMQ_MAX_MEMORY allows",
    "ids": "STREAMQ_IDS_BYTES",
    "dead": "STREAMQ_DEAD_BYTES",
}
CLOSED_SHOWN, NEEDS_SHOWN = 20, 8
LANES_SHOWN, LANES_LOOKED = 3, 100  # of those that are due first
WIDE = 110  # columns from which on a list has room for more than where a mail is and why


@app.command()
def status(json: Json = False) -> None:
    """Depth by priority and state, what became of mails, who works."""

    async def run() -> None:
        async with open_queue() as spool:
            now = await read_status(spool)
            rules, needs = await standing(spool)
            full, more = await fullest(spool, LANES_SHOWN, of=LANES_LOOKED) if now.sum("parked") else ([], 0)
            if json:
                emit(
                    {
                        "queue": spool.settings.queue,
                        **now.shown,
                        "paused": now.paused,
                        "live": now.live,
                        "rules": rules,
                        "held_for": needs,
                        "lanes": [{**asdict(lane), "site": lane.site, "many": lane.many} for lane in full],
                    }
                )
            else:
                _print_status(spool.settings.queue, now, rules, needs, lanes_words(full, more))

    run_async(run)


def _print_status(queue: str, now: Status, rules: dict[str, str], needs: dict[str, int], parked: str) -> None:
    console.print(f"queue {queue}", style="bold")
    rows = []
    for priority, states in now.depth.items():
        oldest = shown_ms(now.oldest_ms[priority]) if now.oldest_ms[priority] else "–"
        rows.append([clip(priority, 20), *(f"{states[state]:,}" for state in STATES), oldest])
    console.print(table(("priority", *STATES, "oldest"), rows, right=(*STATES, "oldest")), soft_wrap=True)
    lines = [("so far", ", ".join(f"{count:,} {name}" for name, count in sorted(now.totals.items())) or "nothing yet")]
    if now.classes:
        most = sorted(now.classes.items(), key=lambda pair: -pair[1])[:8]
        lines.append(("reasons", ", ".join(f"{count:,} {name}" for name, count in most)))
    due = f"; next due in {shown_ms(max(0, now.next_due_ms - now.now_ms))}" if now.next_due_ms else ""
    lines.append(("dead", f"{plural(now.dead, 'dead letter')}; {plural(now.events, 'event')} kept{due}"))
    ceiling = f" of {now.memory_max / 1e6:,.0f} MB" if now.memory_max else ""
    lines.append(("workers", f"{now.workers}; redis uses {now.memory / 1e6:,.1f} MB{ceiling}"))
    if parked:
        lines.insert(0, ("lanes", parked))
    _print_lines(lines)
    names = [f"site {each.site}" if each.site else f"route {each.name}" for each in now.closed]
    yellow = [("closed", f"{name}: {why_words(each)}") for name, each in zip(names, now.closed, strict=True)]
    if len(yellow) > CLOSED_SHOWN:
        yellow[CLOSED_SHOWN:] = [("closed", f"… and {len(yellow) - CLOSED_SHOWN:,} more: `streamq site ls`")]
    yellow += [("rule", f"{verb} {rule_flags(name)}") for name, verb in rules.items()]
    yellow += [("held", text) for text in _held_words(needs)]
    _print_lines(yellow, "yellow")
    _print_lines([("warning", _bound_words(one)) for one in now.bounds], "red")
    if now.evicts:
        _print_lines([("warning", evicts_words(now.evicts, now.evicted))], "red")
    if now.memory_max and now.memory > 0.85 * now.memory_max:
        _print_lines([("warning", "redis is nearly full: XADD will be refused at maxmemory")], "red")
    if not now.workers and now.live:
        _print_lines([("warning", "mails wait and no worker runs: `streamq worker`")], "red")


def _held_words(needs: dict[str, int]) -> list[str]:
    """What mails wait for that nobody can send as they are, the most wanted first."""
    rows = sorted(needs.items(), key=lambda pair: (-pair[1], pair[0]))
    words = [f"{many:,} {lacking(need)}: {clip(need, 80)}" for need, many in rows[:NEEDS_SHOWN]]
    if len(rows) > NEEDS_SHOWN:
        words.append(f"… and {len(rows) - NEEDS_SHOWN:,} more: `streamq ls --state held`")
    return words


def _bound_words(one: BoundSeen) -> str:
    said = f"{one.used / max(one.most, 1):.0%} of {BOUNDS.get(one.name, one.name)} ({one.used:,} of {one.most:,})"
    if one.level != "full":
        return said
    return said + (": the oldest dead letters go" if one.name == "dead" else ": producers are told to wait")


def _print_lines(lines: list[tuple[str, str]], style: str | None = None) -> None:
    for name, text in lines:
        console.print(f"{name:<9} {clip(text, 400)}", style=style, soft_wrap=True)


@app.command()
def ls(
    state: State = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    class_: Class = None,
    to: To = None,
    doubtful: Annotated[
        bool, typer.Option("--ambiguous", help="those that may be delivered already: a dot without a reply")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="at most so many", metavar="N")] = 50,
    json: Json = False,
) -> None:
    """List live mails, by state, oldest (scheduled: next) first; --ambiguous: those past their dot now first."""
    selector = chosen(priority, domain, tenant, tag, class_, to).among(*known_states(state))

    async def run() -> None:
        async with open_queue() as spool:
            await known_choice(spool, selector)
            now = await read_status(spool)
            views: list[MailView] = []
            # Of no other choice does it take so long till there is something to show.
            with progress("looking", now.live, quiet=json or selector.to is None) as looked:
                found = _ambiguous(spool, selector) if doubtful else select(spool, selector, visited=looked)
                async for view in found:
                    view.fields = _without_bodies(view.fields)
                    views.append(view)
                    if len(views) > limit:
                        break
            more = len(views) > limit
            del views[limit:]
            if json:
                return emit([_plain(view, now.now_ms) for view in views])
            _print_list(views, now.now_ms)
            if more:
                console.print(f"… and more: --limit {limit * 10}", style="dim")
            return None

    run_async(run)


async def _ambiguous(spool: Spool, selector: Selector) -> AsyncIterator[MailView]:
    async for view in ambiguous(spool):
        if view.state in selector.states and selector.fits(view):
            yield view


def _print_list(views: list[MailView], now: int) -> None:
    wide = console.width >= WIDE
    names = [
        "entry",
        "state",
        "age",
        *(["priority"] if wide else []),
        "to",
        *(["subject"] if wide else []),
        "when, why",
    ]
    rows = []
    for view in views:
        cells = {
            "entry": view.entry,
            "state": view.state,
            "age": shown_ms(age_ms(view, now)),
            "priority": clip(view.priority, 12),
            "to": clip(view.text("envelope_to") or view.text("to"), 40 if wide else 24),
            "subject": clip(view.text("subject"), 40),
            "when, why": clip(_why(view, now), 200),
        }
        rows.append([cells[name] for name in names])
    console.print(table(names, rows, right=("age",), firm=3) if rows else "no mails", soft_wrap=True)


def _why(view: MailView, now: int) -> str:
    last = str(view.notes.get("reply") or view.notes.get("reason") or "")
    if view.past_dot:
        return f"past its dot, by {view.holder}"
    if view.state == "scheduled":
        return f"in {shown_ms(max(0, view.due_ms - now))} {last}"
    if view.state == "parked":
        return f"lane {view.lane} {last}"
    return f"by {view.holder}" if view.state == "leased" else last


def _without_bodies(fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {name: value for name, value in fields.items() if name not in BODY}


def _plain(view: MailView, now: int) -> dict[str, Any]:
    """For JSON."""
    fields = {name.decode("utf-8", "backslashreplace"): value for name, value in view.fields.items()}
    known: dict[str, Any] = {"entry": view.entry, "priority": view.priority, "state": view.state}
    known |= {"age_ms": age_ms(view, now), "fields": fields, "notes": view.notes}
    for name in ("due_ms", "lane", "holder", "token", "intent", "past_dot"):
        if getattr(view, name):
            known[name] = getattr(view, name)
    return known


@app.command()
def show(
    id_: IdOrAddress,
    tenant: Annotated[str | None, typer.Option(help="whose id it is", metavar="TENANT")] = None,
    limit: Limit = 20,
    raw: Annotated[bool, typer.Option("--raw", help="bodies, too")] = False,
    json: Json = False,
) -> None:
    """One live mail: where it is, why, its fields, its attempts; of an address all to it.

    Exit 1 where it is not live: it says how it ended, as far as that is known.
    """

    async def run() -> bool:
        async with open_queue() as spool:
            named = await named_by(spool, id_, tenant, limit, quiet=json)
            now = await now_ms(spool)
            if isinstance(named, Gone):
                say_ended(id_, named.end, json)
                return False
            if isinstance(named, Several):
                _say_several(named, now, raw, json)
                return bool(named.views)
            view = await show_mail(spool, named)
            if json:
                view.fields = view.fields if raw else _without_bodies(view.fields)
                emit(_plain(view, now))
            else:
                _print_mail(view, now)
                print_fields(view.fields.items(), raw=raw)
            return True

    if not run_async(run):
        raise typer.Exit(1)


def _say_several(named: Several, now: int, raw: bool, json: bool) -> None:
    """One as if it was named by its entry; several in a list."""
    if json:
        for view in named.views:
            view.fields = view.fields if raw else _without_bodies(view.fields)
        return emit(named.plain([_plain(view, now) for view in named.views]))
    console.print(named.head(), style="bold", soft_wrap=True)
    if len(named.views) == 1:
        _print_mail(named.views[0], now)
        print_fields(named.views[0].fields.items(), raw=raw)
    elif named.views:
        _print_list(named.views, now)
    named.print_rest()
    return None


def _print_mail(view: MailView, now: int) -> None:
    age = shown_ms(age_ms(view, now))
    console.print(f"{view.entry}  {clip(view.priority, 64)}  {view.state}  {age} old", style="bold")
    said = {
        "due_ms": f"next attempt in {shown_ms(max(0, view.due_ms - now))}",
        "lane": f"waits in lane {view.lane} for a slot",
        "holder": f"leased by {view.holder}, token {view.token}, heard of {shown_ms(view.idle_ms)} ago",
        "intent": f"asked for: {view.intent}, if this attempt does not send it",
    }
    for name, text in said.items():
        if getattr(view, name):
            console.print(clip(text, 500), soft_wrap=True)
    for note, value in view.notes.items():
        console.print(f"  {clip(note, 12):<12} {clip(str(value), 500)}", soft_wrap=True)
    console.print()


def print_fields(fields: Iterable[tuple[bytes, bytes]], *, raw: bool) -> None:
    """One a line; bodies only if `raw`, then with their lines, which none can take for fields."""
    for field, content in fields:
        name = clip(field.decode("utf-8", "backslashreplace"), 40)
        if raw:
            said = safe(content.decode("utf-8", "backslashreplace")).replace("\n", "\n" + " " * 17)
        elif field in BODY:
            said = f"({len(content):,} bytes: --raw)"
        else:
            said = clip(content[:2000].decode("utf-8", "backslashreplace"), 200)
        console.print(f"{name:<16} {said}", soft_wrap=True)


@app.command()
def check(
    repair: Annotated[bool, typer.Option("--repair", help="mend what is wrong")] = False, json: Json = False
) -> None:
    """The conservation law: every mail is in exactly one state. On a live queue, too. Exit 1 where it is broken."""

    async def run() -> bool:
        async with open_queue() as spool:
            report = await check_law(spool, repair=repair)
            mended = repair and report.mended
            if json:
                wrong = [{"entry": one.entry, "wrong": one.what} for one in report.wrong]
                ahead = [asdict(one) for one in report.ahead]
                known = {"clean": report.sound, "seen": report.seen, "wrong": wrong, "ahead": ahead}
                emit(known | {"repaired": report.repaired})
            else:
                _print_report(report, repair)
            return report.sound or mended

    if not run_async(run):
        raise typer.Exit(1)


def _ahead(one: Ahead) -> str:
    """What it means, and what to do."""
    means = "no XADD with * is taken" if one.is_full else "XADD with * counts on from there: its mails are of that time"
    said = f"{one.priority}: its last id is {one.last}, ahead of the clock: {means}"
    if one.state == "made":
        return f"{one.priority}: made anew, its last id was {one.last}"
    if one.state == "large":
        return f"{said}. More mail is in it than one script should copy: let it drain, then `streamq check --repair`"
    if one.state == "orphan":
        return f"{said}. Run `streamq check --repair` again"
    if one.entries:
        many = "100 or more" if one.entries >= CHUNK else one.entries
        return f"{said}. First the mails with such ids ({many}) have to go, delivered or by `streamq cancel`"
    return f"{said}. `streamq check --repair` makes the stream anew"


def _print_report(report: CheckReport, repair: bool) -> None:
    visited = sum(report.total(state) for state in STATES)
    seen = ", ".join(f"{report.total(state):,} {state}" for state in STATES)
    console.print(f"{plural(visited, 'mail')} visited: {seen}", soft_wrap=True)
    for one in report.wrong[:WRONG_SHOWN]:
        console.print(f"{one.what:<8} {clip(one.entry, 200)}", style="red", soft_wrap=True)
    if len(report.wrong) > WRONG_SHOWN:
        console.print(f"… and {len(report.wrong) - WRONG_SHOWN:,} more")
    for ahead in report.ahead:
        shade = "green" if ahead.state == "made" else "red"
        console.print(f"{ahead.state:<8} {_ahead(ahead)}", style=shade, soft_wrap=True)
    if not report.wrong:
        console.print("clean: each is in exactly one state", style="green")
    elif repair:
        console.print(f"{report.repaired:,} of {len(report.wrong):,} repaired; run it again to see")
    else:
        console.print(f"{len(report.wrong):,} wrong: `streamq check --repair` mends them")

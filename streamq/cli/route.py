"""Routes: which there are, what limits them, which are closed and why; limit, pause, resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from streamq.cli.app import Json, app, open_queue, run_async
from streamq.cli.choice import DryRun
from streamq.cli.complete import routes
from streamq.cli.limit import Connections, Rates, Unset, asked_limit, rule_json, set_limit
from streamq.cli.terminal import clip, console, emit, note, table
from streamq.errors import NotFound, SettingsError
from streamq.queue.gauge import rules_of
from streamq.queue.look import now_ms
from streamq.queue.overview import known_routes
from streamq.queue.routes import Learnt, RouteView, route_views
from streamq.queue.sites import Lane, fullest
from streamq.queue.spool import Spool
from streamq.queue.wording import plural, rule_words, shown_ms, why_words
from streamq.settings import duration_ms

route = typer.Typer(name="route", help="Routes: look, pause, resume.", no_args_is_help=True)
app.add_typer(route)

Name = Annotated[str, typer.Argument(metavar="NAME", help="a route, as `[routes.NAME]` has it", autocompletion=routes)]
Reason = Annotated[str, typer.Option(help="why: for events and for whoever looks", metavar="TEXT")]
Until = Annotated[
    str | None, typer.Option("--for", help="so long (30m, 2h); without it: until `resume`", metavar="TIME")
]
LANES_SHOWN = 10
REASON_MOST = 300  # characters: it stands in events and in everybody's status


async def known_route(spool: Spool, name: str) -> RouteView:
    """Raises `NotFound` where neither these settings nor the queue know it."""
    view = next(each for each in await route_views(spool, [name]) if each.name == name)
    if name not in spool.settings.ways and not (view.shares or view.closed or view.parked):
        raise NotFound(
            f"no route {name!r}: neither in these settings, nor does a worker use it, nor is a mail parked for it"
        )
    return view


def lanes_words(lanes: Sequence[Lane], more: int) -> str:
    """How many wait where, and until when."""
    words = []
    for lane in lanes:
        gone = "" if lane.drained_ms is None else f", gone in {shown_ms(lane.drained_ms)}"
        words.append(f"{lane.site} {lane.many:,}{gone if lane.open or gone else ', closed'}")
    if more:
        words.append(f"… and {more:,} more: `streamq site ls`")
    return "; ".join(words)


def learnt_words(learnt: Learnt, *, brief: bool = False) -> str:
    """What its server takes, where that is less than is configured. `brief`: not since when."""
    words = []
    if learnt.refused_ms is not None and brief:
        words.append(f"takes {learnt.connections} at once")
    elif learnt.refused_ms is not None:
        tries = f"tries one more in {shown_ms(learnt.tries_ms)}" if learnt.tries_ms else "tries one more when all stand"
        words.append(f"takes {learnt.connections} at once (refused {shown_ms(learnt.refused_ms)} ago, {tries})")
    if learnt.mails is not None:
        words.append(
            f"takes {plural(learnt.mails, 'mail')} over a connection"
            if not brief
            else f"{plural(learnt.mails, 'mail')} each"
        )
    return ", ".join(words)


def _shown(view: RouteView) -> dict[str, object]:
    return {**asdict(view), "open": not view.closed, "connections": view.connections}


def _settled(spool: Spool, view: RouteView) -> dict[str, object]:
    """What these settings say of it; None: they do not know it."""
    way = spool.settings.ways.get(view.name)
    if way is None:
        return {"weight": None, "reserved": None, "most": None}
    return {"weight": way.weight, "reserved": way.reserved, "most": way.connections}


@route.command("ls")
def list_routes(json: Json = False) -> None:
    """Each route: weight, connections granted to workers, mails parked, and whether it is open."""

    async def run() -> None:
        async with open_queue() as spool:
            views = await route_views(spool, known_routes(spool))
            if json:
                rules = await rules_of(spool, [view.name for view in views])
                emit(
                    [{**_shown(view), **_settled(spool, view), "limit": rule_json(rules[view.name])} for view in views]
                )
                return
            ways = spool.settings.ways
            rules = await rules_of(spool, [view.name for view in views])
            limited = any(rules.values())
            rows = []
            for view in views:
                way = ways.get(view.name)
                weight = "–" if way is None else "reserved" if way.reserved else str(way.weight)
                set_ = rules[view.name].connections
                most = f"/{set_ or way.connections}" if way is not None else f"/{set_}" if set_ else ""
                known = learnt_words(view.learnt, brief=True) if view.learnt is not None else ""
                state = "; ".join(why_words(each) for each in view.closed) or "open" + (f", {known}" if known else "")
                limit = [rule_words(rules[view.name]) if rules[view.name] else "–"] if limited else []
                counts = [f"{view.connections}{most}", f"{view.parked:,}"]
                rows.append([view.name, weight, *counts, *limit, clip(state, 200)])
            columns = ("route", "weight", "connections", "parked", *(["limit"] if limited else []), "state")
            console.print(table(columns, rows, right=("weight", "connections", "parked"), firm=1), soft_wrap=True)

    run_async(run)


@route.command("show")
def show_route(name: Name, json: Json = False) -> None:
    """One route: why it is closed, since when, who has its connections."""

    async def run() -> None:
        async with open_queue() as spool:
            view = await known_route(spool, name)
            rule = (await rules_of(spool, [name]))[name]
            full, more = await fullest(spool, LANES_SHOWN, route=name) if view.parked else ([], 0)
            if json:
                lanes = [{**asdict(lane), "site": lane.site, "many": lane.many} for lane in full]
                emit({**_shown(view), "limit": rule_json(rule), "lanes": lanes})
                return
            now = await now_ms(spool)
            way = spool.settings.ways.get(name)
            lines = [("relay", way.shown)] if way is not None else []
            lines.append(("parked", f"{plural(view.parked, 'mail')} whose first way it is"))
            if rule:
                lines.insert(-1, ("limit", rule_words(rule)))
            if full:
                lines.append(("lanes", lanes_words(full, more)))
            shares = ", ".join(f"{many} {who}" for who, many in sorted(view.shares.items()))
            lines.append(("shares", shares or "no worker has connections of it"))
            if view.learnt is not None:
                now_ = f"{view.standing} stand, {view.learnt.connections} may"
                known = learnt_words(view.learnt)
                lines.append(("learnt", f"{now_}; its server {known}" if known else now_))
            if not view.closed:
                lines.append(("state", "open"))
            for each in view.closed:
                lines.append(("closed", f"since {shown_ms(max(0, now - each.since_ms))}: {why_words(each)}"))
                if each.probes:
                    lines.append(("probes", f"{each.probes} in vain"))
            for label, text in lines:
                console.print(f"{label:<9} {clip(text, 600)}", soft_wrap=True)

    run_async(run)


@route.command("limit")
def limit_route(
    name: Name,
    rates: Rates = None,
    connections: Connections = None,
    unset: Unset = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Set its limit, over what files say; for all workers, from the next mail on. What was used stays used."""
    asked = asked_limit(rates, connections, unset)

    async def run() -> None:
        async with open_queue() as spool:
            await known_route(spool, name)
            await set_limit(spool, name, asked, name=name, dry_run=dry_run, json=json)

    run_async(run)


def pause_given(until: str | None, reason: str) -> int | None:
    """For how long, in ms; None: until it is resumed. Raises `SettingsError` that names flag and value."""
    try:
        for_ms = None if until is None else duration_ms(until)
    except ValueError as wrong:
        raise SettingsError(f"--for: {wrong}") from None
    if for_ms == 0:
        raise SettingsError("--for: no time at all (got '0')")
    if len(reason) > REASON_MOST:
        raise SettingsError(f"--reason: at most {REASON_MOST} characters (got {len(reason)})")
    return for_ms


@route.command("pause")
def pause_route(
    name: Name,
    reason: Reason = "",
    until: Until = None,
    hold: Annotated[bool, typer.Option("--hold", help="its mails wait for it, though another way is open")] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Nothing goes this way any more. What has another way goes there, the rest waits, without an attempt."""
    for_ms = pause_given(until, reason)

    async def run() -> None:
        async with open_queue() as spool:
            view = await known_route(spool, name)
            if not dry_run:
                till_us = 0 if for_ms is None else (await now_ms(spool) + for_ms) * 1000
                await spool.scripts.pause("pause", [name], till_us=till_us, hold=hold, reason=reason)
            _say("pause", "paused", view, dry_run, json)
            if not hold and not json and len(spool.settings.ways) > 1:
                note("mails that may go another way do; --hold keeps them")

    run_async(run)


@route.command("resume")
def resume_route(name: Name, dry_run: DryRun = False, json: Json = False) -> None:
    """Open it again, whoever closed it: an operator, a failure, the breaker. Exit 1 where it was open."""

    async def run() -> bool:
        async with open_queue() as spool:
            view = await known_route(spool, name)
            status = "resumed" if view.closed else "open"
            if not dry_run:
                [status] = await spool.scripts.pause("resume", [name])
            _say("resume", status, view, dry_run, json)
            return status != "open"

    if not run_async(run):
        raise typer.Exit(1)


def _say(verb: str, status: str, view: RouteView, dry_run: bool, json: bool) -> None:
    if json:
        emit({"verb": verb, "route": view.name, "status": status, "parked": view.parked, "dry_run": dry_run})
        return
    dry = " (dry run: nothing was changed)" if dry_run else ""
    console.print(f"{view.name}: {status}; {plural(view.parked, 'mail')} parked for it{dry}", soft_wrap=True)

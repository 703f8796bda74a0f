"""Sites: what limits them and until when; limit, pause, resume."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from streamq.cli.app import Json, app, open_queue, run_async
from streamq.cli.choice import DryRun
from streamq.cli.complete import routes
from streamq.cli.limit import Connections, Rates, Unset, asked_limit, rule_json, set_limit
from streamq.cli.route import Reason, Until, known_route, pause_given
from streamq.cli.terminal import clip, console, emit, note, table
from streamq.errors import NotFound, SettingsError
from streamq.mail.domain import to_wire
from streamq.queue.gauge import Gauge
from streamq.queue.look import now_ms
from streamq.queue.sites import SiteView, lanes_of, site_views
from streamq.queue.spool import Spool
from streamq.queue.troubles import Trouble
from streamq.queue.wording import plural, rate_words, rule_words, shown_ms, throttle_words, why_words

site = typer.Typer(name="site", help="Sites: look, limit, pause, resume.", no_args_is_help=True)
app.add_typer(site)

Name = Annotated[str, typer.Argument(metavar="NAME", help="a recipients' domain")]
Route = Annotated[str | None, typer.Option(help="on this route only", metavar="NAME", autocompletion=routes)]


def _site(text: str, *, all_: bool = False) -> str:
    """As the scripts know it: lower case, A-labels. `all_`: `*` may stand for each site without a limit of its own."""
    if text == "*":
        if all_:
            return text
        raise SettingsError("NAME: a domain (got '*'): `streamq route pause` is for all sites of a route")
    try:
        name = to_wire(text.removesuffix(".") or text)  # with the root's dot, too
    except ValueError as wrong:
        raise SettingsError(f"NAME: {wrong} (got {text[:80]!r})") from None
    return name if name.startswith("[") else name.lower()


def until_words(ms: int | None, *, none: str = "–", some: str = "") -> str:
    """How long from now, behind the word `some`; `now`; `none` where nobody can tell."""
    return none if ms is None else "now" if ms <= 0 else f"{some}{shown_ms(ms)}"


def throttle_json(gauge: Gauge) -> dict[str, object] | None:
    """The same for programs; None where nothing slows it. Times in ms since the epoch, `till_ms` 0: it goes."""
    pace = gauge.pace
    if pace is None:
        return None
    known = {"target": gauge.target, "rate": pace.rate, "since_ms": pace.since_ms, "till_ms": pace.till_us // 1000}
    return {**known, "class": pace.klass, "reply": pace.reply}


def _slowed(view: SiteView) -> list[str]:
    return [words for each in (view.gauge.gauges if view.gauge else ()) if (words := throttle_words(each))]


def _state(view: SiteView) -> str:
    words = _slowed(view) + [why_words(each, "site" if each.site else f"route {each.route}") for each in view.closed]
    if view.trouble is not None:
        words.append(_trouble_words(view.trouble))
    return "; ".join(words) or "open"


def _trouble_words(each: Trouble) -> str:
    """How it fails lately, and when it is tried again."""
    next_ = "" if each.next_ms is None else f", next try {until_words(each.next_ms, some='in ')}"
    return f"{each.words}{next_}: {each.reply or each.klass}"


def _shown(view: SiteView) -> dict[str, object]:
    return {
        "site": view.site,
        "route": view.route,
        "limit": rule_json(view.rule),
        "parked": view.parked,
        "next_ms": view.next_ms,
        "drained_ms": view.drained_ms,
        "in_use": view.in_use,
        "rate": view.gauge.rate if view.gauge else None,
        "throttled": [known for each in (view.gauge.gauges if view.gauge else ()) if (known := throttle_json(each))],
        "closed": [asdict(each) for each in view.closed],
        "lanes": view.lanes,
        "trouble": None if view.trouble is None else asdict(view.trouble),
    }


@site.command("ls")
def list_sites(
    limit: Annotated[int, typer.Option(min=1, help="at most so many", metavar="N")] = 50,
    json: Json = False,
) -> None:
    """Sites with a limit, a pause, parked mails, or trouble: how many, when the next goes, when all have gone."""

    async def run() -> None:
        async with open_queue() as spool:
            views, left = await site_views(spool)
            shown = views[:limit]
            if json:
                emit([_shown(view) for view in shown])
            else:
                _print_list(spool, shown)
            if len(views) > limit:
                note(f"… and {len(views) - limit:,} more: --limit {len(views)}", "dim")
            if left:
                note(f"… and {left:,} lanes or more that nobody looked at", "dim")

    run_async(run)


def _print_list(spool: Spool, views: list[SiteView]) -> None:
    if not views:
        console.print("no site has a limit, a pause, a parked mail or trouble")
        return
    several = len({view.route for view in views} - {"*"}) > 1
    names = ["site", *(["route"] if several else []), *spool.priorities, "next", "drained", "limit", "state"]
    rows = []
    for view in views:
        cells = {
            "site": clip(view.site, 60),
            "route": clip(view.route, 40),
            **{name: f"{many:,}" if (many := view.parked.get(name)) else "–" for name in spool.priorities},
            "next": until_words(view.next_ms),
            "drained": until_words(view.drained_ms),
            "limit": rule_words(view.rule) if view.rule else "–",
            "state": clip(_state(view), 200),
        }
        rows.append([cells[name] for name in names])
    console.print(table(names, rows, right=(*spool.priorities, "next", "drained"), firm=1), soft_wrap=True)


@site.command("show")
def show_site(name: Name, json: Json = False) -> None:
    """One site: its limits and who set them, what is parked, when it has gone, why it is closed."""
    known = _site(name, all_=True)

    async def run() -> None:
        async with open_queue() as spool:
            views, _ = await site_views(spool, known)
            if not views:
                raise NotFound(f"no limit, no pause, no parked mail and no trouble is of the site {known!r}")
            if json:
                emit([_shown(view) for view in views])
                return
            now = await now_ms(spool)
            for view in views:
                _print_site(view, now)

    run_async(run)


def _print_site(view: SiteView, now: int) -> None:
    where = "all routes" if view.route == "*" else f"route {view.route}"
    console.print(f"{clip(view.site, 255)}  {clip(where, 80)}", style="bold", soft_wrap=True)
    lines = [("limit", rule_words(view.rule) + (f", as {view.rule.field}" if _wider(view) else ""))]
    if view.many:
        counts = ", ".join(f"{many:,} {priority}" for priority, many in view.parked.items() if many)
        lines.append(("parked", f"{plural(view.many, 'mail')}: {counts}"))
        lines.append(("next", until_words(view.next_ms, none="not before it is opened", some="in ")))
        drained = until_words(view.drained_ms, none="nobody can tell: " + _untold(view), some="in ")
        rate = view.gauge.rate if view.gauge else None
        at = f", at {rate_words(rate)}" if rate and view.drained_ms else ""
        lines.append(("drained", drained + at))
        lines.append(("lanes", ", ".join(view.lanes)))
    if view.rule.connections is not None and view.route != "*":
        lines.append(("at once", f"{view.in_use} of {view.rule.connections} under way"))
    for each in view.closed:
        since = shown_ms(max(0, now - each.since_ms))
        lines.append(("closed", f"since {since}: {why_words(each, 'site' if each.site else f'route {each.route}')}"))
    if not view.closed:
        lines.append(("state", "; ".join(_slowed(view)) or "open"))
    if view.trouble is not None:
        lines.append(("trouble", f"{_trouble_words(view.trouble)}, {shown_ms(view.trouble.ago_ms)} ago"))
    for label, text in lines:
        console.print(f"{label:<9} {clip(text, 600)}", soft_wrap=True)


def _wider(view: SiteView) -> bool:
    return bool(view.rule.field) and view.rule.field != view.target


def _untold(view: SiteView) -> str:
    return "it is closed" if view.closed else "no rate is set, so the relay decides"


@site.command("limit")
def limit_site(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a domain; '*': each site without a limit of its own")],
    rates: Rates = None,
    connections: Connections = None,
    route: Route = None,
    unset: Unset = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Set its limit, over what files say; for all workers, from the next mail on. What was used stays used."""
    known = _site(name, all_=True)
    asked = asked_limit(rates, connections, unset)

    async def run() -> None:
        async with open_queue() as spool:
            on = "" if route is None else f" on {route}"
            if route is not None:
                await known_route(spool, route)
            target = f"{route or '*'}|{known}"
            await set_limit(spool, target, asked, name=f"{known}{on}", dry_run=dry_run, json=json)

    run_async(run)


@site.command("pause")
def pause_site(
    name: Name,
    reason: Reason = "",
    until: Until = None,
    route: Route = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Nothing goes to it any more: its mails wait, without an attempt. (--route: what may go another way does.)"""
    known = _site(name)
    for_ms = pause_given(until, reason)

    async def run() -> None:
        async with open_queue() as spool:
            if route is not None:
                await known_route(spool, route)
            target = f"{route or '*'}|{known}"
            if not dry_run:
                till_us = 0 if for_ms is None else (await now_ms(spool) + for_ms) * 1000
                await spool.scripts.pause("pause", [target], till_us=till_us, reason=reason)
            await _say(spool, "pause", "paused", target, dry_run, json)

    run_async(run)


@site.command("resume")
def resume_site(name: Name, route: Route = None, dry_run: DryRun = False, json: Json = False) -> None:
    """Open it again: its mails go at once, through the limits. Exit 1 where it was open."""
    known = _site(name)

    async def run() -> bool:
        async with open_queue() as spool:
            target = f"{route or '*'}|{known}"
            views, _ = await site_views(spool, known)
            shut = {each.name for view in views for each in view.closed}
            status = "resumed" if target in shut else "open"
            if not dry_run:
                [status] = await spool.scripts.pause("resume", [target])
            await _say(spool, "resume", status, target, dry_run, json)
            for other in sorted(shut - {target}):
                if "|" in other:
                    on = other.partition("|")[0]
                    note(f"it is closed still {'on all routes' if on == '*' else f'on route {on}: --route {on}'}")
            return status != "open"

    if not run_async(run):
        raise typer.Exit(1)


async def _say(spool: Spool, verb: str, status: str, target: str, dry_run: bool, json: bool) -> None:
    route, _, name = target.partition("|")
    parked = sum(lane.many for lane in await lanes_of(spool, name))
    if json:
        known = {"verb": verb, "site": name, "route": route, "status": status, "parked": parked, "dry_run": dry_run}
        return emit(known)
    dry = " (dry run: nothing was changed)" if dry_run else ""
    on = "" if route == "*" else f" on {route}"
    console.print(f"{clip(f'{name}{on}', 340)}: {status}; {plural(parked, 'mail')} parked for it{dry}", soft_wrap=True)
    return None

"""Why: what a mail waits for, since when, until when, how many are ahead of it."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import Annotated, Any

import typer

from streamq.cli.addressed import Gone, IdOrAddress, Limit, Several, named_by, say_ended
from streamq.cli.app import Json, app, open_queue, run_async
from streamq.cli.limit import rule_json
from streamq.cli.site import throttle_json, until_words
from streamq.cli.terminal import clip, console, emit
from streamq.errors import NotFound
from streamq.queue.events import with_code
from streamq.queue.look import age_ms
from streamq.queue.spool import Spool
from streamq.queue.why import Why
from streamq.queue.why import why as find_why
from streamq.queue.wording import plural, rate_words, shown_ms, since_words, waits_words


@app.command()
def why(
    id_: IdOrAddress,
    tenant: Annotated[str | None, typer.Option(help="whose id it is", metavar="TENANT")] = None,
    limit: Limit = 20,
    json: Json = False,
) -> None:
    """Why a mail has not gone: which limit, since when, the next slot, how many are ahead, the last reply. `streamq why
    anna@example.org`: all to that address, and how the last ones ended.

    Exit 1 where it is not live: it says how it ended, as far as that is known.
    """

    async def run() -> bool:
        async with open_queue() as spool:
            named = await named_by(spool, id_, tenant, limit, quiet=json)
            if isinstance(named, Gone):
                say_ended(id_, named.end, json)
                return False
            if isinstance(named, Several):
                return await _say_several(spool, named, json)
            found = await find_why(spool, named)
            if json:
                emit(_plain(found))
            else:
                _print(found)
            return True

    if not run_async(run):
        raise typer.Exit(1)


async def _say_several(spool: Spool, named: Several, json: bool) -> bool:
    waits: list[Why] = []
    for view in named.views:
        with contextlib.suppress(NotFound):  # it has ended meanwhile
            waits.append(await find_why(spool, view.entry))
    named.views = [found.view for found in waits]
    if json:
        mails = [_plain(found) | {"id": found.view.text("id"), "tenant": found.view.text("tenant")} for found in waits]
        emit(named.plain(mails))
        return bool(waits)
    console.print(named.head(), style="bold", soft_wrap=True)
    for found in waits:
        console.print()
        _print(found)
    named.print_rest()
    return bool(waits)


def _plain(found: Why) -> dict[str, Any]:
    view, gauge = found.view, found.gauge
    known = {"entry": view.entry, "priority": view.priority, "state": view.state, "age_ms": age_ms(view, found.now_ms)}
    known |= {"site": found.site, "lane": view.lane, "route": gauge.way if gauge else "", "waits_for": found.waits_for}
    known |= {"words": waits_words(found), "since": since_words(found)}
    known |= {"since_ms": found.since_ms, "next_ms": found.next_ms}
    known |= {"expected_ms": found.expected_ms, "ahead": {"better": found.better, "older": found.older}}
    known |= {"limit": rule_json(found.rule) if found.rule else None, "target": found.by.target if found.by else ""}
    known["throttled"] = [told for each in (gauge.gauges if gauge else ()) if (told := throttle_json(each))]
    known |= {"closed": [asdict(each) for each in gauge.closed] if gauge else []}
    known |= {"standing": found.standing, "standing_rule": found.standing_rule}
    known |= {"intent": view.intent, "holder": view.holder, "past_dot": view.past_dot, "notes": view.notes}
    return known


def _print(found: Why) -> None:
    view = found.view
    head = f"{view.entry}  {clip(view.priority, 64)}  {view.state}  {shown_ms(age_ms(view, found.now_ms))} old"
    console.print(head, style="bold", soft_wrap=True)
    to = clip(view.text("envelope_to") or view.text("to"), 200)
    route = f", route {found.gauge.way}" if found.gauge is not None and view.state == "parked" else ""
    named = [(name, view.text(name)) for name in ("id", "tenant") if view.text(name)]
    lines = [*named, ("to", f"{to} (site {found.site}{route})" if found.site else to), ("waits", waits_words(found))]
    lines += _times(found)
    if view.intent and found.waits_for != "rule":
        lines.append(("asked for", f"{view.intent}, if this attempt does not send it"))
    lines += _past(found)
    for label, text in lines:
        console.print(f"{label:<9} {clip(text, 600)}", soft_wrap=True)


def _times(found: Why) -> list[tuple[str, str]]:
    lines = []
    view = found.view
    if since := since_words(found):
        lines.append(("since", since))
    if found.older is not None:
        lines.append(("ahead", _ahead(found)))
    if view.state == "parked":
        first = until_words(found.next_ms, none="not before it is opened", some="in ")
        lines.append(("next", f"{first}, the first of its lane"))
        rate = found.gauge.rate if found.gauge else None
        at = f", at {rate_words(rate)}" if rate is not None and found.expected_ms else ""
        lines.append(("expected", until_words(found.expected_ms, none="nobody can tell", some="in ") + at))
    elif view.state == "waiting" and found.expected_ms is not None:
        lines.append(("next", f"{until_words(found.next_ms, none='', some='in ')}, the first of them"))
        more = ", or later" if found.more else ""
        lines.append(("expected", until_words(found.expected_ms, none="", some="in ") + more))
    elif found.next_ms is not None:
        late = "now, or as soon as a worker has room" if view.state == "scheduled" else "now"
        lines.append(("next", f"in {shown_ms(found.next_ms)}" if found.next_ms else late))
        if view.state == "scheduled" and found.gauge is not None:
            lines.append(("expected", until_words(found.expected_ms, none="not before it is opened", some="in ")))
    return lines


def _ahead(found: Why) -> str:
    older = f"{found.older:,}{' or more' if found.more else ''}"
    if found.view.state == "waiting":
        better = f", {found.better:,} of better ones" if found.better else ""
        return f"{older} of its priority that nobody has read{better}"
    if not found.better and not found.older:
        return "none: it is the first of its lane"
    return f"{found.better:,} of better priority, {older} older ones of its own"


def _past(found: Why) -> list[tuple[str, str]]:
    """What was tried."""
    notes = found.view.notes
    lines = []
    tried = [plural(notes["attempts"], "attempt")] if isinstance(notes.get("attempts"), int) else []
    tried += [f"{notes['throttled']} put off without one"] if notes.get("throttled") else []
    tried += [f"{plural(notes['reclaims'], 'time')} its worker died"] if isinstance(notes.get("reclaims"), int) else []
    last = notes.get("last")
    if isinstance(last, int | float):
        tried.append(f"the last {shown_ms(max(0, found.now_ms - last))} ago")
    lines.append(("tried", ", ".join(tried) or "not yet"))
    if notes.get("reply"):
        klass = notes.get("said" if "reason" in notes else "class")
        of = f" ({klass})" if klass else ""
        lines.append(("reply", f"{with_code(notes.get('code'), str(notes['reply']))}{of}"))
    return lines

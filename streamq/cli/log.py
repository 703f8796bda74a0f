"""log: a line for each outcome, from the events. Out of the mail's way: no worker waits for whoever reads a log, every
outcome has exactly one line however many workers there are, also those that no worker sees (an operator's, a deadline).
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

import orjson
import typer

from streamq.cli.app import app, open_queue, run_async
from streamq.cli.choice import address_in, known_class, known_domain, known_person
from streamq.cli.complete import classes, one_of
from streamq.cli.terminal import clip, emit_line, note
from streamq.errors import SettingsError
from streamq.queue.events import Event, EventFilter, events_since, first_event, follow_events, hidden, last_events
from streamq.queue.look import now_ms
from streamq.queue.spool import Spool
from streamq.settings import duration_ms

__all__ = ["line", "moment"]

FORMATS = ("text", "json")
TYPES = (
    *("email.relayed", "email.deferred", "email.throttled", "email.bounced", "email.expired", "email.rejected"),
    *("email.held", "email.cancelled", "email.duplicate", "email.ambiguous", "email.failed", "email.expanded"),
    *("email.superseded", "email.requeued", "route.paused", "route.resumed", "site.throttled", "site.recovered"),
    *("site.paused", "site.resumed", "queue.filling", "queue.full", "queue.eased"),
)
# First what is looked for first; the rest of the data behind it, but for what stands in these or is for programs.
FIRST = ("rcpt", "class", "code", "enhanced", "reply", "reason", "route", "peer", "stage", "attempt", "entry", "parent")
LEFT_OUT = frozenset({"at", "event_id", "site", "message_id", "traceparent", "metadata"})
BARE = re.compile(r"[^\s\"=\\]{1,500}")
VALUE_MOST = 500
STREAM_ID = re.compile(r"[0-9]{1,20}(?:-[0-9]{1,20})?")


@app.command()
def log(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID|ADDRESS", help="of a mail (or a route, a site), or a recipient's: its story alone"),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on with what comes, until Ctrl-C")] = False,
    since: Annotated[
        str | None,
        typer.Option("--from", help="so long ago (2h), or an event's id in the stream; `all`", metavar="WHEN"),
    ] = None,
    many: Annotated[
        int, typer.Option("-n", min=0, help="without --from and ID: so many of the last ones", metavar="N")
    ] = 20,
    state: Annotated[
        Path | None, typer.Option(help="go on behind the event that stands in it, and keep it there", metavar="FILE")
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="text, json (STREAMQ_LOG)", autocompletion=one_of(FORMATS))
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="the same as --format json: a line of JSON each")] = False,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="email.bounced, route.*", autocompletion=one_of(TYPES))
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="to that address", metavar="ADDRESS")] = None,
    domain: Annotated[str | None, typer.Option(help="to that domain", metavar="DOMAIN")] = None,
    tenant: Annotated[str | None, typer.Option(help="of that tenant", metavar="TENANT")] = None,
    tag: Annotated[str, typer.Option(help="with that tag", metavar="TAG")] = "",
    class_: Annotated[str, typer.Option("--class", help="of that class", metavar="CLASS", autocompletion=classes)] = "",
) -> None:
    """A line for each outcome: what became of mails, with every reply, oldest first. `streamq log ID` is one mail's
    story, `streamq log anna@example.org` that of all mails to her. Exit 1 where nothing of an ID is kept.

    `streamq log -f --json` is a mail log: for journald, a file or a log collector. With STREAMQ_PII=hash no address
    stands in it in the clear.
    """
    if state is not None and since is not None:
        raise SettingsError("--state: it says where to go on: no --from beside it")
    if json and format_ not in {None, "json"}:
        raise SettingsError(f"--json: not beside --format {format_}")
    for pattern in types or ():
        if not any(fnmatchcase(kind, pattern) for kind in TYPES):
            note(f"--type {pattern}: of no type that this version writes ({', '.join(TYPES[:3])}, …; route.*)")
    who = known_person(to)
    rcpt = who.spec if who is not None else ""
    names = (*(ids or ()), *(found.spec for word in ids or () if (found := address_in(word))))
    wanted = EventFilter(tuple(types or ()), names, rcpt, known_domain(domain) or "", tenant, tag, class_)

    async def run() -> bool:
        shown = 0
        async with open_queue() as spool:
            await known_class(spool, class_)
            how = _format("json" if json else format_ or spool.settings.log)
            hides = spool.settings.pii == "hash"
            last = _read(state) if state is not None else None
            start = f"({last}" if last else since or ("all" if ids or rcpt or state is not None else None)
            async for page in _pages(spool, start, many, follow, wanted):
                for event in page:
                    if wanted.fits(event):
                        shown += 1
                        _print(hidden(event) if hides else event, how)
                if state is not None and page:
                    sys.stdout.flush()
                    _keep(state, page[-1].at)
        if ids and not shown:
            note(f"no event of {', '.join(repr(clip(word, 80)) for word in ids)} is kept that fits")
        return bool(shown) or not ids

    with contextlib.suppress(KeyboardInterrupt):
        if not run_async(run):
            raise typer.Exit(1)


def _format(text: str) -> Literal["text", "json"]:
    if text not in FORMATS:
        raise SettingsError(f"--format: one of {', '.join(FORMATS)} (got {text!r})")
    return "json" if text == "json" else "text"


async def _pages(
    spool: Spool, since: str | None, many: int, follow: bool, wanted: EventFilter
) -> AsyncIterator[list[Event]]:
    """From a moment on, or without one so many of the last ones that are wanted; then those that come."""
    newest = await last_events(spool, 1)
    last = newest[0].at if newest else "0"
    if since is None:
        yield [event for event in reversed(await last_events(spool, many, wanted)) if _key(event.at) <= _key(last)]
    else:
        start = since if since.startswith("(") else await moment(spool, since)
        if start.startswith("(") and (first := await first_event(spool)) and _key(first.at) > _key(start[1:]):
            note(f"events behind {start[1:]} may be gone already: the first that is kept is {first.at}")
        async for event in events_since(spool, start):
            last = event.at
            yield [event]
    if follow:
        async for page in follow_events(spool, last, lambda error: note(f"redis: {clip(str(error), 200)}")):
            yield page


def _key(id_: str) -> tuple[int, int]:
    ms, _, seq = id_.partition("-")
    return int(ms), int(seq or 0)


def _read(path: Path) -> str:
    """The id of the last event that stands in the log; "" where there is no such file yet. Raises `SettingsError`."""
    try:
        text = path.read_text("ascii").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as wrong:
        raise SettingsError(f"--state: {path}: {wrong}") from None
    if not STREAM_ID.fullmatch(text):
        raise SettingsError(f"--state: {path}: no event's id in it (got {clip(text, 80)!r})")
    return text


def _keep(path: Path, last: str) -> None:
    """In one step: what is killed meanwhile leaves the old one, and its last page is logged twice rather than not."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(last + "\n", "ascii")
    fresh.replace(path)


async def moment(spool: Spool, text: str) -> str:
    """Where in the stream it is: an id, or so long ago. Raises `SettingsError`."""
    if text == "all":
        return "-"
    if STREAM_ID.fullmatch(text) and int(text.partition("-")[0]) > 10**11:  # else it is seconds
        return text
    try:
        ago = duration_ms(text)
    except ValueError:
        raise SettingsError(
            f"--from: so long ago (2h), an event's id in the stream (1732237561234-0) or `all` (got {clip(text, 80)!r})"
        ) from None
    return str(max(0, await now_ms(spool) - ago))


def _print(event: Event, how: Literal["text", "json"]) -> None:
    if how == "json":
        emit_line({"time": _time(event), "type": event.kind, "id": event.id, **event.data})
    else:
        print(line(event), flush=True)


def _time(event: Event) -> str:
    """RFC 3339, in UTC, to the ms; what no clock can show is left as it is."""
    try:
        at = datetime.fromtimestamp(event.at_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(event.at_ms)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def line(event: Event) -> str:
    """`<time> <type> id=<id> name=value …`: a value with a blank, a quote or a sign that steers a terminal is a JSON
    string, cut at 500 characters."""
    data = event.data
    names = [name for name in FIRST if name in data]
    names += [name for name in data if name not in FIRST and name not in LEFT_OUT]
    shown = [f"{clip(name, 64)}={_value(data[name])}" for name in names]
    return " ".join([_time(event), _value(event.kind), f"id={_value(event.id)}", *shown])


def _value(value: object) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = ",".join(value)
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    text = clip(text, VALUE_MOST)
    return text if BARE.fullmatch(text) else orjson.dumps(text).decode()

"""Webhooks: listen sends events to whoever wants them; webhook ls, pause, resume, replay, test."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from streamq.cli.app import Json, app, open_queue, run_async, settings
from streamq.cli.choice import DryRun, Yes
from streamq.cli.complete import webhooks
from streamq.cli.log import moment
from streamq.cli.route import Reason, pause_given
from streamq.cli.run import log_to_stderr
from streamq.cli.terminal import ask, clip, console, emit, note, table
from streamq.errors import NotFound, SettingsError
from streamq.queue.events import Event, EventFilter, events_since, follow_events, last_events
from streamq.queue.look import now_ms
from streamq.queue.spool import Spool
from streamq.queue.webhooks import Feed, Place, filter_of, id_parts
from streamq.queue.wording import plural, shown_ms
from streamq.settings import Settings, WebhookSettings

webhook = typer.Typer(name="webhook", help="Webhooks: look, pause, resume, replay, try.", no_args_is_help=True)
app.add_typer(webhook)

LOOKED_MOST = 100_000  # events that are counted before a question: a few seconds

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="a webhook, as `[webhooks.NAME]` has it", autocompletion=webhooks)
]


def _known(known: Settings, name: str) -> WebhookSettings:
    """Raises `SettingsError`."""
    if name not in known.webhooks:
        there = ", ".join(known.webhooks) or "none: [webhooks.NAME] with url and secret makes one"
        raise SettingsError(f"NAME: no such webhook: {clip(name, 80)!r} (there are {there})")
    return known.webhooks[name]


@app.command()
def listen(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="only these webhooks", autocompletion=webhooks)
    ] = None,
) -> None:
    """Send events to webhooks, until SIGTERM: signed (Standard Webhooks), in order, again until they are taken.

    As many of these as you like: each webhook is served by one at a time, and by another one when that ends.
    """
    known = settings()
    if not known.webhooks:
        raise SettingsError("no webhook: [webhooks.NAME] with url and secret, in the settings' file, makes one")
    for name in names or ():
        _known(known, name)
    log_to_stderr(known)
    run_async(lambda: _listen(known, list(names or known.webhooks)))


async def _listen(known: Settings, names: list[str]) -> None:
    from streamq.webhooks.listener import Listener
    from streamq.worker.worker import consumer_name

    async with open_queue(known, join=True, patient=True) as spool:
        listeners = [Listener(spool, name, known.webhooks[name], consumer_name()) for name in names]
        for listener in listeners:
            await listener.feed.begin()
        for name in names:
            print(f"webhook   {name} {clip(known.webhooks[name].shown, 300)}", flush=True)
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

        async def ring() -> None:
            """One blocked read for all of them."""
            newest = await last_events(spool, 1)
            async for _ in follow_events(spool, newest[0].at if newest else "0", lambda error: None):
                for listener in listeners:
                    listener.news.set()

        tasks = [asyncio.create_task(work) for work in (ring(), *(listener.run() for listener in listeners))]
        ended = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([*tasks, ended], return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, ended):
            task.cancel()
        await asyncio.gather(*tasks, ended, return_exceptions=True)
        for listener in listeners:
            await listener.leave()
        for task in done - {ended}:
            task.result()


@webhook.command("ls")
def list_webhooks(json: Json = False) -> None:
    """Each webhook: where it is in the events, and how it does."""

    async def run() -> None:
        async with open_queue() as spool:
            known = spool.settings.webhooks
            places = {name: await Feed(spool, name).place() for name in known}
            if json:
                return emit([_plain(name, known[name], place) for name, place in places.items()])
            now = await now_ms(spool)
            rows = [[name, *_cells(place, now), clip(known[name].shown, 60)] for name, place in places.items()]
            names = ("webhook", "behind", "pending", "sent", "gone", "state", "url")
            shown = table(names, rows, right=names[1:5], firm=1) if rows else "no webhooks"
            return console.print(shown, soft_wrap=True)

    run_async(run)


def _plain(name: str, known: WebhookSettings, place: Place | None) -> dict[str, Any]:
    told: dict[str, Any] = {"name": name, "url": known.shown, "used": place is not None}
    if place is not None:
        told |= {"behind": place.behind, "pending": place.pending, "last": place.last}
        told |= {"state": place.state, "paused": place.paused}
    return told


def _cells(place: Place | None, now: int) -> list[str]:
    if place is None:
        return ["–", "–", "–", "–", "never used: `streamq listen`"]
    behind = "many" if place.behind is None else f"{place.behind:,}"
    sent, gone = (f"{_number(place.state.get(name)):,}" for name in ("sent", "gone"))
    if place.state.get("gone_some"):
        gone = "some" if gone == "0" else f"{gone} and some"
    return [behind, f"{place.pending:,}", sent, gone, clip(_state(place, now), 200)]


def _state(place: Place, now: int) -> str:
    at = _number((place.paused or place.state).get("at"))
    ago = f", {shown_ms(max(0, now - at))} ago" if at else ""
    if place.paused:
        return f"paused by {place.paused.get('why')}{ago}: {place.paused.get('reason') or 'no reason given'}"
    failures = _number(place.state.get("failures"))
    return f"failed {plural(failures, 'time')} in a row{ago}: {place.state.get('error')}" if failures else "ok"


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


@webhook.command("pause")
def pause(name: Name, reason: Reason = "", dry_run: DryRun = False, json: Json = False) -> None:
    """No more of them until `resume`; what comes meanwhile stays in the events, as long as those are kept."""
    pause_given(None, reason)

    async def run() -> None:
        async with open_queue() as spool:
            _known(spool.settings, name)
            feed = Feed(spool, name)
            if not dry_run:
                await feed.begin()
                await feed.pause({"why": "operator", "reason": reason, "at": await now_ms(spool)})
            _say("pause", name, "paused", dry_run, json)

    run_async(run)


@webhook.command("resume")
def resume(
    name: Name,
    skip: Annotated[bool, typer.Option("--skip", help="without those that it was given and did not take")] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Go on where it stopped, whoever paused it."""

    async def run() -> None:
        async with open_queue() as spool:
            _known(spool.settings, name)
            feed = Feed(spool, name)
            await feed.begin()
            skipped = await feed.pending() if skip else []
            if not dry_run:
                await feed.ack(skipped)
                await feed.resume()
            _say("resume", name, "resumed", dry_run, json, skipped=len(skipped))

    run_async(run)


@webhook.command("replay")
def replay(
    name: Name,
    since: Annotated[
        str, typer.Option("--from", help="so long ago (2h), an event's id in the stream or its event_id, `all`")
    ],
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Send what it has had already once more, from there on (that one, too). Ids are the old ones: who has them
    drops them."""

    async def run() -> None:
        async with open_queue() as spool:
            _known(spool.settings, name)
            feed = Feed(spool, name)
            place = await feed.place()
            again = await _again(spool, since, filter_of(spool.settings.webhooks[name]), place.last if place else "")
            if again.first is not None and not dry_run:
                if again.many > 1 and not yes:
                    ask(f"send {again.words} to {name} again?")
                await feed.go_to(_before(again.first.at))
            more = {"events": again.many, "more": again.more}
            said = f"{again.words} from there on" if again.first is not None else "it has had no event from there on"
            _say("replay", name, said, dry_run, json, **more)

    run_async(run)


@dataclass(slots=True)
class _Again:
    """From `first` on, of what it has had: `many` that fit; with `more`: `many` and more, of which those that fit."""

    first: Event | None = None
    many: int = 0
    more: bool = False
    filtered: bool = False

    @property
    def words(self) -> str:
        said = plural(self.many, "event")
        return f"more than {said}{', of which those that fit,' if self.filtered else ''}" if self.more else said


async def _again(spool: Spool, since: str, wanted: EventFilter, last: str) -> _Again:
    """What is meant. What is behind `last` it has not had, and has without that: there is nothing to go back to."""
    try:
        start, event_id = await moment(spool, since), ""
    except SettingsError:
        start, event_id = "-", since
    again, looked, found = _Again(filtered=wanted != EventFilter()), 0, False
    async for event in events_since(spool, start):
        found = found or event_id in ("", event.event_id)
        if not found:
            continue
        if last and id_parts(event.at) > id_parts(last):
            break
        again.first = again.first or event
        looked += 1
        again.many += wanted.fits(event)
        if looked > LOOKED_MOST:
            again.many, again.more = LOOKED_MOST, True
            break
    if not found and event_id:
        raise NotFound(f"no event that is kept has the event_id {clip(since, 200)!r}, and it is no time and no id")
    return again


def _before(id_: str) -> str:
    ms, seq = (int(part) for part in id_.split("-"))
    return f"{ms}-{seq - 1}" if seq else f"{max(0, ms - 1)}-{2**64 - 1}"


@webhook.command("test")
def try_out(name: Name, json: Json = False) -> None:
    """Send it one signed event of the type webhook.test, and say what it answers; exit 1 unless it takes it."""
    from streamq.webhooks.message import message
    from streamq.webhooks.sender import Sender

    known = settings()
    hook = _known(known, name)

    async def run() -> bool:
        at = int(datetime.now(UTC).timestamp() * 1000)
        made = message([Event(f"{at}-0", "webhook.test", name, b"", {"at": at})], batched=hook.batch > 1)
        sender = Sender(hook, name)
        with contextlib.closing(sender):
            answer = await sender.post(made.headers(hook.keys, at // 1000), made.body)
        if json:
            emit({"name": name, "id": made.id, "status": answer.status, "error": answer.error, "taken": answer.taken})
        else:
            console.print(f"{name}: {clip(answer.words, 300)}", soft_wrap=True)
        return answer.taken

    if not run_async(run):
        raise typer.Exit(1)


def _say(verb: str, name: str, status: str, dry_run: bool, json: bool, **more: int) -> None:
    if json:
        return emit({"verb": verb, "name": name, "dry_run": dry_run, **more})
    dry = " (dry run: nothing was changed)" if dry_run else ""
    console.print(f"{name}: {status}{dry}", soft_wrap=True)
    if more.get("skipped"):
        note(f"skipped: {plural(more['skipped'], 'event')}")
    return None

"""erase: forget a person."""

from __future__ import annotations

from typing import Annotated

import typer

from streamq.cli.app import Json, app, open_queue, run_async
from streamq.cli.choice import DryRun, Yes
from streamq.cli.terminal import ask, clip, console, emit, note, progress
from streamq.errors import SettingsError
from streamq.queue.erase import Erased, Person, Traces, person, traces
from streamq.queue.erase import erase as carry_out
from streamq.queue.look import status
from streamq.queue.wording import plural

SHARED_SHOWN = 10


@app.command()
def erase(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="whose mails, dead letters and events go")],
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Forget a person: mails to that address are cancelled, its dead letters and the events that name it go for good.

    Exit 1 where something is left: a mail in delivery, or one to others as well, which keep it until it is expanded.
    Run it again then. What other people's mails say in their To and Cc is theirs.
    """
    who = _person(address)

    async def run() -> bool:
        async with open_queue() as spool:
            now = await status(spool)
            with progress("looking", now.live + now.dead + now.events, quiet=json) as looked:
                found = await traces(spool, who, lambda: looked(1))
            words = _words(len(found.entries), len(found.letters), found.events)
            if dry_run:
                _say(who, found, None, f"erase: {words} (dry run: nothing was changed)", json)
                return True
            if len(found.entries) + len(found.letters) + found.events > 1 and not yes:
                ask(f"erase {words}?")
            with progress("erase", len(found.entries), quiet=json) as moved:
                done = await carry_out(spool, who, found, moved)
            gone = done.mails["cancelled"] + done.mails["missing"]
            _say(who, found, done, f"erased {_words(gone, done.letters, done.events)}", json)
            return not found.shared and gone == len(found.entries)

    if not run_async(run):
        raise typer.Exit(1)


def _person(address: str) -> Person:
    try:
        return person(address)
    except ValueError as wrong:
        raise SettingsError(f"ADDRESS: {wrong} (got {clip(address, 300)!r})") from None


def _words(mails: int, letters: int, events: int) -> str:
    return f"{plural(mails, 'mail')}, {plural(letters, 'dead letter')}, {plural(events, 'event')}"


def _say(who: Person, found: Traces, done: Erased | None, words: str, json: bool) -> None:
    if json:
        known: dict[str, object] = {"verb": "erase", "address": who.spec, "dry_run": done is None}
        known |= {"mails": len(found.entries), "letters": len(found.letters), "events": found.events}
        emit(known | {"shared": found.shared, "statuses": done.mails if done is not None else {}})
        return
    console.print(words, soft_wrap=True)
    if done is not None and (left := done.mails["intended"]):
        note(f"in delivery: {left:,}; they end after their attempt, with an event: run it again then")
    if found.shared:
        shown = ", ".join(found.shared[:SHARED_SHOWN]) + (", …" if len(found.shared) > SHARED_SHOWN else "")
        note(f"left alone, to others as well: {len(found.shared):,} ({shown})")

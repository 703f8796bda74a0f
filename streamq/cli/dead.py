"""Dead letters: dead ls, show, requeue, rm."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from streamq.cli.app import Json, app, clip, console, emit, open_queue, run_async
from streamq.errors import NotFound, SettingsError
from streamq.queue.scripts import BATCH
from streamq.queue.spool import Spool
from streamq.queue.steer import DeadLetter, dead_letters, remove_dead

dead = typer.Typer(name="dead", help="Dead letters: mails that cannot be delivered.", no_args_is_help=True)
app.add_typer(dead)

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="a dead letter's id, entry or producer's id")]
Class = Annotated[str | None, typer.Option("--class", help="all of this class")]
All = Annotated[bool, typer.Option("--all")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say how many, change nothing")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]


@dead.command("ls")
def ls(class_: Class = None, limit: Annotated[int, typer.Option(min=1)] = 50, json: Json = False) -> None:
    """List them, oldest first."""

    async def run() -> None:
        async with open_queue() as spool:
            letters = await _chosen(spool, [], class_, limit)
            if json:
                return emit([_plain(letter) for letter in letters])
            table = Table()
            for name in ("id", "class", "to", "subject", "tries", "reason"):
                table.add_column(name)
            for letter in letters:
                table.add_row(
                    letter.letter,
                    letter.text("dead_class"),
                    Text(clip(letter.text("envelope_to") or letter.text("to"), 40)),
                    Text(clip(letter.text("subject"), 30)),
                    letter.text("attempts"),
                    Text(clip(letter.text("dead_reason"), 80)),
                )
            return console.print(table)

    run_async(run)


@dead.command("show")
def show(id_: Annotated[str, typer.Argument(metavar="ID")], json: Json = False) -> None:
    """One dead letter, whole."""

    async def run() -> None:
        async with open_queue() as spool:
            letter = (await _chosen(spool, [id_], None, 1))[0]
            if json:
                return emit({"id": letter.letter, "fields": {n.decode(): v for n, v in letter.fields.items()}})
            for name, value in letter.fields.items():
                text = value.decode("utf-8", "backslashreplace")
                console.print(Text(f"{name.decode('utf-8', 'replace'):<16} {clip(text, 2000)}"))
            return None

    run_async(run)


@dead.command("requeue")
def requeue(
    ids: Ids = None, class_: Class = None, everything: All = False, dry_run: DryRun = False, yes: Yes = False,
    json: Json = False,
) -> None:  # fmt: skip
    """They become waiting mails again, as new entries."""

    async def run() -> None:
        async with open_queue() as spool:
            letters = await _asked(spool, "requeue", ids, class_, everything, dry_run, yes)
            done: list[str] = []
            for at in range(0, len(letters), BATCH):
                done += await spool.scripts.requeue([letter.letter for letter in letters[at : at + BATCH]])
            made = [entry for entry in done if entry not in {"missing", "packed"}]
            if json:
                return emit({"requeued": made, "packed": done.count("packed"), "missing": done.count("missing")})
            console.print(f"requeued {len(made):,} mails")
            if "packed" in done:
                console.print(f"{done.count('packed')} had more than 1,000 fields: they were no mails")
            return None

    run_async(run)


@dead.command("rm")
def rm(
    ids: Ids = None, class_: Class = None, everything: All = False, dry_run: DryRun = False, yes: Yes = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Discard them for good."""

    async def run() -> None:
        async with open_queue() as spool:
            letters = await _asked(spool, "discard", ids, class_, everything, dry_run, yes)
            removed = await remove_dead(spool, [letter.letter for letter in letters])
            if json:
                emit({"removed": removed})
            else:
                console.print(f"discarded {removed:,} dead letters")

    run_async(run)


async def _asked(
    spool: Spool, verb: str, ids: list[str] | None, class_: str | None, everything: bool, dry_run: bool, yes: bool
) -> list[DeadLetter]:
    if bool(ids) + (class_ is not None) + everything != 1:
        raise SettingsError(f"{verb}: name dead letters by ID, or --class, or --all")
    letters = await _chosen(spool, ids or [], class_, None)
    if dry_run:
        console.print(f"{verb}: {len(letters):,} dead letters (dry run: nothing was changed)")
        return []
    if len(letters) > 1 and not yes:
        typer.confirm(f"{verb} {len(letters):,} dead letters?", abort=True)
    return letters


async def _chosen(spool: Spool, ids: list[str], class_: str | None, limit: int | None) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    async for letter in dead_letters(spool):
        if ids and not {letter.letter, letter.text("dead_entry"), letter.text("id")} & set(ids):
            continue
        if class_ is not None and letter.text("dead_class") != class_:
            continue
        found.append(letter)
        if limit is not None and len(found) == limit:
            break
    if ids and not found:
        raise NotFound(f"no dead letter has the id {', '.join(ids)!r}")
    return found


def _plain(letter: DeadLetter) -> dict[str, str]:
    names = ("dead_entry", "id", "dead_class", "dead_reason", "dead_at", "attempts", "last_reply", "to", "subject")
    return {"letter": letter.letter, **{name: letter.text(name) for name in names if letter.text(name)}}

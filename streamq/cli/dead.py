"""Dead letters: dead ls, show, requeue, rm. (dead export has a file of its own.)"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from streamq.cli.app import Json, app, open_queue, run_async
from streamq.cli.choice import All, Class, Domain, DryRun, Priority, Tag, To, Yes, chosen, known_choice
from streamq.cli.dead_named import Meant, last_named, letters_of
from streamq.cli.look import BODY, print_fields
from streamq.cli.terminal import ask, clip, console, emit, note, table
from streamq.errors import SettingsError
from streamq.mail import BUILT
from streamq.queue.letters import DeadLetter, dead_letter, remove_dead, requeue_dead
from streamq.queue.spool import Spool
from streamq.queue.wording import plural

dead = typer.Typer(name="dead", help="Dead letters: mails that cannot be delivered.", no_args_is_help=True)
app.add_typer(dead)

ID_HELP = "a dead letter's id, its mail's entry, a producer's id, or a recipient's address"
Tenant = Annotated[str | None, typer.Option(help="all of this tenant; with IDs: whose ids they are", metavar="TENANT")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="ID|ADDRESS", help=ID_HELP)]
NAMES = (
    *("dead_entry", "id", "dead_class", "dead_reason", "dead_at", "attempts", "last_reply"),
    *("envelope_to", "to", "subject", "tenant", "tags"),
)
LISTED = 16_384  # bytes of a field in a list; `show` has all of them
NOT_REQUEUED = {
    "missing": "gone meanwhile",
    "packed": "of more than 1,000 fields: they were no mails",
    "partly": "that became mails for some of their recipients (dead_made): a requeue that says nothing of who they are "
    "makes those of the others; where that was not kept, or is to change, send them a mail of their own",
    "envelope": "whose recipient no to, cc or bcc names: --set envelope_to=… does (or, but for raw, to=… alone)",
    "sensitive": "whose bodies were not kept (`sensitive`): --set text=… gives them another",
    "bodiless": "whose bodies were not kept (for their class or size): --set text=… gives them another, and vars=… "
    "one of their template",
}
BODILESS = ("bad_address", "loop", "too_large")  # as lib/dead.lua has them
REFUSED_SHOWN = 20


@dead.command("ls")
def ls(
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    class_: Class = None,
    to: To = None,
    newest: Annotated[bool, typer.Option("--newest", help="the newest first")] = False,
    limit: Annotated[int, typer.Option(min=1, help="at most so many", metavar="N")] = 50,
    json: Json = False,
) -> None:
    """List them, oldest first; --newest: those that died last."""
    choice = chosen(priority, domain, tenant, tag, class_, to)

    async def run() -> None:
        async with open_queue() as spool:
            await known_choice(spool, choice)
            letters: list[dict[str, str]] = []
            more = False
            async for letter in letters_of(spool, choice, newest=newest):
                if len(letters) == limit:
                    more = True
                    break
                letters.append(_plain(letter))
            if json:
                return emit(letters)
            _print_list(letters)
            if more:
                console.print(f"… and more: --limit {limit * 10}", style="dim")
            return None

    run_async(run)


def _print_list(letters: list[dict[str, str]]) -> None:
    rows = [
        [
            known["letter"],
            clip(known.get("dead_class", ""), 16),
            clip(known.get("attempts", ""), 6),
            clip(known.get("envelope_to") or known.get("to", ""), 40 if console.width > 100 else 24),
            clip(known.get("dead_reason", ""), 200),
        ]
        for known in letters
    ]
    names = ("id", "class", "tries", "to", "reason")
    console.print(table(names, rows, right=("tries",), firm=3) if rows else "no dead letters", soft_wrap=True)


@dead.command("show")
def show(
    id_: Annotated[str, typer.Argument(metavar="ID|ADDRESS", help=ID_HELP)],
    tenant: Annotated[str | None, typer.Option(help="whose id it is", metavar="TENANT")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="bodies, too")] = False,
    json: Json = False,
) -> None:
    """One dead letter; of several with that id, or to that address, the last."""

    async def run() -> None:
        async with open_queue() as spool:
            letter = await last_named(spool, id_, tenant)
            if json:
                return emit({"letter": letter.letter, "fields": letter.named(bytes, () if raw else BODY)})
            console.print(f"{letter.letter}{_died(letter)}", style="bold")
            return print_fields(letter.pairs, raw=raw)

    run_async(run)


def _died(letter: DeadLetter) -> str:
    at = letter.text("dead_at")
    if not at.isdecimal() or len(at) > 14:
        return ""
    return f"  died {datetime.fromtimestamp(int(at) / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


@dead.command("requeue")
def requeue(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    class_: Class = None,
    to: To = None,
    everything: All = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="what the mail shall say instead; FIELD= for none", metavar="FIELD=VALUE"),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """They become waiting mails again, as new entries."""
    new = _changes(changes or [])
    meant = Meant.of("requeue", ids, chosen(priority, domain, tenant, tag, class_, to), everything)

    async def run() -> bool:
        async with open_queue() as spool:
            letters = await _asked(spool, meant, dry_run, yes)
            done = await requeue_dead(spool, letters.items(), new, dry=dry_run)
            if dry_run:
                _say_dry("requeue", len(letters), json, Counter(why for why in done if why))
                return True
            made = [entry for entry in done if entry not in NOT_REQUEUED]
            refused = {letter: why for letter, why in zip(letters, done, strict=True) if why in NOT_REQUEUED}
            kept = Counter(refused.values())
            said = await _refused(spool, refused)
            if json:
                emit({"requeued": made, **{name: kept[name] for name in NOT_REQUEUED}, "not_requeued": said})
            else:
                console.print(f"requeued {plural(len(made), 'mail')}")
                for name, many in kept.items():
                    note(f"not requeued: {many:,} {NOT_REQUEUED[name]}")
                for letter, words in said.items():
                    note(f"  {letter}: {words}")
            return not kept

    if not run_async(run):
        raise typer.Exit(1)


async def _refused(spool: Spool, refused: Mapping[str, str]) -> dict[str, str]:
    """Of the first of them: whose letter it is, and what in it stands in the way. They stay dead letters."""
    found: dict[str, str] = {}
    for name, why in list(refused.items())[:REFUSED_SHOWN]:
        letter = await dead_letter(spool, name)
        if letter is None:
            found[name] = why
            continue
        klass = letter.text("dead_class")
        words = {
            "sensitive": "its mail is `sensitive`, of which no letter keeps a body",
            "bodiless": f"no letter of class {klass} keeps its body ({', '.join(BODILESS)}: sent again as it was, it "
            "fails again)"
            if klass in BODILESS
            else f"STREAMQ_DEAD_BYTES ({spool.settings.dead_bytes:,}) had no room for its body",
        }
        to = letter.text("envelope_to") or letter.text("to")
        found[name] = clip(f"{letter.text('id')} to {to}: {words.get(why, why)}".strip(), 400)
    return found


def _changes(given: list[str]) -> dict[str, str]:
    """Fields by name. What their values may be intake says, as of any mail."""
    changes: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        known = name.encode() in BUILT or name.startswith("x_")
        if not equals or not (known or (name and not value)):  # a field that nobody knows can be taken away
            raise SettingsError(f"--set: not FIELD=VALUE with a field of a mail: {clip(each, 80)!r}")
        if name in changes:
            raise SettingsError(f"--set: {name} twice")
        changes[name] = value
    return changes


@dead.command("rm")
def rm(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    class_: Class = None,
    to: To = None,
    everything: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Discard them for good."""
    meant = Meant.of("rm", ids, chosen(priority, domain, tenant, tag, class_, to), everything)

    async def run() -> None:
        async with open_queue() as spool:
            letters = await _asked(spool, meant, dry_run, yes)
            if dry_run:
                return _say_dry("rm", len(letters), json)
            removed = await remove_dead(spool, letters)
            if json:
                return emit({"removed": removed})
            return console.print(f"discarded {plural(removed, 'dead letter')}")

    run_async(run)


def _say_dry(verb: str, many: int, json: bool, kept: Mapping[str, int] | None = None) -> None:
    """`kept`: why not → how many."""
    if json:
        return emit({"verb": verb, "letters": many, "dry_run": True, **({"kept": kept} if kept else {})})
    console.print(f"{verb}: {plural(many, 'dead letter')} (dry run: nothing was changed)")
    for name, left in (kept or {}).items():
        note(f"would not be requeued: {left:,} {NOT_REQUEUED[name]}")
    return None


async def _asked(spool: Spool, meant: Meant, dry_run: bool, yes: bool) -> dict[str, int]:
    letters = await meant.sizes(spool)
    if not dry_run and len(letters) > 1 and not yes:
        ask(f"{meant.verb} {plural(len(letters), 'dead letter')}?")
    return letters


def _plain(letter: DeadLetter) -> dict[str, Any]:
    """For a list: of a field that somebody made huge its beginning."""
    found = {name: letter.fields.get(name.encode(), b"") for name in NAMES}
    shown = {name: value[:LISTED].decode("utf-8", "replace") for name, value in found.items() if value}
    return {"letter": letter.letter, **{n: v + "…" * (len(found[n]) > LISTED) for n, v in shown.items()}}

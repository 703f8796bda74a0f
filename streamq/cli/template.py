"""Templates: put, look, try, remove."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer

from streamq.cli.app import Json, app, open_queue, run_async
from streamq.cli.choice import DryRun, Yes
from streamq.cli.terminal import ask, console, emit, safe, table
from streamq.errors import MalformedMail, NotFound, SettingsError
from streamq.mail.numbers import exact
from streamq.mail.rules import NAME
from streamq.mail.template import PARTS, Template, installed, split_name
from streamq.queue.look import now_ms
from streamq.queue.spool import Spool
from streamq.queue.templates import Stored
from streamq.queue.wording import shown_ms

template = typer.Typer(name="template", help="Stored templates: put, look, try, remove.", no_args_is_help=True)
app.add_typer(template)

Name = Annotated[str, typer.Argument(metavar="NAME", help="letters, digits, '.', '_', '-'; to look: also NAME@VERSION")]
Source = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="a file with its jinja2 source")]
MOST = 4_000_000  # bytes of a file that is read at all


def _need_jinja() -> None:
    if not installed():
        raise SettingsError("templates need jinja2: install streamq[templates]")


@template.command("put")
def put_template(
    name: Name,
    subject: Annotated[str | None, typer.Option(help="jinja2 source of the subject", metavar="TEXT")] = None,
    text: Source = None,
    html: Source = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Store a new version. Mails that are in the queue already stay with the version of their time."""
    _need_jinja()
    if not NAME.fullmatch(name):
        raise SettingsError(f"NAME: letters, digits, '.', '_', '-', at most 63 (got {name!r})")
    given = Template({part: source for part, source in _sources(subject, text, html).items() if source})
    try:
        given.check()
    except ValueError as wrong:
        raise SettingsError(f"{name}: {wrong}") from None

    async def run() -> None:
        async with open_queue() as spool:
            newest = (await spool.templates.names()).get(name, 0)
            version = newest if dry_run else await spool.templates.put(name, given)
            if json:
                emit({"name": name, "version": version, "changed": version != newest, "dry_run": dry_run})
            elif dry_run:
                console.print(f"{name}: good; version {newest} stays (dry run: nothing was changed)")
            else:
                console.print(f"{name}: version {version}" + (" (as it was)" if version == newest else ""))

    run_async(run)


def _sources(subject: str | None, text: Path | None, html: Path | None) -> dict[str, str]:
    found = {"subject": subject or ""}
    for part, path in (("text", text), ("html", html)):
        if path is None:
            continue
        source = path.read_bytes()
        if len(source) > MOST:
            raise SettingsError(f"--{part}: at most {MOST} bytes (got {len(source)})")
        try:
            found[part] = source.decode()
        except UnicodeDecodeError:
            raise SettingsError(f"--{part}: {path} is not UTF-8") from None
    return found


@template.command("ls")
def list_templates(json: Json = False) -> None:
    """Each template: its newest version, since when, and which parts it gives."""

    async def run() -> None:
        async with open_queue() as spool:
            now = await now_ms(spool)
            newest = []
            for name in await spool.templates.names():
                versions = await spool.templates.versions(name)
                newest += [(name, versions[-1])] if versions else []
            if json:
                emit([{"name": name, **_shown(each)} for name, each in newest])
                return
            rows = [
                [name, str(each.version), f"{shown_ms(max(0, now - each.at_ms))} ago", ", ".join(each.template.parts)]
                for name, each in newest
            ]
            console.print(table(("template", "version", "put", "gives"), rows, right=("version",), firm=1))

    run_async(run)


def _shown(each: Stored) -> dict[str, object]:
    return {"version": each.version, "at": each.at_ms, "parts": dict(each.template.parts)}


async def _found(spool: Spool, asked: str) -> tuple[str, Stored]:
    name, version = split_name(asked.encode())
    versions = await spool.templates.versions(name)
    for each in reversed(versions):
        if version in (None, each.version):
            return name, each
    raise NotFound(f"no template {asked!r}")


@template.command("show")
def show_template(
    name: Name,
    values: Annotated[
        str | None, typer.Option("--vars", help="a JSON object: what a mail with these vars would say", metavar="JSON")
    ] = None,
    json: Json = False,
) -> None:
    """Its sources; or, with --vars, what comes of them. Exit 1 where a variable is missing."""

    async def run() -> None:
        async with open_queue() as spool:
            found, each = await _found(spool, name)
            parts = dict(each.template.parts)
            if values is not None:
                parts = _tried(each.template, values)
            if json:
                emit({"name": found, **_shown(each), "parts": parts})
                return
            console.print(f"{found}@{each.version}")
            for part in PARTS:
                if part in parts:
                    console.print(f"\n{part}:")
                    for line in parts[part].splitlines():
                        console.print(safe(line), soft_wrap=True)

    run_async(run)


def _tried(given: Template, values: str) -> dict[str, str]:
    _need_jinja()
    try:
        known = exact(values.encode())
    except (orjson.JSONDecodeError, RecursionError) as wrong:
        raise SettingsError(f"--vars: not JSON ({wrong})") from None
    if not isinstance(known, dict):
        raise SettingsError(f"--vars: not a JSON object (got {values[:80]!r})")
    try:
        return given.render(known, MOST)
    except MalformedMail as wrong:
        raise NotFound(str(wrong)) from None


@template.command("rm")
def remove_template(name: Name, yes: Yes = False, dry_run: DryRun = False, json: Json = False) -> None:
    """Remove it with all its versions: mails that name it are held until it is there again."""

    async def run() -> None:
        async with open_queue() as spool:
            many = len(await spool.templates.versions(name))
            if not many:
                raise NotFound(f"no template {name!r}")
            if not dry_run and not yes:
                ask(f"remove {name} and its {many} versions?")
            if not dry_run:
                many = await spool.templates.remove(name)
            if json:
                emit({"name": name, "versions": many, "dry_run": dry_run})
            else:
                dry = " (dry run: nothing was changed)" if dry_run else ""
                console.print(f"{name}: {many} versions removed{dry}")

    run_async(run)

"""Steer: retry, hold, unhold, cancel, bounce."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer
from rich.progress import Progress

from streamq.cli.app import Json, app, console, emit, open_queue, run_async
from streamq.errors import NotFound, SettingsError
from streamq.queue.look import STATES, locate
from streamq.queue.spool import Spool
from streamq.queue.steer import Selector, apply, select, set_rule, unset_rule
from streamq.settings import duration_ms

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="entries or producers' ids")]
Priority = Annotated[str | None, typer.Option(help="all of this priority")]
Domain = Annotated[str | None, typer.Option(help="all to this domain")]
Tenant = Annotated[str | None, typer.Option(help="all of this tenant; with IDs: whose ids they are")]
Tag = Annotated[str | None, typer.Option(help="all with this tag")]
All = Annotated[bool, typer.Option("--all", help="all live mails")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say how many, change nothing")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]

DONE = {"hold": "held", "unhold": "scheduled", "cancel": "cancelled", "bounce": "bounced", "retry": "scheduled"}


class _Asked:
    """Which mails a command names: by id, or by a selector."""

    def __init__(
        self,
        verb: str,
        ids: list[str] | None,
        selector: Selector,
        everything: bool,
        dry_run: bool,
        yes: bool,
        json: bool,
        at_ms: int | None = None,
    ) -> None:
        self.verb, self.ids, self.selector, self.at_ms = verb, ids or [], selector, at_ms
        self.dry_run, self.yes, self.json = dry_run, yes, json
        chosen = any((selector.priority, selector.domain, selector.tenant, selector.tag))
        if not self.ids and not chosen and not everything:
            raise SettingsError(f"{verb}: name mails by ID, or by --domain, --priority, --tenant, --tag, --all")
        if self.ids and (selector.priority or selector.domain or selector.tag or everything):
            raise SettingsError(f"{verb}: either IDs, or a choice, not both")
        if verb == "hold" and not self.ids and selector.rule is None:
            raise SettingsError("hold: a standing rule takes one of --domain, --priority, --tenant, --tag, --all")

    def run(self) -> None:
        run_async(self._by_id if self.ids else self._by_choice)

    async def _by_id(self) -> None:
        async with open_queue() as spool:
            entries: dict[str, str] = {}
            for text in self.ids:
                try:
                    entries[text] = await locate(spool, text, self.selector.tenant)
                except NotFound:
                    if self.verb not in {"hold", "cancel"}:
                        raise
                    if not self.dry_run:
                        await set_rule(spool, f"id:{text}", self.verb)
                    console.print(f"{text}: not seen yet; it will be {DONE[self.verb]} when it comes")
            done = Counter[str]() if self.dry_run else await apply(spool, self.verb, entries.values(), at_ms=self.at_ms)
            self._say(done, len(entries))
            if done["missing"]:
                raise typer.Exit(1)

    async def _by_choice(self) -> None:
        async with open_queue() as spool:
            rule = self.selector.rule
            if not self.dry_run and rule and self.verb == "unhold":
                await unset_rule(spool, rule)
            entries = [view.entry async for view in select(spool, self.selector)]
            if not self.dry_run and len(entries) > 1 and not self.yes:
                typer.confirm(f"{self.verb} {len(entries):,} mails?", abort=True)
            if self.dry_run:
                return self._say(Counter(), len(entries))
            if rule and self.verb == "hold":
                await set_rule(spool, rule, "hold")  # first, so that none slips between rule and sweep
                entries = [view.entry async for view in select(spool, self.selector)]
            self._say(await self._sweep(spool, entries), len(entries))
            if rule and self.verb == "hold":
                console.print("and what comes from now on: a standing rule, until `streamq unhold` with the same words")
            return None

    async def _sweep(self, spool: Spool, entries: list[str]) -> Counter[str]:
        with Progress(console=console, transient=True, disable=self.json or len(entries) < 1000) as progress:
            bar = progress.add_task(self.verb, total=len(entries))
            return await apply(
                spool, self.verb, entries, at_ms=self.at_ms, progress=lambda many: progress.advance(bar, many)
            )

    def _say(self, done: Counter[str], many: int) -> None:
        if self.json:
            return emit({"verb": self.verb, "mails": many, "dry_run": self.dry_run, "statuses": done})
        if self.dry_run:
            console.print(f"{self.verb}: {many:,} mails (dry run: nothing was changed)")
            return None
        said = ", ".join(f"{count:,} {status}" for status, count in done.most_common()) or "nothing to do"
        console.print(f"{self.verb}: {said}")
        if done["intended"]:
            console.print("intended: in delivery, or not read yet; carried out if the attempt does not send it")
        return None


@app.command()
def retry(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    everything: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Scheduled mails go now, through the limits. (Parked ones wait for a slot as before.)"""
    chosen = Selector(priority, domain, tenant, tag, ("scheduled", "parked"))
    _Asked("retry", ids, chosen, everything, dry_run, yes, json).run()


@app.command()
def hold(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    everything: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Keep mails back until `unhold`. A choice (--domain …) is a standing rule for those to come, too."""
    _Asked("hold", ids, Selector(priority, domain, tenant, tag), everything, dry_run, yes, json).run()


@app.command()
def unhold(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    everything: All = False,
    after: Annotated[str | None, typer.Option("--in", help="so long from now (5m); else at its old time")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Held mails go on the schedule again; a standing rule ends."""
    at_ms: int | None = None
    if after is not None:
        import time

        try:
            at_ms = time.time_ns() // 1_000_000 + duration_ms(after)
        except ValueError as wrong:
            raise SettingsError(f"--in: {wrong}") from None
    chosen = Selector(priority, domain, tenant, tag, ("held",))
    _Asked("unhold", ids, chosen, everything, dry_run, yes, json, at_ms).run()


@app.command()
def cancel(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    everything: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """End mails without a report. One in delivery ends after its attempt, if that does not send it."""
    _Asked("cancel", ids, Selector(priority, domain, tenant, tag, STATES), everything, dry_run, yes, json).run()


@app.command()
def bounce(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    everything: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """End mails as bounced: a dead letter and its event."""
    _Asked("bounce", ids, Selector(priority, domain, tenant, tag, STATES), everything, dry_run, yes, json).run()

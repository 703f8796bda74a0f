"""Steer: retry, hold, unhold, cancel, bounce."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated

import typer

from streamq.cli.app import Json, app, open_queue, run_async
from streamq.cli.choice import All, Class, Domain, DryRun, Ids, Priority, Tag, Tenant, Yes, chosen, known_priority
from streamq.cli.terminal import ask, clip, console, emit, note, progress
from streamq.errors import NotFound, SettingsError
from streamq.queue.look import locate, now_ms, status
from streamq.queue.spool import Spool
from streamq.queue.steer import Selector, apply, has_rule, id_rule, intended, select, set_rule, unset_rule
from streamq.queue.walk import STATES, is_entry
from streamq.settings import duration_ms

DONE = {"hold": "held", "cancel": "cancelled"}  # what becomes of a mail that was not seen yet
# Which states a choice is looked for in. What waits is held by the standing rule, when it is admitted.
SWEPT = {
    "retry": ("parked", "scheduled"),
    "hold": ("waiting", "leased", "parked", "scheduled"),
    "unhold": ("held",),
    "cancel": STATES,
    "bounce": STATES,
}
ENTRY_DIGITS = 14  # a priority's and a time's of this century


Standing = Annotated[bool, typer.Option("--standing", help="what comes, too, until `unhold` with the same words")]


@dataclass(slots=True)
class _Order:
    """One command's verb and the mails it names: by id, or by a choice."""

    verb: str
    ids: list[str]
    choice: Selector
    everything: bool
    dry_run: bool
    yes: bool
    json: bool
    after_ms: int | None = None
    standing: bool = False
    rules: dict[str, str] = field(default_factory=dict)  # what was asked for ids that were not seen yet → what became

    def __post_init__(self) -> None:
        flags = [part.partition(":")[0] for part in self.choice.parts]
        if self.ids:
            if self.everything or set(flags) - {"tenant"}:
                raise SettingsError(f"{self.verb}: either IDs or a choice (--domain, --all, …), not both")
        elif self.everything == bool(flags):
            raise SettingsError(
                f"{self.verb}: name mails by ID, or by --domain, --priority, --tenant, --tag, --class; or --all of them"
            )
        if self.verb == "hold" and not self.ids and self.choice.klass is None:
            self.standing = True
        if self.standing and (self.ids or self.choice.rule is None):
            got = ", ".join(f"--{flag}" for flag in flags) or "IDs"
            raise SettingsError(
                f"{self.verb}: a standing rule takes one of --domain, --priority, --tenant, --tag (got {got})"
            )

    def run(self) -> None:
        if not run_async(self._carried_out):
            raise typer.Exit(1)

    async def _carried_out(self) -> bool:
        async with open_queue() as spool:
            known_priority(spool, self.choice.priority)
            return await (self._by_id(spool) if self.ids else self._by_choice(spool))

    async def _by_id(self, spool: Spool) -> bool:
        entries: list[str] = []
        unseen: list[str] = []
        for text in dict.fromkeys(self.ids):
            try:
                entries.append(await locate(spool, text, self.choice.tenant))
            except NotFound:
                if not await self._is_rule(spool, text):
                    raise
                unseen.append(text)
        if not self.dry_run and len(self.ids) > 1 and not self.yes:
            ask(f"{self.verb} {len(entries) + len(unseen):,} mails?")
        for text in unseen:
            entries += await self._rule(spool, text)
        at_ms = await self._at_ms(spool)
        done = Counter[str]() if self.dry_run else await apply(spool, self.verb, entries, at_ms=at_ms)
        self._say(done, len(entries))
        return not done["missing"]

    async def _is_rule(self, spool: Spool, text: str) -> bool:
        """An id that was not seen yet may come; what has the form of an entry was seen, and is gone."""
        if is_entry(text) and len(text.partition("-")[0]) >= ENTRY_DIGITS:
            return False
        if self.verb == "unhold":
            return await has_rule(spool, id_rule(text, self.choice.tenant))
        return self.verb in DONE

    async def _rule(self, spool: Spool, text: str) -> list[str]:
        """For an id that was not seen yet. Its entry, if it came between the look and the rule: admission, which
        carries rules out, had looked at it by then."""
        name = id_rule(text, self.choice.tenant)
        if self.verb == "unhold":
            said = "not seen yet; what was asked for it is forgotten"
            if not self.dry_run:
                await unset_rule(spool, name)
        else:
            said = f"not seen yet, or ended unsent; {DONE[self.verb]} when it comes, unless `streamq unhold` says no"
            if not self.dry_run:
                await set_rule(spool, name, self.verb)
                with contextlib.suppress(NotFound):
                    entry = await locate(spool, text, self.choice.tenant)
                    await unset_rule(spool, name)
                    return [entry]
        self.rules[text] = said
        return []

    async def _by_choice(self, spool: Spool) -> bool:
        rule = self.choice.rule
        if self.dry_run or not self.yes:
            many = len(await self._found(spool))
            if self.dry_run:
                self._say(Counter(), many)
                return True
            comes = ", and what comes" if self.standing and self.verb != "hold" else ""
            if many > 1 or comes:
                ask(f"{self.verb} {many:,} mails{comes}?")
        if self.standing and rule:
            await set_rule(spool, rule, self.verb)  # first, so that none slips between rule and sweep
            self.rules[rule] = "a standing rule from now on, until `streamq unhold` with the same words"
        if self.verb == "unhold" and rule and await unset_rule(spool, rule):
            self.rules[rule] = "no standing rule any more"
        await self._sweep(spool)
        return True

    async def _found(self, spool: Spool) -> dict[str, str]:
        """Entries and their states, by visiting all that may be meant: a million take a minute, so it is shown."""
        now = await status(spool)
        many = sum(now.sum(state) for state in SWEPT[self.verb])
        found: dict[str, str] = {}
        with progress("looking", many, quiet=self.json) as looked:
            choice = self.choice.among(*SWEPT[self.verb])
            async for view in select(spool, choice, sweep=True, visited=lambda: looked(1)):
                found[view.entry] = view.state
        if self.verb == "unhold":
            found |= {view.entry: view.state async for view in intended(spool, "hold") if self.choice.fits(view)}
        return found

    async def _sweep(self, spool: Spool) -> None:
        states = await self._found(spool)
        entries = [entry for entry, state in states.items() if self.verb != "hold" or state != "waiting"]
        with progress(self.verb, len(entries), quiet=self.json) as moved:
            done = await apply(spool, self.verb, entries, at_ms=await self._at_ms(spool), progress=moved)
        if len(states) > len(entries):
            done["by rule"] = len(states) - len(entries)  # they wait: held when they are read
        self._say(done, len(states))

    async def _at_ms(self, spool: Spool) -> int | None:
        return None if self.after_ms is None else await now_ms(spool) + self.after_ms

    def _say(self, done: Counter[str], many: int) -> None:
        if self.json:
            known = {"verb": self.verb, "mails": many, "dry_run": self.dry_run}
            return emit({**known, "statuses": done, "rules": self.rules})
        for name, said in self.rules.items():
            console.print(f"{clip(name, 300)}: {said}", soft_wrap=True)
        if self.dry_run:
            console.print(f"{self.verb}: {many:,} mails (dry run: nothing was changed)")
            return None
        words = ", ".join(f"{count:,} {status}" for status, count in done.most_common())
        if words or not self.rules:
            console.print(f"{self.verb}: {words or 'nothing to do'}")
        if done["intended"]:
            note("intended: in delivery, or not read yet; carried out unless the attempt sends it")
        if done["missing"]:
            note("missing: has ended already; its events, or `streamq dead show`, may know how")
        return None


def _order(
    verb: str,
    ids: list[str] | None,
    choice: Selector,
    everything: bool,
    dry_run: bool,
    yes: bool,
    json: bool,
    after_ms: int | None = None,
    standing: bool = False,
) -> None:
    _Order(verb, ids or [], choice, everything, dry_run, yes, json, after_ms, standing).run()


@app.command()
def retry(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    class_: Class = None,
    everything: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Scheduled mails go now, through the limits. (Parked ones wait for a slot as before.)"""
    _order("retry", ids, chosen(priority, domain, tenant, tag, class_), everything, dry_run, yes, json)


@app.command()
def hold(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    class_: Class = None,
    everything: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Keep mails back until `unhold`. A choice (--domain …) is a standing rule for those to come, too."""
    _order("hold", ids, chosen(priority, domain, tenant, tag, class_), everything, dry_run, yes, json)


@app.command()
def unhold(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    class_: Class = None,
    everything: All = False,
    after: Annotated[
        str | None, typer.Option("--in", help="so long from now (5m, 0s), not at its old time", metavar="TIME")
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Held mails go on the schedule again; a standing rule ends."""
    try:
        after_ms = None if after is None else duration_ms(after)
    except ValueError as wrong:
        raise SettingsError(f"--in: {wrong}") from None
    _order("unhold", ids, chosen(priority, domain, tenant, tag, class_), everything, dry_run, yes, json, after_ms)


@app.command()
def cancel(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    class_: Class = None,
    everything: All = False,
    standing: Standing = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """End mails without a report. One in delivery ends after its attempt, if that does not send it. With --standing
    those to come, too: a campaign that must stop."""
    _order(
        "cancel", ids, chosen(priority, domain, tenant, tag, class_), everything, dry_run, yes, json, standing=standing
    )


@app.command()
def bounce(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    class_: Class = None,
    everything: All = False,
    standing: Standing = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """End mails as bounced: a dead letter and its event."""
    _order(
        "bounce", ids, chosen(priority, domain, tenant, tag, class_), everything, dry_run, yes, json, standing=standing
    )

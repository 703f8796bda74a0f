"""Steer: retry, hold, unhold, cancel, bounce."""

from __future__ import annotations

from typing import Annotated

import typer

from streamq.cli.app import Json, app
from streamq.cli.choice import All, Class, Domain, DryRun, Ids, Priority, Tag, Tenant, To, Yes, chosen
from streamq.cli.order import Order
from streamq.errors import SettingsError
from streamq.queue.steer import Selector
from streamq.settings import duration_ms

Standing = Annotated[bool, typer.Option("--standing", help="what comes, too, until `unhold` with the same words")]
Unseen = Annotated[bool, typer.Option("--unseen", help="IDs that nobody has seen: a rule for each, when it comes")]


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
    unseen: bool = False,
) -> None:
    Order(verb, ids or [], choice, everything, dry_run, yes, json, after_ms, standing, unseen).run()


@app.command()
def retry(
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
    """Scheduled mails go now, through the limits. (Parked ones wait for a slot as before.) `streamq retry
    anna@example.org`: all to that address."""
    _order("retry", ids, chosen(priority, domain, tenant, tag, class_, to), everything, dry_run, yes, json)


@app.command()
def hold(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    class_: Class = None,
    to: To = None,
    everything: All = False,
    unseen: Unseen = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Keep mails back until `unhold`. A choice (--domain …) is a standing rule for those to come, too."""
    choice = chosen(priority, domain, tenant, tag, class_, to)
    _order("hold", ids, choice, everything, dry_run, yes, json, unseen=unseen)


@app.command()
def unhold(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    class_: Class = None,
    to: To = None,
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
    _order("unhold", ids, chosen(priority, domain, tenant, tag, class_, to), everything, dry_run, yes, json, after_ms)


@app.command()
def cancel(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    class_: Class = None,
    to: To = None,
    everything: All = False,
    standing: Standing = False,
    unseen: Unseen = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """End mails without a report. One in delivery ends after its attempt, if that does not send it. With --standing
    those to come, too: a campaign that must stop."""
    choice = chosen(priority, domain, tenant, tag, class_, to)
    _order("cancel", ids, choice, everything, dry_run, yes, json, standing=standing, unseen=unseen)


@app.command()
def bounce(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    class_: Class = None,
    to: To = None,
    everything: All = False,
    standing: Standing = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """End mails as bounced: a dead letter and its event."""
    choice = chosen(priority, domain, tenant, tag, class_, to)
    _order("bounce", ids, choice, everything, dry_run, yes, json, standing=standing)

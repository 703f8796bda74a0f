"""Which mails a command is about: the flags that choose, and what they become."""

from __future__ import annotations

from typing import Annotated

import typer

from streamq.cli import complete
from streamq.errors import SettingsError
from streamq.queue.spool import Spool
from streamq.queue.steer import Selector
from streamq.queue.walk import STATES

__all__ = [
    "All",
    "Class",
    "Domain",
    "DryRun",
    "Ids",
    "Priority",
    "State",
    "Tag",
    "Tenant",
    "Yes",
    "chosen",
    "known_domain",
    "known_priority",
    "known_states",
]

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="entries or producers' ids")]
Priority = Annotated[
    str | None, typer.Option(help="all of this priority", metavar="NAME", autocompletion=complete.priorities)
]
State = Annotated[
    str | None, typer.Option(help=f"one of {', '.join(STATES)}", metavar="STATE", autocompletion=complete.states)
]
Domain = Annotated[str | None, typer.Option(help="all to this domain", metavar="DOMAIN")]
Tenant = Annotated[str | None, typer.Option(help="all of this tenant; with IDs: whose ids they are", metavar="TENANT")]
Tag = Annotated[str | None, typer.Option(help="all with this tag", metavar="TAG")]
Class = Annotated[
    str | None,
    typer.Option(
        "--class",
        help="all whose last reply, or reason, is of this class",
        metavar="CLASS",
        autocompletion=complete.classes,
    ),
]
All = Annotated[bool, typer.Option("--all", help="all there are")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say how many, change nothing")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]


def chosen(
    priority: str | None, domain: str | None, tenant: str | None, tag: str | None, klass: str | None = None
) -> Selector:
    """Raises `SettingsError` where a flag's value chooses nothing that could be."""
    flags = {"--priority": priority, "--domain": domain, "--tenant": tenant, "--tag": tag, "--class": klass}
    for flag, value in flags.items():
        if value is not None and not value.strip():
            raise SettingsError(f"{flag}: empty (got {value!r})")
    return Selector(priority, known_domain(domain), tenant, tag, klass)


def known_domain(domain: str | None) -> str | None:
    """As a mail's site has it. Raises `SettingsError` where it is none."""
    try:
        return Selector(domain=domain).domain
    except ValueError as wrong:
        raise SettingsError(f"--domain: {wrong} (got {domain!r})") from None


def known_states(state: str | None) -> tuple[str, ...]:
    """That one, or all. Raises `SettingsError` where there is no such state."""
    if state is not None and state not in STATES:
        raise SettingsError(f"--state: one of {', '.join(STATES)} (got {state!r})")
    return STATES if state is None else (state,)


def known_priority(spool: Spool, name: str | None) -> None:
    """Raises `SettingsError` where the queue has no such priority."""
    if name is not None and name not in spool.priorities:
        raise SettingsError(f"--priority: one of {', '.join(spool.priorities)} (got {name!r})")

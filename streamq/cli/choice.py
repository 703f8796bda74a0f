"""Which mails a command is about: the flags that choose, and what they become."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated

import typer

from streamq.cli import complete
from streamq.errors import SettingsError
from streamq.queue.connection import command
from streamq.queue.person import Person, person
from streamq.queue.spool import Spool
from streamq.queue.steer import Selector
from streamq.queue.walk import STATES
from streamq.smtp.classes import class_names

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
    "To",
    "Yes",
    "address_in",
    "chosen",
    "known_choice",
    "known_class",
    "known_domain",
    "known_person",
    "known_priority",
    "known_states",
]

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="ID|ADDRESS", help="entries, producers' ids, or recipients' addresses")
]
Priority = Annotated[
    str | None, typer.Option(help="all of this priority", metavar="NAME", autocompletion=complete.priorities)
]
State = Annotated[
    str | None, typer.Option(help=f"one of {', '.join(STATES)}", metavar="STATE", autocompletion=complete.states)
]
Domain = Annotated[str | None, typer.Option(help="all to this domain", metavar="DOMAIN")]
Tenant = Annotated[str | None, typer.Option(help="all of this tenant; with IDs: whose ids they are", metavar="TENANT")]
To = Annotated[str | None, typer.Option(help="all to this address", metavar="ADDRESS")]
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
    priority: str | None,
    domain: str | None,
    tenant: str | None,
    tag: str | None,
    klass: str | None = None,
    to: str | None = None,
) -> Selector:
    """Raises `SettingsError` where a flag's value chooses nothing that could be."""
    flags = {"--priority": priority, "--domain": domain, "--tenant": tenant, "--tag": tag, "--class": klass, "--to": to}
    for flag, value in flags.items():
        if value is not None and not value.strip():
            raise SettingsError(f"{flag}: empty (got {value!r})")
    return Selector(priority, known_domain(domain), tenant, tag, klass, known_person(to))


def known_person(address: str | None) -> Person | None:
    """Raises `SettingsError` where it is no address."""
    try:
        return None if address is None else person(address)
    except ValueError as wrong:
        raise SettingsError(f"--to: {wrong} (got {(address or '')[:300]!r})") from None


def address_in(word: str) -> Person | None:
    """Where ids stand, a word with an @ may be an address: None where it is none."""
    try:
        return person(word) if "@" in word else None
    except ValueError:
        return None


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


async def known_choice(spool: Spool, choice: Selector) -> None:
    """Raises `SettingsError` where the queue has no such priority, or nothing can be of that class."""
    known_priority(spool, choice.priority)
    await known_class(spool, choice.klass)


async def known_class(spool: Spool, name: str | None) -> None:
    """One of the package's, of the tables that the settings name, or one that has been counted here (by workers with
    other tables). Raises `SettingsError`."""
    if not name or name in class_names():
        return
    from streamq.limits.rulebook import Rulebook

    counted = await command(spool.redis, "HKEYS", spool.keys.counts)
    counted = {key.decode("utf-8", "replace")[6:] for key in counted if key.startswith(b"class:")}
    tables = {entry.klass for entry in Rulebook.read(spool.settings).replies.entries} - {"sent"}
    known = sorted({*class_names(), *tables, *counted})
    if name not in known:
        like = get_close_matches(name, known, 1)
        hint = f"; did you mean {like[0]}?" if like else ""
        raise SettingsError(f"--class: one of {', '.join(known)} (got {name[:80]!r}{hint})")

"""What a word names where one mail is looked at: an entry, a producer's id, or an address, to which there may be
several, as there are of a mail to several recipients; and what became of those that have ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from shlex import quote
from typing import Annotated, Any

import typer

from streamq.cli.choice import address_in
from streamq.cli.terminal import clip, console, emit, note, progress, table
from streamq.errors import NotFound, OfTenants
from streamq.queue.children import Family, family_named, family_seen, first_children
from streamq.queue.events import DEAD, with_code
from streamq.queue.look import located, of_tenants, owner, status
from streamq.queue.person import Person
from streamq.queue.search import End, ends_of, ends_of_children, sought
from streamq.queue.spool import Spool, time_ms
from streamq.queue.walk import MailView
from streamq.queue.why import Ended, ended_somewhere
from streamq.queue.wording import plural

__all__ = ["Gone", "IdOrAddress", "Limit", "Several", "how_it_died", "named_by", "of_tenant", "say_ended", "shell_word"]

IdOrAddress = Annotated[
    str,
    typer.Argument(metavar="ID|ADDRESS", help="an entry (01732237561234-0), a producer's id, or a recipient's address"),
]
Limit = Annotated[int, typer.Option(min=1, help="of an address: so many live mails at most", metavar="N")]
ENDS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Gone:
    """A mail that is not live any more, and how it ended."""

    end: Ended


@dataclass(slots=True)
class Several:
    """The live mails that a word names, and how the last ones ended. `more`: there are more than were looked at."""

    views: list[MailView]
    more: bool
    ends: list[End]

    @property
    def live(self) -> str:
        many = len(self.views)
        return plural(many, "live mail") if many else "no live mail"

    def plain(self, mails: list[dict[str, Any]]) -> dict[str, Any]:
        """For JSON."""
        ends = [{"event": end.kind, "at": end.at_ms, "id": end.id, "entry": end.entry} for end in self.ends]
        ended = [{**said, "data": end.data} for said, end in zip(ends, self.ends, strict=True)]
        return {**self._named(), "mails": mails, "more": self.more, "ended": ended}

    def print_rest(self) -> None:
        """What has ended, and what else can be done."""
        if self.more:
            note(self._further())
        if not self.ends:
            console.print("\nno event and no dead letter of one that has ended is kept", soft_wrap=True)
            return
        rows = [[_clock(end.at_ms), _how(end), self._who(end), clip(_words(end), 300)] for end in self.ends]
        console.print()
        console.print(table(("ended", "how", self._column, "reply, reason"), rows, firm=2), soft_wrap=True)
        self._note_dead()

    _column = "id"

    def _who(self, end: End) -> str:
        return clip(end.id, 60)

    def head(self) -> str:
        raise NotImplementedError

    def _named(self) -> dict[str, Any]:
        raise NotImplementedError

    def _further(self) -> str:
        raise NotImplementedError

    def _note_dead(self) -> None:
        raise NotImplementedError


@dataclass(slots=True)
class Addressed(Several):
    """Those to an address, the newest first. `looked` of so many that are in the queue (`of`)."""

    who: Person
    looked: int
    of: int

    def head(self) -> str:
        more = f", the first found: {self.looked:,} of {self.of:,} were looked at" if self.more else ""
        return f"{self.live} to {clip(self.who.spec, 300)}{more}"

    def _named(self) -> dict[str, Any]:
        return {"address": self.who.spec, "looked": self.looked, "live": self.of}

    def _further(self) -> str:
        return f"… and maybe more: --limit {10 * len(self.views)}, or `streamq ls --to {self.who.spec}`"

    def _note_dead(self) -> None:
        if letters := sum("letter" in end.data for end in self.ends):
            which = "the dead letter" if letters == 1 else f"the {letters:,} dead letters"
            note(f"`streamq dead requeue {self.who.spec}` sends {which} again; `dead requeue ID` one")


@dataclass(slots=True)
class Copies(Several):
    """What a mail to several recipients became: one for each, in their order."""

    family: Family
    word: str

    def head(self) -> str:
        many = self.family.all or self.family.made
        became = (
            f"became one mail for each of its {many:,} recipients" if many else "became one mail for each recipient"
        )
        first = ", the first ones here" if self.more else ""
        return f"{clip(self.word, 300)} {became}: {self.live}{first}"

    def _named(self) -> dict[str, Any]:
        return {"id": self.family.id, "entry": self.family.parent, "recipients": self.family.all}

    def _further(self) -> str:
        return (
            f"… and more: --limit {10 * len(self.views)}; the verbs (`streamq retry {shell_word(self.word)}`) mean all"
        )

    @property
    def _name(self) -> str:
        return shell_word(self.word) + of_tenant(self.family.tenant)

    _column = "recipient"

    def _who(self, end: End) -> str:
        return clip(str(end.data.get("rcpt") or end.id), 60)

    def _note_dead(self) -> None:
        if any(end.kind in DEAD for end in self.ends):
            note(f"`streamq dead requeue {self._name}` sends those that are dead again, while it can")


def _clock(at_ms: int) -> str:
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(at_ms)


def _how(end: End) -> str:
    klass = str(end.data.get("class") or "")
    return clip(" ".join([end.kind.removeprefix("email."), klass if end.kind in DEAD else ""]).strip(), 40)


def _words(end: End) -> str:
    said = with_code(end.data.get("code"), str(end.data.get("reply") or "")) or str(end.data.get("reason") or "")
    by = ", ".join(str(end.data[name]) for name in ("route", "peer") if end.data.get(name))
    return f"{said} ({by})" if by else said


async def named_by(spool: Spool, word: str, tenant: str | None, limit: int, *, quiet: bool) -> str | Gone | Several:
    """A live mail's entry, by its entry or its id, which comes first; how it ended, or what it became; or what there is
    to an address. Raises `NotFound`."""
    who = address_in(word)
    if who is not None:
        entry = await owner(spool, word, tenant)
        if not entry and (family := await family_seen(spool, [word], tenant)):
            return await _copies(spool, family, word, limit)
        return entry or await _by_address(spool, who, word, tenant, limit, quiet=quiet)
    names = [word]
    try:
        entry, tenant = await located(spool, word, tenant)
        if (await spool.raw([entry]))[0] is not None:
            return entry
        names.append(entry)
        missing = NotFound(f"{entry} is not in the queue any more, and no event or dead letter of it is kept")
    except OfTenants:
        raise
    except NotFound as gone:
        missing = gone
    if family := await family_named(spool, names, tenant):
        return await _copies(spool, family, word, limit)
    end = await ended_somewhere(spool, names, tenant)
    if end is None:
        raise missing
    return Gone(end)


async def _copies(spool: Spool, family: Family, word: str, limit: int) -> Copies:
    views, more = await first_children(spool, family, limit)
    return Copies(views, more, await ends_of_children(spool, family.parent, ENDS_SHOWN), family, word)


async def _by_address(
    spool: Spool, who: Person, word: str, tenant: str | None, limit: int, *, quiet: bool
) -> str | Gone | Several:
    """Or by an id that nobody has read yet, which may be like an address: one look at all of them is for both."""
    live = (await status(spool)).live
    with progress("looking", live, quiet=quiet) as looked:
        found = await sought(spool, who, word, looked, most=limit, tenant=tenant)
    if own := found.of(tenant):
        return own
    if found.named and tenant is None:
        if len(found.named) > 1:
            raise of_tenants(word, {whose: entry for entry, whose in found.named.items()})
        return next(iter(found.named))
    views = sorted(found.views, key=lambda view: -time_ms(view.entry))
    ends = await ends_of(spool, who, ENDS_SHOWN, tenant)
    if not views and not ends:
        if family := await family_named(spool, [word], tenant):
            return await _copies(spool, family, word, limit)
        if end := await ended_somewhere(spool, [word], tenant):
            return Gone(end)
    return Addressed(views, found.more, ends, who, found.looked, live)


def how_it_died(end: Ended) -> str:
    """Nothing where its letter alone tells."""
    return "" if end.kind == "dead" else f" ({end.kind.removeprefix('email.')})"


def shell_word(name: str) -> str:
    """As a shell takes it, and a terminal shows it."""
    return quote(clip(name, 300))


def of_tenant(tenant: object) -> str:
    """The flag behind an id, where it is a tenant's."""
    return f" --tenant {shell_word(str(tenant))}" if tenant else ""


def say_ended(id_: str, end: Ended, json: bool) -> None:
    if json:
        emit({"id": id_, "state": "dead" if end.kind in DEAD else "ended", "event": end.kind, "data": end.data})
        return
    what = end.kind.removeprefix("email.")
    if end.kind in DEAD:
        console.print(f"{clip(id_, 300)} is dead{how_it_died(end)}", style="bold", soft_wrap=True)
        name = shell_word(id_) + of_tenant(end.data.get("tenant"))
        console.print(
            f"its letter, while it is kept: `streamq dead show {name}`; `streamq dead requeue {name}` sends it again",
            soft_wrap=True,
        )
    else:
        console.print(
            f"{clip(id_, 300)} is not in the queue any more; its last event: {what}", style="bold", soft_wrap=True
        )
    at = end.data.get("at")
    if isinstance(at, int) and at > 0:
        console.print(f"{'at':<9} {_clock(at)}")
    for label in ("tenant", "class", "reason", "reply", "of", "by", "peer", "route"):
        if end.data.get(label):
            console.print(f"{label:<9} {clip(str(end.data[label]), 500)}", soft_wrap=True)

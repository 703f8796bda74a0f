"""What a word names where one mail is looked at: an entry, a producer's id, or an address, to which there may be
several; and what became of those that have ended.
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
from streamq.queue.look import located, of_tenants, owner, status
from streamq.queue.person import Person
from streamq.queue.search import End, ends_of, sought
from streamq.queue.spool import Spool, time_ms
from streamq.queue.walk import MailView
from streamq.queue.why import DEAD, Ended, ended_somewhere
from streamq.queue.wording import plural

__all__ = ["Addressed", "Gone", "IdOrAddress", "Limit", "how_it_died", "named_by", "say_ended", "shell_word"]

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
class Addressed:
    """The live mails to an address, the newest first, and how the last ones ended. `looked` of so many that are `live`;
    `more`: not all were looked at, since there are so many to it already. `tenant`: whose alone were wanted."""

    who: Person
    views: list[MailView]
    looked: int
    live: int
    more: bool
    ends: list[End]

    def head(self, many: int) -> str:
        mails = plural(many, "live mail") if many else "no live mail"
        more = f", the first found: {self.looked:,} of {self.live:,} were looked at" if self.more else ""
        return f"{mails} to {clip(self.who.spec, 300)}{more}"

    def plain(self, mails: list[dict[str, Any]]) -> dict[str, Any]:
        """For JSON."""
        known = {"address": self.who.spec, "mails": mails, "looked": self.looked, "live": self.live, "more": self.more}
        ends = [{"event": end.kind, "at": end.at_ms, "id": end.id, "entry": end.entry} for end in self.ends]
        return known | {"ended": [{**said, "data": end.data} for said, end in zip(ends, self.ends, strict=True)]}

    def print_rest(self) -> None:
        """What has ended, and what else can be done."""
        if self.more:
            note(f"… and maybe more: --limit {10 * len(self.views)}, or `streamq ls --to {self.who.spec}`")
        if not self.ends:
            console.print("\nno event and no dead letter of one that has ended is kept", soft_wrap=True)
            return
        rows = [[_clock(end.at_ms), _how(end), clip(end.id, 60), clip(_words(end), 300)] for end in self.ends]
        console.print()
        console.print(table(("ended", "how", "id", "reply, reason"), rows, firm=2), soft_wrap=True)
        if letters := sum("letter" in end.data for end in self.ends):
            which = "the dead letter" if letters == 1 else f"the {letters:,} dead letters"
            note(f"`streamq dead requeue {self.who.spec}` sends {which} again; `dead requeue ID` one")


def _clock(at_ms: int) -> str:
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(at_ms)


def _how(end: End) -> str:
    klass = str(end.data.get("class") or "")
    return clip(" ".join([end.kind.removeprefix("email."), klass if end.kind in DEAD else ""]).strip(), 40)


def _words(end: End) -> str:
    said = str(end.data.get("reply") or end.data.get("reason") or "")
    by = ", ".join(str(end.data[name]) for name in ("route", "peer") if end.data.get(name))
    return f"{said} ({by})" if by else said


async def named_by(spool: Spool, word: str, tenant: str | None, limit: int, *, quiet: bool) -> str | Gone | Addressed:
    """A live mail's entry, by its entry or its id, which comes first; how it ended; or what there is to an address.
    Raises `NotFound`."""
    who = address_in(word)
    if who is not None:
        entry = await owner(spool, word, tenant)
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
    end = await ended_somewhere(spool, names, tenant)
    if end is None:
        raise missing
    return Gone(end)


async def _by_address(
    spool: Spool, who: Person, word: str, tenant: str | None, limit: int, *, quiet: bool
) -> str | Gone | Addressed:
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
    if not views and not ends and (end := await ended_somewhere(spool, [word], tenant)):
        return Gone(end)
    return Addressed(who, views, found.looked, live, found.more, ends)


def how_it_died(end: Ended) -> str:
    """Nothing where its letter alone tells."""
    return "" if end.kind == "dead" else f" ({end.kind.removeprefix('email.')})"


def shell_word(name: str) -> str:
    """As a shell takes it, and a terminal shows it."""
    return quote(clip(name, 300))


def say_ended(id_: str, end: Ended, json: bool) -> None:
    if json:
        emit({"id": id_, "state": "dead" if end.kind in DEAD else "ended", "event": end.kind, "data": end.data})
        return
    what = end.kind.removeprefix("email.")
    if end.kind in DEAD:
        console.print(f"{clip(id_, 300)} is dead{how_it_died(end)}", style="bold", soft_wrap=True)
        name = shell_word(id_)
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

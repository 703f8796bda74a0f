"""The shape of a queue: how many mails, how old, for whom. What Postfix's qshape(1) shows of its own.

One walk, no index of its own: a number here is what the walk met, a mail that moved meanwhile may count twice or not
at all. Mails that are parked are counted by their lanes, without their bodies; of all others the body is read, where
the recipient, the sender or the tenant is asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streamq.mail.address import parse_list
from streamq.queue.look import age_ms
from streamq.queue.spool import Spool
from streamq.queue.steer import Selector, select, site_of
from streamq.queue.walk import MailView

__all__ = ["BY", "OTHERS", "Shape", "ages", "shape"]

OTHERS = "(others)"
NONE = "(none)"
ROWS_MOST = 100_000  # names in memory: a queue of junk has one for every mail


@dataclass(slots=True)
class Shape:
    """`bounds`: ages in ms; a row has one number for each, of mails no older than it and older than the one before,
    and one more for those that are older than the last."""

    bounds: tuple[int, ...]
    rows: dict[str, list[int]] = field(default_factory=dict)

    @property
    def total(self) -> list[int]:
        return [sum(column) for column in zip(*self.rows.values(), strict=True)] or [0] * (len(self.bounds) + 1)

    def sorted(self) -> list[tuple[str, list[int]]]:
        """The most mails first."""
        return sorted(self.rows.items(), key=lambda row: (-sum(row[1]), row[0]))

    def add(self, name: str, age: int) -> None:
        if name not in self.rows:
            if len(self.rows) >= ROWS_MOST:
                name = OTHERS
            self.rows.setdefault(name, [0] * (len(self.bounds) + 1))
        self.rows[name][bisect_left(self.bounds, age)] += 1


def ages(first_ms: int, many: int) -> tuple[int, ...]:
    """Each twice the one before, as Postfix has them."""
    return tuple(first_ms << nth for nth in range(many))


def _sender(view: MailView) -> str:
    """The domain of the return path, else of the From; a raw message's own header is not read."""
    text = view.text("envelope_from") or view.text("from")
    if text.strip() == "<>":
        return "<>"
    try:
        return next((address.domain.lower() for address in parse_list(text[:10_000])), "")
    except ValueError:
        return ""


# By what mails can be counted: how a mail's name is found, and what has to be read for it (`select`).
BY: dict[str, tuple[Callable[[MailView], str], tuple[str, ...]]] = {
    "domain": (site_of, ("site",)),
    "sender": (_sender, ("fields",)),
    "tenant": (lambda view: view.text("tenant"), ("fields",)),
    "class": (lambda view: view.klass, ("notes",)),
    "priority": (lambda view: view.priority, ()),
    "state": (lambda view: view.state, ()),
}


async def shape(
    spool: Spool,
    selector: Selector,
    bounds: Sequence[int],
    now_ms: int,
    by: str = "domain",
    visited: Callable[[int], object] = lambda many: None,
) -> Shape:
    """Of the live mails that fit."""
    name_of, wanted = BY[by]
    found = Shape(tuple(bounds))
    async for view in select(spool, selector, sweep=True, wanted=wanted, visited=visited):
        found.add(name_of(view) or NONE, age_ms(view, now_ms))
    return found

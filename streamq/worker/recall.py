"""Letters that got their slots at a pace that was too quick, and wait here for a connection: they ask for another one.

What a site or a route refuses for its pace slows it in the script that settles that (lib/throttle.lua), a moment later.
Until then, and in the other workers, there are letters that have their slot already. They would go out at the old
pace, each of them one more refusal. So their slots run out at once, and before its MAIL each asks for its turn:

OWN      Behind a refusal all of that target that nobody has taken. Until the settle of it has been answered no mail
         of a route that refused one goes at all, and nobody asks for a slot (`told`): no script knows of it yet.
OTHERS'  The settle of any mail of that target answers with a mark, the moment at which it slowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from streamq.smtp.outbox import Outbox
from streamq.worker.hand import Delivery

__all__ = ["Recall"]

MARKS_MOST = 1000  # targets


class Recall:
    """Moments are µs of the server's clock, as slots have them."""

    def __init__(self, outboxes: Mapping[str, Outbox]) -> None:
        self.outboxes = outboxes
        self._marks: dict[str, int] = {}
        self._untold: set[tuple[str, int]] = set()  # refusals that are not settled yet: entry, token
        self._told = asyncio.Event()
        self._told.set()

    async def told(self) -> None:
        """Returns when the queue knows of every refusal that was met here."""
        await self._told.wait()

    def refused(self, delivery: Delivery, target: str) -> None:
        """For its pace, whose target that is: `<route>` or `<route>|<site>`. Where it left before that slowed it says
        nothing of those that got their slots since."""
        mark = self._marks.get(target, 0)
        self._run_out(target, None if delivery.left_us > mark or not mark else mark)
        if delivery.left_us > mark or not delivery.left_us:  # else the queue knows of that
            self._untold.add((delivery.entry, delivery.token))
            self._told.clear()
            if "|" not in target and target in self.outboxes:
                self.outboxes[target].hold()

    def settled(self, entry: str, token: int) -> None:
        """Behind `hear`: of a refusal."""
        self._untold.discard((entry, token))
        if not self._untold:
            self._told.set()
            for outbox in self.outboxes.values():
                outbox.let_go()

    def hear(self, marks: Mapping[str, int]) -> list[str]:
        """What a settle says of targets that have slowed. Those of which that is news."""
        news = []
        for target, mark in marks.items():
            if mark > self._marks.pop(target, 0):
                self._run_out(target, mark)
                news.append(target)
            self._marks[target] = mark
        for target in list(self._marks)[: max(0, len(self._marks) - MARKS_MOST)]:
            del self._marks[target]
        return news

    def _run_out(self, target: str, mark: int | None) -> None:
        """Of those up to `mark`; None: of all."""
        route, _, site = target.partition("|")
        outbox = self.outboxes.get(route)
        for letter in outbox.waiting() if outbox is not None else ():
            assert isinstance(letter, Delivery)
            if (not site or letter.site == site) and (mark is None or letter.left_us <= mark):
                letter.fresh_until = 0.0

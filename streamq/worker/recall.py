"""Letters that left the queue at a pace that was too quick, and wait here for a connection: they go back.

What a site or a route refuses for its pace slows it in the script that settles that (lib/throttle.lua), a moment later.
Until then, and in the other workers, there are letters that have their slot already. They would go out at the old
pace, each of them one more refusal. So they park again, and get their slots anew:

OWN      Behind a refusal all of that target that nobody has taken.
OTHERS'  The settle of any mail of that target answers with a mark: leases up to it were given before it slowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from streamq.smtp.letter import Letter
from streamq.smtp.outbox import Outbox
from streamq.worker.hand import Delivery

__all__ = ["Recall"]

MARKS_MOST = 1000  # targets


class Recall:
    """`back` parks a letter again."""

    def __init__(self, outboxes: Mapping[str, Outbox], back: Callable[[Delivery], object]) -> None:
        self.outboxes = outboxes
        self.back = back
        self._marks: dict[str, int] = {}

    def refused(self, delivery: Delivery, target: str) -> None:
        """By its pace, whose target that is: `<route>` or `<route>|<site>`. What left before it slowed says nothing
        of those that were given slots since."""
        mark = self._marks.get(target, 0)
        self._withdraw(target, mark if delivery.token <= mark else None)

    def hear(self, marks: Mapping[str, int]) -> None:
        """What a settle says of targets that have slowed."""
        for target, mark in marks.items():
            if mark > self._marks.pop(target, 0):
                self._withdraw(target, mark)
            self._marks[target] = mark
        for target in list(self._marks)[: max(0, len(self._marks) - MARKS_MOST)]:
            del self._marks[target]

    def _withdraw(self, target: str, mark: int | None) -> None:
        """Those up to `mark`; None: all."""
        route, _, site = target.partition("|")
        outbox = self.outboxes.get(route)
        if outbox is None:
            return

        def fits(letter: Letter) -> bool:
            assert isinstance(letter, Delivery)
            return (not site or letter.site == site) and (mark is None or letter.token <= mark)

        self._park(outbox.withdraw(fits))

    def _park(self, letters: Iterable[Letter]) -> None:
        for letter in letters:
            assert isinstance(letter, Delivery)
            self.back(letter)

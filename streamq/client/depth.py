"""How deep a stream is: asked now and then, reckoned in between."""

from __future__ import annotations

from threading import Lock

__all__ = ["Depth"]

FRESH_S = 1.0  # so old an answer is asked anew
AGAIN_S = 0.05  # a full stream is looked at again after this long: it may have been drained


class Depth:
    """XLEN of one priority's stream: all of its mail that has not come to its end, also what is scheduled or held.

    What this client added since the last look is counted in; what others added or workers finished is known at the
    next look. Shared by threads.
    """

    __slots__ = ("_at", "_known", "_lock")

    def __init__(self) -> None:
        self._lock = Lock()
        self._known = 0
        self._at: float | None = None

    def wants_look(self, now: float, most: int) -> bool:
        with self._lock:
            if self._at is None:
                return True
            return now - self._at >= (AGAIN_S if self._known >= most else FRESH_S)

    def looked(self, length: int, now: float) -> None:
        with self._lock:
            self._known, self._at = length, now

    def added(self, many: int) -> None:
        with self._lock:
            self._known += many

    @property
    def known(self) -> int:
        return self._known
